"""HTML of the tab Tune: the form and the places that the page's script fills (`tune.js`).

Knows words only. What is chosen, started and shown goes through the JSON API, which checks rights.
"""

from __future__ import annotations

import html
import json

from arena.i18n import Words

OBJECTIVES = ("sft", "reward", "dpo", "kto", "rl")
METHODS = ("lora", "full", "prefix", "prompt", "ia3", "qlora")
CHALLENGERS = ("none", "until_done", "kept")
VOTE_TEXTS = ("votes_new", "votes_all", "votes_started", "votes_none")
SHARES = (25, 50, 75, 100)


def tune_html(say: Words) -> str:
    """The whole tab, empty of names until its script has asked for them."""
    told = {
        key.partition(".")[2]: text for key, text in say.texts.items() if key.startswith("tune.")
    }
    told |= {"lost": say("status.lost"), "copied": say("side.copied")}
    words = html.escape(json.dumps(told, ensure_ascii=False))
    return (
        f'<section id="tune-page" class="tune" lang="{say.language}" data-tune-words="{words}">'
        f'<form id="tune-form" autocomplete="off"><div class="tune-cards">{_data(say)}{_model(say)}'
        f"</div>{_more(say)}{_start(say)}</form>"
        f'<div id="tune-preview" class="tune-preview" role="region" '
        f'aria-label="{html.escape(say("tune.look"))}" tabindex="-1" hidden></div>'
        f"<h2>{html.escape(say('tune.runs'))}</h2>"
        f'<figure id="tune-chart" class="tune-chart" hidden><figcaption>'
        f"{html.escape(say('tune.curves'))}</figcaption></figure>"
        f'<div id="tune-runs" class="tune-runs"></div></section>'
    )


def votes_html(say: Words) -> str:
    """On the leaderboard: how many votes no reward model has seen, and what makes use of them.

    Empty of numbers until its script (`tune_votes.js`) has asked for them.
    """
    told = {key: say(f"tune.{key}") for key in VOTE_TEXTS} | {"lost": say("status.lost")}
    words = html.escape(json.dumps(told, ensure_ascii=False))
    controls = '<input id="votes-controls" type="checkbox" checked>'
    return (
        f'<section id="tune-votes" class="tune" data-votes-words="{words}" hidden>'
        f'<h2>{html.escape(say("tune.votes"))}</h2><p id="votes-new"></p>'
        f'<form id="votes-form" class="tune-fields" autocomplete="off">'
        f"{_field('votes-base', say('tune.votes_base'), _select('votes-base', ''))}"
        f'<label class="tune-in-chart" for="votes-controls">{controls}'
        f"<span>{html.escape(say('tune.votes_controls'))}</span></label>"
        f'<button type="submit" id="votes-start" class="tune-primary">'
        f"{html.escape(say('tune.votes_start'))}</button></form>"
        '<p id="votes-status" class="status-line" role="status" aria-live="polite"></p></section>'
    )


def _data(say: Words) -> str:
    sources = _option("starter", say("tune.source_starter")) + _option(
        "votes", say("tune.source_votes")
    )
    hub = _option("hub", say("tune.source_hub"))
    return (
        f'<fieldset class="tune-card"><legend>{html.escape(say("tune.data"))}</legend>'
        f"{_field('tune-data', say('tune.source'), _select('tune-data', sources + hub))}"
        f'<div class="tune-field" id="tune-hub-field" hidden><label for="tune-hub">'
        f"{html.escape(say('tune.hub'))}</label>"
        '<input id="tune-hub" type="text" maxlength="200" spellcheck="false"></div>'
        '<div class="tune-buttons"><label class="act" for="tune-file" tabindex="-1">'
        f"{html.escape(say('tune.upload'))}</label>"
        '<input id="tune-file" class="tune-file" type="file" '
        'accept=".json,.jsonl,.ndjson,.csv,.parquet">'
        f"{_button('tune-paste', say('tune.paste'), expanded=True)}"
        f"{_button('tune-look', say('tune.look'))}</div>"
        '<div id="tune-paste-box" hidden><label for="tune-rows">'
        f"{html.escape(say('tune.paste_label'))}</label>"
        '<textarea id="tune-rows" rows="6" spellcheck="false"></textarea>'
        f'<div class="tune-buttons">{_button("tune-keep", say("tune.paste_keep"))}</div></div>'
        f'<p class="muted">{html.escape(say("tune.upload_note"))}</p>{_rows(say)}</fieldset>'
    )


