"""How the starter's base is made from its corpus; knows no answers of instructions."""
