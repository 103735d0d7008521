"""What `arena tune`, `arena eval` and `arena models` print; the work is done in the rooms below."""
