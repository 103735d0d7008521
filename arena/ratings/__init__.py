"""What the votes say about the models, by numbers alone; knows no store, no server and no page."""

from arena.ratings.rating import BothBad, RatingConfig, rate

__all__ = ["BothBad", "RatingConfig", "rate"]
