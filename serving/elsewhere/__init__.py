"""A vLLM beside our own engine: kept up, kept in step, and handed what both answer alike.

Knows vLLM's command line and its HTTP routes; knows no route of ours, and imports no vLLM.
"""
