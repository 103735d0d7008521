"""What a page or a program may ask of a run, checked before a command sees it; knows no process.

Where people sign in, an admin of the page may tune on what lies under home and on the hub, and on
no other file of the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from arena.errors import ArenaError
from arena.runs.loops import CONTROLS
from arena.runs.requests import HALF, RunRefusedError, RunRequest, Setting, check_name
from arena.runs.uploads import path_of
from arena.values.texts import check_text

BUILT_IN = ("starter", "votes", "synthetic-votes")
PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
KEY = re.compile(r"[a-z][a-z_]*(?:\.[a-z][a-z_]*)?")
FILES = ("data_options.heldout_file", "template.file")
MODELS = ("base", "preference.reward")
OWN = ("home", "name", "restart")
"""What the page says itself."""
VOTES = "votes"
LOOP_KEYS = ("policy", "suite", "prompts", "samples")
LOOP_SETTING = re.compile(r"(?:reward|policy|data)\.[a-z][a-z_]*(?:\.[a-z][a-z_]*)?")
TEXT_CHARS = 2_000
MOST_SETTINGS = 100


def request_of(
    home: Path,
    name: str,
    settings: Mapping[str, Setting],
    *,
    share: int = HALF,
    restart: bool = False,
    own_machine: bool,
) -> RunRequest:
    """The run that is asked for, data files by their paths. Raises RunRefusedError.

    Args:
        home: where uploads and variants lie.
        name: of the variant to make.
        settings: by their full keys.
        share: per cent of the cores.
        restart: forget an unfinished run of the name.
        own_machine: whoever asks may read every file that the page may.
    """
    check_name(name)
    if len(settings) > MOST_SETTINGS:
        raise RunRefusedError(f"{len(settings)} settings are more than there are")
    for key, value in settings.items():
        if not KEY.fullmatch(key) or key in OWN:
            raise RunRefusedError(f"setting {key[:100]!r} cannot be given here; leave it out")
        for text in _texts(value):
            _check(key, text)
    made = {**settings}
    if "data" in made:
        given = made["data"]
        sources = given if isinstance(given, list) else [str(given)]
        made["data"] = [_source(home, source, own_machine) for source in sources]
    for key in FILES:
        if made.get(key):
            made[key] = _file(home, key, str(made[key]), own_machine)
    for key in MODELS:
        if made.get(key):
            _check_model(key, str(made[key]), own_machine)
    return RunRequest(name, made, share, restart)


def loop_of(
    name: str,
    base: str,
    settings: Mapping[str, Setting],
    *,
    controls: bool = True,
    share: int = HALF,
    own_machine: bool,
) -> RunRequest:
    """A loop on the votes of this arena. Raises RunRefusedError; see `request_of`."""
    check_name(name)
    if len(settings) > MOST_SETTINGS:
        raise RunRefusedError(f"{len(settings)} settings are more than there are")
    _check("base", base)
    _check_model("base", base, own_machine)
    for key, value in settings.items():
        if key not in LOOP_KEYS and not LOOP_SETTING.fullmatch(key):
            raise RunRefusedError(f"setting {key[:100]!r} is none of a loop; leave it out")
        for text in _texts(value):
            _check(key, text)
        inner = key.partition(".")[2]  # of the tuning run that the loop starts
        if inner in FILES and value and not own_machine:
            raise RunRefusedError(f"{key}: a loop of this page takes no file; leave it out")
        if inner in MODELS and value:
            _check_model(key, str(value), own_machine)
    suite = str(settings.get("suite") or "")
    if suite and not own_machine and not PLAIN.fullmatch(suite):
        raise RunRefusedError(f"suite {suite!r}: give a suite by its name")
    skip = {} if controls else {"skip": list(CONTROLS)}
    made = {**settings, **skip, "base": base, "data": VOTES}
    return RunRequest(name, made, share, kind="loop")


def _texts(value: Setting) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.keys()
        yield from value.values()


def _check(key: str, text: str) -> None:
    try:
        check_text(key, text)
    except ArenaError as error:
        raise RunRefusedError(str(error)) from error
    if len(text) > TEXT_CHARS or not text.isprintable():
        raise RunRefusedError(
            f"{key}: give one line of at most {TEXT_CHARS} characters that can be shown"
        )


def _source(home: Path, source: str, own_machine: bool) -> str:
    uploaded = path_of(home, source)
    if uploaded is not None:
        return str(uploaded)
    is_hub_id = HUB_ID.fullmatch(source) and not Path(source).exists()
    if source in BUILT_IN or is_hub_id or own_machine:
        return source
    raise RunRefusedError(
        f"data {source!r}: give starter, votes, an uploaded file by its name, or a hub id"
    )


def _file(home: Path, key: str, name: str, own_machine: bool) -> str:
    uploaded = path_of(home, name)
    if uploaded is None and not own_machine:
        raise RunRefusedError(f"{key}: {name!r} is no uploaded file; upload it first")
    return name if uploaded is None else str(uploaded)


def _check_model(key: str, name: str, own_machine: bool) -> None:
    is_hub_id = HUB_ID.fullmatch(name) and not Path(name).exists()
    if not (own_machine or PLAIN.fullmatch(name) or is_hub_id):
        raise RunRefusedError(f"{key} {name!r}: give a model by its name, or a hub id")
