"""The edge of the commands: what libraries and the system may refuse becomes one sentence.

A full disk, a file that may not be read and too little memory are no mistakes of the program; any
other exception is, and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from tuning.errors import TuningError, is_out_of_memory

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class MachineError(TuningError):
    """What the machine does not give: a file, room on a disk, memory."""


def told(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """`command`, with what the machine refuses raised as a MachineError."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:
            raise  # whoever read the output has enough of it
        except OSError as error:
            raise MachineError(_of_file(error)) from error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MachineError(
                "memory: there is not enough for this model and these rows; give a smaller base, "
                "training.batch_size, training.max_length or lora.rank"
            ) from error

    return run


def _of_file(error: OSError) -> str:
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{names or 'a file'}: {reason}; see that it is there, may be used and has room"
