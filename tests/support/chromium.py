"""Finds a Chromium for the browser tests, and gets one when asked; knows nothing of the page.

`python tests/support/chromium.py` looks for a browser of the system, then of Playwright. With
none it installs Debian's package (as root), else Playwright's own build. It never fails: without
a browser the tests say why they are skipped, and under `CI=true` they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Without these Chromium looks up hosts of its vendor at every start. Root has no user
# namespace for the sandbox in most containers; the pages under test are our own.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> Path | None:
    """The browser to drive: `ARENA_CHROMIUM`, else the system's, else Playwright's, else None."""
    chosen = os.environ.get("ARENA_CHROMIUM")
    if chosen:
        return Path(chosen) if os.access(chosen, os.X_OK) else None
    for name in SYSTEM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    return _playwright_chromium()


def _playwright_chromium() -> Path | None:
    """Playwright's own build, if it has been downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.is_file() else None


def why_missing() -> str:
    """One line for a skipped test: what was looked for, and the remedy."""
    chosen = os.environ.get("ARENA_CHROMIUM")
    if chosen:
        return f"ARENA_CHROMIUM={chosen} is not an executable file"
    return (
        f"no Chromium: looked for {', '.join(SYSTEM_NAMES)} and Playwright's own; "
        "install one, or set ARENA_CHROMIUM to its path"
    )


def install_commands() -> list[list[str]]:
    """The commands that would get a Chromium here, in order; the first that works is enough."""
    commands = []
    if os.geteuid() == 0 and shutil.which("apt-get"):
        package = "apt-get install -y -qq --no-install-recommends chromium"
        commands.append(["sh", "-c", f"apt-get update -qq && {package}"])
    commands.append([sys.executable, "-m", "playwright", "install", "chromium"])
    return commands


def main() -> None:
    """Print the browser's path; install one first if there is none."""
    found = find_chromium()
    if found is None and "ARENA_CHROMIUM" not in os.environ:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in install_commands():
            print("installing Chromium:", command[-1] if command[0] == "sh" else " ".join(command))
            outcome = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            found = find_chromium()
            if found is not None:
                break
            print((outcome.stdout + outcome.stderr).strip()[-2000:], file=sys.stderr)
    print(f"Chromium: {found}" if found else f"browser tests will be skipped: {why_missing()}")


if __name__ == "__main__":
    main()
