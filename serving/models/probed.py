"""Remembers which adapters and templates were tried, so that a restart need not do it again.

Loading PEFT for that takes most of a second, and so does the process that renders. Knows files and
versions; does not know engines.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

logger = logging.getLogger(__name__)
FILE = "probed.json"
MOST_KEYS = 1_000
# What decides, beside the weights, what comes out.
LIBRARIES = ("instruct-arena", "torch", "transformers", "peft")


class ProbedModels:
    """Keys of what was found right, in a file of `home`; in nothing where there is no home."""

    def __init__(self, home: Path | None) -> None:
        self._path = home / FILE if home is not None and home.is_dir() else None
        self._keys = self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Remember; a home that cannot be written to is no reason to refuse a model."""
        self._keys = [*self._keys, key][-MOST_KEYS:]
        if self._path is None:
            return
        beside = self._path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            beside.write_text(json.dumps(self._keys, indent=1) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            logger.info("%s: not written, the next start probes again: %s", self._path, error)

    def _read(self) -> list[str]:
        if self._path is None:
            return []
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []  # Not there, or not ours: everything is probed, and the file written anew.
        is_ours = isinstance(found, list) and all(isinstance(key, str) for key in found)
        return found[-MOST_KEYS:] if is_ours else []


def probe_key(content: bytes, *parts: str) -> str:
    """Hash of a settings file or a template, of `parts` (weights, device), and of the libraries."""
    digest = hashlib.sha256(content)
    for part in (*parts, *(f"{name} {_version(name)}" for name in LIBRARIES)):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


@functools.cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a folder, not installed
        return ""
