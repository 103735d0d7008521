"""Takes README's pictures of the page: the shipped base beside a shipped variant, really asked.

`python tools/screenshot.py` (or `make screenshot`) rewrites docs/images/page.png and phone.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx2
from chromium import ARGUMENTS, find_chromium
from playwright.sync_api import Browser, sync_playwright
from running import arena_up

PICTURES = Path(__file__).parent.parent / "docs" / "images"
PROMPT = "Write a short story with the words dog, castle and ring."
MODELS = ("starter", "starter-full")
DONE = "body:not(:has(.pane.is-waiting, .pane.is-streaming)) #vote-a:not([disabled])"


def take(folder: Path) -> None:
    """Ask both models over the page's API, and take the answers, then on a phone the names."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, arena_up(cwd=Path(place)) as arena:
        body = {"prompt": PROMPT, "models": list(MODELS)}
        opened = httpx2.post(f"{arena.url}/api/battles", json=body).raise_for_status().json()
        address = f"{arena.url}/?battle={opened['battle']}&t={opened['token']}"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=find_chromium(), args=list(ARGUMENTS)
            )
            answers(browser, address, folder / "page.png")
            names(browser, address, folder / "phone.png")
            browser.close()


def answers(browser: Browser, address: str, path: Path) -> None:
    """The two answers, not yet judged."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector(DONE, timeout=90_000)
    page.wait_for_selector("#models [class*=token] >> nth=1")
    page.wait_for_timeout(500)
    page.screenshot(path=path)


def names(browser: Browser, address: str, path: Path) -> None:
    """The reveal after the vote, dark and on a phone."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.goto(address)
    page.wait_for_selector(DONE, timeout=90_000)
    page.click("#vote-b")
    page.wait_for_selector("#undo:visible")
    page.locator("#reveal .side-b").scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    page.screenshot(path=path)


if __name__ == "__main__":
    take(PICTURES)
    print("wrote page.png and phone.png")
