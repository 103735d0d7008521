"""Draws for each row its template, whether it shows exemplars, and which, and writes the prompt.

The counts follow from the shares exactly; only which row gets what is drawn, by the seed. Exemplars
are training rows of the same source. Knows neither messages nor tokens.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

from tuning.data.folders import DataError
from tuning.data.mixture.plan import KINDS, LISTING, SHOWING, SourcePlan, Template
from tuning.data.mixture.rows import MixtureRow

OPTIONS_HEAD = "Options:"


@dataclass(frozen=True)
class Drawn:
    """What a row was made into."""

    row: MixtureRow
    template: Template
    kind: str
    exemplars: tuple[MixtureRow, ...]
    question: str
    """The prompt without exemplars and options."""
    prompt: str
    answer: str

    def to_json(self) -> dict[str, Any]:
        """Where the row came from and which template made it, in JSON values."""
        return {
            "source": self.row.source.name,
            "cluster": self.row.source.cluster,
            "template": self.template.name,
            "turned": self.template.turned,
            "kind": self.kind,
            "row": f"{self.row.origin}:{self.row.line}",
            "exemplars": [f"{row.origin}:{row.line}" for row in self.exemplars],
        }

    def __str__(self) -> str:
        turned = ", turned round" if self.template.turned else ""
        lines = ", ".join(str(row.line) for row in self.exemplars)
        shown = f", exemplars {lines}" if lines else ""
        return (
            f"{self.row.source.name}: template {self.template.name!r}{turned}, {self.kind}{shown}"
        )


def draw(
    train: Sequence[MixtureRow], heldout: Sequence[MixtureRow], seed: int
) -> tuple[list[Drawn], list[Drawn]]:
    """Prompts and answers of training rows and of held-out rows, each in the order given.

    DataError when a source has too few rows for its exemplars.
    """
    pools = _by_source(train)
    made: dict[int, Drawn] = {}
    for side, rows in (("train", pools), ("heldout", _by_source(heldout))):
        for at, chosen in rows.items():
            pool = _Exemplars(pools.get(at, []), seed)
            source = chosen[0].source
            for row, (template, kind) in zip(
                chosen, _assign(source, len(chosen), f"{seed} {side}"), strict=True
            ):
                shown = pool.of(row) if kind in SHOWING else ()
                made[id(row)] = write(row, template, kind, shown, seed)
    return [made[id(row)] for row in train], [made[id(row)] for row in heldout]


def write(
    row: MixtureRow, template: Template, kind: str, exemplars: Sequence[MixtureRow], seed: int
) -> Drawn:
    """The prompt: exemplars with their answers, then the row's question, with options or not."""
    question, answer = row.pair(template)
    parts = []
    for shown in exemplars:
        asked, given = shown.pair(template)
        parts.append(f"{_listed(shown, asked, kind, seed)}\n{given}")
    parts.append(_listed(row, question, kind, seed))
    return Drawn(row, template, kind, tuple(exemplars), question, "\n\n".join(parts), answer)


def kind_counts(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """How many of `total` rows are of each kind: the shares, rounded by largest remainder."""
    exact = {kind: Fraction(shares[kind]).limit_denominator(10**6) for kind in KINDS}
    quotas = {kind: share * total / sum(exact.values()) for kind, share in exact.items()}
    counts = {kind: math.floor(quota) for kind, quota in quotas.items()}
    ranked = sorted(KINDS, key=lambda kind: (counts[kind] - quotas[kind], KINDS.index(kind)))
    for kind in ranked[: total - sum(counts.values())]:
        counts[kind] += 1
    return counts


def _by_source(rows: Sequence[MixtureRow]) -> dict[int, list[MixtureRow]]:
    """Rows by the plan of their source, since two mixtures may use one name."""
    found: dict[int, list[MixtureRow]] = {}
    for row in rows:
        found.setdefault(id(row.source), []).append(row)
    return found


def _assign(source: SourcePlan, total: int, seed: str) -> list[tuple[Template, str]]:
    """Template and kind of each of `total` rows; every template is used as often as can be.

    Kinds that list options go first, since only templates that are not turned can take them.
    """
    random = Random(f"{seed} {source.name}")
    templates = list(source.trained_templates)
    random.shuffle(templates)
    order = list(range(total))
    random.shuffle(order)
    counts = kind_counts(source.shares, total)
    used = {template.name: 0 for template in templates}
    places = iter(order)
    found: dict[int, tuple[Template, str]] = {}
    for kind in sorted(KINDS, key=lambda kind: kind not in LISTING):
        for _ in range(counts[kind]):
            fitting = [one for one in templates if kind not in LISTING or not one.turned]
            template = min(fitting, key=lambda one: used[one.name])
            used[template.name] += 1
            found[next(places)] = (template, kind)
    return [found[at] for at in range(total)]


class _Exemplars:
    """Draws the exemplars of a source from its training rows."""

    def __init__(self, pool: Sequence[MixtureRow], seed: int) -> None:
        self._pool = pool
        self._seed = seed
        self._groups = Counter(row.group for row in pool)
        self._keys = Counter(row.key for row in pool)

    def of(self, row: MixtureRow) -> tuple[MixtureRow, ...]:
        """As many rows as the source asks for, none like the row nor of its group."""
        wanted = row.source.exemplars
        # Of so many drawn without repetition at least `wanted` are others, if there are so many.
        size = min(len(self._pool), wanted + self._groups[row.group] + self._keys[row.key])
        random = Random(f"{self._seed} exemplars {row.source.name} {row.line} {row.key}")
        others = [
            self._pool[at]
            for at in random.sample(range(len(self._pool)), size)
            if self._pool[at].group != row.group and self._pool[at].key != row.key
        ]
        if len(others) < wanted:
            raise DataError(
                f"{row.origin}:{row.line}: {wanted} exemplars are asked for, but source "
                f"{row.source.name!r} has {len(others)} other training rows; lower `exemplars` or "
                "the shares of few_shot"
            )
        return tuple(others[:wanted])


def _listed(row: MixtureRow, question: str, kind: str, seed: int) -> str:
    """The question, with the row's options below it where the kind lists them."""
    if kind not in LISTING:
        return question
    options = list(row.options())
    Random(f"{seed} options {row.key}").shuffle(options)
    return "\n".join((f"{question}\n\n{OPTIONS_HEAD}", *(f"- {option}" for option in options)))
