"""Votes of the store as dataset files, one format a module; knows no server and no page."""
