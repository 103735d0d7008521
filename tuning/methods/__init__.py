"""What of a loaded model is trained: all of it, or an adapter with its start values.

Knows models in memory; knows no run.
"""
