"""From votes to a reward model that is served, and what it says of a battle once that is judged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from preference_fixtures import write_pairs
from tuning_fixtures import rows, write_rows

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.service import BattleService
from arena.config.page_config import PageConfig
from arena.i18n import languages, words
from arena.page.html.scores import scores_html
from arena.storage.store import Store
from arena.values.battle import Battle
from arena.values.refusals import StillBlindError
from arena.values.vote import Judgement, Winner
from serving.config import ServeConfig
from serving.http.server import ServerThread
from tuning import tune
from tuning.config_files import load_config
from tuning.models.scorer import load_scorer

PROMPT = "Say red then blue number 0."
Told = tuple[str, list[float | None]]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def judge_a_battle(url: str, home: Path) -> tuple[Battle, Told]:
    """A blind battle of the two models served at `url`, and what the reward model says after."""

    async def play() -> tuple[Battle, Told]:
        install_http_client()
        config = PageConfig((url,), home)
        service = BattleService(Store.at_home(home), BackendPool((url,), config.sampling))
        access = await service.open_blind(await service.voter("a cookie"), PROMPT)
        async for view in service.follow(access):
            last = view
        assert not last.is_running
        with pytest.raises(StillBlindError):
            await service.scores(access)
        await service.vote(access, Judgement(winner=Winner.MODEL_A))
        told = await service.scores(access)
        assert told is not None
        battle = (await service.view(access)).battle
        await service.close()
        return battle, told

    return asyncio.run(play())


@pytest.mark.slow
def test_a_served_reward_model_judges_the_answers_after_the_vote(
    tiny_base: Path, tmp_path: Path
) -> None:
    settings = {
        "base": str(tiny_base),
        "home": str(tmp_path),
        "batch_size": 8,
        "precision": "fp32",
        "heldout": 0,
    }
    data = write_rows(tmp_path / "rows.jsonl", rows(16))
    tune(load_config(None, {**settings, "data": (str(data),), "name": "mine", "max_steps": 2}))
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    judge = {"data": (str(pairs),), "name": "judge", "objective": "reward"}
    tune(load_config(None, {**settings, **judge}))
    models = tuple((name, tmp_path / "models" / name) for name in ("mine", "judge"))
    config = ServeConfig(tiny_base, "base", models, port=0, device="cpu", dtype="float32")
    with ServerThread(config) as server:
        battle, (name, scores) = judge_a_battle(server.url, tmp_path)
    assert {one.name for one in battle.participants} == {"base", "mine"}
    answers = [battle.turns[0].answer(side) for side in (0, 1)]
    asked = [{"role": "user", "content": PROMPT}]
    said = [[{"role": "assistant", "content": answer.text}] for answer in answers if answer]
    wanted = load_scorer("judge", tmp_path).scores([(asked, text) for text in said])
    assert name == "judge"
    assert scores == pytest.approx(wanted, abs=1e-4)


def test_the_page_says_whom_the_reward_model_would_have_chosen() -> None:
    shown = scores_html("<judge>", [0.25, 1.5], words("en"))
    assert "The reward model would have chosen B." in shown
    assert "A +0.25 · B +1.50" in shown
    assert "<judge>" not in shown
    assert "no difference" in scores_html("j", [1.0, 1.0, 0.0], words("en"))
    assert "C +2.00" in scores_html("j", [1.0, None, 2.0], words("en"))
    assert scores_html("j", [1.0, None], words("en")) == ""
    verdicts = {scores_html("j", [0.0, 1.0], words(language)) for language in languages()}
    assert len(verdicts) == len(languages())
