"""What the arena's parts hand to each other: battles, judgements, texts, refusals."""
