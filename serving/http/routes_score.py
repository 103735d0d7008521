"""/score, /pooling, /classify, /rerank and /predict: what a reward model thinks of answers.

The shapes are those of vLLM's and of text-embeddings-inference's routes of these names; ours adds
rows of prompt and completion. Scores are raw numbers; where a shape wants a probability it is
their logistic function.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.completion.scoring import ScoreJob, Scoring, answer_job, text_job
from serving.http.body import body_schema, read_body
from serving.http.headers import model_headers
from serving.http.run import below_path
from serving.http.state import hold, server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import Problem, invalid, scores_none
from serving.protocol.schema import (
    AnswerRow,
    Message,
    PoolingRequest,
    PredictRequest,
    RerankRequest,
    ScoreRequest,
)
from serving.protocol.sse import cancel_on_disconnect

router = APIRouter(tags=["Scores"])
LABEL = "LABEL_0"  # what transformers calls the one output of a head


@router.post("/v1/score", openapi_extra=body_schema(ScoreRequest.model_json_schema()))
@router.post("/score", openapi_extra=body_schema(ScoreRequest.model_json_schema()))
async def score(request: Request) -> Response:
    """The score of each prompt and completion, in vLLM's form."""
    body = await read_body(request, ScoreRequest.model_validate)
    rows = score_rows(body)
    unread: dict[int, str] = {}

    def jobs(model: ServedModel) -> list[ScoreJob]:
        made = []
        for index, row in enumerate(rows):
            try:
                made.append(answer_job(model, row.prompt, row.completion))
            except Problem as problem:
                if not body.skip_unreadable:
                    raise
                unread[index] = problem.message
        return made

    scored = await run_scores(request, body.model or body.adapter_id, len(rows), jobs)
    values = iter(scored.scores)
    data: list[dict[str, Any]] = [
        {"index": index, "object": "score", "score": None, "error": unread[index]}
        if index in unread
        else {"index": index, "object": "score", "score": next(values)}
        for index in range(len(rows))
    ]
    return scored.listed("score", data)


@router.post("/v1/pooling", include_in_schema=False)
@router.post("/pooling", openapi_extra=body_schema(PoolingRequest.model_json_schema()))
async def pooling(request: Request) -> Response:
    """The score of a conversation's answer, or of whole texts, in vLLM's form."""
    scored = await _pooled(request)
    data = [
        {"index": index, "object": "pooling", "data": [value]}
        for index, value in enumerate(scored.scores)
    ]
    return scored.listed("pool", data)


@router.post("/classify", openapi_extra=body_schema(PoolingRequest.model_json_schema()))
async def classify(request: Request) -> Response:
    """The same as probabilities of one class, in vLLM's form."""
    scored = await _pooled(request)
    data = [
        {"index": index, "label": LABEL, "probs": [logistic(value)], "num_classes": 1}
        for index, value in enumerate(scored.scores)
    ]
    return scored.listed("classify", data)


@router.post("/v1/rerank", include_in_schema=False)
@router.post("/rerank", openapi_extra=body_schema(RerankRequest.model_json_schema()))
async def rerank(request: Request) -> Response:
    """Answers to one prompt, the best first: in TEI's form for `texts`, Jina's for `documents`."""
    body = await read_body(request, RerankRequest.model_validate)
    if (body.texts is None) == (body.documents is None):
        raise invalid("give `texts` or `documents`", "texts")
    texts = body.texts if body.texts is not None else body.documents or []
    scored = await run_scores(
        request,
        body.model or body.adapter_id,
        len(texts),
        lambda model: [
            answer_job(model, _said("user", body.query), _said("assistant", text)) for text in texts
        ],
    )
    ranked = sorted(enumerate(scored.scores), key=lambda item: -item[1])
    if body.documents is not None:
        results = [
            {
                "index": index,
                "document": {"text": texts[index]},
                "relevance_score": logistic(value),
            }
            for index, value in ranked[: body.top_n or None]
        ]
        return scored.answer({**scored.head("rerank"), "results": results})
    return scored.answer(
        [
            {
                "index": index,
                "score": value if body.raw_scores else logistic(value),
                **({"text": texts[index]} if body.return_text else {}),
            }
            for index, value in ranked
        ]
    )


@router.post("/predict", openapi_extra=body_schema(PredictRequest.model_json_schema()))
async def predict(request: Request) -> Response:
    """The score of whole texts, or of pairs of prompt and answer, in TEI's form."""
    body = await read_body(request, PredictRequest.model_validate)
    inputs = [body.inputs] if isinstance(body.inputs, str) else body.inputs

    def jobs(model: ServedModel) -> list[ScoreJob]:
        return [_predict_job(model, item) for item in inputs]

    scored = await run_scores(request, body.adapter_id, len(inputs), jobs)
    made = [
        [{"score": value if body.raw_scores else logistic(value), "label": LABEL}]
        for value in scored.scores
    ]
    return scored.answer(made[0] if isinstance(body.inputs, str) else made)


