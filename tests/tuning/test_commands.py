"""Commands on variants, asked for what cannot be done: one sentence, and nothing is lost."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuning_fixtures import make_base, make_tokenizer, rows, write_rows

from tuning import TuningConfig, TuningError, tune
from tuning.commands.edge import MachineError, told
from tuning.commands.models import FolderCommandError, run_merge, run_plot, run_remove, run_verify
from tuning.commands.outputs import OutputError
from tuning.commands.tune import run_eval
from tuning.config import CheckOptions, DataOptions, TrainingOptions
from tuning.evaluation.evaluate import evaluate
from tuning.models.generate import greedy_answers
from tuning.models.loading import load_variant
from tuning.models.resolve import BaseError, resolve_base
from tuning.variant.plots import PlotError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The PEFT config's `base_model_name_or_path`:UserWarning"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a GPT-2, another one, a LoRA and a full variant of the first, and a suite."""
    home = tmp_path_factory.mktemp("home")
    make_base(home / "base", "gpt2")
    shutil.copytree(home / "base", home / "other")
    change_weights(home / "other")
    data = write_rows(home / "rows.jsonl", rows())
    for method in ("lora", "full"):
        tune(
            TuningConfig(
                base=str(home / "base"),
                data=(str(data),),
                name=method,
                method=method,
                home=home,
                training=TrainingOptions(max_steps=1, batch_size=8, max_length=64),
                checks=CheckOptions(samples=0),
            )
        )
    write_rows(home / "suite.jsonl", [item("short", "Say red."), item("other", "Say blue.")])
    return home


def item(name: str, prompt: str) -> dict[str, Any]:
    """A line of a suite that any answer passes."""
    check = {"kind": "letter_count", "letter": "a", "count": 0}
    return {"id": name, "prompt": prompt, "check": check}


def change_weights(folder: Path) -> None:
    """Other weights of the same shape."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def eval_options(home: Path, **changes: Any) -> dict[str, Any]:
    """What `arena eval` gives when asked for little."""
    options = {"suite": str(home / "suite.jsonl"), "limit": None, "base": None}
    options |= {"max_new_tokens": 4, "forgetting": False, "write": False, "answers": None}
    return options | {"plot": None, "markdown": False, "json_out": True} | changes


@pytest.mark.parametrize("name", ["lora", "full"])
def test_another_base_than_the_variants_own_is_refused(home: Path, name: str) -> None:
    other, own = str(home / "other"), str(home / "base")
    for refused in (
        lambda: run_verify([name], home, other, json_out=False),
        lambda: run_eval([name], home, **eval_options(home, base=other)),
        lambda: run_merge(name, home, "merged", other),
    )[: 3 if name == "lora" else 2]:
        with pytest.raises(BaseError, match=rf"other': holds weights .* but {name} was made from"):
            refused()
    with pytest.raises(BaseError, match="is no whole checkpoint"):
        run_verify([name], home, "lora", json_out=False)
    run_verify([name], home, own, json_out=False)
    run_eval([name], home, **eval_options(home, base=own))
    assert not (home / "models" / "merged").exists()


def test_a_prompt_beyond_the_context_is_counted_by_its_id(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 has a row for each of its 256 positions and none beyond."""
    count = {size: "red " * size for size in (400, 256, 200)}
    tokenizer = make_tokenizer()
    (full,) = (
        "red " * size for size in range(200, 300) if len(tokenizer("red " * size).input_ids) == 256
    )
    suite = write_rows(
        tmp_path / "suite.jsonl",
        [item("long", count[400]), item("full", full), item("near", full[:-8]), item("short", "a")],
    )
    result = evaluate(str(home / "base"), home, suite=str(suite), max_new_tokens=8)
    assert result.too_long == ["long", "full"]
    assert result.passed == [False, False, True, True]
    assert [row["answer"] is None for row in result.rows()] == [True, True, False, False]
    options = eval_options(home, suite=str(suite), json_out=False, answers=tmp_path / "a.jsonl")
    run_eval([str(home / "base")], home, **options)
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 prompts fill its whole context and count as failed: long, full" in shown
    loaded = load_variant(str(home / "base"), home)
    together = greedy_answers(loaded.model, loaded.tokenizer, ["a", full[:-8]], max_new_tokens=8)
    alone = greedy_answers(loaded.model, loaded.tokenizer, ["a"], max_new_tokens=8)
    assert together[0] == alone[0]


