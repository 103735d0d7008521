"""Turns clean conversations into token ids with labels, counting every token in the ledger.

Knows templates and tokenizers; knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.config import DataOptions
from tuning.data.examples import Example
from tuning.data.fields import RowError, texts_of
from tuning.data.folders import DataError
from tuning.data.ledger import BadRow, Ledger
from tuning.data.rendering import RenderError
from tuning.data.template import Span, render_training

IGNORED = -100
BEYOND = "no answer within max_length"
CHUNK = 1000


@dataclass(frozen=True)
class TokenRow:
    """One training text: `ids` and `labels` of shape (length,); masked labels are -100."""

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    example: int
    """Position of the conversation it was made from."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_trained(self) -> int:
        """Tokens that carry loss; the first token has nothing before it, so it never does."""
        return int((self.labels[1:] != IGNORED).sum())


def rows_sha256(rows: Iterable[TokenRow]) -> str:
    """Fingerprint of encoded rows: sha256 of length, ids and labels of each, as int32."""
    digest = hashlib.sha256()
    for row in rows:
        for values in ([len(row)], row.ids, row.labels):
            digest.update(np.asarray(values, dtype="<i4").tobytes())
    return digest.hexdigest()


def encode_examples(
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    options: DataOptions,
    ledger: Ledger,
    day: date | None = None,
) -> list[TokenRow]:
    """Token rows of all conversations; bad ones, cut ones and lost ones are in `ledger`.

    A template that writes the date writes that of `day`.
    DataError when truncation would lose more than `options.max_cut_share` of the tokens.
    """
    rows: list[TokenRow] = []
    longest, place = 0, ""
    for position, spans in _rendered(tokenizer, examples, options, ledger, day):
        kept = [row for span in spans for row in [_cut(span, position, max_length, ledger)] if row]
        if not kept:
            ledger.rows_dropped[BEYOND] += 1
            ledger.rows_trained -= 1
        rows.extend(kept)
        length = max(len(span.ids) for span in spans)
        if length > longest:
            longest, place = length, examples[position].place
    gone = ledger.tokens_truncated + ledger.tokens_dropped
    if gone > options.max_cut_share * ledger.tokens_read:
        raise DataError(
            f"max_length {max_length}: would cut {gone:,} of {ledger.tokens_read:,} tokens in "
            f"{ledger.rows_truncated + ledger.rows_dropped[BEYOND]:,} rows; the longest is {place} "
            f"of {longest:,} tokens; raise training.max_length or allow it with "
            "data_options.max_cut_share"
        )
    if not rows:
        reason = ledger.bad_rows[0] if ledger.bad_rows else "all answers lie beyond max_length"
        raise DataError(f"data: no row is left to train on ({reason}); mend the data")
    return rows


def encode_heldout(
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    options: DataOptions,
    ledger: Ledger,
    day: date | None = None,
) -> list[TokenRow]:
    """Token rows of held-out conversations; their tokens are not counted: they only measure.

    A row that cannot be used is moved from held out to bad or dropped; in a file of held-out rows
    it is an error.
    """
    own = options.heldout_file is not None
    spare = Ledger()
    strictly = replace(options, strict=options.strict or own)
    rendered = list(_rendered(tokenizer, examples, strictly, spare, day))
    rows: list[TokenRow] = []
    for position, spans in rendered:
        kept = [row for span in spans for row in [_cut(span, position, max_length, spare)] if row]
        spare.rows_dropped[BEYOND] += not kept
        rows.extend(kept)
    if not own:
        ledger.bad_rows += spare.bad_rows
        ledger.rows_dropped.update(+spare.rows_dropped)
        ledger.rows_heldout -= len(spare.bad_rows) + spare.rows_dropped[BEYOND]
    return rows


def _rendered(
    tokenizer: Any,
    examples: Sequence[Example],
    options: DataOptions,
    ledger: Ledger,
    day: date | None,
) -> Iterator[tuple[int, list[Span]]]:
    special = sorted(
        {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    )
    for start in range(0, len(examples), CHUNK):
        chosen: list[int] = []
        for position in range(start, min(start + CHUNK, len(examples))):
            try:
                _refuse_special(examples[position], special)
                chosen.append(position)
            except RowError as error:
                _leave_out(examples[position], error, options, ledger)
        yield from _spans(tokenizer, examples, chosen, options, ledger, day)


def _spans(
    tokenizer: Any,
    examples: Sequence[Example],
    chosen: Sequence[int],
    options: DataOptions,
    ledger: Ledger,
    day: date | None,
) -> Iterator[tuple[int, list[Span]]]:
    """Spans of the rows at `chosen`; those that the chat template refuses are left out."""
    if not chosen:
        return
    few = [examples[at] for at in chosen]
    try:
        rendered = render_training(
            tokenizer,
            [example.messages for example in few],
            untrained=[example.untrained for example in few],
            tools=[example.tools for example in few],
            day=day,
        )
    except RenderError as error:
        if len(chosen) > 1:
            for at in chosen:
                yield from _spans(tokenizer, examples, [at], options, ledger, day)
        else:
            refusal = RowError("messages", f"the chat template {error.reason}")
            _leave_out(examples[chosen[0]], refusal, options, ledger)
        return
    yield from zip(chosen, rendered, strict=True)


def _leave_out(example: Example, error: RowError, options: DataOptions, ledger: Ledger) -> None:
    """Count a row as bad, or stop at it."""
    bad = BadRow(example.source, example.line, error.field, error.reason)
    if options.strict:
        raise DataError(f"{bad}; mend the row, or leave --strict out") from error
    ledger.bad_rows.append(bad)
    ledger.rows_trained -= 1


def _refuse_special(example: Example, special: Sequence[str]) -> None:
    """A special token written in a text would become the real one and end a turn early."""
    for index, message in enumerate(example.messages):
        texts = texts_of(message)
        for token in special:
            if any(token in text for text in texts):
                raise RowError(f"messages[{index}].content", f"holds the special token {token!r}")


def _cut(span: Span, position: int, max_length: int, ledger: Ledger) -> TokenRow | None:
    """The span within `max_length`; None when no trained token is left in it."""
    ids = np.asarray(span.ids, dtype=np.int32)
    labels = np.full(len(ids), IGNORED, dtype=np.int32)
    for start, stop in span.trained:
        labels[start:stop] = ids[start:stop]
    ledger.tokens_read += len(ids)
    row = TokenRow(ids[:max_length], labels[:max_length], position)
    if row.num_trained == 0:
        ledger.tokens_dropped += len(ids)
        return None
    if len(ids) > max_length:
        ledger.rows_truncated += 1
        ledger.tokens_truncated += len(ids) - max_length
    ledger.tokens_trained += row.num_trained
    ledger.tokens_masked += len(row) - row.num_trained
    return row
