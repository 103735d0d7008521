"""Texts of models that would hold the page: drawn elsewhere, in time, or shown as they are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from arena.i18n import words
from arena.page.drawing.drawer import Drawer, DrawingLimits
from arena.page.drawing.jobs import answer_job, marked_job, step_job
from arena.page.drawing.views import steps_of
from arena.page.html.incremental import IncrementalHtml
from arena.page.html.markdown import LABELS, answer_html
from arena.page.html.panes import DrawnTexts

QUICK = DrawingLimits(processes=1, cpu_seconds=0.2)
# A string that is never closed: the highlighter tries every way to read it.
ENDLESS = '```chapel\n"' + "\\" * 260 + "\n```"
HOSTILE = {
    "images that never end": "![" * 20_000,
    "brackets": "[" * 20_000 + "](" * 20_000,
    "quotes in quotes": "> " * 20_000 + "x",
    "emphasis in emphasis": "*a _b " * 6_000,
    "lists in lists": "".join(" " * i + "- x\n" for i in range(600)),
    "code of one kind after another": "".join(
        f"```{n}\n{'[' * 900}\n```\n" for n in ("perl", "c++", "html+php", "scss")
    ),
    "formulas": "$" + "{" * 1_900 + "$ " + "$\\frac" * 3_000,
    "thoughts": "<think>" * 4_000,
    "a string that never ends": ENDLESS,
    "one more": ENDLESS.replace("chapel", "cddl"),
}


def with_drawer(play: Callable[[Drawer], Awaitable[None]], limits: DrawingLimits = QUICK) -> None:
    async def main() -> None:
        drawer = Drawer(limits)
        try:
            await play(drawer)
        finally:
            await drawer.close()
            assert drawer.pids == []

    asyncio.run(main())


def test_what_is_drawn_is_what_the_renderer_makes() -> None:
    text = "# A *head*\n\n$x^2$ and `code`\n\n```python\nx = 1\n```\n"

    async def play(drawer: Drawer) -> None:
        jobs = [answer_job(text, LABELS), marked_job("one two", "one six"), answer_job("", LABELS)]
        html, marked, empty = await drawer.draw(jobs)
        assert html == answer_html(text)
        assert "one <mark>two</mark>" in marked
        assert empty == ""
        assert await drawer.draw([step_job("One.\n\nTw", 6, LABELS)]) == [
            ['<p dir="auto">One.</p>\n', 6, '<p dir="auto">Tw</p>\n']
        ]
        assert await drawer.draw([]) == []

    with_drawer(play)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_text_holds_the_loop_or_takes_longer_than_its_time(kind: str) -> None:
    """The loop's own delay is measured while the text is drawn; time is that of the process."""

    async def play(drawer: Drawer) -> None:
        await drawer.draw([answer_job("warm", LABELS)])
        (process,) = drawer.pids
        began = cpu_seconds(process)
        await drawer.draw([answer_job(HOSTILE[kind], LABELS)])
        assert drawer.pids == [process], "it ended the text by itself"
        assert cpu_seconds(process) - began < 3 * QUICK.cpu_seconds + 0.5

    with_drawer(play)


@pytest.mark.slow
def test_what_takes_too_long_is_shown_simpler_or_plain_and_copied_as_it_was_written() -> None:
    text = ENDLESS + "\n\nand *more*"

    async def play(drawer: Drawer) -> None:
        for _ in range(2):
            (shown,) = await drawer.draw([answer_job(text, LABELS)])
            assert "<em>more</em>" in shown, "only its colours are left out"
            assert "hl-" not in shown
        (process,) = drawer.pids
        began = cpu_seconds(process)
        assert await drawer.draw([answer_job("![" * 20_000, LABELS)]) == [None]
        assert await drawer.draw([answer_job("![" * 20_000, LABELS)]) == [None]
        assert await drawer.draw([answer_job(text, LABELS)]) == [shown]
        assert cpu_seconds(process) - began < 5 * QUICK.cpu_seconds, "it is not tried again"

    with_drawer(play)
    plain = DrawnTexts().answer("\n  ![ <b>\nx\n")
    assert plain == '<div class="plain" dir="auto">  ![ &lt;b&gt;\nx</div>'


