"""Preferences: judged answers from files, as pairs to learn from; knows no model and no arena."""