def score_rows(body: ScoreRequest) -> list[AnswerRow]:
    """The rows of a /score request; Problem 422 where it gives them in no form, or in several."""
    given = [
        body.rows is not None,
        body.prompt is not None or body.completion is not None,
        body.text_1 is not None or body.text_2 is not None,
    ]
    if sum(given) != 1:
        raise invalid("give `text_1` and `text_2`, or `prompt` and `completion`, or `rows`", "rows")
    if body.rows is not None:
        return body.rows
    if given[1]:
        if body.prompt is None or body.completion is None:
            raise invalid("`prompt` and `completion` go together", "prompt")
        return [AnswerRow(prompt=body.prompt, completion=body.completion)]
    first, second = body.text_1 or [], body.text_2 or []
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise invalid(
            f"`text_1` holds {len(first)} texts and `text_2` {len(second)}; give one before "
            "several, or as many",
            "text_1",
        )
    return [
        AnswerRow(prompt=_said("user", asked), completion=_said("assistant", answer))
        for asked, answer in zip(first, second, strict=True)
    ]


class ScoreAnswer:
    """The scores of one request with the model that gave them."""

    def __init__(self, model: ServedModel, jobs: Sequence[ScoreJob], scores: list[float]) -> None:
        self.model = model
        self.scores = scores
        self._num_tokens = sum(len(job.ids) for job in jobs)

    def head(self, kind: str) -> dict[str, Any]:
        """What vLLM's answers begin with, and which weights scored."""
        return {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": self.model.name,
            "parent": self.model.parent,
            "weights_sha256": self.model.weights_sha256,
            "usage": {
                "prompt_tokens": self._num_tokens,
                "total_tokens": self._num_tokens,
                "completion_tokens": 0,
            },
        }

    def listed(self, kind: str, data: list[dict[str, Any]]) -> Response:
        """An answer in vLLM's form."""
        return self.answer({**self.head(kind), "data": data})

    def answer(self, content: Any) -> Response:
        """An answer whose headers say which weights scored."""
        return JSONResponse(content, headers=model_headers(self.model))


async def run_scores(
    request: Request,
    name: str | None,
    count: int,
    make_jobs: Callable[[ServedModel], list[ScoreJob]],
) -> ScoreAnswer:
    """Resolve the model, and score all rows in the engine's steps.

    Without a name it is the only reward model there is. Problem when the request cannot be
    answered.
    """
    server = server_of(request)
    model = scorer_of(request, below_path(request, name, "model"))
    most = server.config.limits.max_score_rows
    if not 0 < count <= most:
        raise invalid(f"give at least one and at most {most} rows. Given: {count}")
    jobs = await asyncio.to_thread(make_jobs, model)  # Templates are no work for the loop.
    scoring = Scoring(jobs, server.registry.worker, deadline=server.config.limits.deadline_seconds)
    async with cancel_on_disconnect(request, scoring.cancel):
        return ScoreAnswer(model, jobs, await scoring.run())


def scorer_of(request: Request, name: str | None) -> ServedModel:
    """The reward model of a name; without a name the only one there is."""
    registry = server_of(request).registry
    scorers = [model for model in registry if model.head is not None]
    if (name is None or registry.is_base_alias(name)) and len(scorers) == 1:
        return hold(request, scorers[0])
    model = registry.resolve(name)
    if model.head is None:
        raise scores_none(model.name, [scorer.name for scorer in scorers])
    return hold(request, model)


def logistic(score: float) -> float:
    """1 / (1 + exp(-score)), for any score."""
    return 0.5 * (1 + math.tanh(score / 2))


async def _pooled(request: Request) -> ScoreAnswer:
    body = await read_body(request, PoolingRequest.model_validate)
    if (body.messages is None) == (body.input is None):
        raise invalid("give `messages` or `input`", "messages")
    messages, texts = body.messages, body.input or []

    def jobs(model: ServedModel) -> list[ScoreJob]:
        if messages is not None:
            return [answer_job(model, messages[:-1], messages[-1:])]
        return [text_job(model, text) for text in texts]

    count = 1 if messages is not None else len(texts)
    return await run_scores(request, body.model or body.adapter_id, count, jobs)


def _predict_job(model: ServedModel, item: str | list[str]) -> ScoreJob:
    if isinstance(item, str):
        return text_job(model, item)
    if len(item) == 1:
        return text_job(model, item[0])
    if len(item) != 2:
        raise Problem(422, "validation", "`inputs` must be texts, or pairs of prompt and answer")
    return answer_job(model, _said("user", item[0]), _said("assistant", item[1]))


def _said(role: str, text: str) -> list[Message]:
    return [Message(role=role, content=text)]
