"""The whole loop: tune a variant, serve it, ask both models, vote, export, load the dataset.

Every part is the real one. First on a tiny random base, where each link can be checked against
files on disk; then on the packaged base with the command line alone.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from running import arena_up, run_arena
from tuning_fixtures import rows, write_rows

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.service import BattleService
from arena.config.page_config import PageConfig
from arena.storage.store import Store
from arena.values.battle import Battle
from arena.values.vote import Judgement, Winner
from serving.config import ServeConfig, name_models
from serving.http.server import ServerThread
from tuning import TuningConfig, tune
from tuning.config import CheckOptions, TrainingOptions
from tuning.variant import Variant, list_variants, read_variant, weights_sha256

PROMPT = "Say red then blue number 0."


def make_variant(base: Path, home: Path, data: Path) -> Variant:
    """A LoRA variant of the tiny base, tuned for a few seconds."""
    tune(
        TuningConfig(
            base=str(base),
            data=(str(data),),
            name="mine",
            method="lora",
            home=home,
            training=TrainingOptions(epochs=40, batch_size=16, learning_rate=1e-2),
            checks=CheckOptions(samples=0, save_every=0),
        )
    )
    (folder,) = list_variants(home)
    return read_variant(folder)


def battle_and_vote(url: str, home: Path) -> Battle:
    """A blind battle of the two models served at `url`, judged for the tuned one."""

    async def play() -> Battle:
        install_http_client()
        config = PageConfig((url,), home)
        service = BattleService(Store.at_home(home), BackendPool((url,), config.sampling))
        voter = await service.voter("the cookie of a browser")
        access = await service.open_blind(voter, PROMPT)
        async for view in service.follow(access):
            assert not view.is_revealed
        assert [side.state for side in (await service.view(access)).sides] == ["done", "done"]
        names = [participant.name for participant in view.battle.participants]
        winner = (Winner.MODEL_A, Winner.MODEL_B)[names.index("mine")]
        await service.vote(access, Judgement(winner))
        view = await service.view(access)
        assert view.is_revealed
        await service.close()
        return view.battle

    return asyncio.run(play())


def load_rows(folder: Path, cache: Path) -> list[dict[str, Any]]:
    """The dataset as `datasets` opens it."""
    from datasets import load_dataset

    return list(load_dataset(str(folder), split="train", cache_dir=str(cache)))


@pytest.mark.slow
def test_the_loop_on_a_tiny_model(tiny_base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    variant = make_variant(tiny_base, home, write_rows(tmp_path / "rows.jsonl", rows()))
    assert variant.base is not None
    assert variant.base.sha256 == weights_sha256(tiny_base)

    models = name_models(tiny_base, packaged={}, variants=list_variants(home), given=[])
    config = ServeConfig(base=tiny_base, base_name="tiny", models=models, port=0, device="cpu")
    with ServerThread(config) as server:
        battle = battle_and_vote(server.url, home)

    sides = {
        participant.name: (side, battle.turns[0].answer(side))
        for side, participant in enumerate(battle.participants)
    }
    _, tuned = sides["mine"]
    _, plain = sides["tiny"]
    assert tuned is not None
    assert plain is not None
    assert plain.prompt_sent == PROMPT, "a base model sees the plain prompt"
    assert tuned.prompt_sent == f"<s>User: {PROMPT}\nAssistant:", "a variant sees its template"
    assert tuned.weights_sha256 == variant.weights_sha256
    assert plain.weights_sha256 == weights_sha256(tiny_base)

    done = run_arena("export", "--format", "trl", "--out", "out", "--home", home, cwd=tmp_path)
    assert done.status == 0, done.stderr
    (row,) = load_rows(tmp_path / "out", tmp_path / "cache")
    assert row["prompt"] == [{"role": "user", "content": PROMPT}]
    assert row["chosen"] == [{"role": "assistant", "content": tuned.text}]
    assert row["rejected"] == [{"role": "assistant", "content": plain.text}]
    assert (row["chosen_model"], row["rejected_model"]) == ("mine", "tiny")
    assert row["chosen_weights_sha256"] == variant.weights_sha256
    assert row["blind"]
    assert row["propensity"] == pytest.approx(1.0)
    everything = json.dumps(row, default=str)
    assert "cookie" not in everything
    assert "voter" not in everything


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_loop_on_the_packaged_base_beats_it(tmp_path: Path) -> None:
    """Sixty steps make a model that follows instructions, however long a machine takes."""
    home = tmp_path / "home"
    at_home = ("--home", home)
    words = ["--base", "starter", "--data", "starter", "--method", "lora", "--name", "quick"]
    words += ["--max-steps", "60", "--max-minutes", "60"]  # its own are of the clock
    made = run_arena("tune", *words, *at_home, cwd=tmp_path, timeout=400)
    assert made.status == 0, made.stderr
    scored = run_arena(
        *("eval", "starter", "quick", "--limit", "120", "--no-forgetting", "--json"),
        *at_home,
        cwd=tmp_path,
        timeout=400,
    )
    assert scored.status == 0, scored.stderr
    base, patched = json.loads(scored.stdout)["results"]
    assert (base["name"], patched["name"]) == ("starter", "quick")
    assert base["num_prompts"] == patched["num_prompts"] == 120
    assert base["upper"] < patched["lower"], "the 95 % intervals do not touch"
    with (
        arena_up(*at_home, cwd=tmp_path) as running,
        urllib.request.urlopen(f"{running.serve_url}/v1/models", timeout=20) as reply,
    ):
        models = {model["id"]: model["kind"] for model in json.load(reply)["data"]}
    assert models == {
        "starter": "base",
        "starter-full": "full",
        "starter-lora": "lora",
        "starter-prefix": "prefix",
        "quick": "lora",
    }
