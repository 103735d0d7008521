"""What comes before the model: lengths that leave room for rows, and texts of any characters."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tuning_fixtures import make_base, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.commands.preview import show_preview
from tuning.config import CheckOptions, DataOptions, PrefixOptions, TrainingOptions
from tuning.training.inputs import pick_max_length, prepare
from tuning.variant.plots import read_history

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
# What str.splitlines takes for the end of a line, and what a terminal would obey.
INSIDE = "one\u2028two\u2029three\u0085four"


def config_for(base: Path, data: Path, home: Path, **changes: Any) -> TuningConfig:
    """A run of two steps of LoRA, unless changed."""
    settings: dict[str, Any] = {
        "base": str(base),
        "data": (str(data),),
        "name": "v",
        "home": home,
        "training": TrainingOptions(max_steps=2, batch_size=4, precision="fp32"),
        **changes,
    }
    return TuningConfig(**settings)


@pytest.mark.parametrize(
    ("method", "virtual", "asked", "message"),
    [
        ("prefix", 344, None, "344 leave 0 of the 256 positions of the base for a row; give at m"),
        ("prompt", 256, None, "256 leave 0 of the 256 positions of the base for a row; give at m"),
        ("prefix", 250, None, "250 leave 6 of the 256 positions of the base for a row; give at m"),
        ("prefix", 344, 100, "prefix.virtual_tokens: 344 leave 0 of the 256 positions"),
        (
            "prefix",
            32,
            225,
            r"225 is more than the 224 positions .* \(32 of 256 are taken by",
        ),
        ("lora", 344, 257, "max_length: 257 is more than the 256 positions of the base; give at m"),
    ],
)
def test_lengths_that_leave_no_room_say_what_takes_it(
    tiny_base: Path,
    tiny_data: Path,
    tmp_path: Path,
    method: str,
    virtual: int,
    asked: int | None,
    message: str,
) -> None:
    config = config_for(
        tiny_base,
        tiny_data,
        tmp_path,
        method=method,
        prefix=PrefixOptions(virtual_tokens=virtual),
        training=TrainingOptions(max_length=asked),
    )
    with pytest.raises(TuningError, match=message) as caught:
        tune(config)
    assert "-" not in str(caught.value)
    assert list((tmp_path / "models").iterdir()) == []


def test_the_room_beside_virtual_tokens_is_the_longest_row(tmp_path: Path) -> None:
    from transformers import Gemma3Config, LlamaConfig

    config = config_for(tmp_path, tmp_path, tmp_path, method="prefix")
    assert pick_max_length(config, LlamaConfig(max_position_embeddings=256)) == 224
    assert pick_max_length(replace(config, method="lora"), LlamaConfig()) == 2048
    nested = Gemma3Config(text_config={"max_position_embeddings": 100})
    assert pick_max_length(replace(config, method="lora"), nested) == 100


def test_a_preview_shows_rows_of_every_source(tmp_path: Path) -> None:
    files = [
        write_rows(
            tmp_path / f"{name}.jsonl",
            [{"prompt": f"Say {word}.", "response": f"{name} {word}"} for word in ("red", "blue")],
        )
        for name in ("sun", "moon", "bird")
    ]
    config = config_for(make_base(tmp_path / "base"), files[0], tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    show_preview(prepare(replace(config, data=tuple(map(str, files)))), 4, console)
    shown = console.export_text()
    places = re.findall(r"(\w+\.jsonl:\d): \d+ tokens", shown)
    assert places == ["sun.jsonl:1", "moon.jsonl:1", "bird.jsonl:1", "sun.jsonl:2"]
    assert "⟦" in shown
    assert "sequences" not in shown


@pytest.mark.slow
def test_rows_of_any_line_ends_are_trained_shown_and_kept(tmp_path: Path) -> None:
    """Through samples, history and checkpoints, which are JSON Lines."""
    items = [
        {"prompt": f"Say {INSIDE} {word}", "response": f"{word} {INSIDE}"}
        for word in ("red", "blue", "green", "cat", "dog", "bird", "sun", "moon")
    ]
    base, data = make_base(tmp_path / "base"), write_rows(tmp_path / "rows.jsonl", items)
    config = config_for(
        base,
        data,
        tmp_path,
        data_options=DataOptions(heldout=0.3),
        checks=CheckOptions(save_steps=1, eval_every=1),
    )
    console = Console(width=200, record=True, file=io.StringIO())
    show_preview(prepare(config), 1, console)
    assert repr(INSIDE)[1:-1] in console.export_text()
    made = tune(config)
    samples = [item["samples"] for item in read_history(made.folder) if "samples" in item]
    assert len(samples) == 2
    assert all(INSIDE in sample["prompt"] for sample in samples[0])
