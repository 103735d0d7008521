"""Rows of kept data files, corrected and left out; settings as YAML and back. For admins alone.

Knows HTTP, the data folder and the settings of runs; whoever may come was asked by the router.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from arena.runs.data_rows import corrected, find_rows, name_of_corrected
from arena.runs.requests import Setting
from arena.runs.settings_yaml import as_yaml, from_yaml
from arena.runs.uploads import UploadRefusedError, keep, path_of
from arena.runs.wishes import request_of
from arena.web.visitors import visitor_of

CHANGES_BYTES = 8 << 20


class Corrections(BaseModel):
    """Rows by their numbers: as they are to be (JSON text), and those that are left out."""

    model_config = ConfigDict(extra="forbid")
    changes: dict[int, str] = {}
    left_out: list[int] = []


class NamedSettings(BaseModel):
    """A run as it is asked for."""

    model_config = ConfigDict(extra="forbid")
    name: str
    settings: dict[str, Setting] = {}


class WrittenSettings(BaseModel):
    """The same as YAML."""

    model_config = ConfigDict(extra="forbid")
    yaml: str = Field(max_length=60_000)


def add_data(router: APIRouter, home: Path) -> None:
    """The routes, on a router that lets admins in alone."""

    @router.get("/data/{name}/rows")
    async def rows(name: str, search: str = "", offset: int = Query(0, ge=0)) -> dict[str, Any]:
        return await asyncio.to_thread(find_rows, _file(home, name), search, offset)

    @router.post("/data/{name}/rows", status_code=201, max_body_size=CHANGES_BYTES)
    async def correct(name: str, body: Corrections) -> dict[str, Any]:
        path = _file(home, name)
        content = await asyncio.to_thread(corrected, path, body.changes, body.left_out)

        async def pieces() -> AsyncIterator[bytes]:
            yield content

        kept = await keep(home, name_of_corrected(name), pieces())
        return {"name": kept.name, "bytes": len(content)}

    @router.post("/yaml")
    async def write(body: NamedSettings, request: Request) -> dict[str, str]:
        is_open = visitor_of(request.scope).is_open
        return {"yaml": as_yaml(request_of(home, body.name, body.settings, own_machine=is_open))}

    @router.post("/settings")
    async def read(body: WrittenSettings) -> dict[str, Any]:
        name, settings = from_yaml(body.yaml)
        return {"name": name, "settings": settings}


def _file(home: Path, name: str) -> Path:
    path = path_of(home, name)
    if path is None:
        raise UploadRefusedError(f"{name[:100]!r} is no uploaded file; upload it first")
    return path
