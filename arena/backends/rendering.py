"""Has a named chat template rendered in a process that can be killed (see `render_child`).

Knows templates and processes; knows no server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from arena.backends.streams import AnswerError
from arena.config.chat_template import ChatTemplate

CHILD = Path(__file__).with_name("render_child.py")
WALL_SECONDS = 10.0
"""Far more than its processor time: only a process that does nothing is ended by it."""


async def rendered(template: ChatTemplate, messages: Sequence[Mapping[str, str]]) -> str:
    """The messages as one text, ready to be continued; without the beginning-of-text token.

    A server that is asked by completion puts that token before the text itself. Raises AnswerError
    where the template fails or takes too long.
    """
    order = {
        "source": template.source,
        "tokens": dict(template.tokens),
        "messages": [dict(message) for message in messages],
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(CHILD)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={},
    )
    try:
        async with asyncio.timeout(WALL_SECONDS):
            out, told = await process.communicate(json.dumps(order).encode())
    except TimeoutError as error:
        raise _failure("it took too long") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        lines = told.decode("utf-8", "replace").strip().splitlines()
        status = process.returncode
        raise _failure(lines[-1] if lines and status == 1 else "it took too much time or memory")
    text = out.decode("utf-8", "replace")
    return text.removeprefix(template.bos_token) if template.bos_token else text


def _failure(why: str) -> AnswerError:
    return AnswerError("template", "The model's chat template cannot be rendered.", why[:300])
