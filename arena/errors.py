"""The one family of errors that the arena raises for a user's mistake; knows no cause itself."""

from __future__ import annotations

from typing import Any, Self


class ArenaError(ValueError):
    """A mistake a user can mend; the message says name, value and remedy in one line.

    `code` names the text of the page's catalogue that says the same in the voter's language, with
    `values` filled in; it is empty where only commands and programs see the error.
    """

    code: str = ""

    def __init__(self, *words: object) -> None:
        super().__init__(*words)
        self.values: dict[str, Any] = {}

    def coded(self, code: str, **values: Any) -> Self:
        """The same error with its text in the catalogue."""
        self.code = code
        self.values = values
        return self
