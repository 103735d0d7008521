"""/tokenize and /chat_tokenize: text in, tokens out."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from serving.completion.chat_template import render_chat
from serving.completion.checks import encode, input_limit
from serving.completion.tools import plan_tools
from serving.http.body import body_schema, read_body
from serving.http.headers import model_headers
from serving.http.run import openai_name, tgi_name
from serving.http.state import server_of
from serving.models.registry import ServedModel
from serving.protocol.problems import invalid
from serving.protocol.schema import ChatRequest, GenerateRequest

router = APIRouter(tags=["Text"])


@router.post("/tokenize", openapi_extra=body_schema(GenerateRequest.model_json_schema()))
async def tokenize(request: Request) -> Response:
    """The tokens of a text, with their byte offsets."""
    body = await read_body(request, GenerateRequest.read)
    model = server_of(request).registry.resolve(tgi_name(request, body.parameters))
    most = input_limit(model, server_of(request).config.limits)
    tokens = await asyncio.to_thread(simple_tokens, model, body.inputs, most, special=True)
    return JSONResponse(tokens, headers=model_headers(model))


@router.post("/chat_tokenize", openapi_extra=body_schema(ChatRequest.model_json_schema()))
async def chat_tokenize(request: Request) -> Response:
    """The text a chat template makes of messages, and its tokens."""
    body = await read_body(request, ChatRequest.model_validate)
    model = server_of(request).registry.resolve(openai_name(request, body))
    most = input_limit(model, server_of(request).config.limits)
    text = await asyncio.to_thread(render_chat, model, body, plan_tools(body))
    tokens = await asyncio.to_thread(simple_tokens, model, text, most, special=False)
    content = {"tokenize_response": tokens, "templated_text": text}
    return JSONResponse(content, headers=model_headers(model))


def simple_tokens(
    model: ServedModel, text: str, most: int, *, special: bool
) -> list[dict[str, Any]]:
    """TGI's tokens: id, text, start and stop in bytes; a slow tokenizer gives no offsets.

    Problem 422 for text that is no Unicode, or has more tokens than a prompt may have.
    """
    ids = encode(model.tokenizer, text, special=special)
    if len(ids) > most:
        raise invalid(f"`inputs` must have less than {most} tokens. Given: {len(ids)}")
    if not model.tokenizer.is_fast:
        return [{"id": i, "text": "", "start": 0, "stop": 0} for i in ids]
    encoded = model.tokenizer(
        text,
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    tokens = []
    place = offset = 0
    for token, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # Offsets come in characters; add up the bytes between the last start and this one.
        if start < place:
            place = offset = 0
        offset += len(text[place:start].encode("utf-8"))
        place = start
        end = offset + len(text[start:stop].encode("utf-8"))
        tokens.append({"id": token, "text": text[start:stop], "start": offset, "stop": end})
    return [{**token, "start": 0, "stop": 0} if token["text"] == "" else token for token in tokens]