@pytest.mark.slow
def test_a_sample_prompt_that_fills_the_context_ends_no_run(home: Path, tmp_path: Path) -> None:
    user, answer = rows(1)[0]["messages"]
    long = {"messages": [{**user, "content": "red " * 300}, answer]}
    heldout = write_rows(tmp_path / "heldout.jsonl", [long, *rows(2)])
    made = tune(
        TuningConfig(
            base=str(home / "base"),
            data=(str(home / "rows.jsonl"),),
            name="v",
            home=tmp_path,
            training=TrainingOptions(max_steps=1, batch_size=8),
            data_options=DataOptions(heldout_file=str(heldout), max_cut_share=1),
        )
    )
    assert "eval_loss" in made.metrics


@pytest.mark.parametrize("name", ["lora/", "./lora", "../models/lora", "..", ".", "", "a/b", "a\0"])
def test_only_the_name_of_a_variant_removes_it(home: Path, name: str) -> None:
    before = sorted(home.rglob("*"))
    with pytest.raises(FolderCommandError, match=r"no variant under .*; there are: full, lora"):
        run_remove(name, home, yes=True)
    assert sorted(home.rglob("*")) == before


def test_of_a_link_only_the_link_is_removed(home: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    shutil.copytree(home / "models" / "lora", real)
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / "v").symlink_to(real)
    (models / "w").symlink_to(models / "v")
    shutil.copytree(real, models / "x")
    (models / ".x.removed.tmp").mkdir()
    for name in ("v", "x"):
        run_remove(name, tmp_path / "home", yes=True)
    assert [path.name for path in models.iterdir()] == ["w"]
    assert (real / "adapter_model.safetensors").is_file()
    with pytest.raises(FolderCommandError, match="no variant"):
        run_remove("w", tmp_path / "home", yes=True)  # leads nowhere now


@given(st.text(max_size=12) | st.text("./~ax\0\\-:", max_size=8) | st.just("x" * 5000))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_name_is_a_folder_or_refused(home: Path, name: str) -> None:
    if "/" not in name.strip("/"):  # else it may be a hub id, and no test asks the hub
        with suppress(BaseError):
            assert resolve_base(name, home).is_dir()
        with suppress(TuningError):
            run_verify([name], home / "nowhere", None, json_out=False)


def test_files_that_cannot_be_written_are_refused_before_the_work(
    home: Path, tmp_path: Path
) -> None:
    for path, message in (
        (tmp_path / "none" / "p.png", "there is no folder"),
        (tmp_path / "p.xyz", "is no name of a picture; end it in .png"),
        (tmp_path / "p", "is no name of a picture"),
    ):
        with pytest.raises(OutputError, match=message):
            run_plot(["lora"], home, path)
        with pytest.raises(OutputError, match=message):
            run_eval(["nobody"], home, **eval_options(home, plot=path))
    with pytest.raises(OutputError, match="cannot be written"):
        run_eval(["nobody"], home, **eval_options(home, answers=tmp_path))
    with pytest.raises(OutputError, match="there is no folder"):
        run_eval(["nobody"], home, **eval_options(home, answers=tmp_path / "no" / "a.jsonl"))


@pytest.mark.parametrize(
    "record", [{"loss": 1.0}, {"step": "1", "loss": 1}, {"step": 1, "loss": [1]}, {"step": True}]
)
def test_a_history_that_holds_no_numbers_is_named(
    home: Path, tmp_path: Path, record: dict[str, Any]
) -> None:
    folder = tmp_path / "v"
    shutil.copytree(home / "base", folder)
    (folder / "history.jsonl").write_text('{"step": 1}\n' + json.dumps(record) + "\n")
    with pytest.raises(PlotError, match=r"history\.jsonl: record 2 has"):
        run_plot([str(folder)], home, tmp_path / "p.png")


def test_what_the_machine_refuses_is_one_sentence_and_a_bug_is_none(home: Path) -> None:
    """A real allocation that no machine can serve, a real file that is a folder, a real bug."""

    @told
    def allocate() -> None:
        torch.empty(2**60)

    @told
    def read() -> None:
        (home / "models").read_bytes()

    @told
    def mistaken() -> None:
        torch.ones(2) @ torch.ones(3)

    with pytest.raises(MachineError, match="memory: there is not enough"):
        allocate()
    with pytest.raises(MachineError, match=r"models: Is a directory; see that it is there"):
        read()
    with pytest.raises(RuntimeError, match="inconsistent"):
        mistaken()


def test_a_slip_in_the_name_of_a_model_is_named(home: Path) -> None:
    with pytest.raises(BaseError, match=r"^base 'startr': .*did you mean 'starter'\?"):
        resolve_base("startr", home)
    with pytest.raises(BaseError, match=r"^model 'lorra': .*did you mean 'lora'\?"):
        run_verify(["lorra"], home, None, json_out=False)
    with pytest.raises(BaseError, match=r"^model 't2': "):
        run_eval(["t2"], home, **eval_options(home))
