"""PEFT adapters over shared base weights, as stacked tensors; knows no request and no wire name."""
