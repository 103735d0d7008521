"""Settings from YAML and the command line: types, precedence, and unknown keys refused."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tuning
import tuning.config
from tuning.config import ConfigError, LoraOptions, TrainingOptions, TuningConfig
from tuning.config_files import STARTER_DEFAULTS, load_config, parse_assignment, setting_keys

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
        ({"rank": "x"}, "lora.rank: 'x' is no whole number"),
        ({"rank": "1.5"}, "lora.rank: '1.5' is no whole number"),
        ({"rank": "0"}, "lora.rank: 0 is too small"),
        ({"learning_rate": "-1"}, "learning_rate: -1.0 is too small"),
        ({"learning_rate": "nan"}, "learning_rate: nan is too small"),
        ({"packing": "perhaps"}, "training.packing: 'perhaps' is no true or false"),
        ({"dropout": "1.5"}, "lora.dropout: 1.5 is no share"),
        ({"name": "../x"}, "cannot be a folder name"),
        ({"name": ".hidden"}, "cannot be a folder name"),
        ({"base": ""}, "base: is not set"),
        ({"method": "prefix", "packing": "true"}, "rows packed behind virtual tokens"),
        ({"method": "prompt", "packing": "true"}, "rows packed behind virtual tokens"),
        ({"weights": "1,2"}, "does not fit 1 data source"),
        ({"columns": "x"}, "data_options.columns: 'x' is no map"),
    ],
)
def test_mistakes_are_named_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, {**NEEDED, **settings})
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


def test_every_setting_is_explained_where_it_is_written() -> None:
    """A string follows each field of each settings class, for editors and `help`."""
    tree = ast.parse(inspect.getsource(tuning.config))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    assert len(classes) == 6
    for found in classes:
        assert ast.get_docstring(found), found.name
        for item, following in pairwise([*found.body, ast.Pass()]):
            if isinstance(item, ast.AnnAssign):
                said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert said, f"{found.name}: {ast.unparse(item.target)}"


@pytest.mark.parametrize("name", tuning.__all__)
def test_the_python_interface_is_explained(name: str) -> None:
    assert inspect.getdoc(getattr(tuning, name))
    assert set(inspect.signature(tuning.tune).parameters) == {"config", "console", "replayed"}
    for parameter in ("config", "console", "replayed"):
        assert parameter in (tuning.tune.__doc__ or "")
