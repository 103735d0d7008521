"""The version of the installed program; knows no part of it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """Version of the installed program."""
    try:
        return version("instruct-arena")
    except PackageNotFoundError:
        return "unknown"
