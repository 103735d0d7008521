"""The tasks of a loop, in their order, each done once.

What a task found is written down before the next one begins, so a loop that was killed goes on
where it was. Knows which task needs which; knows neither how one is done nor what is told of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from tuning.loop.folder import LoopFolder
from tuning.loop.models import START, refuse_taken_names
from tuning.loop.report import loop_report
from tuning.loop.report_files import write_loop_report
from tuning.loop.settings import LoopSettings
from tuning.loop.votes import INVERTED, SHARES, SHUFFLED, TRUE, export_votes
from tuning.loop.workshop import Finding, Workshop
from tuning.quiet import known_warnings_hidden, quiet_libraries


@dataclass(frozen=True)
class LoopTask:
    """One thing to find out, of one step.

    It is left out where the step is skipped, where a task of `needs` is not done, and with
    `needs_checks` where nothing verifies answers.
    """

    step: str
    name: str
    about: str
    run: Callable[[Workshop], Finding]
    needs: tuple[str, ...] = ("export",)
    needs_checks: bool = False


def run_loop(
    settings: LoopSettings,
    sources: Callable[[], Sequence[str]],
    *,
    skip: frozenset[str] = frozenset(),
    restart: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Do all tasks that are not done, and write the report, which is returned.

    `sources` makes the files of votes; it is called once in the life of a loop, so that votes that
    come later do not change it. Steps in `skip` are left out this time, and done by a later call
    without it. Raises a TuningError for whatever a run, the data or the folder refuse.
    """
    quiet_libraries()
    out = console if console is not None else Console(quiet=True)
    folder = LoopFolder(settings.folder)
    with folder.opened(settings, restart=restart), known_warnings_hidden():
        shop = Workshop(settings, folder, sources, out)
        left_out = _do_all(shop, tasks_of(settings), skip)
        report = loop_report(shop, left_out)
        write_loop_report(folder.path, report)
    return report


def _do_all(shop: Workshop, tasks: Sequence[LoopTask], skip: frozenset[str]) -> dict[str, str]:
    """Do what is to be done; why the rest is left out."""
    left_out: dict[str, str] = {}
    for number, task in enumerate(tasks, 1):
        place = f"[{number}/{len(tasks)}] {task.step}: {task.about}"
        found = shop.folder.found(task.name)
        if found is not None:
            shop.console.print(f"{place} (done before)", highlight=False, markup=False)
            continue
        why = _why_not(shop, task, skip, left_out)
        if why:
            left_out[task.name] = why
            shop.console.print(f"{place}: left out, {why}", highlight=False, markup=False)
            continue
        shop.console.print(place, highlight=False, markup=False)
        began, worked = time.monotonic(), time.process_time()
        found = task.run(shop)
        took = {
            "seconds": round(time.monotonic() - began, 2),
            "cpu_seconds": round(time.process_time() - worked, 2),
        }
        shop.folder.keep(task.name, {**found, **took, "step": task.step})
    return left_out


def _why_not(
    shop: Workshop, task: LoopTask, skip: frozenset[str], left_out: dict[str, str]
) -> str | None:
    if task.step in skip:
        return f"{task.step} is skipped"
    for name in task.needs:
        if name in left_out:
            return f"it needs {name}, which is left out"
    if task.needs_checks and not shop.verifiers.items:
        return shop.verifiers.why_none
    return None


def tasks_of(settings: LoopSettings) -> list[LoopTask]:
    """All tasks of a loop, in their order."""
    return [
        LoopTask("export", "export", "the votes", _export, needs=()),
        *_reward("reward", TRUE, "the votes"),
        *(
            task
            for name, share in SHARES.items()
            for task in _reward("curve", name, f"{share:.0%} of the votes")
        ),
        LoopTask("best-of", "samples", "answers of the start to pick among", Workshop.draw,
             needs_checks=True),
        _best_of("best-of", TRUE),
        *_policies("policy", settings, TRUE, "the votes"),
        *_control(settings, SHUFFLED, "shuffled votes"),
        *_control(settings, INVERTED, "the opposite of the votes"),
        *_measures(settings),
    ]  # fmt: skip


def _export(shop: Workshop) -> Finding:
    refuse_taken_names(shop.settings)
    _ = shop.beginning  # a start that cannot be one is told before anything is read
    return export_votes(shop.settings, shop.sources(), shop.folder)


def _reward(step: str, which: str, of: str) -> Iterator[LoopTask]:
    train, agree = (partial(run, which=which) for run in (Workshop.train_reward, Workshop.agree))
    name = f"reward-{which}"
    yield LoopTask(step, name, f"a reward model of {of}", train)
    yield LoopTask(step, f"agree-{which}", "its agreement with held-out votes", agree, (name,))


def _best_of(step: str, which: str) -> LoopTask:
    needs = ("samples", f"reward-{which}")
    pick = partial(Workshop.pick, which=which)
    return LoopTask(step, f"best-{which}", "what it picks among drawn answers", pick, needs)


def _policies(step: str, settings: LoopSettings, which: str, of: str) -> Iterator[LoopTask]:
    for word in settings.policies:
        needs = f"reward-{which}" if word == "rl" else "export"
        train = partial(Workshop.train_policy, objective=word, which=which)
        yield LoopTask(step, f"{word}-{which}", f"{word} on {of}", train, (needs,))


def _control(settings: LoopSettings, which: str, of: str) -> Iterator[LoopTask]:
    yield from _reward(which, which, of)
    yield _best_of(which, which)
    yield from _policies(which, settings, which, of)


def _measures(settings: LoopSettings) -> Iterator[LoopTask]:
    votes = (TRUE, SHUFFLED, INVERTED)
    for word in (START, *(f"{word}-{which}" for which in votes for word in settings.policies)):
        answer, score, far = (
            partial(run, word=word)
            for run in (Workshop.answer, Workshop.score, Workshop.measure_distance)
        )
        made = "export" if word == START else word
        answers = f"answers-{word}"
        yield LoopTask("eval", answers, f"answers of {word}", answer, (made,))
        needs = (answers, f"reward-{TRUE}")
        yield LoopTask(
            "eval", f"score-{word}", "what the reward model thinks of them", score, needs
        )
        if word != START:
            about = "its distance from the start"
            yield LoopTask("eval", f"distance-{word}", about, far, (made,))
