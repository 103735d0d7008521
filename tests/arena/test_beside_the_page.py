"""What the page does beside its requests goes on after a failure that nobody foresaw."""

from __future__ import annotations

import asyncio

import pytest

from arena.app import go_on


def test_work_that_fails_is_logged_and_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    async def act() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise KeyError("a defect")

    asyncio.run(go_on(act, 0.001))
    assert len(tries) == 3
    assert [type(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        KeyError,
        KeyError,
    ]


def test_work_that_is_ended_stays_ended() -> None:
    async def run() -> None:
        task = asyncio.create_task(go_on(asyncio.Event().wait, 0.001))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
