"""Several completions of one request at once: started, run, cancelled, their streams interleaved.

Knows completions and the event loop; does not know what they are made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

from serving.completion.completion import Completion

T = TypeVar("T")


def submit_all(running: Sequence[Completion]) -> None:
    """Hand all to their engines."""
    for completion in running:
        completion.submit()


def cancel_all(running: Sequence[Completion]) -> None:
    """Give all rows up."""
    for completion in running:
        completion.cancel()


async def run_all(running: Sequence[Completion]) -> None:
    """Run completions side by side; the first failure cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for completion in running:
                group.create_task(completion.run())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def interleave(parts: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
    """(index, item) of several streams in the order they arrive; the first failure ends all."""
    if len(parts) == 1:
        async for item in parts[0]:
            yield 0, item
        return
    queue: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()

    async def pump(index: int, part: AsyncIterator[T]) -> None:
        try:
            async for item in part:
                queue.put_nowait((index, item))
        except Exception as error:
            queue.put_nowait(error)
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.create_task(pump(i, part)) for i, part in enumerate(parts)]
    try:
        left = len(tasks)
        while left:
            arrived = await queue.get()
            if arrived is None:
                left -= 1
            elif isinstance(arrived, Exception):
                raise arrived
            else:
                yield arrived
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
