"""OpenAI's chat answers and chunks, tool calls included, in either dialect.

Pure: finished completions and single tokens in, JSON out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.completion.completion import Completion, GeneratedToken
from serving.completion.token_bytes import TokenBytes
from serving.completion.tools import CallReader, call_json
from serving.engine.request import FinishReason
from serving.http.openai_format import Identity, logprob_json


@dataclass(frozen=True)
class ChatFormat:
    """How the answers to one chat are put into JSON; `index` numbers the answers.

    `first_call` is the number of the first answer's call in the conversation.
    """

    identity: Identity
    with_logprobs: bool
    first_call: int
    known: TokenBytes

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """One finished answer."""
        call, logprobs, job = read_call(completion), None, completion.job
        if self.with_logprobs and job.tools is None:
            pairs = zip(completion.tokens, completion.tops, strict=True)
            logprobs = {"content": [logprob_json(*pair, self.known) for pair in pairs]}
        # A call that was cut before its name is no text either.
        content = completion.text if job.tools is None else ""
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if call is not None:
            made = call_json(*call, self._call_id(index))
            message = {"role": "assistant", "tool_calls": [made]}
            if self.identity.openai:
                message["content"] = None
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self._reason(completion.finish_reason, is_call=call is not None),
        }

    def text_chunk(
        self, index: int, generated: GeneratedToken, *, is_first: bool
    ) -> dict[str, Any]:
        """One token as a chunk; control tokens have no content."""
        delta = self._delta(is_first=is_first, content=generated.shown)
        logprobs = None
        if self.with_logprobs:
            logprobs = {"content": [logprob_json(generated.token, generated.top, self.known)]}
        return self._chunk(index, delta, logprobs, self._reason(generated.finish_reason))

    def whole_chunk(self, completion: Completion) -> dict[str, Any]:
        """A finished answer as one chunk."""
        delta = {"role": "assistant", "content": completion.text}
        return self._chunk(0, delta, None, self._reason(completion.finish_reason))

    def call_chunk(
        self, index: int, name: str | None, arguments: str, reason: FinishReason | None
    ) -> dict[str, Any]:
        """The next part of a tool call; the first has its name."""
        call: dict[str, Any] = {
            "index": 0,
            "id": self._call_id(index),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        if self.identity.openai and name is None:
            call = {"index": 0, "function": {"arguments": arguments}}
        delta = self._delta(is_first=name is not None, tool_calls=[call])
        return self._chunk(index, delta, None, self._reason(reason, is_call=True))

    def cut_chunk(self, index: int, reason: FinishReason) -> dict[str, Any]:
        """The only chunk of a call that ended before its name."""
        delta = self._delta(is_first=True, content="")
        return self._chunk(index, delta, None, self._reason(reason))

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, with the counts."""
        return self.identity.wrap("chat.completion.chunk", [], usage)

    def _delta(self, *, is_first: bool, **parts: Any) -> dict[str, Any]:
        """TGI says the role in every chunk; OpenAI once, since its clients add up the parts."""
        role = {"role": "assistant"} if is_first or not self.identity.openai else {}
        return {**role, **parts}

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
        """TGI numbers calls, here on through a conversation; OpenAI's ids are unique."""
        if self.identity.openai:
            return f"call_{self.identity.unique[:22]}{index:02d}"
        return str(self.first_call + index)


def read_call(completion: Completion) -> tuple[str, str] | None:
    """(function, arguments) that a finished completion calls; None for text, or a call that was
    cut off before its name."""
    if completion.job.tools is None:
        return None
    reader = CallReader()
    arguments = reader.push(completion.text, final=True)
    return None if reader.name is None else (reader.name, arguments)


def declines(completion: Completion) -> bool:
    """Whether a finished completion decided to call none of its tools."""
    call, tools = read_call(completion), completion.job.tools
    return call is not None and tools is not None and call[0] == tools.decline
