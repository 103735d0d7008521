"""Tuning runs as processes of their own: found, started one at a time, stopped; knows no training.

All that a page needs to know of a run lies in the home folder, so it outlives every page.
"""
