"""The errors of tuning that belong to no one room; knows no cause itself."""

# How torch says that memory is out on a processor, where it has no exception of its own for it.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")


class TuningError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line."""


class ConfigError(TuningError):
    """A setting that is unknown, of the wrong type or out of range; names key, value, remedy."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is a MemoryError or torch's way of one, on a GPU or a processor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)
