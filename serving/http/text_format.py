"""OpenAI's text completions and their chunks in either dialect, with the prompt where asked for.

Pure: finished completions and single tokens in, JSON out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.completion.completion import Completion, GeneratedToken
from serving.completion.detokenize import Detokenizer
from serving.completion.token_bytes import TokenBytes
from serving.http.openai_format import Identity, usage_of

KIND = "text_completion"
Top = Sequence[tuple[int, float]]


@dataclass
class Logprobs:
    """OpenAI's lists of log probabilities, which grow token by token."""

    known: TokenBytes
    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)

    def add(self, token: int, logprob: float | None, top: Top, offset: int, piece: str) -> None:
        """Note a token that made `piece` at `offset` of the text, and the likely ones in its place.

        The token is among these, also where it is less likely; the first of a text has none. A
        piece may begin with what earlier tokens left unfinished.
        """
        name = self.known.name(token)
        self.tokens.append(name)
        self.token_logprobs.append(logprob)
        begun = len(piece) - len(name) if piece.endswith(name) else 0
        self.text_offset.append(offset + begun)
        if logprob is None:
            self.top_logprobs.append(None)
            return
        table: dict[str, float] = {}
        for other, value in (*top, (token, logprob)):
            table.setdefault(self.known.name(other), value)
        self.top_logprobs.append(table)

    def json(self) -> dict[str, Any]:
        """The lists by their names."""
        return {
            "text_offset": self.text_offset,
            "token_logprobs": self.token_logprobs,
            "tokens": self.tokens,
            "top_logprobs": self.top_logprobs,
        }


@dataclass(frozen=True)
class TextFormat:
    """How completions of texts are put into JSON.

    `prompt_only` leaves out what was written: `max_tokens` was 0.
    """

    identity: Identity
    known: TokenBytes
    with_logprobs: bool
    prompt_only: bool

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """One finished answer."""
        logprobs = self._prompt_logprobs(completion)
        text = completion.job.echo or ""
        if not self.prompt_only:
            place = len(text)
            for token, top, piece in zip(
                completion.tokens, completion.tops, completion.pieces, strict=True
            ):
                logprobs.add(token.id, token.logprob, _pairs(top), place, piece)
                place += len(piece)
            text += completion.text
        reason = "length" if self.prompt_only else self.identity.finish(completion.finish_reason)
        return self._choice(index, text, logprobs, reason)

    def usage(self, completions: Sequence[Completion], answers: int) -> dict[str, int]:
        """Token counts of what is told."""
        counts = usage_of(completions, answers=answers)
        if self.prompt_only:
            counts |= {"completion_tokens": 0, "total_tokens": counts["prompt_tokens"]}
        return counts

    def chunks(
        self, index: int, generated: GeneratedToken, completion: Completion
    ) -> Iterable[dict[str, Any]]:
        """One token, after the prompt if that is told and the token the first."""
        echo = completion.job.echo
        is_first = generated.index == 0
        if is_first and echo is not None:
            reason = "length" if self.prompt_only else None
            yield self._chunk(index, echo, self._prompt_logprobs(completion), reason, completion)
        elif is_first and self.prompt_only:
            yield self._chunk(index, "", Logprobs(self.known), "length", completion)
        if self.prompt_only:
            return
        logprobs, token = Logprobs(self.known), generated.token
        place = len(echo or "") + generated.offset
        logprobs.add(token.id, token.logprob, _pairs(generated.top), place, generated.shown)
        finish = generated.finish_reason
        reason = self.identity.finish(finish) if self.identity.openai or not finish else str(finish)
        yield self._chunk(index, generated.shown, logprobs, reason, completion)

    def _chunk(
        self,
        index: int,
        text: str,
        logprobs: Logprobs,
        reason: str | None,
        completion: Completion,
    ) -> dict[str, Any]:
        """TGI marks unfinished chunks with "" and counts in the last."""
        usage = None
        if not self.identity.openai:
            usage = self.usage([completion], 1) if reason is not None else None
            reason = reason or ""
        choice = self._choice(index, text, logprobs, reason)
        return self.identity.wrap(KIND, [choice], usage)

    def _choice(
        self, index: int, text: str, logprobs: Logprobs, reason: str | None
    ) -> dict[str, Any]:
        told = logprobs.json() if self.with_logprobs else None
        return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}

    def _prompt_logprobs(self, completion: Completion) -> Logprobs:
        """The lists as far as the prompt goes; empty where that is not told with them."""
        logprobs, place = Logprobs(self.known), 0
        reader = Detokenizer(completion.job.model.tokenizer, ())
        tops = completion.prefill_tops or [()] * len(completion.prefill)
        for token, top in zip(completion.prefill, tops, strict=True):
            piece = reader.push(token.id)
            logprobs.add(token.id, token.logprob, top, place, piece)
            place += len(piece)
        return logprobs


def _pairs(top: Iterable[Any]) -> list[tuple[int, float]]:
    return [(token.id, token.logprob) for token in top]
