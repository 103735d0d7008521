"""Layers that train in fewer passes over memory, to the same loss; knows neither data nor runs."""
