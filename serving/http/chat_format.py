"""OpenAI's chat answers and chunks, tool calls included, in either dialect.

Pure: finished completions and single tokens in, JSON out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.completion.completion import Completion, GeneratedToken
from serving.completion.tools import CallReader, call_json
from serving.engine.request import FinishReason
from serving.http.openai_format import Identity, logprob_json


@dataclass(frozen=True)
class ChatFormat:
    """How the answers to one chat are put into JSON; `index` numbers the answers."""

    identity: Identity
    with_logprobs: bool

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """One finished answer."""
        name, logprobs = called_name(completion), None
        if self.with_logprobs:
            pairs = zip(completion.tokens, completion.tops, strict=True)
            logprobs = {"content": [logprob_json(token, top) for token, top in pairs]}
        message: dict[str, Any] = {"role": "assistant", "content": completion.text}
        if name is not None:
            arguments = CallReader(text=completion.text).arguments
            call = call_json(name, arguments, self._call_id(index))
            message = {"role": "assistant", "tool_calls": [call]}
            if self.identity.openai:
                message["content"] = None
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._reason(completion.finish_reason, is_call=name is not None),
        }

    def text_chunk(self, index: int, generated: GeneratedToken) -> dict[str, Any]:
        """One token as a chunk; control tokens have no content."""
        delta = {"role": "assistant", "content": generated.shown}
        logprobs = None
        if self.with_logprobs:
            logprobs = {"content": [logprob_json(generated.token, generated.top)]}
        return self._chunk(index, delta, logprobs, self._reason(generated.finish_reason))

    def whole_chunk(self, completion: Completion) -> dict[str, Any]:
        """A finished answer as one chunk."""
        delta = {"role": "assistant", "content": completion.text}
        return self._chunk(0, delta, None, self._reason(completion.finish_reason))

    def call_chunk(
        self, index: int, name: str | None, arguments: str, reason: FinishReason | None
    ) -> dict[str, Any]:
        """The next part of a tool call."""
        call: dict[str, Any] = {
            "index": 0,
            "id": self._call_id(index),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        if self.identity.openai and name is None:
            call = {"index": 0, "function": {"arguments": arguments}}
        delta = {"role": "assistant", "tool_calls": [call]}
        return self._chunk(index, delta, None, self._reason(reason, is_call=True))

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, with the counts."""
        return self.identity.wrap("chat.completion.chunk", [], usage)

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self.identity.wrap("chat.completion.chunk", [choice], None)

    def _reason(self, reason: FinishReason | None, *, is_call: bool = False) -> str | None:
        if is_call and reason is FinishReason.EOS_TOKEN:
            return "tool_calls" if self.identity.openai else "stop"
        return self.identity.finish(reason)

    def _call_id(self, index: int) -> str:
        """TGI numbers calls from 0; OpenAI's ids are unique."""
        return f"call_{self.identity.unique[:22]}{index:02d}" if self.identity.openai else "0"


def called_name(completion: Completion) -> str | None:
    """The function that a finished completion calls; None for text, or a call cut off before."""
    if completion.job.tools is None:
        return None
    reader = CallReader()
    reader.push(completion.text, final=True)
    return reader.name
