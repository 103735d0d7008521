"""Mixtures: exact counts, the same rows every time, and nothing held out in what is trained."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tuning_fixtures import write_rows

from tuning import TuningConfig, tune
from tuning.commands.preview import show_preview
from tuning.config import DataOptions, TrainingOptions
from tuning.data.corpus import Corpus, load_corpus
from tuning.data.folders import DataError
from tuning.data.ledger import Ledger
from tuning.data.mixture.drawing import kind_counts
from tuning.data.mixture.plan import KINDS
from tuning.errors import TuningError
from tuning.evaluation.suites import SuiteError, load_suite
from tuning.evaluation.verifiers import parse_check
from tuning.training.inputs import prepare
from tuning.variant import read_variant

NONE = DataOptions(heldout=0)
WORDS = ("red", "blue", "green", "cat", "dog", "bird", "sun", "moon", "sea", "tree")


def films(count: int, name: str = "film") -> list[dict[str, Any]]:
    """Reviews, each with its own number in it."""
    labels = ("good", "bad")
    return [
        {"id": f"{name}{i}", "text": f"{name} {i} {WORDS[i % 10]}", "label": labels[i % 2]}
        for i in range(count)
    ]


TEMPLATES: dict[str, Any] = {
    "ask": {"prompt": "Good or bad? {{ text }}", "answer": "{{ label }}"},
    "rate": {"prompt": "{{ text }} So it was", "answer": "{{ label }}"},
    "write": {"prompt": "Write {{ label }} {{ id }}.", "answer": "{{ text }}", "turned": True},
}


def mixture(folder: Path, content: dict[str, Any], **files: list[dict[str, Any]]) -> str:
    """A mixture file beside its data files."""
    for name, rows in files.items():
        write_rows(folder / f"{name}.jsonl", rows)
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def one_source(folder: Path, count: int, **more: Any) -> str:
    """A mixture of one source of films."""
    source = {"data": "films.jsonl", "options": ["good", "bad"], "templates": TEMPLATES, **more}
    return mixture(folder, {"sources": {"films": source}}, films=films(count))


def load(path: str, seed: int = 0, options: DataOptions = NONE) -> tuple[Corpus, Ledger]:
    """The corpus of a mixture and its ledger, whose rows must add up."""
    ledger = Ledger()
    corpus = load_corpus((path,), options, seed, ledger)
    ledger.check()
    return corpus, ledger


def prompts(corpus: Corpus) -> list[str]:
    """The user texts of the training rows."""
    return [example.messages[0]["content"] for example in corpus.train]


def made(corpus: Corpus) -> Counter[tuple[str, str]]:
    """How many rows each template and kind made."""
    return Counter((e.drawn.template.name, e.drawn.kind) for e in corpus.train if e.drawn)


def test_a_row_is_written_as_its_kind_says(tmp_path: Path) -> None:
    """The whole text of one row of each kind, by hand."""
    for kind, expected in {
        "zero_shot": ["Good or bad? {0}"],
        "few_shot": ["Good or bad? {1}\n{l1}\n\nGood or bad? {2}\n{l2}\n\nGood or bad? {0}"],
        "options": ["Good or bad? {0}\n\nOptions:\n- good\n- bad"],
        "few_shot_options": [
            "Good or bad? {1}\n\nOptions:\n- good\n- bad\n{l1}\n\n"
            "Good or bad? {2}\n\nOptions:\n- good\n- bad\n{l2}\n\n"
            "Good or bad? {0}\n\nOptions:\n- good\n- bad"
        ],
    }.items():
        templates = {"ask": TEMPLATES["ask"]}
        path = one_source(tmp_path, 12, templates=templates, shares={kind: 1}, exemplars=2)
        corpus, _ = load(path)
        rows = {row["text"]: row for row in films(12)}
        for example in corpus.train:
            assert example.drawn is not None
            own = rows[example.drawn.row.columns["text"]]
            others = [rows[row.columns["text"]] for row in example.drawn.exemplars]
            texts = [own["text"], *(row["text"] for row in others)]
            labels = {f"l{at}": row["label"] for at, row in enumerate(others, 1)}
            written = example.messages[0]["content"].replace("- bad\n- good", "- good\n- bad")
            assert [written] == [text.format(*texts, **labels) for text in expected]
            assert example.messages[1] == {"role": "assistant", "content": own["label"]}
            assert own not in others


def evenest(counts: dict[str, int], names: list[str], turned: set[str]) -> tuple[int, ...]:
    """Uses of the templates, sorted: of all ways to deal, the one whose most used is least used,
    then the next; found by trying every way."""
    listed = counts["options"] + counts["few_shot_options"]
    plain = counts["zero_shot"] + counts["few_shot"]
    fitting = [name for name in names if name not in turned]
    best: tuple[int, ...] | None = None
    for first in deals(listed, len(fitting)):
        for second in deals(plain, len(names)):
            uses = dict(zip(names, second, strict=True))
            for name, more in zip(fitting, first, strict=True):
                uses[name] += more
            found = tuple(sorted(uses.values(), reverse=True))
            best = found if best is None else min(best, found)
    assert best is not None
    return best


def deals(total: int, parts: int) -> list[tuple[int, ...]]:
    """Every way to deal `total` equal things to so many takers."""
    ways = itertools.product(range(total + 1), repeat=parts)
    return [way for way in ways if sum(way) == total]


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(4, 9),
    parts=st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any),
    seed=st.integers(0, 5),
)
def test_counts_are_what_shares_say(
    tmp_path_factory: pytest.TempPathFactory, count: int, parts: list[int], seed: int
) -> None:
    shares = {kind: part / sum(parts) for kind, part in zip(KINDS, parts, strict=True)}
    path = one_source(tmp_path_factory.mktemp("m"), count, shares=shares, exemplars=2)
    corpus, _ = load(path, seed)
    found = made(corpus)
    kinds = {kind: sum(n for (_, k), n in found.items() if k == kind) for kind in KINDS}
    exact = {k: Fraction(part * count, sum(parts)) for k, part in zip(KINDS, parts, strict=True)}
    assert all(abs(kinds[kind] - exact[kind]) < 1 for kind in KINDS)
    assert sum(kinds.values()) == count
    # Largest remainder: no kind that was rounded down had more left over than one rounded up.
    left = {kind: exact[kind] - math.floor(exact[kind]) for kind in KINDS}
    up = [left[kind] for kind in KINDS if kinds[kind] > exact[kind]]
    down = [left[kind] for kind in KINDS if left[kind] and kinds[kind] < exact[kind]]
    assert not up or not down or min(up) >= max(down)
    uses = [sum(n for (t, _), n in found.items() if t == name) for name in sorted(TEMPLATES)]
    assert tuple(sorted(uses, reverse=True)) == evenest(kinds, sorted(TEMPLATES), {"write"})
    assert not [key for key in found if key[0] == "write" and "options" in key[1]]


@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=4).filter(any), st.integers(0, 10**6))
def test_kinds_always_sum_up(parts: list[int], total: int) -> None:
    shares = {kind: part / sum(parts) for kind, part in zip(KINDS, parts, strict=True)}
    counts = kind_counts(shares, total)
    assert sum(counts.values()) == total
    for kind in KINDS:
        assert -1 <= counts[kind] - shares[kind] * total <= 1 + 2e-6 * total


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    cap=st.none() | st.integers(1, 30),
    repeats=st.integers(0, 3),
    seed=st.integers(0, 3),
)
def test_sources_are_mixed_by_size_up_to_the_cap(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    cap: int | None,
    repeats: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("m")
    files = {f"s{at}": films(size, f"s{at}-") for at, size in enumerate(sizes)}
    sources = {name: {"data": f"{name}.jsonl", "templates": TEMPLATES} for name in files}
    content: dict[str, Any] = {"sources": sources, **({} if cap is None else {"cap": cap})}
    repeated = {name: rows + rows[:repeats] for name, rows in files.items()}
    corpus, ledger = load(mixture(folder, content, **repeated), seed)
    found = Counter(e.drawn.row.source.name for e in corpus.train if e.drawn)
    taken = {name: min(len(rows), cap or len(rows)) for name, rows in files.items()}
    assert found == taken
    over = sum(sizes) - sum(taken.values())
    again = sum(min(repeats, size) for size in sizes)
    assert ledger.rows_read == sum(sizes) + again
    expected = {"over the cap of their source": over, "duplicate": again}
    assert dict(ledger.rows_dropped) == {why: n for why, n in expected.items() if n}
    assert corpus.order == tuple(range(sum(taken.values())))


FULL: dict[str, Any] = {
    "cap": 40,
    "test": 0.3,
    "shares": {"zero_shot": 0.4, "few_shot": 0.3, "options": 0.2, "few_shot_options": 0.1},
    "exemplars": 2,
    "heldout_clusters": ["logic"],
    "sources": {
        "films": {
            "data": "films.jsonl",
            "cluster": "feeling",
            "options": ["good", "bad"],
            "templates": {
                **TEMPLATES,
                "kept": {"prompt": "KEPT {{ text }}", "answer": "{{ label }}", "heldout": True},
            },
        },
        "books": {"data": "books.jsonl", "cluster": "feeling", "templates": TEMPLATES},
        "logic": {
            "data": "logic.jsonl",
            "cluster": "logic",
            "templates": {"only": {"prompt": "LOGIC {{ text }}", "answer": "{{ label }}."}},
        },
    },
}


def full(folder: Path, **more: Any) -> str:
    """A mixture with everything in it."""
    return mixture(
        folder,
        {**FULL, **more},
        films=films(60),
        books=films(50, "book"),
        logic=films(20, "logic"),
    )


def test_nothing_held_out_is_trained_or_shown(tmp_path: Path) -> None:
    path = full(tmp_path)
    corpus, ledger = load(path, options=DataOptions(heldout=0.2))
    suite = load_suite(path)
    families = Counter(item.family for item in suite)
    assert set(families) == {
        "held-out cluster logic: logic",
        "held-out templates: films",
        "trained templates: books",
        "trained templates: films",
    }
    assert families["held-out cluster logic: logic"] == 20
    assert families["held-out templates: films"] == families["trained templates: films"] > 5
    assert ledger.rows_heldout == len(corpus.heldout) > 5
    tested = {row["text"] for row in (*films(60), *films(50, "book"), *films(20, "logic"))
              if any(f"{row['text']}" in item.prompt for item in suite)}  # fmt: skip
    heldout = {e.drawn.row.columns["text"] for e in corpus.heldout if e.drawn}
    trained = {e.drawn.row.columns["text"] for e in corpus.train if e.drawn}
    shown = {
        row.columns["text"]
        for example in (*corpus.train, *corpus.heldout)
        if example.drawn
        for row in example.drawn.exemplars
    }
    assert not tested & (trained | heldout)
    assert not heldout & trained
    assert shown
    assert shown <= trained
    everything = "\n".join(m["content"] for e in corpus.train for m in e.messages)
    assert "KEPT" not in everything
    assert "LOGIC" not in everything
    assert all(
        row.source.name == example.drawn.row.source.name
        and row is not example.drawn.row
        and row.group != example.drawn.row.group
        for example in corpus.train
        if example.drawn
        for row in example.drawn.exemplars
    )
    assert ledger.rows_dropped["in a held-out cluster"] == 20
    kept = ledger.rows_dropped["kept for the mixture's tests"]
    assert kept == families["trained templates: films"] + families["trained templates: books"]


def test_groups_are_whole_on_every_side(tmp_path: Path) -> None:
    rows = [{**row, "film": f"f{at // 5}"} for at, row in enumerate(films(60))]
    source = {"data": "films.jsonl", "templates": TEMPLATES, "group_by": "film", "test": 0.3}
    content = {"sources": {"films": source}, "shares": {"few_shot": 1}, "exemplars": 2}
    path = mixture(tmp_path, content, films=rows)
    corpus, ledger = load(path, options=DataOptions(heldout=0.3))
    of = {row["text"]: row["film"] for row in rows}
    trained = {of[e.drawn.row.columns["text"]] for e in corpus.train if e.drawn}
    heldout = {of[e.drawn.row.columns["text"]] for e in corpus.heldout if e.drawn}
    assert not trained & heldout
    assert ledger.rows_dropped["kept for the mixture's tests"] % 5 == 0
    assert len(corpus.train) % 5 == 0
    for example in (*corpus.train, *corpus.heldout):
        assert example.drawn is not None
        own = of[example.drawn.row.columns["text"]]
        assert own not in [of[row.columns["text"]] for row in example.drawn.exemplars]


def test_a_prompt_of_the_tests_is_not_trained_in_another_source(tmp_path: Path) -> None:
    """The held-out cluster's rows stand in a trained source as well, under the same words."""
    sources = {
        "all": {
            "data": "all.jsonl",
            "templates": {"a": {"prompt": "Q: {{ text }}", "answer": "x"}},
        },
        "logic": {
            "data": "logic.jsonl",
            "templates": {"b": {"prompt": "q: {{ text }} ", "answer": "{{ label }}"}},
        },
    }
    content = {"sources": sources, "heldout_clusters": ["logic"]}
    path = mixture(tmp_path, content, all=films(9) + films(7, "logic"), logic=films(7, "logic"))
    corpus, ledger = load(path)
    assert sorted(prompts(corpus)) == [f"Q: {row['text']}" for row in films(9)]
    assert ledger.rows_dropped["also asked in the mixture's tests"] == 7


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows_whatever_else_changes(tmp_path: Path) -> None:
    """Over hash seeds, the order of keys, and where the files lie."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    path = full(here)
    turned = {
        name: dict(reversed(value.items())) if isinstance(value, dict) else value
        for name, value in reversed(FULL.items())
    }
    turned["sources"]["films"] = dict(reversed(turned["sources"]["films"].items()))
    turned["sources"]["films"]["templates"] = dict(
        reversed(turned["sources"]["films"]["templates"].items())
    )
    other = full(there, **turned)
    (there / "mixture.yaml").write_text(yaml.safe_dump(turned, sort_keys=False))
    script = (
        "import sys; from tuning.data.corpus import load_corpus; "
        "from tuning.data.ledger import Ledger; from tuning.config import DataOptions; "
        "c = load_corpus((sys.argv[1],), DataOptions(heldout=0.1), 7, Ledger()); "
        "print(c.sha256, [e.messages for e in c.heldout], c.order)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, place],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for place, seed in ((path, "1"), (path, "2"), (other, "3"))
    }
    assert len(found) == 1
    assert load(path, 7)[0].sha256 != load(path, 8)[0].sha256


@pytest.mark.parametrize(
    "change",
    [
        {"exemplars": 3},
        {"shares": {"zero_shot": 0.5, "few_shot": 0.5}},
        {"cap": 39},
        {"test": 0.31},
        {"seed": 1},
    ],
)
def test_the_fingerprint_covers_the_drawing(tmp_path: Path, change: dict[str, Any]) -> None:
    before = load(full(tmp_path))[0]
    after = load(full(tmp_path, **change))[0]
    assert before.sha256 != after.sha256
    assert before.sources != after.sources
    assert set(before.sources) == set(after.sources)
    assert len(before.sources) == 4


def test_the_fingerprint_covers_templates(tmp_path: Path) -> None:
    before = load(one_source(tmp_path, 20))[0]
    changed = {**TEMPLATES, "ask": {**TEMPLATES["ask"], "prompt": "Bad or good? {{ text }}"}}
    assert load(one_source(tmp_path, 20, templates=changed))[0].sha256 != before.sha256


def test_rows_without_templates_are_read_by_their_format(tmp_path: Path) -> None:
    """Rows that are instructions already, in two formats; a row of several turns has no place."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    sources = {
        "chat": {"data": "chat.jsonl"},
        "flan": {"data": "flan.jsonl", "where": {"lang": ["en", "fr"]}},
    }
    flan = [
        {"inputs": f"in {at}", "targets": "out", "lang": "en" if at else "de"} for at in range(4)
    ]
    path = mixture(
        tmp_path,
        {"sources": sources},
        chat=[{"messages": turns}, {"messages": turns * 2}],
        flan=flan,
    )
    corpus, ledger = load(path)
    assert prompts(corpus) == ["a", "in 1", "in 2", "in 3"]
    assert ledger.rows_dropped == {"in no source of the mixture": 1}
    (bad,) = ledger.bad_rows
    assert (bad.line, bad.field) == (2, "messages")
    assert "more than one prompt" in bad.reason


