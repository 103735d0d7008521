"""The known layouts of preference rows, and what becomes of each of their columns.

A column is used, harmless, left out as asked, or refused by name. Knows no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from tuning.data.columns import EXPORTED, HARMLESS, OF_EXPORTS
from tuning.data.fields import DataRow, RowError, UnusedError, says_nothing, shorten
from tuning.data.formats import FormatError
from tuning.data.ledger import BadRow, Tally
from tuning.data.preferences import battles, compared, paired, ranked
from tuning.data.preferences.judged import Judged
from tuning.data.sources import RawRow

Reader = Callable[[Iterable[RawRow]], Iterator[Judged | BadRow]]


def _each(
    read: Callable[[RawRow], Iterator[Judged]], rows: Iterable[RawRow]
) -> Iterator[Judged | BadRow]:
    """Judgements of rows that stand for themselves."""
    for raw in rows:
        try:
            if raw.problem is not None:
                raise RowError("row", raw.problem)
            yield from read(raw)
        except RowError as error:
            yield BadRow(raw.source, raw.line, error.field, error.reason)
        except UnusedError as error:
            raise FormatError(
                f"{raw.source}:{raw.line}: {error}; leave it out with --set drop={error.field}"
            ) from error


def row_wise(read: Callable[[RawRow], Iterator[Judged]]) -> Reader:
    """A reader of a file from one of its rows."""
    return partial(_each, read)


@dataclass(frozen=True)
class PreferenceFormat:
    """A known layout: the columns it is known by, others that are read, and those that are not.

    `harmless` says what the rows are about, and nothing that could be learned. `read` takes the
    rows of a whole file in order, since in some a judgement is several of them.
    """

    name: str
    about: str
    required: frozenset[str]
    read: Reader
    used: frozenset[str] = frozenset()
    harmless: frozenset[str] = frozenset()

    @property
    def columns(self) -> frozenset[str]:
        """Every column that is read."""
        return self.required | self.used


def _format(
    name: str, about: str, required: str, read: Reader, used: str = "", harmless: str = ""
) -> PreferenceFormat:
    names = (frozenset(text.split()) for text in (required, used, harmless))
    need, more, rest = names
    return PreferenceFormat(name, about, need, read, more, rest)


_PAIRED = """
    prompt question instruction input conversations messages system system_prompt margin strength
    weight voter annotator_id judge vote_id prompt_id chosen_score score_chosen chosen_rating
    chosen-rating rejected_score score_rejected rejected_rating rejected-rating chosen_model
    rejected_model chosen-model rejected-model
"""

_OF_A_SIDE = ("kind", "ask_as", "weights_sha256", "base", "sampling")

_COMPARIA = """
    model_pair_name opening_msg conv_turns conversation_pair_id ip archived country_portal
    conv_comments_a conv_comments_b comment comments_a comments_b selected_category categories
    keywords short_summary is_unedited_prompt mode postprocess_failed contains_pii pii_analyzed
    total_conv_a_output_tokens total_conv_b_output_tokens total_conv_a_kwh total_conv_b_kwh
    model_a_params model_b_params model_a_total_params model_b_total_params
    model_a_active_params model_b_active_params cohorts cohorts_dict
    model_a_name model_b_name refers_to_conv_id msg_index msg_rank question_id chatbot_index
    system_prompt
    useful complete creative clear_formatting incorrect superficial instructions_not_followed
""" + " ".join(
    f"conv_{word}_{side}"
    for word in (
        *("useful", "complete", "creative", "clear_formatting", "incorrect", "superficial"),
        "instructions_not_followed",
    )
    for side in "ab"
)
_OASST = """
    user_id review_count review_result synthetic detoxify tree_state emojis labels origin events
    ready_for_export
