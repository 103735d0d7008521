"""Runs a command in a process group of its own, and ends the group when standard input closes.

So an engine with processes of its own leaves nothing behind, whatever ends the server. Knows no
engine: `python -m serving.elsewhere.guard COMMAND …`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run the command until it ends or our parent does; its exit status."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )

    def end_with_parent() -> None:
        sys.stdin.buffer.read()  # returns when the other end is closed, also by its death
        _signal(process, signal.SIGTERM)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _signal(process, signal.SIGTERM))
    threading.Thread(target=end_with_parent, daemon=True).start()
    status = process.wait()
    _signal(process, signal.SIGKILL)  # what it left in its group
    return status


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