@pytest.mark.slow
def test_the_starter_takes_part_with_its_own_tests(tmp_path: Path) -> None:
    sources = {
        "plural": {"data": "starter", "where": {"family": "plural"}},
        "capital": {
            "data": "starter",
            "where": {"family": "capital"},
            "templates": {
                "ask": {"prompt": "{{ prompt }}", "answer": "{{ response }}"},
                "turn": {
                    "prompt": "What was asked? {{ response }}",
                    "answer": "{{ prompt }}",
                    "turned": True,
                },
            },
        },
        "sentiment": {"data": "starter", "where": {"family": "sentiment"}},
    }
    content = {"sources": sources, "heldout_clusters": ["sentiment"], "cap": 50}
    path = mixture(tmp_path, content)
    corpus, _ = load(path)
    assert len(corpus.train) == 100
    starter = load_corpus(("starter",), DataOptions(heldout=0), 0, Ledger())
    texts = {example.messages[0]["content"] for example in starter.train}
    plain = {
        e.messages[0]["content"] for e in corpus.train if e.drawn and not e.drawn.template.turned
    }
    assert plain <= texts
    assert sum(text.startswith("What was asked? ") for text in prompts(corpus)) == 25
    suite = load_suite(path)
    wanted = {item.prompt: item.check for item in load_suite("starter")}
    for item in suite:
        if "capital" not in item.family:
            assert item.check == wanted[item.prompt]
    assert Counter(item.family for item in suite) == {
        "trained templates: plural": 48,
        "trained templates: capital": 48,
        "held-out cluster sentiment: sentiment": 48,
    }


