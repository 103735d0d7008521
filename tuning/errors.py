"""The one family of errors that tuning raises for a user's mistake; knows no cause itself."""


class TuningError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line."""
