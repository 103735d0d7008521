"""A command of `arena` as a child process of `arena up`: it ends when its parent does.

The parent holds the other end of our standard input, which closes with it, whatever ends it.
"""

from __future__ import annotations

import os
import sys
import threading

from arena.cli import main


def run() -> None:
    """The child's whole life: `arena` with our arguments, ended when the pipe closes."""
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    main()


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the other end is closed, also by the parent's death
    os._exit(0)


if __name__ == "__main__":
    run()
