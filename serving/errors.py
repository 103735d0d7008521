"""The one family of errors that serving raises for a user's mistake; knows no cause itself."""


class ServingError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line."""
