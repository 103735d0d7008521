"""Votes as files: datasets out, battles of other programs in."""
