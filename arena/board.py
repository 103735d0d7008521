"""The leaderboard tab: ratings on demand and the export button. Filled only when it is opened.

Knows the page's elements and the data functions; a blind page never receives a name from here.
"""

from __future__ import annotations

from arena.page import Page
from arena.stage import Stage


def wire_board(page: Page, stage: Stage) -> None:
    """Tie the tab's elements to the ratings and the export."""
