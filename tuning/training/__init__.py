"""One run: its inputs, its steps and clock, its checkpoints, what it leaves.

Knows nothing of the command line.
"""
