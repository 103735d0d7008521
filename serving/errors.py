"""The errors serving raises; ServingError is a user's mistake, the rest answer one request."""


class ServingError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line."""


class ModelLoadError(ServingError):
    """A folder that cannot be served: wrong weights, unknown architecture, not this base."""


class MissingBaseError(ModelLoadError):
    """An adapter whose base is not served, or not yet."""


class UnknownModelError(ServingError):
    """A model name nobody serves; carries the names that are served."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"model {name!r} is not served here; served are: {', '.join(known)}")
        self.name = name
        self.known = known


class PortInUseError(ServingError):
    """The port to listen on is taken."""


class EngineFailure(RuntimeError):  # noqa: N818 - it is an answer to a request, not a bug here
    """The forward pass or the sampler failed for one request."""


class NotFiniteFailure(EngineFailure):
    """The weights gave NaN or infinity for one request; no token can be chosen of that."""


class OutOfMemoryFailure(EngineFailure):
    """One request did not fit in memory; the others go on."""


class EngineStopped(EngineFailure):
    """The engine was shut down while the request ran."""


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up, which Python does not count among its exceptions."""
    return type(error).__name__ == "PanicException"
