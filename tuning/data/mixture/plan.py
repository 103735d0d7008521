"""What a mixture's YAML says, checked: sources, templates, shares, caps, clusters, what is kept.

Every mistake is refused with file, line and key. Opens no data file.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuning.data.mixture.templates import Sandbox, TemplateRefusedError, TextTemplate
from tuning.data.mixture.yaml_lines import Keys, YamlFile, read_yaml
from tuning.data.sources import STARTER

SUFFIXES = (".yaml", ".yml")
ZERO_SHOT, FEW_SHOT = "zero_shot", "few_shot"
OPTIONS, FEW_SHOT_OPTIONS = "options", "few_shot_options"
KINDS = (ZERO_SHOT, FEW_SHOT, OPTIONS, FEW_SHOT_OPTIONS)
LISTING = (OPTIONS, FEW_SHOT_OPTIONS)
SHOWING = (FEW_SHOT, FEW_SHOT_OPTIONS)
WITHOUT_LIST = {OPTIONS: ZERO_SHOT, FEW_SHOT_OPTIONS: FEW_SHOT}
AS_IS = "as is"
FILE_KEYS = ("heldout_clusters", "heldout_templates", "seed", "sources", "test_rows")
BOTH_KEYS = ("cap", "exemplars", "shares", "test")
SOURCE_KEYS = (
    *("cluster", "data", "drop", "group_by", "options", "options_column", "templates", "where"),
)
TEMPLATE_KEYS = ("answer", "check", "heldout", "prompt", "turned")


@dataclass(frozen=True)
class Template:
    """One way of asking: two Jinja texts over a row's columns."""

    name: str
    prompt: TextTemplate
    answer: TextTemplate
    turned: bool = False
    """Asks for what other templates give, such as a review for a rating: never lists options."""
    heldout: bool = False
    """Never trained; the tests ask with it."""
    check: Any = None
    """How a test's answer is judged: a mapping whose texts are templates; none compares with the
    answer."""

    @property
    def columns(self) -> frozenset[str]:
        """The columns that prompt and answer are made of."""
        return self.prompt.columns | self.answer.columns


@dataclass(frozen=True)
class SourcePlan:
    """One source of a mixture."""

    name: str
    data: str
    cluster: str
    heldout: bool
    """Its cluster is held out: no row is trained."""
    templates: tuple[Template, ...]
    """By name; the held-out ones among them."""
    where: Mapping[str, tuple[Any, ...]]
    """Column to the values of which a row must have one."""
    drop: tuple[str, ...]
    """Columns to leave out of rows without templates."""
    group_by: str | None
    options: tuple[str, ...]
    options_column: str | None
    shares: Mapping[str, float]
    """Share of each of `KINDS`, together 1; the lists' shares are 0 where there are no options."""
    exemplars: int
    cap: int | None
    test: float

    @property
    def as_is(self) -> bool:
        """No templates were given: prompt and answer are what the row's format makes of it."""
        return self.templates[0].name == AS_IS

    @property
    def trained_templates(self) -> tuple[Template, ...]:
        """The templates that training may draw."""
        return tuple(template for template in self.templates if not template.heldout)

    @property
    def columns(self) -> frozenset[str]:
        """Every column that may reach the model."""
        used = frozenset().union(*(template.columns for template in self.templates))
        return used | ({self.options_column} if self.options_column else frozenset())

    @property
    def read_columns(self) -> frozenset[str | None]:
        """Every column that is read for anything, such as checks, groups and `where`."""
        checks = frozenset().union(*(_columns_of(template.check) for template in self.templates))
        return self.columns | checks | {*self.where, self.group_by}


@dataclass(frozen=True)
class MixturePlan:
    """A whole mixture; `seed` decides what is kept for tests, so that every run keeps the same."""

    file: YamlFile
    seed: int
    sources: tuple[SourcePlan, ...]
    """By name."""
    test_rows: int
    """Prompts of each source and kind of test at most."""


def is_mixture(source: str) -> bool:
    """Whether a data source or a suite is the file of a mixture."""
    return Path(source).suffix.lower() in SUFFIXES


def load_plan(path: Path) -> MixturePlan:
    """The mixture in `path`; DataError names file, line, key, value and remedy."""
    return _PlanReader(read_yaml(path)).plan()


