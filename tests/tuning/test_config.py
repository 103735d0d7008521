"""Settings from YAML and the command line: types, precedence, and unknown keys refused."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import tuning
import tuning.config
from tuning.config import ConfigError, DataOptions, LoraOptions, TrainingOptions, TuningConfig
from tuning.config_files import (
    STARTER_DEFAULTS,
    add_assignments,
    load_config,
    parse_assignment,
    setting_keys,
)

NEEDED = {"base": "b", "data": "d.jsonl", "name": "n"}


def test_yaml_and_settings_set_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "base: b\ndata: [x.jsonl, y.jsonl]\nname: n\nmethod: lora\n"
        "training:\n  learning_rate: 1e-3\n  epochs: 2\nlora: {rank: 8, target_modules: [q_proj]}\n"
    )
    config = load_config(path, {"rank": "4", "training.packing": "true", "max_steps": "7"})
    assert config.data == ("x.jsonl", "y.jsonl")
    assert config.lora == LoraOptions(rank=4, target_modules=("q_proj",))
    expected = TrainingOptions(learning_rate=1e-3, epochs=2.0, packing=True, max_steps=7)
    assert config.training == expected


def test_every_key_survives_a_round_trip() -> None:
    config = load_config(None, {**NEEDED, "lora.dropout": "0.1", "data_options.columns": None})
    flat = config.to_json()
    sections = {key: value for key, value in flat.items() if isinstance(value, dict)}
    values = {key: value for key, value in flat.items() if key not in sections}
    for section, content in sections.items():
        values.update({f"{section}.{key}": value for key, value in content.items()})
    assert set(values) == set(setting_keys())
    assert load_config(None, values) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": "1"}, "learning_rat: unknown setting; did you mean 'learning_rate'?"),
        ({"lora.rnk": "1"}, "did you mean 'lora.rank'"),
        ({"method": "lorra"}, "unknown value 'lorra'; did you mean 'lora'"),
        ({"schedule": "cos"}, "training.schedule: unknown value 'cos'"),
        ({"rank": "x"}, "lora.rank: must be a whole number, got 'x'"),
        ({"rank": "1.5"}, "lora.rank: must be a whole number, got '1.5'"),
        ({"rank": "0"}, "lora.rank: 0 is too small"),
        ({"learning_rate": "-1"}, "training.learning_rate: -1 is too small; give at least 1e-12"),
        (
            {"learning_rate": "nan"},
            "training.learning_rate: nan is not finite",
        ),
        ({"max_steps": "inf"}, "training.max_steps: must be a whole number, got 'inf'"),
        ({"max_steps": float("inf")}, "training.max_steps: inf is not finite"),
        ({"max_steps": 2**40}, "training.max_steps: 1099511627776 is too large"),
        ({"epochs": "inf"}, "training.epochs: inf is not finite"),
        ({"neftune": "1e9"}, "training.neftune: 1e9 is too large; give at most 1000"),
        ({"neftune": "-5"}, "training.neftune: -5 is too small; give at least 0"),
        ({"weights": "nan"}, "data_options.weights: nan is not finite"),
        ({"weights": "-1"}, "data_options.weights: -1 is too small; give more than 0"),
        ({"seed": str(2**64)}, "seed: 18446744073709551616 is too large; give at most 4294967295"),
        ({"seed": "9" * 5000}, "seed: must be a whole number, got '9999"),
        ({"seed": 10**5000}, "seed: a number of thousands of digits is too large"),
        ({"seed": "010"}, "seed: '010' begins with a zero; write the number without it"),
        ({"seed": True}, "seed: must be a whole number, got True"),
        ({"alpha": "0"}, "lora.alpha: 0 is too small; give more than 0"),
        ({"alpha": "-inf"}, "lora.alpha: -inf is not finite"),
        ({"max_minutes": "1e999"}, "training.max_minutes: 1e999 is not finite"),
        ({"epochs": None}, "training.epochs: must be a number, got nothing"),
        ({"epochs": [3]}, "training.epochs: must be a number, got [3]"),
        ({"name": ["n"]}, "name: must be text, got ['n']"),
        ({"base": "a\0b"}, "is no text of UTF-8 without zero bytes"),
        ({"data": ["ok", "\udcff"]}, "data: '\\udcff' is no text of UTF-8"),
        ({"data": ["ok", ""]}, "data: '' is empty; give a text"),
        ({"target_modules": ""}, "lora.target_modules: () is empty; give some"),
        ({"rank": 4, "lora.rank": 4}, "lora.rank: is set twice, once as 'lora.rank'"),
        ({"rank\nx": 4}, "'rank\\nx': unknown setting"),
        ({"packing": "perhaps"}, "training.packing: must be true or false, got 'perhaps'"),
        ({"dropout": "1.5"}, "lora.dropout: 1.5 is no share"),
        ({"dropout": 1}, "lora.dropout: 1 is too large; give less than 1"),
        ({"name": "../x"}, "cannot be a folder name"),
        ({"name": ".hidden"}, "cannot be a folder name"),
        ({"base": ""}, "base: is not set"),
        ({"method": "prefix", "packing": "true"}, "rows packed behind virtual tokens"),
        ({"method": "prompt", "packing": "true"}, "rows packed behind virtual tokens"),
        ({"weights": "1,2"}, "does not fit 1 data source"),
        ({"columns": "x"}, "data_options.columns: must be a map, got 'x'"),
    ],
)
def test_mistakes_are_named_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**NEEDED, **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_mistake_of_python_callers_is_named_too() -> None:
    changes: list[dict[str, Any]] = [
        {"training": TrainingOptions(epochs=float("nan"))},
        {"training": None},
        {"training": LoraOptions()},
        {"lora": LoraOptions(rank=10**30)},
        {"seed": -1},
        {"name": 5},
        {"data": ()},
        {"home": "a\0"},
        {"data_options": DataOptions(columns={"prompt": 3})},  # type: ignore[dict-item]
    ]
    for change in changes:
        with pytest.raises(ConfigError):
            TuningConfig(**{"base": "b", "data": ("d",), "name": "n", **change})
    made = TuningConfig(base="b", data=("d",), name="n", lora=LoraOptions(rank=np.int64(4)))  # type: ignore[arg-type]
    assert json.loads(json.dumps(made.to_json()))["lora"]["rank"] == 4


# Values of every type a caller, a command line or a YAML file can give.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**32, 2**63, -(2**64), 10**400]),
    st.floats(),
    st.decimals(),
    st.fractions(),
    st.complex_numbers(),
    st.dates(),
    st.binary(max_size=8),
    st.text(max_size=12),
    st.text(alphabet="0123456789.eE+-_ ,:infa", max_size=8),
    st.sampled_from(["inf", "nan", "none", "yes", "off", "1e400", "all-linear", "\udcff", "a\0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), inner, max_size=3),
        st.frozensets(st.text(max_size=4) | st.integers(), max_size=3),
    ),
    max_leaves=6,
)


def assert_good_or_named(make: Callable[[], TuningConfig]) -> None:
    """A config whose record is JSON and gives the same config again, or one sentence."""
    try:
        config = make()
    except ConfigError as error:
        said = str(error)
    else:
        assert_record_gives(config)
        return
    assert "\n" not in said
    assert said.encode()
    assert len(said) < 2000


def assert_record_gives(config: TuningConfig) -> None:
    """What `variant.json` would say of the run is JSON and gives the same config again."""
    record = json.loads(json.dumps(config.to_json(), allow_nan=False))
    record["data"] = tuple(record["data"])
    sections = {key: value for key, value in record.items() if isinstance(value, dict)}
    flat = {key: value for key, value in record.items() if key not in sections}
    for section, content in sections.items():
        flat.update({f"{section}.{key}": value for key, value in content.items()})
    texts = {key for key, value in flat.items() if isinstance(value, str)}
    if not any(flat[key].lower() in ("none", "null") for key in texts):
        assert load_config(None, flat) == config
    assert config.folder.parent == config.home / "models"


@pytest.mark.slow
@given(st.sampled_from(sorted(setting_keys())), VALUES)
@settings(max_examples=150, deadline=None)
def test_any_value_at_any_setting_is_taken_or_named(key: str, value: Any) -> None:
    assert_good_or_named(lambda: load_config(None, {**NEEDED, key: value}))
    section, _, name = key.rpartition(".")
    if section:
        owner = {item.name: item.default_factory for item in fields(TuningConfig)}[section]
        assert_good_or_named(
            lambda: TuningConfig("b", ("d",), "n", **{section: owner(**{name: value})})
        )  # type: ignore[misc, operator]
    else:
        assert_good_or_named(lambda: TuningConfig(**{**NEEDED, key: value}))


@given(st.dictionaries(st.sampled_from([*setting_keys(), "lora", "training"]), VALUES, max_size=3))
@settings(max_examples=80, deadline=None)
def test_any_yaml_is_taken_or_named(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        try:
            path.write_text(yaml.safe_dump({**NEEDED, **content}), encoding="utf-8")
        except (yaml.YAMLError, ValueError):
            return
        assert_good_or_named(lambda: load_config(path))


@given(
    st.text(max_size=40)
    | st.binary(max_size=40)
    | st.text("{}[]:-#&*!|>%@'\"? \n\tab1.~<", max_size=30)
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_as_yaml_are_taken_or_named(content: str | bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        )
        assert_good_or_named(lambda: load_config(path, NEEDED))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training:\n", {}),
        ("training: {}\nlora:\n  # rank: 4\n", {}),
        ("training: ~\n", {}),
        ("data: 'a,b.jsonl'\n", {"data": ("a,b.jsonl",)}),
        ("data: [a, 'b,c']\n", {"data": ("a", "b,c")}),
        ("name: no\n", {"name": "no"}),
        ("name: 010\n", {"name": "010"}),
        ("name: 2024-01-01\n", {"name": "2024-01-01"}),
        ("training: {packing: yes, lean: off}\n", {"packing": True, "lean": False}),
        ("training: {packing: on, lean: No}\n", {"packing": True, "lean": False}),
        ("training: {max_steps: 1e3, learning_rate: 1e-3}\n", {"max_steps": 1000}),
        ("training: {max_steps: null}\n", {"max_steps": None}),
        ("training: {max_steps: }\n", {"max_steps": None}),
        ("training: &t {epochs: 2}\n", {"epochs": 2.0}),
        (
            "training: {<<: {epochs: 2, batch_size: 4}, epochs: 5}\n",
            {"epochs": 5.0, "batch_size": 4},
        ),
        (
            "data_options: {columns: {prompt: no, response: 1}}\n",
            {"columns": {"prompt": "no", "response": "1"}},
        ),
    ],
)
def test_yaml_says_what_it_says(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    needed = {key: value for key, value in NEEDED.items() if f"{key}:" not in text}
    config = load_config(path, needed)
    for key, value in expected.items():
        owners = (config, config.training, config.data_options)
        assert [getattr(owner, key) for owner in owners if hasattr(owner, key)] == [value]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig: {epochs: 1}", "'trainig': unknown section; did you mean 'training'?"),
        ("training: 5", "training: '5' is no section"),
        ("training: [epochs]", "training: ['epochs'] is no section"),
        ("training: {epochs: }", "training.epochs: must be a number, got nothing"),
        ("training: {epochs: [3]}", "training.epochs: must be a number, got ['3']"),
        ("training: {epochs: {a: 1}}", "training.epochs: must be a number, got {'a': '1'}"),
        ("training: {epochs: 2024-01-01}", "training.epochs: must be a number, got '2024-01-01'"),
        ("training: {max_steps: 0o17}", "training.max_steps: must be a whole number, got '0o17'"),
        ("training: {max_steps: 0x1F}", "training.max_steps: must be a whole number, got '0x1F'"),
        ("training: {max_steps: 010}", "training.max_steps: '010' begins with a zero"),
        ("training: {max_steps: 1:30}", "training.max_steps: must be a whole number, got '1:30'"),
        ("training: {epochs: .inf}", "training.epochs: must be a number, got '.inf'"),
        ("seed: 1\nseed: 2", "no valid YAML (the key 'seed' stands twice in line 2, column 1"),
        ("training: {epochs: 1}\ntraining: {epochs: 2}", "the key 'training' stands twice"),
        ("rank: 1\nlora: {rank: 2}", "lora.rank: is set twice"),
        ("lora: {target_modules: []}", "lora.target_modules: [] is empty; give some"),
        ("data_options: {weights: '1,2'}", "data_options.weights: must be a number, got '1,2'"),
        ("data_options: {columns: 'a:b'}", "data_options.columns: must be a map, got 'a:b'"),
        ("seed: &a [*a]", "seed: must be a whole number, got [[[[...]]]]"),
        ("seed: !!python/object/apply:os.getcwd []", "no valid YAML"),
        ("seed: !!int 3", "no valid YAML"),
        ("? [a]\n: 1", "no valid YAML"),
        ("seed: " + "[" * 3000, "no valid YAML (lists or maps lie too deep in each other)"),
        ("a: 1\n---\nb: 2", "no valid YAML"),
    ],
)
def test_mistakes_in_yaml_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, NEEDED)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_map_goes_by_set_too() -> None:
    config = load_config(None, {**NEEDED, "columns": "prompt:ask,response:reply"})
    assert config.data_options.columns == {"prompt": "ask", "response": "reply"}


def test_bad_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="no valid YAML"):
        load_config(path, {})
    path.write_text("- a")
    with pytest.raises(ConfigError, match="holds no keys"):
        load_config(path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", {})


def test_starter_defaults_yield_to_what_is_given() -> None:
    given = {"base": "starter", "data": "starter", "name": "n", "method": "prefix"}
    default = load_config(None, given)
    assert default.training.max_minutes == STARTER_DEFAULTS["prefix"]["max_minutes"]
    assert load_config(None, {**given, "max_minutes": "0.5"}).training.max_minutes == 0.5
    assert load_config(None, NEEDED).training.max_minutes is None


def test_python_callers_get_the_same_checks() -> None:
    config = TuningConfig(base="b", data="one.jsonl", name="n", home="w")  # type: ignore[arg-type]
    assert config.data == ("one.jsonl",)
    assert config.folder == Path("w/models/n")
    with pytest.raises(ConfigError, match="unknown value 'sft'"):
        TuningConfig(base="b", data=("d",), name="n", method="sft")


def test_assignments() -> None:
    assert parse_assignment("lora.rank = 8") == ("lora.rank", "8")
    with pytest.raises(ConfigError, match="write it as key=value"):
        parse_assignment("lora.rank")


def test_lists_given_several_times_are_joined() -> None:
    texts = ["drop=mood", "data_options.drop=calm,sad", "columns=prompt:a", "columns=response:b"]
    config = load_config(None, add_assignments(NEEDED, texts))
    assert config.data_options.drop == ("mood", "calm", "sad")
    assert config.data_options.columns == {"prompt": "a", "response": "b"}


@pytest.mark.parametrize(
    ("flags", "texts", "message"),
    [
        ({}, ["max_steps=5", "max_steps=6"], "training.max_steps: is set twice, as '5' and as '6'"),
        ({}, ["rank=5", "lora.rank=5"], "lora.rank: is set twice, as '5' and as '5'"),
        ({"seed": 1}, ["seed=2"], "seed: is set twice, as 1 and as '2'"),
    ],
)
def test_one_value_given_twice_is_refused(
    flags: dict[str, Any], texts: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        add_assignments(flags, texts)


def test_every_setting_is_explained_where_it_is_written() -> None:
    """A string follows each field of each settings class, for editors and `help`."""
    tree = ast.parse(inspect.getsource(tuning.config))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    assert len(classes) == 8
    for found in classes:
        assert ast.get_docstring(found), found.name
        for item, following in pairwise([*found.body, ast.Pass()]):
            if isinstance(item, ast.AnnAssign):
                said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert said, f"{found.name}: {ast.unparse(item.target)}"


@pytest.mark.parametrize("name", tuning.__all__)
def test_the_python_interface_is_explained(name: str) -> None:
    assert inspect.getdoc(getattr(tuning, name))
    assert set(inspect.signature(tuning.tune).parameters) == {
        "config",
        "console",
        "replayed",
        "day",
    }
    for parameter in ("config", "console", "replayed"):
        assert parameter in (tuning.tune.__doc__ or "")
