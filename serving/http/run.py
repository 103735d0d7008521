"""The way of every request that generates: resolve, admit, complete, cancel on disconnect.

Knows the server's state and completions; does not know what a body or an answer looks like.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from fastapi import Request

from serving.completion.completion import Completion
from serving.completion.jobs import CompletionJob
from serving.completion.side_by_side import cancel_all, run_all, submit_all
from serving.http.headers import compute_headers, model_headers
from serving.http.report import report
from serving.http.state import ServerState, hold, server_of
from serving.models.registry import BASE_ALIASES, ServedModel
from serving.protocol.problems import invalid, writes_none
from serving.protocol.schema import GenerateParameters, OpenAIRequest
from serving.protocol.sse import StreamedAnswer, cancel_on_disconnect

# Characters from which reading a text takes so long that streams would wait for it.
LONG_TEXT = 20_000


class Run:
    """One request on its way: the model that answers, and its completions in order."""

    def __init__(self, request: Request, server: ServerState, model: ServedModel) -> None:
        self.model = model
        self.completions: list[Completion] = []
        self._request = request
        self._server = server

    @classmethod
    async def start(
        cls,
        request: Request,
        name: str | None,
        num_characters: int,
        make_jobs: Callable[[ServedModel], list[CompletionJob]],
        *,
        with_template: bool = False,
    ) -> Run:
        """Resolve the model and make the completions, not yet running.

        `make_jobs` checks the request; beside the event loop where its text is long, or is
        made by a template.
        UnknownModelError or Problem when the request cannot be answered.
        """
        server = server_of(request)
        run = cls(request, server, hold(request, server.registry.resolve(name)))
        if run.model.head is not None:
            raise writes_none(run.model.name)
        if with_template or num_characters > LONG_TEXT:
            jobs = await asyncio.to_thread(make_jobs, run.model)
        else:
            jobs = make_jobs(run.model)
        run.completions = [run._complete(job) for job in jobs]
        return run

    async def finish(self) -> None:
        """Run all completions to their end."""
        async with self.running():
            await run_all(self.completions)

    def stream(self, events: AsyncIterator[bytes]) -> StreamedAnswer:
        """Start all completions now, and answer with the events that are made of them."""
        headers = model_headers(self.model) | compute_headers(self.completions[0].job)
        submit_all(self.completions)
        return StreamedAnswer(self._while_running(events), headers, self.cancel)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Give the rows up as soon as the caller leaves."""
        async with cancel_on_disconnect(self._request, self.cancel):
            yield

    def replace(self, index: int, job: CompletionJob) -> Completion:
        """Give a completion up for another, not yet running."""
        self.completions[index].cancel()
        self.completions[index] = self._complete(job)
        return self.completions[index]

    def cancel(self) -> None:
        """Give all rows up."""
        cancel_all(self.completions)

    async def _while_running(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async with self.running():
            async for event in events:
                yield event

    def _complete(self, job: CompletionJob) -> Completion:
        server, model, grammar = self._server, job.model, None
        if job.grammar is not None:
            size = model.engine.model.config.get_text_config().vocab_size
            grammar = server.grammars.compile(job.grammar, model.tokenizer, size, model.eos_ids)
        config = server.config
        return Completion(
            job,
            server.registry.worker,
            deadline=config.limits.deadline_seconds,
            grammar=grammar,
            received=self._request.state.received,
            on_end=lambda ended: report(ended, server.metrics, log_prompts=config.log_prompts),
        )


def tgi_name(request: Request, parameters: GenerateParameters) -> str | None:
    """The model a request names: in the path of a per-model URL, or as adapter_id."""
    return below_path(request, parameters.adapter_id, "adapter_id")


def openai_name(request: Request, body: OpenAIRequest) -> str | None:
    """The model that path, `model` and `adapter_id` name; they may not differ."""
    named, adapter = body.model, body.adapter_id
    is_base = server_of(request).registry.is_base_alias
    if adapter and named and named != adapter and not is_base(named):
        raise invalid(f"`model` {named!r} and `adapter_id` {adapter!r} differ; give one", "model")
    if not adapter:
        return below_path(request, named, "model")
    return below_path(request, adapter, "adapter_id")


def _is_address_of(model: str, named: str) -> bool:
    """Whether a client repeats the per-model URL that it was given, as huggingface.js does."""
    try:
        parts = urlsplit(named)
    except ValueError:  # as http://[ is none
        return False
    below = unquote(parts.path).rstrip("/").removesuffix("/v1")
    return parts.scheme in ("http", "https") and below.endswith(f"/models/{model}")


def below_path(request: Request, named: str | None, param: str) -> str | None:
    """The model of a per-model URL, which a body may repeat or leave open, else the one named."""
    path: str | None = request.path_params.get("model")
    if path is None:
        return named
    if named not in (None, path, *BASE_ALIASES) and not _is_address_of(path, named):
        raise invalid(f"`{param}` {named!r} differs from {path!r} in the URL; give one", param)
    return path