@pytest.mark.slow
def test_a_process_that_hangs_or_dies_is_replaced_and_its_neighbours_are_drawn() -> None:
    async def play(drawer: Drawer) -> None:
        await drawer.draw([answer_job("warm", LABELS)])
        for end in (signal.SIGKILL, signal.SIGSTOP):
            (process,) = drawer.pids
            os.kill(process, end)
            texts = [f"one {end}", f"two {end}"]  # not drawn before
            shown = await drawer.draw([answer_job(text, LABELS) for text in texts])
            assert shown == [f'<p dir="auto">{text}</p>\n' for text in texts]
            assert drawer.pids != [process]

    with_drawer(play, DrawingLimits(processes=1, wall_seconds=3.0))


@pytest.mark.slow
def test_a_text_that_takes_all_memory_costs_nobody_else_anything() -> None:
    async def play(drawer: Drawer) -> None:
        jobs = [answer_job("x" * 30_000_000, LABELS), answer_job("one", LABELS)]
        big, small = await drawer.draw(jobs)
        assert (big, small) == (None, '<p dir="auto">one</p>\n')

    with_drawer(play, DrawingLimits(processes=1, cpu_seconds=20.0, memory_bytes=300_000_000))


def test_who_leaves_takes_no_process_along_and_the_loop_goes_on() -> None:
    async def play(drawer: Drawer) -> None:
        await drawer.draw([answer_job("warm", LABELS)])
        (process,) = drawer.pids
        task = asyncio.create_task(drawer.draw([answer_job("![" * 20_000, LABELS)]))
        await asyncio.sleep(0.05)
        task.cancel()
        assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is (
            asyncio.CancelledError
        )
        (shown,) = await drawer.draw([answer_job("one", LABELS)])
        assert shown == '<p dir="auto">one</p>\n'
        assert drawer.pids == [process]

    with_drawer(play)


@pytest.mark.slow
def test_an_answer_that_grows_goes_on_as_words_once_a_step_took_too_long() -> None:
    async def play(drawer: Drawer) -> None:
        html, text = IncrementalHtml(), "One.\n\n" + "![" * 20_000
        told = await steps_of(drawer, {0: (html, text)}, words())
        assert str(told[0]["tail"]).startswith('<div class="plain" dir="auto">One.')
        (process,) = drawer.pids
        began = cpu_seconds(process)
        for i in range(5):
            told = await steps_of(drawer, {0: (html, text + "x" * (i + 1))}, words())
        assert told[0]["tail"] == "x</div>"
        assert cpu_seconds(process) == began

    with_drawer(play)


@pytest.mark.slow
def test_processes_end_with_the_page_however_it_ends() -> None:
    """Killed while a text is drawn, the page leaves no process behind."""
    code = (
        "import asyncio\n"
        "from arena.page.drawing.drawer import Drawer\n"
        "from arena.page.drawing.jobs import answer_job\n"
        "from arena.page.html.markdown import LABELS\n"
        "async def main():\n"
        "    drawer = Drawer()\n"
        "    await drawer.draw([answer_job('warm', LABELS)])\n"
        "    print(drawer.pids[0], flush=True)\n"
        "    await drawer.draw([answer_job('![' * 20_000, LABELS)])\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        process = int(page.stdout.readline())
        page.kill()
    limit = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < limit, "it outlives the page"
        time.sleep(0.1)


def test_a_text_is_drawn_once_and_a_long_talk_in_pieces() -> None:
    jobs = [answer_job(f"text {i}", LABELS) for i in range(30)]

    async def play(drawer: Drawer) -> None:
        first = await drawer.draw(jobs)
        assert first == [f'<p dir="auto">text {i}</p>\n' for i in range(30)]
        (process,) = drawer.pids
        os.kill(process, signal.SIGSTOP)  # nothing more is asked of it
        assert await drawer.draw(list(reversed(jobs))) == list(reversed(first))
        os.kill(process, signal.SIGCONT)

    with_drawer(play)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