def test_checks_of_templates_are_rendered(tmp_path: Path) -> None:
    check = {"kind": "fact", "answers": ["{{ label }}"], "wrong": ["nothing"]}
    templates = {"ask": {**TEMPLATES["ask"], "check": check}}
    path = one_source(tmp_path, 20, templates=templates, test=0.5)
    labels = {row["text"]: row["label"] for row in films(20)}
    items = load_suite(path)
    assert items
    for item in items:
        label = labels[item.prompt.removeprefix("Good or bad? ")]
        expected = {"kind": "fact", "answers": [label], "wrong": ["nothing"]}
        assert item.check == parse_check(expected)
    wrong = {"ask": {**TEMPLATES["ask"], "check": {"kind": "fcat"}}}
    with pytest.raises(SuiteError, match="unknown check kind 'fcat'"):
        load_suite(one_source(tmp_path, 20, templates=wrong, test=0.5))
    with pytest.raises(SuiteError, match="keeps nothing for tests"):
        load_suite(one_source(tmp_path, 20))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"templates": {"t": {"prompt": "{{ txet }}", "answer": "b"}}},
         r"mixture\.yaml:\d+: sources\.films\.templates\.t\.prompt: no row of .* has the column "
         r"'txet'; there are id, label, text"),
        ({"templates": {"t": {"prompt": "{% if 0 %}x{% endif %}", "answer": "b"}}},
         r"mixture\.yaml:\d+: .*t\.prompt: fits no row of .*: renders empty"),
        ({"options": ["fine", "dull"], "shares": {"options": 1}},
         r"mixture\.yaml:\d+: sources\.films\.options: fits no row .*do not hold the answer"),
        ({"options_column": "text", "options": None, "shares": {"options": 1}},
         r"fits no row .*no list of options"),
        ({"options_column": "choices", "options": None}, r"no row has a column 'choices'"),
        (
            {"where": {"lable": "good"}},
            r"sources\.films\.where: no row has a column 'lable'; there are id, label, text",
        ),
        ({"where": {"label": "en"}}, r"sources\.films\.data: .* holds no row for this source"),
        ({"group_by": "film"}, r"holds no row for this source \(.*:1: film: column of group_by is"),
        ({"shares": {"few_shot": 1}, "exemplars": 20}, r"20 exemplars are asked .* has 19 other"),
        ({"data": "absent.jsonl"}, r"data 'absent.jsonl': no such file or folder"),
    ],
)  # fmt: skip
def test_what_no_row_can_do_stops_the_run(
    tmp_path: Path, more: dict[str, Any], message: str
) -> None:
    source = {"data": "films.jsonl", "options": ["good", "bad"], "templates": TEMPLATES, **more}
    source = {key: value for key, value in source.items() if value is not None}
    path = mixture(tmp_path, {"sources": {"films": source}}, films=films(20))
    with pytest.raises(DataError, match=message):
        load(path)


