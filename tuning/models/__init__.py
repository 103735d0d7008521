"""Base models and variants in memory: found by name, loaded, asked, merged; knows no training."""
