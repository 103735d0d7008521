"""Checkpoint folders and the names they are served by; knows no request and no HTTP."""