def test_a_setting_about_columns_that_a_mixture_reads_says_where_they_are_set(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=r"drop: 'id' is for sources .* in the mixture's YAML"):
        load(one_source(tmp_path, 12), options=DataOptions(heldout=0, drop=("id",)))


def test_settings_about_columns_are_refused(tmp_path: Path) -> None:
    path = one_source(tmp_path, 9)
    for options in (
        DataOptions(format="alpaca"),
        DataOptions(columns={"prompt": "text", "response": "label"}),
        DataOptions(group_by="id"),
    ):
        with pytest.raises(
            DataError, match=r"data_options\.(format|columns|group_by): .* no mixture"
        ):
            load(path, options=options)


def test_a_mixture_stands_beside_other_data(tmp_path: Path) -> None:
    """With a weight of its own, and apart from rows that are held out by a file."""
    own = [{"prompt": f"say {at}", "response": "x"} for at in range(5)]
    other = write_rows(tmp_path / "own.jsonl", own)
    asked = f"{films(9)[3]['text']} So it was!"
    heldout = write_rows(tmp_path / "heldout.jsonl", [{"prompt": asked, "response": "x"}])
    templates = {"rate": TEMPLATES["rate"]}
    path = one_source(tmp_path, 9, templates=templates, shares={"few_shot": 1}, exemplars=1)
    ledger = Ledger()
    options = DataOptions(weights=(2, 1), heldout_file=str(heldout))
    corpus = load_corpus((path, str(other)), options, 0, ledger)
    ledger.check()
    assert len(corpus.train) == 8 + 5
    assert corpus.order == (*range(8), *range(8), *range(8, 13))
    assert ledger.rows_dropped == {"also in the held-out set": 1}
    assert [example.drawn is None for example in corpus.train] == [False] * 8 + [True] * 5
    assert films(9)[3]["text"] not in "\n".join(prompts(corpus))


