"""What the program and its children say, kept in `<home>/logs` as well as on the terminal.

One file for each port, rotated by size, for its owner's eyes. Knows files and streams; knows no
server and no page. A disk that is full, or a terminal that went away, ends nothing.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any, TextIO, cast

from arena.errors import ArenaError
from arena.storage.private_files import OWNER_ONLY

FOLDER = "logs"
FILE_BYTES = 4_000_000
OLD_FILES = 4
"""With the newest 20 MB at most."""
LINE_CHARS = 4_000
"""A longer line goes on in a further one: what a child writes without an end fills no memory."""
AGAIN_SECONDS = 60.0


class ProgramLog:
    """The file of one program, written by several sources, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._begun: dict[str, str] = {}  # lines without an end, by who writes them
        self._file: _PrivateFile | None = None
        self._told_at = float("-inf")

    def show(self, source: str, text: str, terminal: TextIO) -> None:
        """Write a text to the terminal as it is, and its whole lines to the file."""
        with self._lock:
            _say(terminal, text)
            *whole, rest = (self._begun.pop(source, "") + text).split("\n")
            if len(rest) > LINE_CHARS:
                whole.append(rest)
            elif rest:
                self._begun[source] = rest
            for line in whole:
                shown = line.rstrip("\r").rpartition("\r")[2]  # of a progress bar the last state
                for start in range(0, len(shown), LINE_CHARS):
                    self._write(source, shown[start : start + LINE_CHARS], terminal)

    def follow(self, source: str, stream: IO[bytes], terminal: TextIO) -> threading.Thread:
        """Show what comes out of a pipe until its end, in a thread that is returned."""

        def copy() -> None:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            while piece := os.read(stream.fileno(), 65_536):
                self.show(source, decoder.decode(piece), terminal)
            stream.close()

        thread = threading.Thread(target=copy, name=f"log-{source}", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Write what has no end yet; nothing may be shown any more."""
        with self._lock:
            for source in list(self._begun):
                self.show(source, "\n", io.StringIO())
            if self._file is not None:
                with contextlib.suppress(OSError):  # a full disk has been told of
                    self._file.close()

    def _write(self, source: str, line: str, terminal: TextIO) -> None:
        try:
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                self._file = _PrivateFile(self._path)
            self._file.emit(logging.LogRecord(source, logging.INFO, "", 0, line, None, None))
        except OSError as error:
            if time.monotonic() - self._told_at > AGAIN_SECONDS:
                self._told_at = time.monotonic()
                _say(terminal, f"arena: {self._path} is not written ({error.strerror or error})\n")


def tell_terminal(text: str) -> None:
    """Say a text on the terminal alone: a log is sent to others, and keeps no secret."""
    if sys.__stderr__ is not None:
        _say(sys.__stderr__, text)


def _say(terminal: TextIO, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # it went away or is closed: the file has it
        terminal.write(text)
        terminal.flush()


class _PrivateFile(RotatingFileHandler):
    """A rotated file that only its owner reads; its errors are raised."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
        form = logging.Formatter("%(asctime)sZ %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        form.converter = time.gmtime
        self.setFormatter(form)

    def _open(self) -> TextIOWrapper:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags, OWNER_ONLY)

        name = self.baseFilename
        return open(name, "a", encoding="utf-8", errors="backslashreplace", opener=private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raise what went wrong; said on the standard error it would come back to this file."""
        raise


class _Shown:
    """A standard stream whose texts go through the log; all else is the stream's own."""

    def __init__(self, log: ProgramLog, stream: TextIO) -> None:
        self._log, self._stream = log, stream

    def write(self, text: str) -> int:
        """Show and keep it."""
        self._log.show("page", text, self._stream)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def program_log(home: Path, port: int) -> Iterator[ProgramLog]:
    """The log of the program at this port; its standard output and error go there as well."""
    log = ProgramLog(home.resolve() / FOLDER / f"arena-{port}.log")
    out, err = (cast(TextIO, _Shown(log, stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield log
        except ArenaError as error:
            log.show("page", f"arena: {error}\n", io.StringIO())  # the command tells the terminal
            raise
        except Exception:
            log.show("page", traceback.format_exc(), io.StringIO())
            raise
        finally:
            log.close()
