"""Has the steps of engines compiled beside their work; torch runs them until then.

And ever after where numba is not installed or fails. Knows engines and the worker.
"""

from __future__ import annotations

import logging
import threading

import torch

from serving.engine.compiled_runner import CompiledRunner, reason_against
from serving.engine.engine import Engine
from serving.engine.worker import Worker
from serving.errors import EngineStopped

logger = logging.getLogger(__name__)
# Weights that stay in a core's cache are read as fast by one core, and the other serves HTTP.
ALONE_BYTES = 48 * 2**20


def compile_beside(name: str, engine: Engine, worker: Worker) -> threading.Thread | None:
    """Start compiling; returns the thread, None where the model cannot run compiled.

    The thread ends when the engine's next step will be a compiled one. The interpreter waits for
    it: a compiler cannot be cut off.
    """
    compiled = engine.compiled
    if compiled is None:
        logger.info("model %s: torch runs all steps: %s", name, reason_against(engine.model))
        return None
    thread = threading.Thread(
        target=_compile, args=(name, compiled, num_threads(engine), worker), name="serving-compile"
    )
    thread.start()
    return thread


def num_threads(engine: Engine) -> int:
    """Threads that do a step of this engine together."""
    return 1 if engine.weight_bytes <= ALONE_BYTES else torch.get_num_threads()


def _compile(name: str, compiled: CompiledRunner, threads: int, worker: Worker) -> None:
    try:
        from serving.kernels.step import step
    except ImportError as error:
        logger.warning("model %s: torch runs all steps: %s; install numba", name, error)
        return
    try:
        compiled.compile(step)
        worker.call(lambda: compiled.start(step, threads)).result()
        logger.info("model %s: steps of few tokens are compiled", name)
    except EngineStopped:
        logger.debug("model %s: the server stopped before its steps were compiled", name)
    except Exception:
        logger.exception("model %s: torch runs all steps, since compiling failed", name)
