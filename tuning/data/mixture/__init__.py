"""FLAN's mixtures: many sources, several templates each, mixed by rule, some kept for tests.

The way of a row goes yaml_lines → plan → templates → rows → drawing; `kept` makes the tests.
"""
