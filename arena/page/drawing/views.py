"""Which foreign texts a page shows, drawn before its HTML is put together.

Knows views of battles and the drawer; knows no Gradio.
"""

from __future__ import annotations

from collections.abc import Mapping

from arena.battles.view import BattleView
from arena.i18n import Words
from arena.page.drawing.drawer import Drawer
from arena.page.drawing.jobs import Job, answer_job, marked_job, step_job
from arena.page.html.incremental import IncrementalHtml, Step
from arena.page.html.markdown import AnswerLabels
from arena.page.html.panes import DrawnTexts, has_marks


def labels_of(say: Words) -> AnswerLabels:
    """The words of the page that stand within answers."""
    return AnswerLabels(say("side.thoughts"), say("side.copy"))


async def drawn_of(
    drawer: Drawer, view: BattleView, say: Words, *, mark: bool = False, growing: bool = True
) -> DrawnTexts:
    """The answers of a view as HTML. `mark` as of `pane_html`; `growing`: also those that grow."""
    labels = labels_of(say)
    earlier = [turn.answer(i) for turn in view.battle.turns[:-1] for i in range(len(view.sides))]
    texts = [answer.text for answer in earlier if answer is not None]
    texts += [side.text for side in view.sides if growing or side.is_finished]
    texts = [bare for text in texts if (bare := text.strip("\n")).strip()]
    answers = {text: answer_job(text, labels) for text in texts}
    marked: dict[int, Job] = {}
    for index, side in enumerate(view.sides):
        if mark and has_marks(view, index):
            marked[index] = marked_job(side.text, view.sides[1 - index].text)
    found = iter(await drawer.draw([*answers.values(), *marked.values()]))
    return DrawnTexts(
        {text: drawn for text in answers if (drawn := next(found)) is not None},
        {index: drawn for index in marked if (drawn := next(found)) is not None},
    )


async def steps_of(
    drawer: Drawer, growing: Mapping[int, tuple[IncrementalHtml, str]], say: Words
) -> dict[int, dict[str, object]]:
    """The next step of each answer that grows, by side; {} where nothing changed."""
    labels = labels_of(say)
    wanted = {i: step for i, (html, text) in growing.items() if (step := html.next(text))}
    found = await drawer.draw([job_of(step, labels) for step in wanted.values()])
    drawn = dict(zip(wanted, found, strict=True))
    return {i: html.told(text, drawn.get(i)) for i, (html, text) in growing.items()}


def job_of(step: Step, labels: AnswerLabels) -> Job:
    """What has to be drawn for a step."""
    own = labels if step.is_start else AnswerLabels("", labels.copy)
    return step_job(step.rest, step.end, own)