def test_rows_that_a_template_does_not_fit_are_counted(tmp_path: Path) -> None:
    rows = [*films(10), {"id": "a", "text": "no label"}, {"id": "b", "text": "", "label": "good"}]
    source = {"data": "films.jsonl", "templates": TEMPLATES}
    path = mixture(tmp_path, {"sources": {"films": source}}, films=rows)
    corpus, ledger = load(path)
    assert len(corpus.train) == 10
    assert [(bad.line, bad.field.rpartition("templates.")[2]) for bad in ledger.bad_rows] == [
        (11, "ask.answer"),
        (12, "write.answer"),
    ]
    with pytest.raises(DataError, match=r"films\.jsonl:11: .*column 'label' is not in the row"):
        load(path, options=DataOptions(heldout=0, strict=True))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
NAMES = st.sampled_from(["text", "label", "id", "choices", "film"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.dictionaries(NAMES, VALUES), min_size=1, max_size=6), seed=st.integers(0, 9)
)
def test_any_rows_are_drawn_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], seed: int
) -> None:
    """Never anything but a corpus whose rows add up, a suite, or an error for a person."""
    check = {"kind": "exact", "answers": ["{{ label }}", "{{ film }}"]}
    templates = {**TEMPLATES, "kept": {**TEMPLATES["ask"], "heldout": True, "check": check}}
    source = {
        "data": "films.jsonl",
        "templates": templates,
        "options_column": "choices",
        "group_by": "film",
        "shares": {"few_shot_options": 0.5, "options": 0.5},
        "exemplars": 1,
        "test": 0.3,
        "seed": seed,
    }
    content = {"seed": source.pop("seed"), "sources": {"films": source}}
    good = [{**row, "film": row["id"], "choices": ["good", "bad"]} for row in films(seed + 5)]
    path = mixture(tmp_path_factory.mktemp("m"), content, films=[*good, *rows])
    with suppress(TuningError):
        load(path, seed, DataOptions(heldout=0.3))
    with suppress(TuningError):
        load_suite(path)


