"""Takes README's picture of the page: the shipped base beside a shipped variant, really asked.

`python tests/screenshot.py` (or `make screenshot`) rewrites docs/images/page.png.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx2
from chromium import ARGUMENTS, find_chromium
from playwright.sync_api import sync_playwright
from running import arena_up

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "page.png"
PROMPT = "Write a short story with the words dog, castle and ring."
MODELS = ("starter", "starter-full")
DONE = "body:not(:has(.pane.is-waiting, .pane.is-streaming)) #vote-a:not([disabled])"


def take(path: Path) -> None:
    """Ask both models over the page's API, open the battle in a browser, vote, take the picture."""
    with tempfile.TemporaryDirectory() as place, arena_up(cwd=Path(place)) as arena:
        body = {"prompt": PROMPT, "models": list(MODELS)}
        opened = httpx2.post(f"{arena.url}/api/battles", json=body).raise_for_status().json()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=find_chromium(), args=list(ARGUMENTS)
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{arena.url}/?battle={opened['battle']}&t={opened['token']}")
            page.wait_for_selector(DONE, timeout=90_000)
            page.wait_for_timeout(500)
            path.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=path)
            browser.close()


if __name__ == "__main__":
    take(PICTURE)
    print(f"wrote {PICTURE.name}")
