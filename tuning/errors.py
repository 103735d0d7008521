"""The errors of tuning that belong to no one room; knows no cause itself."""


class TuningError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line."""


class ConfigError(TuningError):
    """A setting that is unknown, of the wrong type or out of range; names key, value, remedy."""
