"""Plans one step: which tokens of which rows run together, and whose logits are wanted.

Knows rows and slots; runs no model and chooses no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from serving.attention.packed import Chunk, PackedLayout
from serving.attention.pool import KVPool
from serving.engine.request import EngineRequest
from serving.engine.sampling import TokenSampler, top_tokens


@dataclass(eq=False)
class Row:
    """A running request: its slot, how many places of it are filled, which tokens come next."""

    request: EngineRequest
    sampler: TokenSampler
    slot: int
    length: int
    pending: list[int]
    prompt_logprobs: list[float | None] = field(default_factory=list)
    prompt_tops: list[tuple[tuple[int, float], ...]] = field(default_factory=list)

    @property
    def has_begun(self) -> bool:
        """True once a token was generated, be it before the row had to give way."""
        return bool(self.sampler.generated)

    @property
    def is_decoding(self) -> bool:
        """True when exactly the last generated token is pending."""
        return self.has_begun and len(self.pending) == 1

    @property
    def most_tokens(self) -> int:
        """Places the row fills if it writes all it may."""
        return (
            self.length
            + len(self.pending)
            + self.request.max_new_tokens
            - len(self.sampler.generated)
        )

    @property
    def notes_prompt(self) -> bool:
        """True while log probabilities of the prompt have to be noted."""
        return self.request.prompt_logprobs and not self.has_begun


@dataclass(frozen=True)
class Ready:
    """Rows whose next token can be chosen now, with their logits [rows, vocab]."""

    rows: list[Row]
    logits: torch.Tensor


@dataclass(frozen=True)
class StepPlan:
    """One forward: row i contributes `counts[i]` tokens of adapter `adapters[i]`.

    `tokens` and `positions` are [1, all tokens]; `wanted` are the places whose logits are needed:
    `spans[i]` of them, in order, belong to row i, and the last one is for its next token.
    """

    rows: list[Row]
    counts: list[int]
    adapters: list[str | None]
    tokens: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    spans: list[int]
    layout: PackedLayout

    @property
    def is_scoring(self) -> bool:
        """Whether any row is scored, for which the states before the output head are needed."""
        return any(row.request.head is not None for row in self.rows)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of prompts, which run beside one token of each row that decodes."""
        return sum(self.counts) - self.layout.num_decode

    def ends_of_scored(self) -> list[tuple[Row, int]]:
        """Rows to be scored that are now read whole, with their places among the wanted."""
        return [
            (row, end - 1)
            for row, end in zip(self.rows, accumulate(self.spans), strict=True)
            if row.request.head is not None and not row.pending
        ]

    def not_finite(self, logits: torch.Tensor) -> list[Row]:
        """Rows with NaN or infinity among their places of `logits` [sum(spans), vocab].

        The highest score tells: minus infinity for a token that is never to come is no fault.
        """
        flags = logits.amax(dim=-1).isfinite()
        if bool(flags.all()):
            return []
        ends = list(accumulate(self.spans))
        spans = zip(self.rows, ends, self.spans, strict=True)
        return [row for row, end, span in spans if not bool(flags[end - span : end].all())]

    def collect(self, logits: torch.Tensor, without: Sequence[Row] = ()) -> Ready:
        """Pick the rows whose prompt is complete after this step; call after lengths advanced.

        `logits` are [sum(spans), vocab]; rows that asked for it note their prompt's log
        probabilities on the way. Rows in `without` have left.
        """
        ends = list(accumulate(self.spans))
        for row, end, span in zip(self.rows, ends, self.spans, strict=True):
            if row.notes_prompt and row not in without:
                note_prompt(row, logits[end - span : end])
        writing = [i for i, row in enumerate(self.rows) if row.request.head is None]
        ready = [i for i in writing if not self.rows[i].pending and self.rows[i] not in without]
        places = [ends[i] - 1 for i in ready]
        picked = logits if len(places) == len(logits) else logits[places]
        return Ready([self.rows[i] for i in ready], picked)


def note_prompt(row: Row, logits: torch.Tensor) -> None:
    """Log probabilities of the prompt tokens that follow the ones just run, and of likely ones."""
    known = row.prompt_logprobs or [None]
    following = row.request.prompt[len(known) : len(known) + len(logits)]
    scores = torch.log_softmax(logits[: len(following)].float(), dim=-1)
    index = torch.tensor(following, dtype=torch.long, device=logits.device)[:, None]
    row.prompt_logprobs = [*known, *scores.gather(1, index)[:, 0].tolist()]
    num_top = row.request.num_top
    if num_top:
        row.prompt_tops += [() for _ in range(not row.prompt_tops)]
        row.prompt_tops += [top_tokens(line, num_top) for line in scores]


def plan_step(
    rows: Sequence[Row], pool: KVPool, prefill_budget: int, prefill_chunk: int
) -> StepPlan:
    """All decoding rows with their token, then prompt chunks of at most `prefill_budget` tokens.

    Prompts get the budget in order of arrival. Without a decoding row there is no stream to hold
    up, and yet a bound, some `prefill_chunk`s, keeps the attention mask of a long prompt small.
    """
    decoding = sorted((row for row in rows if row.is_decoding), key=lambda row: row.slot)
    budget = prefill_budget if decoding else 8 * prefill_chunk
    chosen, counts = list(decoding), [1] * len(decoding)
    for row in rows:
        if row.is_decoding or budget <= 0:
            continue
        count = min(len(row.pending), budget)
        if row.notes_prompt:  # Scores of every token, over the whole vocabulary, take memory.
            count = min(count, prefill_chunk)
        budget -= count
        chosen.append(row)
        counts.append(count)
    tokens: list[int] = []
    positions: list[int] = []
    lines: list[int] = []
    wanted: list[int] = []
    spans: list[int] = []
    chunks: list[Chunk] = []
    for row, count in zip(chosen, counts, strict=True):
        if not row.is_decoding:
            chunks.append(Chunk(len(tokens), len(tokens) + count, row.slot, row.length))
        span = count if row.notes_prompt else 1
        wanted += range(len(tokens) + count - span, len(tokens) + count)
        spans.append(span)
        tokens += row.pending[:count]
        positions += range(row.length, row.length + count)
        first = row.slot * pool.capacity + row.length
        lines += range(first, first + count)
    device = pool.device
    layout = PackedLayout(
        [row.slot for row in decoding],
        [row.length + 1 for row in decoding],
        chunks,
        torch.tensor(lines, device=device),
    )
    return StepPlan(
        chosen,
        counts,
        [row.request.adapter for row in chosen],
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        torch.tensor(wanted, device=device),
        spans,
        layout,
    )
