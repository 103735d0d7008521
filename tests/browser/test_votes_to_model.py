"""From the leaderboard's new votes to the next challenger, with one press, in Chromium."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from page_server import PageServer
from store_fixtures import Hand
from tuning_fixtures import WORDS, make_base, rows, write_rows

from arena.storage.store import Store
from arena.values.vote import Judgement, Winner
from arena.web.authentication import Authenticator
from serving.config import ServeConfig
from serving.http.server import ServerThread
from tuning import tune
from tuning.config_files import load_config

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
LOADING_MS = 400_000
NUM_VOTES = 24


def test_new_votes_make_the_next_challenger(page: Page, tmp_path: Any) -> None:
    make_base(tmp_path / "models" / "tiny")
    given = {"base": "tiny", "data": str(write_rows(tmp_path / "rows.jsonl", rows(16)))}
    given |= {"name": "start", "home": str(tmp_path), "method": "lora"}
    tune(load_config(None, {**given, "max_steps": 4, "samples": 0, "heldout": 0}))
    hand = Hand(Store.at_home(tmp_path))
    for at in range(NUM_VOTES):
        word = WORDS[at % 12]
        hand.vote(
            texts=[f"{word} {at}", "no"],
            prompt=f"Say {word} as number {at}.",
            judgement=Judgement(Winner.MODEL_A),
        )
    page.set_default_timeout(LOADING_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    tiny = tmp_path / "models" / "tiny"
    models = (("start", tmp_path / "models" / "start"),)
    serve = ServeConfig(base=tiny, base_name="tiny", models=models, home=tmp_path, port=0)
    with ServerThread(serve) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        page.get_by_role("tab", name="Leaderboard").click()
        page.wait_for_selector("#leaderboard h2")
        assert page.locator("#tune-votes").count() == 0, "no voter is shown it"
        for method, path in (("GET", "votes"), ("POST", "loops"), ("GET", "runs/x/report")):
            asked = httpx2.request(method, f"{arena.url}/api/tune/{path}", json={"base": "start"})
            assert asked.status_code == 403, path
        page.goto(f"{arena.url}/enter?key={Authenticator(tmp_path).key}")
        page.get_by_role("tab", name="Leaderboard").click()
        page.wait_for_selector("#votes-base option[value=start]", state="attached")
        assert page.inner_text("#votes-new") == f"Votes: {NUM_VOTES}. There is no reward model yet."
        page.locator("#votes-controls").uncheck()
        page.locator("#votes-start").press("Enter")
        page.wait_for_selector("#votes-status:has-text('round-1 is in the queue')")

        page.get_by_role("tab", name="Tune").click()
        page.wait_for_selector(".tune-run[data-name='round-1'][data-state=done]")
        told = page.inner_text(".tune-run[data-name='round-1'] .tune-loop")
        made = re.search(r"Made round-1-dpo from start and (\d+) votes\.", told)
        assert made, told
        assert 12 < int(made[1]) <= NUM_VOTES, "those in quarantine are left out"
        assert "dpo: cannot be told" in told
        page.get_by_role("button", name="Report: round-1").press("Enter")
        frame = page.frame_locator(".tune-report")
        frame.get_by_role("heading", name="Votes", exact=False).first.wait_for()
        page.wait_for_selector(".tune-run[data-name='round-1-reward'][data-state=done]")
        variant = json.loads((tmp_path / "models" / "round-1-dpo" / "variant.json").read_text())
        assert variant["parent"] == "start"

        # It is served at once, and no vote is new any more.
        page.get_by_role("tab", name="Leaderboard").click()
        page.locator("#refresh").click()
        page.wait_for_selector("#votes-new:has-text('since the last reward model: 0.')")
        names = {one["id"] for one in httpx2.get(f"{server.url}/v1/models").json()["data"]}
        assert "round-1-dpo" in names
    assert failures == []
