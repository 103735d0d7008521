"""Follows the variant folders under home: what appears is served, what goes is not any more.

Folders are published whole (renamed into place), so one that is seen is complete. Knows the
registry and the folder; does not know HTTP.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from serving.errors import ServingError, UnknownModelError
from serving.models.names import printable
from serving.models.registry import Registry
from tuning.variant import VARIANT_FILE, list_variants

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0


class Watcher:
    """Polls `<home>/models` in a thread of its own; `poll` does one round."""

    def __init__(self, registry: Registry, home: Path, seconds: float = POLL_SECONDS) -> None:
        self._registry = registry
        self._home = home
        self._seconds = seconds
        self._stop = threading.Event()
        self._seen: dict[str, int] = {}
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name="serving-watch", daemon=True)
        served = {model.folder.resolve() for model in registry}
        for folder in list_variants(home):
            # What the server was started with counts as seen, served or refused.
            if folder.resolve() in served or printable(folder.name) in registry.refused:
                self._seen[folder.name] = _stamp(folder)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the current round is over."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def poll(self) -> None:
        """Compare the folder with what is served, and load or unload the difference."""
        try:
            folders = {folder.name: folder for folder in list_variants(self._home)}
        except OSError as error:
            self._complain(printable(f"{self._home}: cannot be looked at: {error}"))
            return
        self._complaint = ""
        for name in [name for name in self._seen if name not in folders]:
            del self._seen[name]
            self._unload(name)
        for name, folder in folders.items():
            stamp = _stamp(folder)
            if self._seen.get(name) != stamp:
                self._seen[name] = stamp
                self._load(name, folder)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.poll()
            except Exception:
                logger.exception("a look at %s failed; the next one follows", self._home)

    def _complain(self, complaint: str) -> None:
        """Once, not every two seconds."""
        if complaint != self._complaint:
            self._complaint = complaint
            logger.warning("%s", complaint)

    def _load(self, name: str, folder: Path) -> None:
        if folder.resolve() == self._registry.base.folder.resolve():
            return
        if self._registry.offer(name, folder, replace=True):
            logger.info("model %s appeared and is served", name)

    def _unload(self, name: str) -> None:
        self._registry.forget(name)
        try:
            self._registry.unload(name)
            logger.info("model %s is gone and served no more", name)
        except UnknownModelError:
            logger.debug("model %s was not served", printable(name))
        except ServingError as error:
            logger.warning("model %s stays: %s", name, error)


def _stamp(folder: Path) -> int:
    """Changes when the folder is replaced by another or sealed anew."""
    try:
        sealed = folder / VARIANT_FILE
        return (sealed if sealed.is_file() else folder).stat().st_mtime_ns
    except OSError:
        return 0
