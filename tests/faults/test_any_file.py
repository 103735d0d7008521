"""Whatever stands in arena.toml, a file to import or a prompt set: taken, or refused in a sentence.

No other error leaves the functions that read them, so none becomes a traceback or a status 500.
"""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from store_fixtures import Hand

from arena.backends.pool import BackendPool
from arena.battles.prompt_sets import SetError, add_set, load_set
from arena.commands.imports import import_any
from arena.config.arena_toml import ArenaConfigError, read_arena_config
from arena.exports.dataset import ExportOptions, export
from arena.imports.importer import ImportRefusedError
from arena.imports.readers import JUDGED, READERS
from arena.storage.store import Store
from arena.values.battle import SamplingSettings
from tuning.data.preferences.formats import PREFERENCE_FORMATS

OWN = [name for name in READERS if name != JUDGED]
FORMATS = [*OWN, *(form.name for form in PREFERENCE_FORMATS)]
quickly = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD = ["", " ", "\0", "\ud800", "\u2028", "a" * 5_000, "-0", "1e999", "../x", "<b>", "=1+1"]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from([0, -1, 1e300, 2**63, 10**30, 1e-320, *ODD])
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

# -- arena.toml ---------------------------------------------------------------------------------

toml_scalars = (
    st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["true", "1979-05-27", "07:32:00", "0x1F", "''", "'a'"])
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(json.dumps)
)
toml_values = st.recursive(
    toml_scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["a", "name", "b-c"]), inner, max_size=2).map(
            lambda table: f"{{{', '.join(f'{key} = {value}' for key, value in table.items())}}}"
        )
    ),
    max_leaves=5,
)
KEYS = {
    "[[participant]]": (
        *("name", "url", "model", "mode", "template", "system_prompt", "key_env", "temperature"),
        *("top_p", "top_k", "max_new_tokens", "seed", "stop", "best_of", "reward", "other"),
    ),
    "[drawing]": ("strategy", "weights", "required", "required_share", "other"),
    "[limits]": ("prompt_chars", "updates_per_second", "body_bytes", "other"),
    "": ("hidden", "participant", "drawing", "limits", "other"),
}
GOOD = {"name": "'x'", "url": "'http://h'", "strategy": "'uniform'", "prompt_chars": "9"}


@st.composite
def toml_texts(draw: st.DrawFn) -> str:
    """A file of tables that there are, with some values that fit."""
    lines = []
    for table in draw(st.lists(st.sampled_from(list(KEYS)), max_size=3).map(sorted)):
        lines.append(table)
        for key in draw(st.lists(st.sampled_from(KEYS[table]), max_size=4, unique=True)):
            fits = GOOD.get(key) if draw(st.booleans()) else None
            lines.append(f"{key} = {fits or draw(toml_values)}")
    return "\n".join(lines)


@quickly
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | toml_texts().map(str.encode))
@example(b"a = " + b"[" * 30_000)
@example(b"\xff\xfe")
@example(b"[drawing]\nweights = {a = 1" + b"0" * 400 + b"}")
@example(b"[limits]\nprompt_chars = 1" + b"0" * 5_000)
def test_any_arena_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "arena.toml"
    path.write_bytes(content)
    with contextlib.suppress(ArenaConfigError):
        found = read_arena_config(path)
        BackendPool((), SamplingSettings(), found)
        assert found.drawing.label


def test_places_that_are_no_file(tmp_path: Path) -> None:
    """A folder, a link to nothing."""
    (tmp_path / "arena.toml").mkdir()
    with pytest.raises(ArenaConfigError, match="cannot be read"):
        read_arena_config(tmp_path / "arena.toml")
    store = Store.at_home(tmp_path / "home")
    for kind in FORMATS:
        for path in (tmp_path / "none.jsonl", tmp_path / "arena.toml"):
            with pytest.raises(ImportRefusedError):
                import_any(store, path, kind)


# -- imports ------------------------------------------------------------------------------------


def turn(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A good row of each format that the arena reads itself, as its own exports write it."""
    home = tmp_path_factory.mktemp("rows")
    hand, found = Hand(Store.at_home(home)), {}
    hand.vote(texts=("It is 7.", "8"))
    for kind in OWN:
        export(hand.store, home / kind, ExportOptions(format=kind))
        (file,) = [*(home / kind).glob("battles.jsonl"), *(home / kind).glob("train.json*")]
        lines = file.read_text()
        row = json.loads(lines if file.suffix == ".json" else lines.splitlines()[0])
        found[kind] = row[0] if isinstance(row, list) else row
    messages = {"chosen": turn("hi", "good"), "rejected": turn("hi", "bad")}
    return {form.name: messages | {"prompt": "hi"} for form in PREFERENCE_FORMATS} | found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where anything stands in a row."""
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def changed(row: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The row with another value in one place."""
    if not path:
        return value
    row = copy.deepcopy(row)
    parent = row
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.at_home(tmp_path_factory.mktemp("home"))


@quickly
@given(st.data())
def test_any_row_to_import(
    store: Store, rows: dict[str, Any], tmp_path: Path, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(FORMATS))
    row = rows[kind]
    for _ in range(data.draw(st.integers(0, 2))):
        row = changed(row, data.draw(st.sampled_from(places(row))), data.draw(anything))
    ending = data.draw(st.sampled_from([".jsonl", ".json"]))
    path = tmp_path / f"rows{ending}"
    path.write_text(json.dumps([row] if ending == ".json" else row))
    with contextlib.suppress(ImportRefusedError):
        done = import_any(store, path, kind, skip_bad=data.draw(st.booleans()))
        assert done.num_new + done.num_known + done.left_out.total() == 1


@quickly
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([".jsonl", ".json", ".parquet", ".txt", ""]),
    st.binary(max_size=40) | st.sampled_from([b"PAR1" * 4, b"[" * 100_000, b"{}", b"[{}]", b"\n"]),
)
@example("lmsys", ".json", b"[" * 100_000)
@example("lmsys", ".jsonl", b"[" * 100_000)
@example("lmsys", ".json", b'[{"tstamp": 1' + b"0" * 5_000 + b"}]")
def test_any_bytes_to_import(
    store: Store, tmp_path: Path, kind: str, ending: str, content: bytes
) -> None:
    path = tmp_path / f"rows{ending}"
    path.write_bytes(content)
    with contextlib.suppress(ImportRefusedError):
        import_any(store, path, kind, skip_bad=True)


# -- prompt sets --------------------------------------------------------------------------------


@quickly
@given(
    st.sampled_from([".txt", ".jsonl"]),
    st.binary(max_size=60)
    | st.lists(anything.map(json.dumps), max_size=3).map("\n".join).map(str.encode),
)
@example(".jsonl", b"[" * 100_000)
@example(".jsonl", b'"\\ud800"')
@example(".txt", b"\xef\xbb\xbf\n")
def test_any_prompt_set(tmp_path: Path, ending: str, content: bytes) -> None:
    file = tmp_path / f"mine{ending}"
    file.write_bytes(content)
    with contextlib.suppress(SetError):
        added = add_set(tmp_path / "home", file, overwrite=True)
        assert load_set(tmp_path / "home", "mine") == added
        assert all(prompt.strip() for prompt in added.prompts)