def _rows(say: Words) -> str:
    """Rows of an uploaded file, to be corrected and left out."""
    search = _field(
        "tune-correct-search",
        say("tune.search_rows"),
        '<input id="tune-correct-search" type="search" maxlength="200" spellcheck="false">',
    )
    buttons = "".join(
        _button(f"tune-correct-{key}", say(f"tune.rows_{key}"))
        for key in ("before", "after", "keep")
    )
    return (
        f'<details id="tune-correct" hidden><summary>{html.escape(say("tune.correct"))}</summary>'
        f'{search}<p id="tune-correct-status" role="status" class="muted"></p>'
        f'<div id="tune-correct-rows" class="tune-corrected"></div>'
        f'<div class="tune-buttons">{buttons}</div></details>'
    )


def _model(say: Words) -> str:
    objectives = "".join(_option(key, say(f"tune.objective_{key}")) for key in OBJECTIVES)
    methods = "".join(_option(key, key) for key in METHODS)
    shares = "".join(_option(str(n), f"{n} %", chosen=n == SHARES[1]) for n in SHARES)
    minutes = '<input id="tune-minutes" type="number" min="0.1" step="any" inputmode="decimal">'
    name = (
        '<input id="tune-name" type="text" required maxlength="96" spellcheck="false" '
        'pattern="[A-Za-z0-9][A-Za-z0-9._\\-]*">'
    )
    served = "".join(_option(key, say(f"tune.challengers_{key}")) for key in CHALLENGERS)
    fields = (
        ("tune-base", "base", _select("tune-base", "")),
        ("tune-objective", "objective", _select("tune-objective", objectives)),
        ("tune-method", "method", _select("tune-method", methods)),
        ("tune-name", "name", name),
        ("tune-minutes", "minutes", minutes),
        ("tune-share", "share", _select("tune-share", shares)),
        ("tune-challengers", "challengers", _select("tune-challengers", served)),
    )
    made = "".join(_field(id_, say(f"tune.{key}"), control) for id_, key, control in fields)
    return (
        f'<fieldset class="tune-card"><legend>{html.escape(say("tune.model"))}</legend>'
        f'<div class="tune-fields">{made}</div></fieldset>'
    )


def _more(say: Words) -> str:
    return (
        f'<details id="tune-more" class="tune-card"><summary>{html.escape(say("tune.more"))}'
        '</summary><div id="tune-settings" class="tune-settings"></div></details>'
    )


def _start(say: Words) -> str:
    return (
        f'<div class="tune-start"><button type="submit" id="tune-start" class="tune-primary">'
        f"{html.escape(say('tune.start'))}</button>"
        '<p id="tune-status" class="status-line" role="status" aria-live="polite"></p></div>'
        f'<details class="tune-command"><summary>{html.escape(say("tune.command"))}</summary>'
        '<pre id="tune-command" tabindex="0"></pre></details>'
        f'<details class="tune-yaml"><summary>{html.escape(say("tune.yaml"))}</summary>'
        f'<label for="tune-yaml">{html.escape(say("tune.yaml_label"))}</label>'
        '<textarea id="tune-yaml" rows="8" spellcheck="false"></textarea>'
        f'<div class="tune-buttons">{_button("tune-yaml-take", say("tune.yaml_take"))}</div>'
        "</details>"
    )


def _field(id_: str, label: str, control: str) -> str:
    return f'<div class="tune-field"><label for="{id_}">{html.escape(label)}</label>{control}</div>'


def _select(id_: str, options: str) -> str:
    return f'<select id="{id_}">{options}</select>'


def _option(value: str, text: str, *, chosen: bool = False) -> str:
    mark = " selected" if chosen else ""
    return f'<option value="{html.escape(value)}"{mark}>{html.escape(text)}</option>'


def _button(id_: str, text: str, *, expanded: bool = False) -> str:
    state = ' aria-expanded="false"' if expanded else ""
    return f'<button type="button" class="act" id="{id_}"{state}>{html.escape(text)}</button>'
