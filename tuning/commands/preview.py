"""Shows rows as they would be trained: the exact text, the trained tokens marked.

Uses the very encoding of a run, so what is shown is what would be trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from rich.console import Console
from rich.text import Text

from tuning.data.encode import IGNORED, TokenRow
from tuning.training.inputs import Prepared

TRAINED_STYLE = "bold green"
MASKED_STYLE = "dim"
# Off a terminal there is no colour, so trained stretches stand between these.
MARKS = ("⟦", "⟧")
MOST_BAD = 500


def show_preview(prepared: Prepared, count: int, console: Console) -> None:
    """Print the ledger and `count` token rows, as many of each source as there can be."""
    for line in prepared.ledger.lines():
        console.print(line, highlight=False)
    console.print(end_line(prepared.tokenizer, prepared.stop_ids), highlight=False, markup=False)
    for row in spread(prepared, count):
        example = prepared.corpus.train[row.example]
        head = f"{example.place}: {len(row)} tokens, {row.num_trained} trained"
        console.rule(head, style="")
        if example.drawn is not None:
            console.print(str(example.drawn), soft_wrap=True, highlight=False, markup=False)
        text = marked_text(prepared.tokenizer, row, colour=console.is_terminal)
        console.print(text, soft_wrap=True, highlight=False)
    console.rule("exact text of the first row", style="")
    if prepared.rows:
        exact = prepared.tokenizer.decode(prepared.rows[0].ids)
        console.print(Text(repr(exact)), soft_wrap=True, highlight=False)


def preview_json(prepared: Prepared, count: int) -> dict[str, Any]:
    """The same for programs: ledger, bad rows, and token rows as pieces of text.

    Each piece is `{"text", "trained"}`; together they are the row exactly as it is trained.
    """
    ledger = prepared.ledger
    return {
        "ledger": ledger.to_json(),
        "lines": ledger.lines(),
        "bad_rows": [vars(bad) for bad in ledger.bad_rows[:MOST_BAD]],
        "num_bad_rows": len(ledger.bad_rows),
        "template": prepared.template,
        "end": end_line(prepared.tokenizer, prepared.stop_ids),
        "max_length": prepared.max_length,
        "rows": [_row_json(prepared, row) for row in spread(prepared, count)],
    }


def _row_json(prepared: Prepared, row: TokenRow) -> dict[str, Any]:
    pieces = [
        {"text": prepared.tokenizer.decode(row.ids[start:stop]), "trained": trained}
        for start, stop, trained in _stretches(row)
    ]
    place = prepared.corpus.train[row.example].place
    return {"place": place, "tokens": len(row), "trained": row.num_trained, "pieces": pieces}


def spread(prepared: Prepared, count: int) -> list[TokenRow]:
    """`count` rows: of each source the first, then of each the second, and so on, in order."""
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for position, row in enumerate(prepared.rows):
        source = prepared.corpus.train[row.example].source
        ranked.append((turns[source], position))
        turns[source] += 1
    return [prepared.rows[position] for _, position in sorted(ranked)[:count]]


def end_line(tokenizer: Any, stop_ids: Collection[int]) -> str:
    """Where an answer ends: the token that is learned, and those of the base."""
    names = {id_: f"{tokenizer.convert_ids_to_tokens(id_)!r} (id {id_})" for id_ in stop_ids}
    own = names.pop(tokenizer.eos_token_id)
    more = f"; generation also stops at {', '.join(names.values())}" if names else ""
    return f"an answer ends with {own}{more}"


def marked_text(tokenizer: Any, row: TokenRow, *, colour: bool) -> Text:
    """The row's text; trained stretches coloured, or between marks without colour."""
    text = Text()
    for start, stop, trained in _stretches(row):
        piece = tokenizer.decode(row.ids[start:stop])
        if trained and not colour:
            piece = f"{MARKS[0]}{piece}{MARKS[1]}"
        text.append(piece, style=TRAINED_STYLE if trained else MASKED_STYLE)
    return text


def _stretches(row: TokenRow) -> list[tuple[int, int, bool]]:
    """(start, stop, trained) of the row's runs of equal kind."""
    trained = (row.labels != IGNORED).tolist()
    found: list[tuple[int, int, bool]] = []
    for index, flag in enumerate(trained):
        if found and found[-1][2] == flag:
            found[-1] = (found[-1][0], index + 1, flag)
        else:
            found.append((index, index + 1, flag))
    return found
