"""Judged pairs in the columns of the public arena datasets; knows no files.

`lmsys`: chatbot_arena_conversations. `55k`, `100k`, `140k`: arena-human-preference of
these sizes. Columns we have no facts for (moderation, categories) are null, never guessed.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from arena.exports.trl import MESSAGES, iso_time
from arena.exports.writers import DatasetRow
from arena.ratings.style import Style, measure_style
from arena.storage.selection import JudgedPair, LeftOut, SideView
from arena.values.battle import ChatMessage
from arena.values.vote import Winner

_COUNTS = pa.struct([(f"h{i}", pa.int64()) for i in range(1, 7)])
_LISTS = pa.struct([("ordered", pa.int64()), ("unordered", pa.int64())])
_BOLD = pa.struct([("**", pa.int64()), ("__", pa.int64())])
CONV_METADATA = pa.struct(
    [
        *((f"sum_assistant_{side}_tokens", pa.int64()) for side in "ab"),
        *((f"header_count_{side}", _COUNTS) for side in "ab"),
        *((f"list_count_{side}", _LISTS) for side in "ab"),
        *((f"bold_count_{side}", _BOLD) for side in "ab"),
        ("turns", pa.int64()),
    ]
)
_CRITERIA = "complexity creativity domain_knowledge problem_solving real_world specificity"
CATEGORY_TAG = pa.struct(
    [
        (
            "criteria_v0.1",
            pa.struct([(n, pa.bool_()) for n in [*_CRITERIA.split(), "technical_accuracy"]]),
        ),
        (
            "creative_writing_v0.1",
            pa.struct([("creative_writing", pa.bool_()), ("score", pa.string())]),
        ),
        ("if_v0.1", pa.struct([("if", pa.bool_()), ("score", pa.int64())])),
        ("math_v0.1", pa.struct([("math", pa.bool_())])),
    ]
)
_PART = pa.struct([(name, pa.string()) for name in ("type", "text", "image", "mimeType")])
_PARTS = pa.list_(_PART)
_RICH_MESSAGE = pa.struct([("role", pa.string()), ("content", _PARTS)])
_CORE: list[tuple[str, pa.DataType]] = [
    ("question_id", pa.string()),
    ("model_a", pa.string()),
    ("model_b", pa.string()),
    ("winner", pa.string()),
    ("judge", pa.string()),
    ("conversation_a", MESSAGES),
    ("conversation_b", MESSAGES),
    ("turn", pa.int64()),
    ("anony", pa.bool_()),
    ("language", pa.string()),
    ("tstamp", pa.float64()),
]
_MODERATED = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence"),
    "violence/graphic",
)
_PROBABILITY = [("flagged", pa.bool_()), ("probability", pa.float64())]
LMSYS_SCHEMA = pa.schema(
    [
        *_CORE,
        (
            "openai_moderation",
            pa.struct(
                [
                    ("categories", pa.struct([(n, pa.bool_()) for n in _MODERATED])),
                    ("category_scores", pa.struct([(n, pa.float64()) for n in _MODERATED])),
                    ("flagged", pa.bool_()),
                ]
            ),
        ),
        (
            "toxic_chat_tag",
            pa.struct(
                [
                    ("roberta-large", pa.struct(_PROBABILITY)),
                    ("t5-large", pa.struct([("flagged", pa.bool_()), ("score", pa.float64())])),
                ]
            ),
        ),
    ]
)
SCHEMA_55K = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "model_a", "model_b", "prompt")),
        ("response_a", pa.string()),
        ("response_b", pa.string()),
        *((f"winner_{name}", pa.int64()) for name in ("model_a", "model_b", "tie")),
    ]
)
SCHEMA_100K = pa.schema(
    [
        *(field for field in _CORE if field[0] != "judge"),
        ("conv_metadata", CONV_METADATA),
        ("is_code", pa.bool_()),
        ("is_refusal", pa.bool_()),
        ("dedup_tag", pa.struct([("high_freq", pa.bool_()), ("sampled", pa.bool_())])),
        ("category_tag", CATEGORY_TAG),
        ("judge_hash", pa.string()),
    ]
)
SCHEMA_140K = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "model_a", "model_b", "winner")),
        ("evaluation_session_id", pa.string()),
        ("evaluation_order", pa.int64()),
        ("conversation_a", pa.list_(_RICH_MESSAGE)),
        ("conversation_b", pa.list_(_RICH_MESSAGE)),
        (
            "full_conversation",
            pa.list_(
                pa.struct([(n, _RICH_MESSAGE) for n in ("user", "model_side_a", "model_side_b")])
            ),
        ),
        ("conv_metadata", CONV_METADATA),
        ("category_tag", CATEGORY_TAG),
        ("language", pa.string()),
        ("is_code", pa.bool_()),
        ("timestamp", pa.string()),
    ]
)


def lmsys_rows(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The row of chatbot_arena_conversations."""
    winner = "tie (bothbad)" if pair.winner == Winner.BOTH_BAD else pair.winner
    missing = {"openai_moderation": None, "toxic_chat_tag": None}
    return [_core(pair) | {"winner": winner, "judge": f"arena_user_{pair.voter}"} | missing]