class _PlanReader:
    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._sandbox = Sandbox()
        self._seed = 0

    def plan(self) -> MixturePlan:
        values = self._file.values
        self._known((), values, (*FILE_KEYS, *BOTH_KEYS))
        self._seed = self._whole(("seed",), values.get("seed", 0), 0)
        sources = self._mapping(("sources",), values.get("sources"))
        for name in sources:
            self._mapping(("sources", name), sources[name])
        clusters = {
            name: self._text(("sources", name, "cluster"), sources[name].get("cluster")) or name
            for name in sources
        }
        heldout = self._texts(("heldout_clusters",), values.get("heldout_clusters", []))
        for number, cluster in enumerate(heldout):
            if cluster not in clusters.values():
                known = ", ".join(sorted(set(clusters.values())))
                raise self._file.error(
                    ("heldout_clusters", str(number)),
                    f"no source is of cluster {cluster!r}; the clusters are {known}",
                )
        if set(clusters.values()) <= set(heldout):
            raise self._file.error(
                ("heldout_clusters",), "every cluster is held out; leave one to train on"
            )
        return MixturePlan(
            self._file,
            self._seed,
            tuple(
                self._source(name, sources[name], clusters[name], clusters[name] in heldout)
                for name in sorted(sources)
            ),
            self._whole(("test_rows",), values.get("test_rows", 48), 1),
        )

    def _source(
        self, name: str, values: Mapping[str, Any], cluster: str, heldout: bool
    ) -> SourcePlan:
        keys = ("sources", name)
        self._known(keys, values, (*SOURCE_KEYS, *BOTH_KEYS))
        options = self._texts((*keys, "options"), values.get("options", []))
        if "options" in values and len(set(options)) < 2:
            raise self._file.error(
                (*keys, "options"), f"{options!r} is no choice; give two or more"
            )
        column = self._text((*keys, "options_column"), values.get("options_column"))
        if options and column:
            raise self._file.error(
                (*keys, "options_column"), "cannot stand beside `options`; give one of the two"
            )
        templates = self._templates((*keys, "templates"), values.get("templates"))
        data = self._data((*keys, "data"), values.get("data"))
        test = self._test(keys, data, heldout, templates)
        cap_keys, cap = self._nearest(keys, "cap", None)
        exemplar_keys, exemplars = self._nearest(keys, "exemplars", 3)
        return SourcePlan(
            name=name,
            data=data,
            cluster=cluster,
            heldout=heldout,
            templates=templates,
            where=self._where((*keys, "where"), values.get("where", {})),
            drop=self._drop(keys, values),
            group_by=self._text((*keys, "group_by"), values.get("group_by")),
            options=options,
            options_column=column,
            shares=self._shares(keys, templates, bool(options or column)),
            exemplars=self._whole(exemplar_keys, exemplars, 1),
            cap=None if cap is None else self._whole(cap_keys, cap, 1),
            test=test,
        )

    def _test(self, keys: Keys, data: str, heldout: bool, templates: tuple[Template, ...]) -> float:
        """Share of the rows kept for tests; the starter and a held-out cluster have their own."""
        found, value = self._nearest(keys, "test", 0.0)
        share = self._share(found, value)
        if heldout or data == STARTER:
            if found[:1] == ("sources",):
                what = (
                    "the starter has tests of its own" if data == STARTER else "all rows are kept"
                )
                raise self._file.error(found, f"has no use: {what}; leave it out")
            return 0.0
        if share == 0 and any(template.heldout for template in templates):
            raise self._file.error(
                (*keys, "templates"),
                "some are held out, but no row is kept to test them with; set `test`, such as 0.1",
            )
        return share

    def _nearest(self, keys: Keys, key: str, default: Any) -> tuple[Keys, Any]:
        """A value of the source, else of the file, else the default; and where it stands."""
        values = self._file.values
        if key in values["sources"][keys[1]]:
            return (*keys, key), values["sources"][keys[1]][key]
        return (key,), values.get(key, default)

    def _shares(
        self, keys: Keys, templates: tuple[Template, ...], listed: bool
    ) -> dict[str, float]:
        found, value = self._nearest(keys, "shares", {ZERO_SHOT: 1})
        given = self._mapping(found, value)
        self._known(found, given, KINDS)
        shares = {kind: self._share((*found, kind), given.get(kind, 0)) for kind in KINDS}
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise self._file.error(found, f"shares sum to {sum(shares.values()):g}; make it 1")
        listed = listed and any(not (one.turned or one.heldout) for one in templates)
        for kind, plain in WITHOUT_LIST.items():
            if shares[kind] and not listed:
                if found[:1] == ("sources",):
                    raise self._file.error(
                        (*found, kind),
                        "nothing can be listed: give `options` or `options_column`, and a trained "
                        "template that is not turned",
                    )
                shares[plain] += shares[kind]
                shares[kind] = 0.0
        return shares

    def _templates(self, keys: Keys, value: Any) -> tuple[Template, ...]:
        if value is None:
            prompt, answer = (
                self._jinja(keys, f"{{{{ {name} }}}}") for name in ("prompt", "response")
            )
            return (Template(AS_IS, prompt, answer),)
        given = self._mapping(keys, value)
        made = [self._template((*keys, name), given[name]) for name in sorted(given)]
        share = self._share(("heldout_templates",), self._file.values.get("heldout_templates", 0))
        if share and not any(template.heldout for template in made):
            ranked = sorted(made, key=lambda template: rank(self._seed, *keys, template.name))
            chosen = {
                one.name for one in ranked[: min(len(made) - 1, int(share * len(made) + 0.5))]
            }
            made = [
                replace(template, heldout=True) if template.name in chosen else template
                for template in made
            ]
        if all(template.heldout for template in made):
            raise self._file.error(keys, "every template is held out; leave one to train with")
        return tuple(made)

    def _template(self, keys: Keys, value: Any) -> Template:
        if keys[-1] == AS_IS:
            raise self._file.error(keys, "is the name of rows without a template; choose another")
        given = self._mapping(keys, value)
        self._known(keys, given, TEMPLATE_KEYS)
        check = given.get("check")
        if check is not None and not isinstance(check, dict):
            raise self._file.error((*keys, "check"), f"{check!r} is no check; write {{kind: …}}")
        texts = {}
        for part in ("prompt", "answer"):
            text = self._text((*keys, part), given.get(part))
            if not (text or "").strip():
                raise self._file.error(
                    (*keys, part), "is empty; write a Jinja text over the columns"
                )
            texts[part] = self._jinja((*keys, part), text or "")
        return Template(
            keys[-1],
            texts["prompt"],
            texts["answer"],
            turned=self._truth((*keys, "turned"), given.get("turned", False)),
            heldout=self._truth((*keys, "heldout"), given.get("heldout", False)),
            check=self._check((*keys, "check"), check),
        )

    def _check(self, keys: Keys, value: Any) -> Any:
        """The check with every text in it as a template."""
        if isinstance(value, dict):
            return {key: self._check((*keys, key), part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._check((*keys, str(at)), part) for at, part in enumerate(value)]
        return self._jinja(keys, value) if isinstance(value, str) else value

    def _jinja(self, keys: Keys, text: str) -> TextTemplate:
        try:
            return TextTemplate(text, self._sandbox)
        except TemplateRefusedError as error:
            raise self._file.error(keys, f"{error}") from error

    def _data(self, keys: Keys, value: Any) -> str:
        """A path counts from the mixture's folder; what is none there is a name, as in --data."""
        text = self._text(keys, value)
        if not text:
            raise self._file.error(keys, "is not set; give starter, a file, a folder or a hub id")
        if is_mixture(text):
            raise self._file.error(keys, f"{text!r} is a mixture; give its sources here")
        beside = self._file.path.parent / Path(text).expanduser()
        return text if text == STARTER or not beside.exists() else str(beside)

    def _drop(self, keys: Keys, values: Mapping[str, Any]) -> tuple[str, ...]:
        if "drop" in values and "templates" in values:
            raise self._file.error((*keys, "drop"), "templates leave out what they do not read")
        return self._texts((*keys, "drop"), values.get("drop", []))

    def _where(self, keys: Keys, value: Any) -> dict[str, tuple[Any, ...]]:
        if not isinstance(value, dict):
            raise self._file.error(keys, f"must be a map of columns to values, got {value!r}")
        return {
            column: tuple(wanted) if isinstance(wanted, list) else (wanted,)
            for column, wanted in value.items()
        }

    def _known(self, keys: Keys, values: Mapping[str, Any], known: Iterable[str]) -> None:
        names = sorted(known)
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
                raise self._file.error((*keys, key), f"unknown key; {hint}")

    def _mapping(self, keys: Keys, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict) or not value:
            raise self._file.error(keys, f"{value!r} holds no names; write `name: …` below it")
        return value

    def _text(self, keys: Keys, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise self._file.error(
                keys, f"{value!r} is {type(value).__name__}, not text; put it in quotes"
            )
        return value

    def _texts(self, keys: Keys, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self._file.error(keys, f"must be a list such as [one, two], got {value!r}")
        return tuple(self._text((*keys, str(at)), item) or "" for at, item in enumerate(value))

    def _truth(self, keys: Keys, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._file.error(keys, f"must be true or false, got {value!r}")
        return value

    def _whole(self, keys: Keys, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._file.error(keys, f"must be a whole number from {least} on, got {value!r}")
        return value

    def _share(self, keys: Keys, value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= 1:
            raise self._file.error(keys, f"{value!r} is no share; give a number from 0 to 1")
        return float(value)


def _columns_of(check: Any) -> frozenset[str]:
    """The columns that the texts of a check read."""
    if isinstance(check, TextTemplate):
        return check.columns
    parts = check.values() if isinstance(check, dict) else check
    inner = parts if isinstance(check, dict | list) else ()
    return frozenset().union(*map(_columns_of, inner))


def rank(seed: int, *names: str) -> bytes:
    """A number as good as random that depends on nothing but its arguments."""
    text = "\x1f".join((str(seed), *names))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