"""

PREFERENCE_FORMATS: tuple[PreferenceFormat, ...] = (
    _format(
        "votes",
        "what `arena export --format votes` writes: every judged pair with its winner",
        "prompt completion_a completion_b winner",
        row_wise(battles.votes_of),
        "model_a model_b side_a side_b edited_answer strength margin weight voter vote_id language "
        "blind tags",
        " ".join(sorted(OF_EXPORTS | {f"{name}_{side}" for name in _OF_A_SIDE for side in "ab"})),
    ),
    _format(
        "55k",
        "arena-human-preference-55k, as CSV, JSON lines or Parquet",
        "prompt response_a response_b winner_model_a winner_model_b winner_tie",
        row_wise(compared.flags_of),
        "model_a model_b language timestamp",
    ),
    _format(
        "battles",
        "a table of battles: a prompt, two responses, the winner by a word of the table below",
        "prompt response_a response_b winner",
        row_wise(compared.table_of),
        "model_a model_b system judge voter language timestamp",
    ),
    _format(
        "comparia",
        "votes of compar:IA",
        "model_a_name model_b_name conversation_a conversation_b chosen_model_name both_equal",
        row_wise(compared.comparia_of),
        "system_prompt_a system_prompt_b visitor_id session_hash timestamp language",
        _COMPARIA,
    ),
    _format(
        "comparia-reactions",
        "reactions of compar:IA: single answers that were liked or not",
        "liked disliked question_content response_content",
        row_wise(compared.reactions_of),
        "conversation_a conversation_b model_pos refers_to_model visitor_id session_hash timestamp",
        _COMPARIA,
    ),
    _format(
        "helpsteer-preferences",
        "HelpSteer 2, preferences from -3 to 3",
        "prompt response_1 response_2 preference_strength",
        row_wise(compared.strengths_of),
        "",
        "split preference_statement preference_elaboration three_most_similar_preferences "
        "all_preferences_unprocessed",
    ),
    _format(
        "helpsteer3",
        "HelpSteer 3, preferences from -3 to 3",
        "context response1 response2 overall_preference",
        row_wise(compared.strengths_of),
        "language",
        "individual_preference domain",
    ),
    _format(
        "helpsteer",
        "HelpSteer and HelpSteer 2: scored answers, those to one prompt one after the other",
        "prompt response helpfulness",
        ranked.helpsteer_of,
        "",
        "correctness coherence complexity verbosity",
    ),
    _format(
        "nectar",
        "Nectar: seven ranked answers",
        "prompt answers",
        row_wise(ranked.nectar_of),
        "",
        "turns num_responses good_natured",
    ),
    _format(
        "ultrafeedback",
        "UltraFeedback: scored completions (its binarized sets are pairs)",
        "instruction completions",
        row_wise(ranked.ultrafeedback_of),
        "system",
        "models correct_answers incorrect_answers",
    ),
    _format(
        "oasst",
        "OpenAssistant: a message a row",
        "message_id message_tree_id role text",
        ranked.messages_of,
        "parent_id rank lang created_date deleted model_name",
        _OASST,
    ),
    _format(
        "oasst-trees",
        "OpenAssistant: a tree of messages a row",
        "message_tree_id prompt",
        row_wise(ranked.trees_of),
        "",
        _OASST,
    ),
    _format(
        "pairs",
        "chosen and rejected, with or without prompt: TRL, our exports, hh-rlhf, binarized sets",
        "chosen rejected",
        row_wise(paired.pairs_of),
        _PAIRED,
    ),
    _format(
        "labels",
        "prompt, completion and label: KTO",
        "prompt completion label",
        row_wise(paired.labels_of),
        "system system_prompt weight voter annotator_id vote_id model",
    ),
    _format(
        "labelled-messages",
        "messages and label or kto_tag: KTO of LLaMA-Factory",
        "messages kto_tag",
        row_wise(paired.labels_of),
        "system system_prompt label",
    ),
)


def preference_format(row: DataRow, where: str) -> PreferenceFormat:
    """The first format whose columns say something in a row; FormatError lists what is known."""
    said = {name for name, value in row.items() if not says_nothing(value)}
    for columns in (said, set(row)):
        for known in PREFERENCE_FORMATS:
            if known.required <= columns:
                return known
    names = ", ".join(ascii(str(name))[1:-1][:60] for name in [*row][:20])
    formats = "; ".join(
        f"{item.name}: {', '.join(sorted(item.required))}" for item in PREFERENCE_FORMATS
    )
    raise FormatError(
        f"{where}: columns {names or '(none)'} fit no known preference format ({formats}); rename "
        "them or map them with data_options.columns in --config"
    )


def format_called(name: str) -> PreferenceFormat:
    """A format by its name."""
    for known in PREFERENCE_FORMATS:
        if known.name == name:
            return known
    names = ", ".join(item.name for item in PREFERENCE_FORMATS)
    raise FormatError(f"data_options.format: unknown format {name!r}; known are auto, {names}")


class ColumnCheck:
    """Counts what became of the columns of one source, and refuses those nothing would use."""

    def __init__(self, known: PreferenceFormat, tally: Tally) -> None:
        self._known, self._tally = known, tally
        self._unknown: dict[str, tuple[str, str]] = {}

    def count(self, row: DataRow, where: str) -> None:
        """Count the columns of a row."""
        exported = row.keys() >= EXPORTED
        for name, value in row.items():
            if says_nothing(value):
                continue
            if name in self._known.columns:
                self._tally.used[name] += 1
            elif name in HARMLESS | self._known.harmless or (exported and name in OF_EXPORTS):
                self._tally.harmless[name] += 1
            else:
                self._unknown.setdefault(str(name), (where, shorten(value)))

    def finish(self) -> None:
        """FormatError names every column that nothing would use."""
        if self._unknown:
            name, (where, held) = next(iter(self._unknown.items()))
            listed = ",".join([*self._unknown][:20])
            raise FormatError(
                f"{where}: column {ascii(name)[1:-1]} holds {held}, which nothing of format "
                f"{self._known.name} uses; leave it out with --set drop={ascii(listed)[1:-1]}"
            )


def without(row: Mapping[str, object], drop: frozenset[str], tally: Tally) -> dict[str, object]:
    """A row without the columns, and keys within them as `column.key`, that are to be dropped."""

    def cleaned(name: str, value: object) -> object:
        if not any(item.startswith(f"{name}.") for item in drop):
            return value
        if isinstance(value, list | tuple):
            return [cleaned(name, item) for item in value]
        if not isinstance(value, Mapping):
            return value
        tally.dropped.update(f"{name}.{key}" for key in value if f"{name}.{key}" in drop)
        return {
            key: cleaned(f"{name}.{key}", item)
            for key, item in value.items()
            if f"{name}.{key}" not in drop
        }

    tally.dropped.update(name for name in row if name in drop)
    return {name: cleaned(name, value) for name, value in row.items() if name not in drop}
