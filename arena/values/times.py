"""Dates and times as people write them."""

from __future__ import annotations

import datetime

from arena.errors import ArenaError


class TimeError(ArenaError):
    """A text that is no ISO 8601 date or time."""

    code = "no_date"


def parse_time(name: str, text: str) -> int:
    """ISO 8601 date or time to milliseconds since 1970; UTC unless it says otherwise.

    `name` is what the error calls it.
    """
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise TimeError(f"{name} {text!r} is no ISO 8601 date; write 2026-01-31").coded(
            "no_date", text=text
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
    return round(time.timestamp() * 1000)
