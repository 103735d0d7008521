"""The tests of a mixture: held-out clusters, and held-out templates beside the trained ones.

Makes plain prompts with checks, the same for every run of the mixture. Knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.data.folders import DataError
from tuning.data.mixture.drawing import write
from tuning.data.mixture.plan import (
    LISTING,
    OPTIONS,
    ZERO_SHOT,
    MixturePlan,
    SourcePlan,
    Template,
    rank,
)
from tuning.data.mixture.rows import IN_TESTS, MixtureRow, MixtureRows
from tuning.data.mixture.templates import TemplateRefusedError, TextTemplate
from tuning.data.sources import STARTER


@dataclass(frozen=True)
class KeptPrompt:
    """One prompt that no run of the mixture trains on, and the check of its answer."""

    id: str
    family: str
    prompt: str
    check: dict[str, Any]
    question: str
    """The prompt without its list of options."""

    def to_json(self) -> dict[str, Any]:
        """A line of a suite."""
        return {key: getattr(self, key) for key in ("id", "family", "prompt", "check")}


def kept_prompts(plan: MixturePlan, rows: MixtureRows) -> list[KeptPrompt]:
    """At most `test_rows` prompts of each source and kind of test, asked without exemplars."""
    return [prompt for source in plan.sources for prompt in _of_source(plan, source, rows)]


def drop_asked(plan: MixturePlan, rows: MixtureRows) -> None:
    """Leave out training rows that some trained template would turn into a prompt of the tests."""
    asked = {_plain(prompt.question) for prompt in kept_prompts(plan, rows)}
    if not asked:
        return
    train = [row for row in rows.train if asked.isdisjoint(map(_plain, row.questions))]
    if len(train) < len(rows.train):
        rows.dropped[IN_TESTS] += len(rows.train) - len(train)
        rows.train = train


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _of_source(plan: MixturePlan, source: SourcePlan, rows: MixtureRows) -> Iterator[KeptPrompt]:
    chosen = sorted(
        rows.tests[source.name], key=lambda row: rank(plan.seed, "tests", source.name, row.key)
    )[: plan.test_rows]
    heldout = [template for template in source.templates if template.heldout]
    splits = {
        f"trained templates: {source.name}": source.trained_templates,
        f"held-out templates: {source.name}": heldout,
    }
    if source.heldout:
        splits = {f"held-out cluster {source.cluster}: {source.name}": source.templates}
    for family, templates in splits.items():
        yield from _ask(plan, source, family, chosen, [one for one in templates if _decided(one)])


def _decided(template: Template) -> bool:
    """Whether an answer can be judged: what a turned template asks for can be said in many ways."""
    return template.check is not None or not template.turned


def _ask(
    plan: MixturePlan,
    source: SourcePlan,
    family: str,
    rows: Sequence[MixtureRow],
    templates: Sequence[Template],
) -> Iterator[KeptPrompt]:
    listing = any(source.shares[kind] for kind in LISTING)
    for number, row in enumerate(rows if templates else ()):
        template = templates[number % len(templates)]
        kind = OPTIONS if listing and not template.turned else ZERO_SHOT
        drawn = write(row, template, kind, (), plan.seed)
        check = _check(row, template, drawn.answer)
        place = f"{row.origin}:{row.line}"
        yield KeptPrompt(
            f"{family}/{template.name}/{place}", family, drawn.prompt, check, drawn.question
        )


def _check(row: MixtureRow, template: Template, answer: str) -> dict[str, Any]:
    if template.check is not None:
        try:
            rendered: dict[str, Any] = _rendered(template.check, row)
        except TemplateRefusedError as error:
            raise DataError(
                f"{row.origin}:{row.line}: the check of template {template.name!r} of source "
                f"{row.source.name!r}: {error}; mend the check"
            ) from error
        return rendered
    if row.source.data == STARTER and row.source.as_is:
        return dict(row.columns["check"])
    return {"kind": "exact", "answers": [answer.strip().rstrip(".!").strip()]}


def _rendered(check: Any, row: MixtureRow) -> Any:
    if isinstance(check, dict):
        return {key: _rendered(part, row) for key, part in check.items()}
    if isinstance(check, list):
        return [_rendered(part, row) for part in check]
    return check.render(row.columns) if isinstance(check, TextTemplate) else check