def test_a_text_that_is_no_unicode_is_a_bad_row(tmp_path: Path) -> None:
    rows = [*films(9), {"id": "x", "text": "\ud800", "label": "good"}]
    source = {"data": "films.jsonl", "templates": TEMPLATES, "test": 0.3}
    _, ledger = load(mixture(tmp_path, {"sources": {"films": source}}, films=rows))
    (bad,) = ledger.bad_rows
    assert (bad.line, bad.reason) == (10, "text cannot be encoded as UTF-8 (lone surrogate)")


def test_a_check_that_a_row_cannot_fill_is_named(tmp_path: Path) -> None:
    check = {"kind": "exact", "answers": ["{{ lable }}"]}
    templates = {"ask": {**TEMPLATES["ask"], "check": check}}
    path = one_source(tmp_path, 20, templates=templates, test=0.5)
    with pytest.raises(DataError, match=r"the check of template 'ask' of .* column 'lable' is not"):
        load_suite(path)


@pytest.mark.slow
def test_preview_ledger_and_variant_show_what_made_each_row(
    tiny_base: Path, tmp_path: Path
) -> None:
    path = full(tmp_path)
    config = TuningConfig(
        base=str(tiny_base),
        data=(path,),
        name="v",
        home=tmp_path,
        data_options=DataOptions(heldout=0.1, max_cut_share=1),
        training=TrainingOptions(max_steps=1, batch_size=4),
    )
    prepared = prepare(config)
    shown = io.StringIO()
    show_preview(prepared, 3, Console(file=shown, width=200))
    first = prepared.corpus.train[prepared.rows[0].example].drawn
    assert first is not None
    assert f"{first.row.source.name}: template {first.template.name!r}" in shown.getvalue()
    assert "mixture: books " in shown.getvalue()
    assert "in a held-out cluster" in shown.getvalue()

    variant = tune(config)
    counted: Counter[str] = Counter()
    for line in (variant.folder / "mixture_rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert len(row["exemplars"]) == (2 if "few_shot" in row["kind"] else 0)
        assert row["turned"] == (row["template"] == "write")
        counted[f"{row['source']}: {row['template']} {row['kind']}"] += 1
    stored = read_variant(variant.folder).run["ledger"]
    assert counted == {
        f"{source}: {what}": count
        for source, made_ in stored["mixture"].items()
        for what, count in made_.items()
    }
    assert counted.total() == stored["rows"]["trained"]
    sha = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert read_variant(variant.folder).run["sources"][path] == sha
