"""Whether a policy is better than its start: the rule, and what it says. Knows numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuning.evaluation.statistics import mcnemar

BETTER, WORSE, UNKNOWN = "better", "worse", "cannot be told"
LEVEL = 0.05
"""Of the exact test: a gain or loss that chance makes no oftener is one."""
FORGETTING = 0.05
"""The most by which the perplexity of plain text may rise."""
RULE = (
    "Better: on prompts that nothing was trained on, more instructions are followed than before "
    f"(exact McNemar, p < {LEVEL}), and more than by the control that learned from shuffled votes "
    f"in the same way (p < {LEVEL}), while the perplexity of plain text rises by no more than "
    f"{FORGETTING:.0%}. Worse: fewer are followed than before (p < {LEVEL}), or no more are and "
    f"that perplexity rises by more than {FORGETTING:.0%}. All else cannot be told."
)


def compared(before: Sequence[bool], after: Sequence[bool]) -> dict[str, Any]:
    """What the second passes and the first does not, and the reverse, with the exact p value."""
    both = list(zip(before, after, strict=True))
    gained, lost = (sum(b and not a for a, b in both), sum(a and not b for a, b in both))
    return {
        "num_prompts": len(both),
        "before": sum(before) / len(both),
        "after": sum(after) / len(both),
        "gained": gained,
        "lost": lost,
        "p": mcnemar(gained, lost),
    }


def is_gain(found: Mapping[str, Any]) -> bool:
    """Whether more is passed, and by more than chance makes."""
    return bool(found["gained"] > found["lost"] and found["p"] < LEVEL)


def is_loss(found: Mapping[str, Any]) -> bool:
    """Whether less is passed, and by more than chance makes."""
    return bool(found["gained"] < found["lost"] and found["p"] < LEVEL)


def verdict(
    start: Mapping[str, Any] | None, control: Mapping[str, Any] | None, forgetting: float | None
) -> dict[str, str]:
    """The verdict by RULE, and why.

    `start` and `control` compare the policy with its start and with its control, as `compared`
    does; `forgetting` is by which share the perplexity of plain text rose. None where that was not
    measured.
    """
    word, why = _told(start, control, forgetting)
    return {"verdict": word, "why": why, "rule": RULE}


def _told(
    start: Mapping[str, Any] | None, control: Mapping[str, Any] | None, forgetting: float | None
) -> tuple[str, str]:
    if start is None:
        return UNKNOWN, "nothing here verifies answers"
    change = (
        f"{start['before']:.1%} before, {start['after']:.1%} after, of {start['num_prompts']:,} "
        f"prompts ({start['gained']} gained, {start['lost']} lost, p = {start['p']:.2g})"
    )
    forgot = forgetting is not None and forgetting > FORGETTING
    price = "" if forgetting is None else f"; the perplexity of plain text went {forgetting:+.1%}"
    if is_loss(start):
        return WORSE, f"fewer instructions are followed: {change}"
    if not is_gain(start):
        if forgot:
            return WORSE, f"no more instructions are followed: {change}{price}"
        return UNKNOWN, f"the change may be chance: {change}"
    if control is None:
        return UNKNOWN, f"more is followed ({change}), but no control was run beside it"
    if not is_gain(control):
        return UNKNOWN, (
            f"more is followed ({change}), but not clearly more than after shuffled votes "
            f"({control['before']:.1%}, p = {control['p']:.2g})"
        )
    if forgetting is None:
        return UNKNOWN, f"more is followed ({change}), but forgetting was not measured"
    if forgot:
        return UNKNOWN, f"more is followed ({change}), at too high a price{price}"
    return BETTER, f"{change}, and more than after shuffled votes ({control['before']:.1%}){price}"
