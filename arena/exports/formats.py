"""The dataset formats by name: how a judged pair becomes rows, and what files hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from arena.exports import llm_comparator, lmsys, openwebui, spreadsheet, trl, votes
from arena.exports.writers import CsvWriter, DatasetRow, ListWriter, TableWriter, Writer
from arena.storage.selection import JudgedPair, LeftOut, Selection


@dataclass(frozen=True)
class ExportFormat:
    """A dataset format. `rows`: the rows of a pair, each or all of them replaced by why it cannot
    be made. `core`: the columns that make two rows the same one.
    """

    name: str
    about: str
    rows: Callable[[JudgedPair], list[DatasetRow | LeftOut] | LeftOut]
    open: Callable[[Path, str, Selection], Writer]
    core: tuple[str, ...]


def _table(schema: pa.Schema) -> Callable[[Path, str, Selection], Writer]:
    return lambda folder, split, selection: TableWriter(folder, split, schema)


_CONVERSATIONS = ("model_a", "model_b", "winner", "conversation_a", "conversation_b")

FORMATS = {
    form.name: form
    for form in (
        ExportFormat(
            "trl",
            "Preference pairs for TRL (DPO, reward models): `prompt`, `chosen`, `rejected` as"
            " message lists. A tie or a both-bad vote makes no row.",
            trl.preference_rows,
            _table(trl.PREFERENCE_SCHEMA),
            ("prompt", "chosen", "rejected"),
        ),
        ExportFormat(
            "kto",
            "Unpaired judgements for TRL (KTO): `prompt`, `completion` as message lists, `label`"
            " true for a good answer. A tie makes two true rows, both-bad two false ones.",
            trl.unpaired_rows,
            _table(trl.UNPAIRED_SCHEMA),
            ("prompt", "completion", "label"),
        ),
        ExportFormat(
            "votes",
            "Every judged pair for preference training: `prompt`, `completion_a`, `completion_b` as"
            " message lists, `winner` model_a, model_b, tie or both_bad. Voters are numbers.",
            votes.votes_rows,
            _table(votes.VOTES_SCHEMA),
            ("prompt", "completion_a", "completion_b", "winner"),
        ),
        ExportFormat(
            "lmsys",
            "Votes in the columns of chatbot_arena_conversations. Nobody ran moderation: those"
            " columns are null.",
            lmsys.lmsys_rows,
            _table(lmsys.LMSYS_SCHEMA),
            _CONVERSATIONS,
        ),
        ExportFormat(
            "55k",
            "Votes in the columns of arena-human-preference-55k, where both-bad is a tie.",
            lmsys.rows_55k,
            _table(lmsys.SCHEMA_55K),
            ("model_a", "model_b", "prompt", "response_a", "response_b"),
        ),
        ExportFormat(
            "100k",
            "Votes in the columns of arena-human-preference-100k; nobody tagged categories.",
            lmsys.rows_100k,
            _table(lmsys.SCHEMA_100K),
            _CONVERSATIONS,
        ),
        ExportFormat(
            "140k",
            "Votes in the columns of arena-human-preference-140k; nobody tagged categories.",
            lmsys.rows_140k,
            _table(lmsys.SCHEMA_140K),
            _CONVERSATIONS,
        ),
        ExportFormat(
            "openwebui",
            "Votes as Open WebUI feedback, one per judged pair. It has no word for both-bad.",
            openwebui.openwebui_rows,
            lambda folder, split, selection: ListWriter(folder, split),
            ("data", "snapshot"),
        ),
        ExportFormat(
            "comparator",
            "Votes on two models as an LLM Comparator file; scores from -1.5 to 1.5, positive"
            " for the first model.",
            llm_comparator.comparator_rows,
            lambda folder, split, selection: llm_comparator.ComparatorWriter(
                folder, split, selection.models
            ),
            ("input_text", "output_text_a", "output_text_b", "score"),
        ),
        ExportFormat(
            "csv",
            "Votes as a spreadsheet. A cell that a spreadsheet could run as a formula starts"
            " with an added quote mark.",
            spreadsheet.sheet_rows,
            lambda folder, split, selection: CsvWriter(folder, split, spreadsheet.SHEET_COLUMNS),
            ("prompt", "answer_a", "answer_b", "winner"),
        ),
    )
}
