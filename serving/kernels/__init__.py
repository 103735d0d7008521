"""A whole decoder step as compiled CPU loops over arrays; knows neither torch nor requests."""
