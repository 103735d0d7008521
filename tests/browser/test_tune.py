"""The tab Tune in Chromium: rows looked at, a tiny model tuned and watched, then compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from page_server import PageServer
from tuning_fixtures import make_base, rows, write_rows

from arena.web.authentication import Authenticator
from serving.config import ServeConfig
from serving.http.server import ServerThread

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
LOADING_MS = 400_000  # a command loads torch, at a lower priority than all else


def test_model_is_tuned_on_the_page_and_watched(page: Page, tmp_path: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    make_base(tmp_path / "models" / "tiny")
    bad = {"messages": [{"role": "user", "content": "<b>no answer</b>"}]}
    file = write_rows(tmp_path / "own.jsonl", [*rows(), bad])
    page.set_default_timeout(LOADING_MS)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    tiny = tmp_path / "models" / "tiny"
    serve = ServeConfig(base=tiny, base_name="tiny", home=tmp_path, port=0)
    with ServerThread(serve) as server, PageServer(tmp_path, server.url) as arena:
        page.goto(arena.url)
        page.wait_for_selector("#prompt textarea")
        assert page.get_by_role("tab", name="Tune").count() == 0, "no voter is shown the tab"
        page.goto(f"{arena.url}/enter?key={Authenticator(tmp_path).key}")
        page.get_by_role("tab", name="Tune").click()
        page.wait_for_selector("#tune-base option[value=tiny]", state="attached")
        page.wait_for_selector("#tune-runs .nothing")

        page.set_input_files("#tune-file", file)
        page.wait_for_selector("#tune-preview mark")
        assert page.inner_text("#tune-preview mark >> nth=0").strip().startswith("red red")
        told = page.inner_text("#tune-preview")
        assert "49 read" in told
        assert "messages used" in told
        assert "own-" in page.inner_text("#tune-preview .tune-bad tbody")
        assert ":49" in page.inner_text("#tune-preview .tune-bad tbody")

        page.locator("#tune-correct summary").press("Enter")
        page.fill("#tune-correct-search", "no answer")
        page.wait_for_selector("#tune-correct-status:has-text('1 to 1 of 1 rows (49 in the file)')")
        page.locator("#tune-correct-rows input[type=checkbox]").check()
        page.locator("#tune-correct-keep").press("Enter")
        page.wait_for_selector("#tune-preview:has-text('48 read')")
        assert page.locator("#tune-preview .tune-bad tbody").count() == 0
        assert len(list((tmp_path / "data").iterdir())) == 2, "the old file stays"

        page.select_option("#tune-base", "tiny")
        assert page.input_value("#tune-name") == "tiny-lora-1"
        page.select_option("#tune-method", "full")
        assert page.is_disabled("#tune-challengers"), "whole checkpoints are not served"
        page.select_option("#tune-method", "lora")
        page.select_option("#tune-challengers", "kept")
        page.locator("#tune-more summary").press("Enter")
        page.get_by_label("training.epochs").fill("60")
        page.get_by_label("data_options.heldout", exact=True).fill("0.1")
        page.locator(".tune-command summary").press("Enter")
        page.wait_for_function(
            "document.getElementById('tune-command').textContent.includes('--epochs=60')"
        )
        page.locator(".tune-yaml summary").press("Enter")
        page.wait_for_function("document.getElementById('tune-yaml').value.includes('epochs')")
        text = page.input_value("#tune-yaml")
        page.get_by_label("training.epochs").fill("7")
        page.fill("#tune-yaml", text)
        page.locator("#tune-yaml-take").press("Enter")
        page.wait_for_selector("#tune-status:has-text('in the form')")
        assert page.get_by_label("training.epochs").input_value() == "60"
        assert page.input_value("#tune-challengers") == "kept"
        assert page.input_value("#tune-data").startswith("own-")
        page.locator("#tune-start").press("Enter")
        page.wait_for_selector(".tune-run[data-state=running]")
        page.wait_for_selector("#tune-chart .curve")
        page.wait_for_selector(".tune-run[data-state=done]")
        page.wait_for_selector(".tune-samples tbody tr")
        watch_it_learn(page)
        page.get_by_role("button", name="Model card: tiny-lora-1").press("Enter")
        page.wait_for_selector(".tune-card-text:has-text('tiny-lora-1')")
        found = axe.Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == 390

        page.get_by_role("button", name="Compare with its base: tiny-lora-1").press("Enter")
        page.wait_for_selector("#models [class*=token] >> nth=1")
        assert "models=tiny%2Ctiny-lora-1" in page.url
    assert (tmp_path / "models" / "tiny-lora-1" / "variant.json").is_file()
    assert len(list((tmp_path / "models").glob("tiny-lora-1@*"))) == 5, "kept, as asked"
    assert failures == []


def watch_it_learn(page: Page) -> None:
    """One prompt for the base, the five checkpoints and the variant, by keyboard."""
    page.locator(".tune-watch summary").press("Enter")
    box = page.locator(".tune-watch textarea")
    box.fill("Say red then blue number 5.")
    box.press("Enter")
    page.wait_for_selector(".tune-watch a[href*='battle=']")
    heads = page.locator(".tune-watched h4").all_inner_texts()
    assert heads[0] == "tiny"
    assert heads[-1] == "tiny-lora-1"
    assert [name.partition("@")[0] for name in heads[1:-1]] == ["tiny-lora-1"] * 5
    answers = page.locator(".tune-answer").all_inner_texts()
    assert len(answers) == 7
    assert not page.locator(".tune-watched .tune-error").count(), answers
    assert "…" not in answers
