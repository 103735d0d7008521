"""Which checks a loop has: the suite that verifies answers, and what is asked of it.

Knows suites and votes; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuning.data.preferences.pairs import Lesson
from tuning.data.split import prompt_key
from tuning.evaluation.suites import STARTER, SuiteItem, load_suite
from tuning.loop.settings import AUTO, NONE, LoopSettings
from tuning.loop.votes import prompt_of
from tuning.preference.judge import by_prompt, item_of, starter_items
from tuning.variant.folder import Variant

LEAST_PROMPTS = 2


@dataclass(frozen=True)
class Verifiers:
    """The checks of a loop.

    `suite` names the suite of `items`, which are asked; `why_none` says why there are none.
    `known` are the checks of any prompt that was voted on, by its words.
    """

    suite: str | None
    items: Sequence[SuiteItem]
    known: dict[str, SuiteItem]
    left_out: int = 0
    """Items of the suite that the votes trained on are about."""
    why_none: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is told of them."""
        return {
            "suite": self.suite,
            "num_prompts": len(self.items),
            "left_out_as_trained": self.left_out,
            "why_none": self.why_none,
        }


def find_verifiers(
    settings: LoopSettings, start: Variant, trained: Sequence[Lesson], held: Sequence[Lesson]
) -> Verifiers:
    """The suite that the settings name, without the prompts that are trained on.

    `auto` is the starter's where the start was made of it, or where half of the prompts voted on
    are its own. SuiteError for a suite that cannot be read.
    """
    own = starter_items()
    named = settings.suite
    given = [] if named in (AUTO, NONE) else load_suite(named)
    known = by_prompt([*own, *given])
    if named == NONE:
        return Verifiers(None, (), known, why_none="no suite was asked for")
    if named == AUTO:
        if not (is_starters(start) or _asks_starter([*trained, *held], known)):
            why = (
                "the model is none of the starter's, and the prompts voted on are not its own; "
                "give a suite of checks with --suite"
            )
            return Verifiers(None, (), known, why_none=why)
        named, given = STARTER, load_suite(STARTER)
    seen = {prompt_of(lesson) for lesson in trained}
    unseen = [item for item in given if _key(item) not in seen]
    count = len(unseen)
    if count < LEAST_PROMPTS:
        why = f"all but {count} prompts of {named} were voted on and trained on"
        return Verifiers(None, (), known, len(given) - count, why)
    limit = settings.prompts or count
    if limit < count:
        unseen = [unseen[at * count // limit] for at in range(limit)]
    return Verifiers(named, unseen, known, len(given) - count)


def is_starters(start: Variant) -> bool:
    """Whether the start is, or was made of, the packaged starter."""
    from tuning.starter import shipped_models

    made_of = start.base.id if start.base is not None else None
    return start.folder in {folder.resolve() for folder in shipped_models().values()} or (
        made_of is not None and made_of in shipped_models()
    )


def _asks_starter(lessons: Sequence[Any], known: dict[str, SuiteItem]) -> bool:
    mine = sum(item_of(lesson, known) is not None for lesson in lessons)
    return 2 * mine >= max(1, len(lessons))


def _key(item: SuiteItem) -> str:
    return prompt_key([{"role": "user", "content": item.prompt}]).lower()
