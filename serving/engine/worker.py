"""The one thread that runs engines: it alone touches them, and takes turns among them.

Several sets of weights share one thread on purpose: their steps use all cores, and steps that
ran side by side would only fight for cores and memory bandwidth. Knows no text and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from serving.engine.engine import Engine
from serving.engine.request import EngineRequest, FailureEvent, as_failure
from serving.engine.stats import StepReport
from serving.errors import EngineStopped, OutOfMemoryFailure

logger = logging.getLogger(__name__)
T = TypeVar("T")
Call = Callable[[], None]


class Worker:
    """Owns engines and their thread. `submit`, `call` and `stop` may be called from any thread.

    `on_step` is told of each step, in the engines' thread.
    """

    def __init__(self) -> None:
        self.on_step: Callable[[StepReport], None] | None = None
        self._engines: list[Engine] = []
        self._retired: set[Engine] = set()
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._wakes: dict[asyncio.AbstractEventLoop, list[tuple[Call, Call]]] = {}
        self._thread = threading.Thread(target=self._run, name="serving-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; requests that still run are answered with EngineStopped."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs: what a health check has to know."""
        return self._thread.is_alive()

    @property
    def is_busy(self) -> bool:
        """Whether any engine has rows that run or wait."""
        return any(engine.has_work for engine in self._engines)

    def submit(self, engine: Engine, request: EngineRequest) -> None:
        """Hand a request to an engine; it joins before the next step.

        One that has been retired meanwhile comes back for it: the request was taken before.
        """

        def join() -> None:
            if engine not in self._engines:
                self._retired.add(engine)
                self._engines.append(engine)
            engine.submit(request)

        self._post(join, request)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` between two steps; for changes of engines and their adapters."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._post(run, None)
        return future

    def notify(self, loop: asyncio.AbstractEventLoop, wake: Call, lost: Call) -> None:
        """Have an event loop call `wake` soon; `lost` is called instead when the loop is closed.

        What a step has to say waits until the next one computes. Then the interpreter's lock is
        free: before, the step and those it wakes would wait for each other.
        """
        if threading.current_thread() is self._thread:
            self._wakes.setdefault(loop, []).append((wake, lost))
        else:
            _wake_loop(loop, [(wake, lost)])

    def _send_wakes(self) -> None:
        while self._wakes:
            _wake_loop(*self._wakes.popitem())

    def add(self, engine: Engine) -> None:
        """Let an engine take part; its requests are run from now on."""
        engine.on_compute = self._send_wakes
        self.call(lambda: self._engines.append(engine)).result()

    def retire(self, engine: Engine) -> None:
        """Take an engine out as soon as the requests it has, running or waiting, are done."""
        self.call(lambda: self._retired.add(engine)).result()

    def _post(self, command: Callable[[], None], request: EngineRequest | None) -> None:
        with self._wake:
            if not self._stopping:
                self._commands.append(command)
                self._wake.notify()
                return
        if request is None:
            raise EngineStopped("the server is shutting down")
        request.sink(FailureEvent(EngineStopped("the server is shutting down")))

    def _run(self) -> None:
        while True:
            if self._commands or not self.is_busy:
                self._send_wakes()
            with self._wake:
                while not (self._stopping or self._commands or self.is_busy):
                    self._wake.wait()
                commands = list(self._commands)
                self._commands.clear()
                stopping = self._stopping
            for command in commands:
                command()
            if stopping:
                break
            for engine in self._engines:
                if engine.has_work:
                    self._step(engine)
            self._let_go()
        for engine in self._engines:
            engine.fail_all(EngineStopped("the server is shutting down"))
        self._send_wakes()

    def _let_go(self) -> None:
        """Forget the retired engines that have nothing left to do, and their memory with them."""
        for engine in [engine for engine in self._retired if not engine.has_work]:
            self._retired.discard(engine)
            self._engines.remove(engine)

    def _step(self, engine: Engine) -> None:
        try:
            report = engine.step()
        except Exception as error:
            # The engine answers what rows do wrong; this is its own failure: answer all, go on.
            logger.exception("engine step failed")
            failure = as_failure(error)
            if not isinstance(failure, OutOfMemoryFailure):
                failure = EngineStopped(str(failure))
            engine.fail_all(failure)
            return
        if report is not None and self.on_step is not None:
            self.on_step(report)


def _wake_loop(loop: asyncio.AbstractEventLoop, wakes: Sequence[tuple[Call, Call]]) -> None:
    try:
        loop.call_soon_threadsafe(_call_all, [wake for wake, _ in wakes])
    except RuntimeError:  # The loop is closed: nobody is left to read.
        _call_all([lost for _, lost in wakes])


def _call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()
