"""The prompts that the empty page offers, by the family of models they were written for."""

from __future__ import annotations

STARTER_EXAMPLES = (
    "What is the capital of France?",
    "Name three fruits.",
    "What is the opposite of hot?",
    "Write a short story with the words dog, river and cake.",
    "Is a hammer a tool or a fruit?",
)
"""About the small world that the starter knows."""
OPEN_EXAMPLES = (
    "Write a haiku about the sea.",
    "Give me three bullet points about sleeping well.",
    "Answer as JSON with the keys name and colour: describe a fruit.",
    "Explain in two sentences why the sky is blue.",
)
"""For models that were trained on the world at large."""
EXAMPLES = STARTER_EXAMPLES + OPEN_EXAMPLES
