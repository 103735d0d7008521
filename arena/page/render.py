"""From the view of a battle to the changes of the page's elements; decides nothing about rights.

Knows the page's elements and the HTML of panes; knows no store and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr

from arena.battles.view import BattleAccess, BattleView
from arena.i18n import DEFAULT, Words
from arena.page.drawing.drawer import Drawer
from arena.page.drawing.views import drawn_of
from arena.page.html.frame import empty_html, header_html, help_html, note_html, views_html
from arena.page.html.panes import asked_html, pane_html, status_html, view_status
from arena.page.html.reveal import reveal_html
from arena.page.layout import VOTES, Page, mode_choices, reason_choices
from arena.values.battle import SIDES
from arena.values.vote import REASONS, Judgement

Changes = dict[Any, Any]


class Renderer:
    """Changes of one page's elements; what strangers wrote is drawn by the `drawer`.

    `variants` tells of how many that are served a model is the base.
    """

    def __init__(
        self,
        page: Page,
        drawer: Drawer,
        variants: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self.page = page
        self.drawer = drawer
        self.variants = variants

    async def view(
        self, view: BattleView, say: Words, *, marked: bool = False, fresh: bool = False
    ) -> Changes:
        """Every element of a battle as the view has it; `marked`, `fresh` as of `pane_html`."""
        page = self.page
        text, tone = view_status(view, say)
        is_over = not view.is_running
        changes: Changes = {
            page.empty: gr.update(visible=False),
            page.panes_row: gr.update(visible=True),
            page.views: gr.update(visible=True),
            page.vote_bar: gr.update(visible=True),
            page.asked: asked_html(view, say),
            page.reveal: reveal_html(view, say, self.variants()),
            page.scores: "",
            page.tokens: "",
            page.again: gr.update(interactive=is_over and view.vote is None),
            page.undo: gr.update(visible=view.vote is not None),
            page.next: gr.update(visible=is_over, choices=self._next_choices(view, say)),
        }
        changes[page.run] = view.run if view.is_running else ""
        changes |= await self.panes(view, say, marked=marked, fresh=fresh)
        changes |= self._details(view) | self.status(text, say, tone)
        changes |= self.buttons(can_vote=_can_vote(view), running=not is_over)
        return changes | self._ranking(view)

    async def panes(
        self, view: BattleView, say: Words, *, marked: bool = False, fresh: bool = False
    ) -> Changes:
        """All answers; the panes that this battle does not need are put away."""
        changes: Changes = {}
        drawn = await drawn_of(self.drawer, view, say, mark=marked)
        for i, pane in enumerate(self.page.panes):
            if i < view.battle.num_sides:
                value = pane_html(view, i, say, drawn, mark=marked, fresh=fresh)
                changes[pane] = gr.update(value=value, visible=True)
            elif i >= 2:
                changes[pane] = gr.update(value="", visible=False)
        return changes

    def live(self, view: BattleView, say: Words) -> Changes:
        """What changes around the answers while they are written."""
        text, tone = view_status(view, say)
        changes = self.buttons(can_vote=_can_vote(view), running=True) | self._ranking(view)
        return changes | self.status(text, say, tone)

    def buttons(self, *, can_vote: bool, running: bool) -> Changes:
        """What can be pressed now."""
        changes: Changes = {
            button: gr.update(interactive=can_vote) for button in self.page.votes.values()
        }
        changes[self.page.send] = gr.update(interactive=not running)
        changes[self.page.stop] = gr.update(interactive=running)
        return changes

    def ready(self) -> Changes:
        """What can be pressed as soon as the page is heard; see `Page.waiting`."""
        return {button: gr.update(interactive=True) for button in self.page.waiting}

    def blank(self) -> Changes:
        """The page before the first battle: every element as `view` would set it."""
        page = self.page
        hidden = gr.update(visible=False)
        return {
            page.empty: gr.update(visible=True),
            page.asked: "",
            page.panes_row: hidden,
            **dict.fromkeys(page.panes, ""),
            page.views: hidden,
            page.vote_bar: hidden,
            page.next: gr.update(visible=False, value="new"),
            page.reveal: "",
            page.scores: "",
            page.tokens: "",
            page.link: "",
            page.run: "",
            page.undo: gr.update(visible=False),
            **self.buttons(can_vote=False, running=False),
            **self._ranks(2),
            **self._told(None),
        }

    def link(self, access: BattleAccess) -> Changes:
        """Which battle the page shows, and its secret."""
        return {self.page.link: access.link}

    def status(self, text: str, say: Words, tone: str = "") -> Changes:
        """The status line."""
        return {self.page.status: status_html(text, say, tone=tone)}

    def _ranking(self, view: BattleView) -> Changes:
        can_vote = _can_vote(view)
        ranking = view.vote.judgement.ranking if view.vote else None
        return self._ranks(view.battle.num_sides, can_vote, ranking)

    def _ranks(
        self, num_sides: int, can_vote: bool = False, ranking: tuple[int, ...] | None = None
    ) -> Changes:
        """Two answers have buttons; more have a rank each, and buttons for all alike."""
        page, many = self.page, num_sides > 2
        changes: Changes = {
            page.ranks_row: gr.update(visible=many),
            page.votes["a"]: gr.update(visible=not many, interactive=can_vote),
            page.votes["b"]: gr.update(visible=not many, interactive=can_vote),
            page.save_ranking: gr.update(interactive=can_vote and many),
            page.differences: gr.update(visible=not many),
        }
        for i, rank in enumerate(page.ranks):
            if many and i < num_sides:
                changed: dict[str, Any] = {"value": ranking[i]} if ranking else {}
                choices = [(str(n), n) for n in range(1, num_sides + 1)]
                changed |= {"choices": choices, "interactive": can_vote}
                changes[rank] = gr.update(visible=True, **changed)
            else:
                changes[rank] = gr.update(visible=False, value=None)
        return changes

    def _details(self, view: BattleView) -> Changes:
        return self._told(view.vote.judgement if view.vote else None)

    def _told(self, judgement: Judgement | None) -> Changes:
        """What the voter has said about the vote so far."""
        page, told = self.page, judgement or Judgement()
        return {
            page.details: gr.update(visible=judgement is not None),
            page.strength: gr.update(value=told.strength and told.strength.value),
            page.reasons: gr.update(value=list(told.reasons)),
            page.comment: told.comment,
            page.edited: told.edited_answer,
        }

    def _next_choices(self, view: BattleView, say: Words) -> list[tuple[str, str]]:
        """A new battle, or going on; not after an answer that failed."""
        choices = [(say("next.new"), "new")]
        if all(side.is_votable for side in view.sides):
            choices.append((say("next.own"), "own"))
            letters = SIDES[: view.battle.num_sides]
            choices += [(say("next.side", side=x.upper()), x) for x in letters]
        return choices

    def texts(self, say: Words) -> Changes:
        """All fixed texts in another language than the one the page was built with."""
        page = self.page
        if say.language == DEFAULT:
            return {}
        changes: Changes = {
            page.header: header_html(say),
            page.hero: empty_html(say),
            page.help: help_html(say),
            page.view_buttons: views_html(say),
            page.vote_label: note_html(say("vote.label"), "vote-label"),
            page.export_note: note_html(say("export.body"), "muted"),
            page.admin.export_title: note_html(say("export.body"), "muted"),
            page.admin.switches: gr.update(
                label=say("admin.switches"), info=say("admin.switches_info")
            ),
            page.tab_battle: gr.update(label=say("page.tab_battle")),
            page.tab_board: gr.update(label=say("page.tab_leaderboard")),
            page.tab_history: gr.update(label=say("page.tab_history")),
            page.mode: gr.update(label=say("mode.label"), choices=mode_choices(say)),
            page.next_in_set: gr.update(value=say("set.next")),
            page.models: gr.update(label=say("mode.models"), info=say("mode.models_info")),
            page.prompt: gr.update(
                label=say("prompt.label"), placeholder=say("prompt.placeholder")
            ),
            page.strength: gr.update(
                label=say("vote.strength"),
                choices=[(say("vote.slightly"), "slightly"), (say("vote.much"), "much")],
            ),
            page.board_reason: gr.update(
                label=say("leaderboard.reason"), choices=reason_choices(say)
            ),
            page.reasons: gr.update(
                label=say("vote.reasons"), choices=[(say(f"reason.{r}"), r) for r in REASONS]
            ),
        }
        return changes | self._labels(say) | self._values(say)

    def _labels(self, say: Words) -> Changes:
        """What stands above elements that a person fills in."""
        page = self.page
        labels = {
            page.next: "next.label",
            page.differences: "view.differences",
            page.details: "vote.more",
            page.comment: "vote.comment",
            page.edited: "vote.edited",
            page.search: "history.search",
            page.sets: "set.label",
            page.board_tag: "leaderboard.tag",
            page.board_since: "leaderboard.since",
            page.board_until: "leaderboard.until",
            page.board_style: "leaderboard.style",
            page.board_without_flagged: "leaderboard.without_flagged",
            page.admin.format: "admin.format",
            page.admin.redact: "admin.redact",
        }
        changes: Changes = {e: gr.update(label=say(key)) for e, key in labels.items()}
        return changes | {
            rank: gr.update(label=say("vote.rank", side=letter.upper()))
            for rank, letter in zip(page.ranks, SIDES, strict=True)
        }

    def _values(self, say: Words) -> Changes:
        """What stands on buttons."""
        page = self.page
        values = {page.votes[key]: f"vote.{key}" for key in VOTES} | {
            page.send: "prompt.send",
            page.stop: "prompt.stop",
            page.new: "prompt.new",
            page.undo: "vote.undo",
            page.again: "view.again_all",
            page.save_ranking: "vote.save_ranking",
            page.save_details: "vote.save",
            page.refresh: "leaderboard.refresh",
            page.draw_over_time: "leaderboard.over_time",
            page.admin.save: "vote.save",
            page.admin.make: "export.button",
        }
        return {element: gr.update(value=say(key)) for element, key in values.items()}


def merged(*parts: Changes) -> Changes:
    """Changes of several origins: of one element's updates the later ones add to those before."""
    found: Changes = {}
    for part in parts:
        for element, change in part.items():
            before = found.get(element)
            if isinstance(before, dict) and isinstance(change, dict):
                change = before | change
            found[element] = change
    return found


def _can_vote(view: BattleView) -> bool:
    """After the end, or before it once every side has begun."""
    return view.is_votable or view.is_votable_early
