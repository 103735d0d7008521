"""The `arena export` and `import` commands: words to options, results to text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from arena.errors import ArenaError
from arena.exports.dataset import RAW, Exported, ExportOptions, export, export_format
from arena.exports.hub import check_push, push
from arena.storage.selection import INCLUDABLE, LeftOut, Selection
from arena.storage.store import Store
from arena.values.times import parse_time


class OptionError(ArenaError):
    """An option of the command line has a value it cannot have."""


@dataclass(frozen=True)
class ExportRequest:
    """The command line of `arena export`, unparsed."""

    home: Path
    out: Path | None
    format: str
    models: tuple[str, ...]
    tags: tuple[str, ...]
    since: str | None
    until: str | None
    include: tuple[str, ...]
    blind_only: bool
    test_fraction: float
    seed: int
    dedupe: bool
    redact: bool
    license: str
    overwrite: bool
    push: str | None = None


def run_export(request: ExportRequest, *, json_out: bool) -> None:
    """Export and print what was written and what was left out."""
    if request.format != RAW:
        export_format(request.format)  # a wrong word is told before a missing store
    token = None if request.push is None else check_push(request.push)  # before any work
    store = existing_store(request.home)
    out = request.out or request.home / "exports" / request.format
    done = export(store, out, options_of(request), overwrite=request.overwrite)
    url = None
    if request.push is not None and token is not None:
        url = push(out, request.push, token)
    print(export_json(done, url) if json_out else export_text(done, url))


def existing_store(home: Path) -> Store:
    """The store of a home; refused when there is none, rather than making an empty one."""
    if not (home / "arena.db").is_file():
        raise OptionError(f"--home {home} has no arena.db; vote on the page first (arena up)")
    return Store.at_home(home)


def options_of(request: ExportRequest) -> ExportOptions:
    """The options behind the words."""
    selection = Selection(
        models=request.models,
        tags=request.tags,
        since_ms=None if request.since is None else parse_time("--since", request.since),
        until_ms=None if request.until is None else parse_time("--until", request.until),
        blind_only=request.blind_only,
        include=frozenset(parse_include(word) for word in request.include),
    )
    return ExportOptions(
        format=request.format,
        selection=selection,
        test_fraction=request.test_fraction,
        seed=request.seed,
        dedupe=request.dedupe,
        redact=request.redact,
        license=request.license,
    )


def parse_include(word: str) -> LeftOut:
    """One of the kinds of votes that are left out unless asked for."""
    if word not in set(INCLUDABLE):
        raise OptionError(f"--include {word!r} is unknown; use one of {', '.join(INCLUDABLE)}")
    return LeftOut(word)


def export_json(done: Exported, url: str | None) -> str:
    """For scripts; `pushed` is the page on the hub or null."""
    return json.dumps(asdict(done) | {"folder": str(done.folder), "pushed": url})


def export_text(done: Exported, url: str | None) -> str:
    """For people: rows per split, every vote that made none, and where it was pushed."""
    lines = [
        f"{sum(done.splits.values())} rows in {done.folder} "
        f"({', '.join(f'{split} {n}' for split, n in done.splits.items())})"
    ]
    lines += [f"left out: {reason} {n}" for reason, n in sorted(done.left_out.items())]
    lines += [f"rows left out: {reason} {n}" for reason, n in sorted(done.rows_left_out.items())]
    lines += [f"pushed to {url}"] if url else []
    return "\n".join(lines)
