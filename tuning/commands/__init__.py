"""What `arena tune`, `arena eval` and `arena models` print of what the rooms below do.

Knows terminals and JSON; knows nothing of how the work is done.
"""
