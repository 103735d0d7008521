"""Completion mode on a server that has only OpenAI's `/v1/completions`: reads its event stream.

`huggingface_hub` has no call for this route. Knows the wire, nothing of battles.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

import httpx2

from arena.backends.failures import failed_midway, http_refusal
from arena.backends.streams import AnswerEnd, AnswerError, AnswerPiece
from arena.backends.wire_values import count_of, piece_of, word_of
from arena.values.battle import SamplingSettings


async def stream_completion(
    client: httpx2.AsyncClient,
    url: str,
    key: str,
    model: str,
    prompt: str,
    sampling: SamplingSettings,
) -> AsyncGenerator[AnswerPiece | AnswerEnd, None]:
    """The continuation of a prompt: pieces, then one `AnswerEnd`. Raises what httpx2 raises."""
    body = {
        "model": model,
        "prompt": prompt,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "top_k": sampling.top_k,  # beyond OpenAI's words, and so only where somebody asked for it
        "repetition_penalty": sampling.repetition_penalty,
    }
    body = {name: value for name, value in body.items() if value is not None}
    headers = {"authorization": f"Bearer {key}"}
    reason = num_tokens = num_prompt_tokens = None
    async with client.stream("POST", f"{url}/v1/completions", json=body, headers=headers) as reply:
        if reply.status_code != 200:
            raise http_refusal(reply.status_code, reply.text[:2000], reply.text)
        async for line in reply.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                break
            event = json.loads(data)
            if event.get("error"):
                raise failed_midway(str(event["error"])[:2000], data)
            for choice in event.get("choices", []):
                if text := piece_of(choice.get("text")):
                    yield AnswerPiece(text)
                reason = word_of(choice.get("finish_reason")) or reason
            usage = event.get("usage") or {}
            num_tokens = count_of(usage.get("completion_tokens", num_tokens))
            num_prompt_tokens = count_of(usage.get("prompt_tokens", num_prompt_tokens))
    if reason is None:
        raise AnswerError("cut-off", "The server broke off in the middle of the answer.")
    yield AnswerEnd(reason, num_tokens, model, num_prompt_tokens=num_prompt_tokens)
