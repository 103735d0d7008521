"""Battles, votes and texts as plain values, which all rooms hand to each other; knows no room."""
