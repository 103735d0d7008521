"""Instruction-tuned variants of a base model: data, templates, methods, training, evaluation."""
