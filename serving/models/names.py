"""Names of models as they may be served and shown: text that headers, JSON and logs can carry.

Knows characters; does not know models.
"""

from __future__ import annotations

from urllib.parse import quote

from serving.errors import ServingError

MOST_CHARACTERS = 200


def printable(text: str) -> str:
    """The text with what would end a line, move a cursor or be no Unicode written out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def check_name(name: str) -> None:
    """ServingError for a name that no header, log or address could carry."""
    if not name.isprintable():
        raise ServingError(
            f"model name {printable(name)!r} has characters that cannot be shown; rename its folder"
        )
    if name != name.strip():
        raise ServingError(
            f"model name {name!r} has blanks around it, which headers lose; rename its folder"
        )
    if len(name) > MOST_CHARACTERS:
        raise ServingError(
            f"model name {name[:40]!r}… has {len(name)} characters, {MOST_CHARACTERS} are allowed; "
            "rename its folder"
        )


def header_value(name: str) -> str:
    """A name in a header: ASCII as it is, the rest percent-encoded, as in an address."""
    return name if name.isascii() else quote(name, safe=" !#$&'()*+,/:;=?@[]~")