def rows_55k(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The row of the 55k dataset: texts are JSON lists, one entry per turn; both-bad is a tie."""
    tie = pair.winner in (Winner.TIE, Winner.BOTH_BAD)
    prompts = [m["content"] for m in pair.left.context if m["role"] == "user"]
    return [
        {
            "id": f"{pair.battle_id}-{pair.vote_id}",
            "model_a": pair.left.participant.name,
            "model_b": pair.right.participant.name,
            "prompt": json.dumps(prompts, ensure_ascii=False),
            "response_a": json.dumps(_answers(pair.left), ensure_ascii=False),
            "response_b": json.dumps(_answers(pair.right), ensure_ascii=False),
            "winner_model_a": int(pair.winner == Winner.MODEL_A),
            "winner_model_b": int(pair.winner == Winner.MODEL_B),
            "winner_tie": int(tie),
        }
    ]


def rows_100k(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The row of the 100k dataset."""
    winner = "tie (bothbad)" if pair.winner == Winner.BOTH_BAD else pair.winner
    return [
        _core(pair)
        | {
            "winner": winner,
            "conv_metadata": conv_metadata(pair),
            "is_code": is_code(pair),
            "is_refusal": None,
            "dedup_tag": None,
            "category_tag": None,
            "judge_hash": f"arena_user_{pair.voter}",
        }
    ]


def rows_140k(pair: JudgedPair) -> list[DatasetRow | LeftOut] | LeftOut:
    """The row of the 140k dataset; its last turn is the judged one."""
    sides = (conversation(pair.left), conversation(pair.right))
    rich = [[_rich(message) for message in messages] for messages in sides]
    rounds = [
        {"user": a, "model_side_a": rich[0][i + 1], "model_side_b": rich[1][i + 1]}
        for i, a in enumerate(rich[0][:-1])
        if a["role"] == "user"
    ]
    return [
        {
            "id": f"{pair.battle_id}-{pair.vote_id}",
            "model_a": pair.left.participant.name,
            "model_b": pair.right.participant.name,
            "winner": pair.winner,
            "evaluation_session_id": pair.battle_id,
            "evaluation_order": pair.turn + 1,
            "conversation_a": rich[0],
            "conversation_b": rich[1],
            "full_conversation": rounds,
            "conv_metadata": conv_metadata(pair),
            "category_tag": None,
            "language": pair.language,
            "is_code": is_code(pair),
            "timestamp": iso_time(pair.created_ms),
        }
    ]


def conversation(view: SideView) -> list[ChatMessage]:
    """All messages of a side, the judged answer last."""
    return [*view.context, {"role": "assistant", "content": view.text}]


def is_code(pair: JudgedPair) -> bool:
    """Whether a prompt or answer holds a fenced block of code."""
    return any("```" in m["content"] for v in (pair.left, pair.right) for m in conversation(v))


def conv_metadata(pair: JudgedPair) -> DatasetRow:
    """Counts of style over all answers; tokens only where the server counted the one answer."""
    told: DatasetRow = {"turns": pair.turn + 1}
    for side, view in zip("ab", (pair.left, pair.right), strict=True):
        style = _total([measure_style(text) for text in _answers(view)])
        told[f"sum_assistant_{side}_tokens"] = view.num_tokens if pair.turn == 0 else None
        told[f"header_count_{side}"] = {f"h{i + 1}": n for i, n in enumerate(style.headers)}
        told[f"list_count_{side}"] = {"ordered": style.ordered, "unordered": style.unordered}
        told[f"bold_count_{side}"] = {"**": style.bold_stars, "__": style.bold_lines}
    return told


def _total(styles: list[Style]) -> Style:
    return Style(
        num_words=sum(s.num_words for s in styles),
        headers=tuple(sum(level) for level in zip(*(s.headers for s in styles), strict=True)),
        ordered=sum(s.ordered for s in styles),
        unordered=sum(s.unordered for s in styles),
        bold_stars=sum(s.bold_stars for s in styles),
        bold_lines=sum(s.bold_lines for s in styles),
    )


def _core(pair: JudgedPair) -> DatasetRow:
    return {
        "question_id": pair.battle_id,
        "model_a": pair.left.participant.name,
        "model_b": pair.right.participant.name,
        "conversation_a": conversation(pair.left),
        "conversation_b": conversation(pair.right),
        "turn": pair.turn + 1,
        "anony": pair.blind,
        "language": pair.language,
        "tstamp": pair.created_ms / 1000 if pair.created_ms else None,
    }


def _answers(view: SideView) -> list[str]:
    return [m["content"] for m in conversation(view) if m["role"] == "assistant"]


def _rich(message: ChatMessage) -> dict[str, Any]:
    part = {"type": "text", "text": message["content"], "image": None, "mimeType": None}
    return {"role": message["role"], "content": [part]}
