"""Chat templates rendered in a process of their own, bounded in time, memory and length.

A template is a program that came with a folder, and strangers choose what it works on. Sandboxing
it keeps it from files, not from loops. Knows templates and the child; does not know requests.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.errors import ModelLoadError
from serving.models import render_child
from serving.models.probed import ProbedModels, probe_key

CPU_SECONDS = 2
# On a machine that is busy otherwise.
WALL_SECONDS = 30.0
START_SECONDS = 120.0
MEMORY_BYTES = 512 * 2**20
MOST_CHARACTERS = 8_000_000
BOUNDS = (CPU_SECONDS, MEMORY_BYTES, MOST_CHARACTERS)
PASSED = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HOME", "LANG", "TZ", "SYSTEMROOT")
GREETING = ({"role": "user", "content": "Hello"},)


class ChatTemplateError(ValueError):
    """A template that gave no text; `kind` is the class of the error it raised, or `bound`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class TemplateRenderer:
    """Owns the child, which starts with the first template. Safe to use from any thread.

    Templates that were found right are noted in `probed`.
    """

    def __init__(self, probed: ProbedModels | None = None) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._is_ready = False
        self._probed = probed if probed is not None else ProbedModels(None)

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def check(self, folder: Path, tokenizer: Any) -> None:
        """ModelLoadError for a template that is none, or that goes beyond a bound on a greeting.

        One that refuses the greeting may want another conversation: it is asked when there is one.
        """
        template = getattr(tokenizer, "chat_template", None)
        if not template:
            return
        with self._lock:
            if self._line is None:
                self._start()  # It gets ready beside what else is loaded.
        key = probe_key(str(template).encode(), "template", str(BOUNDS))
        if key in self._probed:
            return
        try:
            self.render(tokenizer, GREETING)
        except ChatTemplateError as error:
            if error.kind in ("bound", "TemplateSyntaxError", "SecurityError"):
                raise ModelLoadError(
                    f"{folder}: its chat template cannot be used: {error}; mend or remove it"
                ) from error
        self._probed.add(key)

    def render(
        self,
        tokenizer: Any,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        continued: bool = False,
        ended: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a conversation, as the tokenizer's `apply_chat_template` gives it.

        An answer is asked for, unless the last message is to be `continued`, or all is `ended`.
        ChatTemplateError says why there is none.
        """
        try:
            template = tokenizer.get_chat_template(None, tools)
        except ValueError as error:  # several, and none of them is the one
            raise ChatTemplateError(str(error), "ValueError") from error
        special = tokenizer.special_tokens_map.items()
        request = {
            "conversations": [[{k: v for k, v in m.items() if v is not None} for m in messages]],
            "tools": list(tools) if tools is not None else None,
            "documents": None,
            "chat_template": template,
            "return_assistant_tokens_mask": False,
            "continue_final_message": continued,
            "add_generation_prompt": not (continued or ended),
            **{k: list(map(str, v)) if isinstance(v, list) else str(v) for k, v in special},
            **(extra or {}),
        }
        with self._lock:
            answer = self._ask(request)
        if "text" not in answer:
            raise ChatTemplateError(" ".join(answer["error"].split()), answer["kind"])
        return str(answer["text"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        line = self._ready_line()
        try:
            line.settimeout(WALL_SECONDS)
            render_child.send(line, request)
            answer = render_child.receive(line)
        except OSError:  # which a timeout is, too
            answer = None
        if answer is None:
            code = self._end()
            what = "time" if code in (-signal.SIGVTALRM, -signal.SIGKILL) else "memory"
            return {"kind": "bound", "error": f"it takes too much {what}"}
        return answer  # type: ignore[no-any-return]

    def _ready_line(self) -> socket.socket:
        line = self._line if self._line is not None else self._start()
        if not self._is_ready:
            try:
                line.settimeout(START_SECONDS)
                self._is_ready = bool(render_child.receive(line))
            except OSError:
                self._is_ready = False
            if not self._is_ready:
                self._end()
                raise ChatTemplateError("the process that renders did not start", "bound")
        return line

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                # Not the folder of the file on the path: it has modules named as libraries are.
                [sys.executable, "-P", render_child.__file__, str(theirs.fileno()),
                 *map(str, BOUNDS)],
                # Of its own session: what interrupts the server at a terminal is not its business.
                start_new_session=True, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env=_environment(),
            )  # fmt: skip
        self._line, self._is_ready = ours, False
        return ours

    def _end(self) -> int | None:
        """End the child; its exit code, the signal's if it had ended by itself."""
        if self._line is not None:
            self._line.close()
        child, self._child, self._line = self._child, None, None
        if child is None:
            return None
        try:
            return child.wait(0.2)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def _environment() -> dict[str, str]:
    """Where programs are and which language is spoken: nothing of what the server is told."""
    kept = {k: v for k, v in os.environ.items() if k in PASSED or k.startswith("LC_")}
    return {**kept, "USE_TORCH": "0", "HF_HUB_OFFLINE": "1"}
