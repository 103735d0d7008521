"""Each kind of bad data, through `tune`: an error in one line that says where, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tuning_fixtures import rows, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.config import ConfigError, DataOptions, LoraOptions, TrainingOptions
from tuning.config_files import load_config, refuse_without_use

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
USER, ANSWER = rows(1)[0]["messages"]
LONG = 10 * 2**20


def config_for(base: Path, data: Path, home: Path, **changes: Any) -> TuningConfig:
    """One step of LoRA."""
    settings: dict[str, Any] = {"training": TrainingOptions(max_steps=1, batch_size=8), **changes}
    return TuningConfig(base=str(base), data=(str(data),), name="v", home=home, **settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"ask": "a", "reply": "b"}], r":1: columns ask, reply fit no known format .*alpaca"),
        ([], "file is empty"),
        ([{"messages": []}], r"rows\.jsonl:1: messages: is empty"),
        ([{"messages": [USER]}], r"rows\.jsonl:1: messages: no assistant turn \(roles: user\)"),
        ([{"messages": [{"role": "system", "content": "x"}]}], r"no assistant turn \(roles: syst"),
        ([{"messages": [USER, {**ANSWER, "content": "x" * LONG}]}], r"jsonl:1: .* 10,000,000 char"),
        ([{"prompt": "a", "completion": "b"}, *rows(1)], r"jsonl:2: row is of format messages"),
    ],
    ids=["columns", "empty", "no messages", "no assistant", "only system", "10 MB", "mixed"],
)
def test_data_that_cannot_be_used(
    tiny_base: Path, tmp_path: Path, content: list[dict[str, Any]], message: str
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", content)
    with pytest.raises(TuningError, match=message) as caught:
        tune(config_for(tiny_base, data, tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.slow
def test_a_row_of_ten_megabytes_among_others_is_left_out(tiny_base: Path, tmp_path: Path) -> None:
    long = {"messages": [USER, {**ANSWER, "content": "x" * LONG}]}
    data = write_rows(tmp_path / "rows.jsonl", [*rows(24), long])
    made = tune(config_for(tiny_base, data, tmp_path, data_options=DataOptions(heldout=0)))
    assert made.run["ledger"]["rows"]["trained"] == 24
    (line,) = (made.folder / "bad_rows.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 25
    with pytest.raises(TuningError, match=r"rows\.jsonl:25: .*mend the row, or leave --strict out"):
        tune(
            config_for(
                tiny_base, data, tmp_path, overwrite=True, data_options=DataOptions(strict=True)
            )
        )


SETTINGS_WITHOUT_USE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"method": "ia3", "lora.target_modules": "nope"}, "lora.target_modules: .*method lora"),
    ({"method": "full", "lora.rank": 4}, "lora.rank: 4 does nothing with method 'full'"),
    ({"method": "lora", "prefix.virtual_tokens": 8}, "prefix.virtual_tokens: 8 does nothing"),
    ({"method": "prefix", "preference.beta": 0.3}, "preference.beta: 0.3 does nothing"),
)


@pytest.mark.parametrize(("settings", "told"), SETTINGS_WITHOUT_USE)
def test_a_setting_of_another_method_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        refuse_without_use(load_config(None, {"base": "b", "data": "d", "name": "n", **settings}))


def test_an_unknown_target_module_lists_those_there_are(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    lora = LoraOptions(target_modules=("q_proj", "query"))
    with pytest.raises(TuningError) as caught:
        tune(config_for(tiny_base, tiny_data, tmp_path, lora=lora))
    assert str(caught.value) == (
        "lora.target_modules: unknown module 'query'; the model has down_proj, gate_proj, k_proj, "
        "o_proj, q_proj, up_proj, v_proj, or use all-linear"
    )
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": 1e-300}, r"data_options\.weights: \(1e-300,\) leave no row in an epoch"),
        ({"heldout": 1}, "no row is left to train on"),
        ({"learning_rate": 1e300}, "loss is nan at step 2"),
        ({"alpha": 1e308}, "loss is nan at step 1"),
    ],
)
def test_settings_that_are_good_alone_and_leave_nothing_to_train(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    needed = {"base": str(tiny_base), "data": [str(tiny_data)], "name": "v", "home": str(tmp_path)}
    with pytest.raises(TuningError, match=message) as caught:
        tune(load_config(None, {**needed, "max_steps": 2, "samples": 0, **settings}))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("method", ["full", "lora", "prefix"])
def test_a_last_step_that_leaves_no_numbers_is_not_saved(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, method: str
) -> None:
    """No loss comes after it that could tell."""
    needed = {"base": str(tiny_base), "data": [str(tiny_data)], "name": "v", "home": str(tmp_path)}
    rate = {"max_steps": 1, "samples": 0, "heldout": 0, "learning_rate": 1e300}
    size = {"virtual_tokens": 3} if method == "prefix" else {}
    with pytest.raises(
        TuningError, match=r"step 1 left \S+ NaN or infinite; lower training"
    ) as told:
        tune(load_config(None, {**needed, **rate, "method": method, **size}))
    assert "\n" not in str(told.value)
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("name", ["all-linear", "q_proj"])
def test_a_target_that_is_named_twice_is_refused(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(TuningError, match=f"{name}, {name} names a layer twice; give each name"):
        tune(
            config_for(tiny_base, tiny_data, tmp_path, lora=LoraOptions(target_modules=(name,) * 2))
        )


@pytest.mark.parametrize(
    "targets",
    [("all-linear", "q_proj"), ("q_proj", "all-linear"), ("all-linear", "q_proj", "nope")],
)
def test_names_beside_all_linear_are_refused(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    with pytest.raises(TuningError, match=r"all-linear already takes every .* q_proj.* give all-l"):
        tune(config_for(tiny_base, tiny_data, tmp_path, lora=LoraOptions(target_modules=targets)))
    assert list((tmp_path / "models").iterdir()) == []
