"""From votes to a reward model that is served, and what it says of a battle once that is judged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fault_server import FaultServer, Script
from preference_fixtures import write_pairs
from tuning_fixtures import rows, write_rows

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.backends.scoring import UNREAD, ToldScore
from arena.battles.reward_watch import Disagreement, RewardWatch, score_battle, watch_reward
from arena.battles.service import BattleService
from arena.config.page_config import PageConfig
from arena.i18n import languages, words
from arena.page.actions.judging import told_scores
from arena.page.html.reward_watch import reward_watch_html
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
Told = tuple[str, list[ToldScore | None]]

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def judge_a_battle(url: str, home: Path) -> tuple[Battle, Told, RewardWatch | None]:
    """A blind battle of the two models served at `url`, and what the reward model says after."""

    async def play() -> tuple[Battle, Told, RewardWatch | None]:
        install_http_client()
        config = PageConfig((url,), home)
        service = BattleService(Store.at_home(home), BackendPool((url,), config.sampling))
        access = await service.open_blind(await service.voter("a cookie"), PROMPT)
        async for view in service.follow(access):
            last = view
        assert not last.is_running
        with pytest.raises(StillBlindError):
            await score_battle((await service.view(access)).battle, service.pool)
        await service.vote(access, Judgement(winner=Winner.MODEL_A))
        battle = (await service.view(access)).battle
        told = await score_battle(battle, service.pool)
        assert told is not None
        watched = await watch_reward(service.store, service.pool, home)
        await service.close()
        return battle, told, watched

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
        battle, (name, scores), watched = judge_a_battle(server.url, tmp_path)
    assert {one.name for one in battle.participants} == {"base", "mine"}
    answers = [battle.turns[0].answer(side) for side in (0, 1)]
    asked = [{"role": "user", "content": PROMPT}]
    said = [[{"role": "assistant", "content": answer.text}] for answer in answers if answer]
    wanted = load_scorer("judge", tmp_path).scores([(asked, text) for text in said])
    assert name == "judge"
    assert scores == pytest.approx(wanted, abs=1e-4)
    assert watched is not None
    assert (watched.name, watched.num_judged, watched.new_votes) == ("judge", 1, 1)
    assert watched.num_agreed == (wanted[0] >= wanted[1])
    for one in watched.worst:
        assert one.by == pytest.approx(wanted[1] - wanted[0], abs=1e-4)
        assert [one.voted, one.scored] == [side.name for side in battle.participants]


def test_a_reward_model_that_tells_nothing_is_told_of(tmp_path: Path) -> None:
    """Its server lists it and has no /score: the page says so, in the reader's language."""

    async def play(url: str) -> set[str]:
        install_http_client()
        pool = BackendPool((url,), PageConfig((url,), tmp_path).sampling)
        service = BattleService(Store.at_home(tmp_path), pool)
        access = await service.open_blind(await service.voter("a cookie"), PROMPT)
        async for view in service.follow(access):
            assert view.battle
        before = (await service.view(access)).battle
        assert await told_scores(before, pool, words("en")) == "", "nothing while it is blind"
        await service.vote(access, Judgement(winner=Winner.TIE))
        after = (await service.view(access)).battle
        told = {await told_scores(after, pool, words(language)) for language in languages()}
        await service.close()
        return told

    scripts = {"one": Script(), "two": Script(), "judge": Script(kind="reward")}
    with FaultServer(scripts) as server:
        told = asyncio.run(play(server.url))
    assert '<p class="muted">The reward model judge gave no scores.</p>' in told
    assert len(told) == len(languages())


def test_the_admin_sees_where_reward_model_and_voters_disagree() -> None:
    worst = Disagreement("b1", "Name <two> animals. " * 9, "lora", "base", 1.25)
    shown = reward_watch_html(RewardWatch("judge", 40, 31, (worst,), 7), words("en"))
    assert "It agrees with 31 of the newest 40 votes" in shown
    assert "7 new votes since the last reward model." in shown
    assert "<td>lora</td><td>base</td><td>+1.25</td>" in shown
    assert "<two>" not in shown
    assert "…" in shown
    assert reward_watch_html(None, words("en")) == ""
    assert "not among them" not in shown
    some = reward_watch_html(RewardWatch("judge", 40, 31, (worst,), 7, 3), words("en"))
    assert "3 battles are not among them" in some


def test_the_page_says_whom_the_reward_model_would_have_chosen() -> None:
    shown = scores_html("<judge>", [0.25, 1.5], words("en"))
    assert "The reward model would have chosen B." in shown
    assert "A +0.25 · B +1.50" in shown
    assert "<judge>" not in shown
    assert "no difference" in scores_html("j", [1.0, 1.0, 0.0], words("en"))
    assert "C +2.00" in scores_html("j", [1.0, None, 2.0], words("en"))
    assert scores_html("j", [1.0, None], words("en")) == ""
    unread = scores_html("j", [1.0, UNREAD], words("en"))
    assert "could not read: B." in unread
    assert "A +1.00 · B –" in unread
    verdicts = {scores_html("j", [0.0, 1.0], words(language)) for language in languages()}
    assert len(verdicts) == len(languages())
