"""Which folder is home where nobody names one; knows no command and makes no folder.

In a checkout, and where a `workspace` folder exists already, it is that. A program that was
installed from a wheel is run from anywhere, so there it is the user's data folder: the same
votes and models are found again from the next folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

WORKSPACE = Path("workspace")
FOLDER = "instruct-arena"


def usual_home(
    cwd: Path | None = None,
    package: Path = Path(__file__).parents[1],
    environment: Mapping[str, str] = os.environ,
) -> Path:
    """Home of a command that is run in `cwd` without `--home` and ARENA_HOME.

    `package` is the folder of the package `arena`: in a checkout pyproject.toml lies beside it.
    """
    here = WORKSPACE if cwd is None else cwd / WORKSPACE
    if here.is_dir() or (package.parent / "pyproject.toml").is_file():
        return WORKSPACE
    return data_folder(environment) / FOLDER


def data_folder(environment: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where this user's programs keep data, as each system has it.

    On Linux as the XDG Base Directory Specification says: a path that is not absolute is no path.
    """
    user = Path(environment.get("HOME") or Path.home())
    if platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or user / "AppData" / "Local")
    if platform == "darwin":
        return user / "Library" / "Application Support"
    named = Path(environment.get("XDG_DATA_HOME", ""))
    return named if named.is_absolute() else user / ".local" / "share"
