"""Scores answers by checks decided in code, and compares scores; knows nothing of training."""
