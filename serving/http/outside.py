"""Answers of the engine beside ours, as HTTP: with the headers that say whose weights wrote them.

Knows the server's state and responses; does not know which requests go there, nor how.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from serving.http.headers import model_headers
from serving.http.run import Run
from serving.http.state import server_of
from serving.protocol.problems import Problem
from serving.protocol.schema import OpenAIRequest
from serving.protocol.sse import StreamedAnswer, cancel_on_disconnect


async def answer_outside(
    request: Request, path: str, run: Run, body: OpenAIRequest
) -> Response | None:
    """The answer of the engine beside ours to a request that was checked; None: it is ours."""
    outside = server_of(request).outside
    if outside is None:
        return None
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    answer = await outside.answer(path, given, run.completions[0].job)
    if answer is None:
        return None

    def close() -> None:
        asyncio.get_running_loop().create_task(answer.close())

    headers = model_headers(run.model)
    if body.stream:
        return StreamedAnswer(answer.events(), headers, close)
    async with cancel_on_disconnect(request, close):
        try:
            content = await answer.whole()
        except (answer.broken, ValueError) as error:
            raise Problem(503, "generation", "The engine broke off; repeat the request") from error
    return JSONResponse(content, headers=headers)
