"""Takes the pictures of docs/tune-on-the-page.md: a starter really tuned on the page.

`python tools/tune_screenshots.py` rewrites docs/images/tune-*.png; it takes some minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from chromium import ARGUMENTS, find_chromium
from playwright.sync_api import Page, sync_playwright
from running import arena_up

from arena.web.authentication import Authenticator

PICTURES = Path(__file__).parent.parent / "docs" / "images"
LONG_MS = 1_200_000


def take(folder: Path) -> None:
    """Look at the rows, tune for a minute, watch, score."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        arena_up("--home", Path(place) / "home", cwd=Path(place)) as arena,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(LONG_MS)
        page.goto(f"{arena.url}/enter?key={Authenticator(Path(place) / 'home').key}")
        page.get_by_role("tab", name="Tune").click()
        page.wait_for_selector("#tune-base option[value=starter]", state="attached")
        page.select_option("#tune-base", "starter")
        page.click("#tune-look")
        page.wait_for_selector("#tune-preview mark")
        picture(page, folder / "tune-data.png")
        page.fill("#tune-minutes", "1")
        page.click("#tune-start")
        page.wait_for_selector(".tune-samples tbody tr")
        page.evaluate("document.getElementById('tune-preview').hidden = true")
        page.locator("#tune-chart").scroll_into_view_if_needed()
        picture(page, folder / "tune-run.png")
        page.wait_for_selector(".tune-run[data-state=done]")
        page.get_by_role("button", name="Score:").click()
        page.wait_for_selector(".tune-scores tbody tr")
        page.locator(".tune-scores").scroll_into_view_if_needed()
        picture(page, folder / "tune-report.png")
        phone(page, folder / "tune-phone.png")
        browser.close()


def phone(page: Page, path: Path) -> None:
    """The same on a phone, dark."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.evaluate("document.body.classList.add('dark')")
    page.locator(".tune-run").scroll_into_view_if_needed()
    picture(page, path)


def picture(page: Page, path: Path) -> None:
    """What the window shows, once it has come to rest."""
    page.wait_for_timeout(800)
    page.screenshot(path=path)


if __name__ == "__main__":
    take(PICTURES)
    print("wrote tune-data.png, tune-run.png, tune-report.png and tune-phone.png")
