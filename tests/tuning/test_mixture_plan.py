"""A mixture's YAML: what is understood, and every mistake refused with its line."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.data.folders import DataError
from tuning.data.mixture.plan import KINDS, load_plan

GOOD = """\
seed: 3
cap: 30
shares: {zero_shot: 0.5, options: 0.5}
heldout_clusters: [inference]
test: 0.1
sources:
  films:
    data: films.jsonl
    cluster: sentiment
    options: [good, bad]
    templates:
      ask:
        prompt: "Is it good or bad? {{ text }}"
        answer: "{{ label }}"
      write: {prompt: "Write a {{ label }} review.", answer: "{{ text }}", turned: true}
  logic:
    data: logic.jsonl
    cluster: inference
    templates:
      ask: {prompt: "{{ a }}?", answer: "{{ b }}", heldout: false}
      other: {prompt: "So {{ a }}?", answer: "{{ b }}", heldout: true}
"""


def write(path: Path, text: str) -> Path:
    """A mixture file."""
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_is_what_is_planned(tmp_path: Path) -> None:
    plan = load_plan(write(tmp_path / "m.yaml", GOOD))
    films, logic = plan.sources
    assert (plan.seed, plan.test_rows) == (3, 48)
    assert (films.name, films.cluster, films.heldout, films.cap) == (
        "films",
        "sentiment",
        False,
        30,
    )
    assert (logic.name, logic.cluster, logic.heldout, logic.test) == ("logic", "inference", True, 0)
    assert (films.options, films.test, films.exemplars) == (("good", "bad"), 0.1, 3)
    assert [template.name for template in films.trained_templates] == ["ask", "write"]
    assert [template.name for template in logic.trained_templates] == ["ask"]
    assert films.columns == {"text", "label"}
    assert films.shares == {**dict.fromkeys(KINDS, 0), "zero_shot": 0.5, "options": 0.5}
    # Nothing to list: the share of lists goes to the same prompts without.
    assert logic.shares == {**dict.fromkeys(KINDS, 0), "zero_shot": 1.0}


def test_the_order_of_keys_says_nothing(tmp_path: Path) -> None:
    head, _, rest = GOOD.partition("  films:")
    films, _, logic = rest.partition("  logic:")
    turned = f"{head}  logic:{logic}  films:{films}"
    one, two = (load_plan(write(tmp_path / "m.yaml", text)) for text in (GOOD, turned))
    assert [source.name for source in one.sources] == [source.name for source in two.sources]


def test_a_share_of_templates_is_held_out_by_the_seed(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(10)]
    lines = "".join(
        f'      {name}: {{prompt: "{name} {{{{ a }}}}", answer: b}}\n' for name in names
    )

    def held(seed: int) -> set[str]:
        text = (
            f"seed: {seed}\nheldout_templates: 0.3\ntest: 0.1\nsources:\n  s:\n    data: d.jsonl\n"
        )
        (source,) = load_plan(write(tmp_path / "m.yaml", f"{text}    templates:\n{lines}")).sources
        return {template.name for template in source.templates if template.heldout}

    assert held(0) == held(0)
    assert len(held(0)) == 3
    assert len({frozenset(held(seed)) for seed in range(6)}) > 1


MISTAKES = [
    ("seed: 3", "sed: 3", r":1: sed: unknown key; did you mean 'seed'\?"),
    ("seed: 3", "seed: -1", r":1: seed: must be a whole number from 0 on, got -1"),
    ("seed: 3", "nothing: 3", r":1: nothing: unknown key; known are cap, exemplars, heldout_"),
    ("cap: 30", "cap: 0", r":2: cap: must be a whole number from 1 on, got 0"),
    ("cap: 30", "cap: many", r":2: cap: must be a whole number from 1 on, got 'many'"),
    ("options: 0.5}", "options: 0.4}", r":3: shares: shares sum to 0.9; make it 1"),
    ("options: 0.5}", "options: 1.5}", r":3: shares.options: 1.5 is no share"),
    ("options: 0.5}", "options: -0.5}", r":3: shares.options: -0.5 is no share"),
    ("options: 0.5}", "options: .nan}", r":3: shares.options: nan is no share"),
    ("options: 0.5}", "options: true}", r":3: shares.options: True is no share"),
    ("options: 0.5}", "opitons: 0.5}", r":3: shares.opitons: unknown key; did you mean 'options'"),
    ("shares: {zero_shot: 0.5, options: 0.5}", "shares: 1", r":3: shares: 1 holds no names"),
    ("[inference]", "[inference, logic]", r":4: heldout_clusters.1: no source is of"),
    ("[inference]", "[inference, sentiment]", r":4: heldout_clusters: every cluster is held out"),
    ("[inference]", "inference", r":4: heldout_clusters: must be a list such as"),
    ("test: 0.1", "test: 2", r":5: test: 2 is no share"),
    ("test: 0.1", "test_rows: 0", r":5: test_rows: must be a whole number from 1 on, got 0"),
    ("  logic:", "  films:", r":16: sources.films: stands twice, first in line 7"),
    ("      write:", "      ask:", r":15: .*ask: stands twice, first in line 12"),
    ("    data: films.jsonl\n", "", r":7: sources.films.data: is not set"),
    ("data: films.jsonl", "data: other.yaml", r":8: sources.films.data: 'other.yaml' is a mixture"),
    ("data: films.jsonl", "data: 7", r":8: sources.films.data: 7 is int, not text"),
    ("cluster: sentiment", "cluster: 7", r":9: sources.films.cluster: 7 is int, not text"),
    ("cluster: sentiment", "where: x", r":9: sources.films.where: must be a map of columns"),
    ("cluster: sentiment", "clustre: x", r":9: sources.films.clustre: unknown key; did you mean"),
    ("[good, bad]", "[yes, no]", r":10: sources.films.options.0: True is bool, not text; put"),
    ("[good, bad]", "[good]", r":10: sources.films.options: \('good',\) is no choice"),
    ("[good, bad]", "[good, bad]\n    options_column: x", r":11: .*cannot stand beside"),
    ("turned: true", "turned: maybe", r":15: .*write.turned: must be true or false, got 'maybe'"),
    ("turned: true", "turnd: true", r":15: .*write.turnd: unknown key; did you mean 'turned'"),
    ("turned: true", "check: x", r":15: .*write.check: 'x' is no check"),
    ("{{ label }}\"\n", "{{ label \"\n", r":14: sources.films.templates.ask.answer: is no valid"),
    ("{{ label }}\"\n", "{{ label.upper() }}\"\n", r":14: .*ask.answer: line 1 uses Call"),
    ("answer: \"{{ label }}\"\n", "answer: \"  \"\n", r":14: .*ask.answer: is empty"),
    ("answer: \"{{ label }}\"\n", "answers: x\n", r":14: .*ask.answers: unknown key; did you mean"),
    ("heldout: false", "heldout: true", r":19: .*logic.templates: every template is held"),
    ("      ask:\n", "      as is:\n", r":12: sources.films.templates.as is: is the name of rows"),
    ("sources:\n", "sources: {}\nx:\n", r": unknown key|holds no names"),
    ("      write:", "      <<: *gone\n      write:", r"no valid YAML \(found undefined alias"),
    ("seed: 3", "seed: &a [*a]", r"no valid YAML \(line 1 holds itself"),
    ("seed: 3", "seed: [", r"no valid YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_every_mistake_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = write(tmp_path / "m.yaml", GOOD.replace(old, new, 1))
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}.*{message}"):
        load_plan(path)


def test_mistakes_of_a_source_alone(tmp_path: Path) -> None:
    """What a source asks for itself cannot fall back to something else."""
    for extra, message in (
        ("    shares: {options: 1}\n", "shares.options: nothing can be listed"),
        ("    test: 0.5\n", "test: has no use: all rows are kept"),
    ):
        text = GOOD.replace("    data: logic.jsonl\n", f"    data: logic.jsonl\n{extra}")
        path = write(tmp_path / "m.yaml", text)
        with pytest.raises(DataError, match=rf":18: sources.logic.{message}"):
            load_plan(path)
    path = write(
        tmp_path / "m.yaml", "sources: {s: {data: starter, where: {family: list}, test: 0.5}}"
    )
    with pytest.raises(DataError, match="test: has no use: the starter has tests of its own"):
        load_plan(path)
    held = GOOD.replace("test: 0.1\n", "").replace("turned: true", "heldout: true")
    path = write(tmp_path / "m.yaml", held)
    with pytest.raises(DataError, match="some are held out, but no row is kept to test them"):
        load_plan(path)


@pytest.mark.parametrize("content", ["", "[]", "text", "- a", "\x00", "sources: {a: 1}"])
def test_files_that_are_no_mixture(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"m\.yaml"):
        load_plan(write(tmp_path / "m.yaml", content))
    with pytest.raises(DataError, match="cannot be read"):
        load_plan(tmp_path / "absent.yaml")


def test_aliases_do_not_blow_a_file_up(tmp_path: Path) -> None:
    """Nine times nine levels of aliases, which would be 10^9 items."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    with pytest.raises(DataError, match="a0: unknown key"):
        load_plan(write(tmp_path / "m.yaml", "\n".join(lines)))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PLACES = (
    *(("seed",), ("cap",), ("exemplars",), ("shares",), ("shares", "few_shot"), ("test",)),
    *(("heldout_clusters",), ("heldout_templates",), ("sources",), ("test_rows",)),
    *(("sources", "films"), ("sources", "films", "data"), ("sources", "films", "where")),
    *(("sources", "films", key) for key in ("cluster", "group_by", "options", "options_column")),
    *(("sources", "films", "templates"), ("sources", "films", "templates", "ask")),
    *(("sources", "films", "templates", "ask", key) for key in ("prompt", "check", "turned")),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_anywhere_is_planned_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[str, ...], value: object
) -> None:
    import yaml

    content = yaml.safe_load(GOOD)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = write(tmp_path_factory.getbasetemp() / "any.yaml", yaml.safe_dump(content))
    with suppress(DataError):
        load_plan(path)
