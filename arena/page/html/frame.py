"""HTML of the page around a battle: header, first words, help, view switches; knows words only."""

from __future__ import annotations

import html
import json

from arena.i18n import Words

KEYS = (
    ("/", "focus"),
    ("Enter", "send"),
    ("1", "a"),
    ("2", "b"),
    ("3", "tie"),
    ("4", "both_bad"),
    ("s", "skip"),
    ("u", "undo"),
    ("r", "again"),
    ("n", "new"),
    ("Esc", "stop"),
    ("?", "help"),
)

SCRIPT_WORDS = (
    "status.lost",
    "status.no_answer",
    "status.one_by_one",
    "status.details_saved",
    "status.ask_skip",
    "status.ask_again",
    "status.pasted_long",
    "status.set_option",
    "side.copied",
    "error.still_writing",
    "error.prompt_long",
)


def header_html(say: Words) -> str:
    """Name and purpose, and the way to the list of keys."""
    return (
        f'<a class="skip-link" href="#panes">{html.escape(say("page.skip_link"))}</a>'
        f'<div class="masthead" lang="{say.language}" data-language="{say.language}" '
        f'data-words="{_words_of_scripts(say)}">'
        '<span class="mark" aria-hidden="true"><i></i><i></i></span>'
        f"<div><h1>{html.escape(say('page.title'))}</h1>"
        f"<p>{html.escape(say('page.tagline'))}</p></div>"
        '<button type="button" class="help-button" data-help aria-haspopup="dialog">'
        f"{html.escape(say('help.button'))} <kbd>?</kbd></button></div>"
    )


def _words_of_scripts(say: Words) -> str:
    """What the page's own scripts may have to say, as JSON in an attribute."""
    told = {key.rpartition(".")[2]: say(key) for key in SCRIPT_WORDS}
    return html.escape(json.dumps(told, ensure_ascii=False))


def account_html(name: str, say: Words) -> str:
    """Who is signed in, and the way out; nothing where nobody signs in."""
    if not name:
        return ""
    return (
        '<form class="account" method="post" action="signout">'
        f"<span>{html.escape(say('signin.as', name=name))}</span>"
        f"<button>{html.escape(say('signin.leave'))}</button></form>"
    )


def empty_html(say: Words) -> str:
    """What the page says before the first battle; of a prompt set while one is chosen."""
    return (
        f'<div class="empty"><h2>{html.escape(say("empty.title"))}</h2>'
        f"<p>{html.escape(say('empty.body'))}</p>"
        f'<p class="for-set">{html.escape(say("set.body"))}</p></div>'
    )


def help_html(say: Words) -> str:
    """The list of keys, closed until it is asked for."""
    rows = "".join(
        f"<div><dt><kbd>{html.escape(key)}</kbd></dt>"
        f"<dd>{html.escape(say(f'help.{name}'))}</dd></div>"
        for key, name in KEYS
    )
    return (
        f'<dialog id="help" aria-labelledby="help-title"><h2 id="help-title">'
        f"{html.escape(say('help.title'))}</h2><dl>{rows}</dl>"
        f'<button type="button" data-keys aria-pressed="true">{html.escape(say("help.use"))}'
        f"</button> "
        f'<button type="button" data-close>{html.escape(say("help.close"))}</button></dialog>'
    )


def views_html(say: Words) -> str:
    """Switches of the view that need no server."""
    return (
        '<div class="views"><button type="button" data-sync aria-pressed="false">'
        f"{html.escape(say('view.sync'))}</button></div>"
    )


def note_html(text: str, kind: str) -> str:
    """A line of text in the page's own style."""
    return f'<p class="{kind}">{html.escape(text)}</p>'
