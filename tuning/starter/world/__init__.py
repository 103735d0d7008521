"""The starter's small world: facts, texts, instructions and corpus; knows no model."""
