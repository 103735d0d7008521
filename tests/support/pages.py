"""What tests of the page wait for before they read it: Gradio takes up a reply piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Page

ENDED = "body:not(:has(.pane.is-waiting, .pane.is-streaming))"
CAN_VOTE = f"{ENDED} #vote-tie:not([disabled])"


def link_of(page: Page, other_than: str = "") -> tuple[str, str]:
    """Id and secret of the battle in the address, now or soon; an own battle may go without."""
    page.wait_for_function(
        """(other) => {
            const battle = new URLSearchParams(location.search).get("battle");
            return battle && battle !== other;
        }""",
        arg=other_than,
    )
    query = parse_qs(urlsplit(page.url).query)
    return query["battle"][0], query.get("t", [""])[0]


def battle_of(page: Page, other_than: str = "") -> str:
    """Id of the battle that the page's address has, or soon will have."""
    return link_of(page, other_than)[0]


def wait_for_names(page: Page, count: int = 2) -> None:
    """Wait until the page compares by name, and so many participants are chosen."""
    page.wait_for_selector(f"#models [class*=token] >> nth={count - 1}")
    page.wait_for_selector("#mode input[value=named]:checked")


def wait_for_prompt(page: Page, text: str) -> None:
    """Wait until the prompt of the page's link stands in its place."""
    page.wait_for_function(
        "text => document.querySelector('#prompt textarea').value === text", arg=text
    )
