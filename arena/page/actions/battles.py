"""What happens when somebody opens the page or judges a battle, as changes of elements.

Answers are asked for elsewhere (see `answers`). Knows the battle service and the page's elements;
every right is checked in the service, by the store.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from arena.backends.pool import BackendPool, has_others
from arena.backends.scoring import ScoresError
from arena.battles.reward_watch import score_battle
from arena.battles.service import BattleService
from arena.battles.view import BattleAccess, BattleView, stored_view
from arena.errors import ArenaError
from arena.i18n import Words, error_text, negotiate, words
from arena.page.actions.answers import is_open
from arena.page.html.frame import account_html, note_html
from arena.page.html.panes import servers_text
from arena.page.html.scores import scores_html
from arena.page.html.token_probabilities import tokens_html
from arena.page.layout import mode_choices
from arena.page.render import Changes, Renderer
from arena.storage.rows import StoredBattle
from arena.values.battle import SIDES, Battle, Mode
from arena.values.refusals import NotVotedError, RefusedError, StillBlindError
from arena.values.vote import Judgement, Strength, Winner
from arena.web.visitors import Visitor, visitor_of

WINNERS = {
    "a": Winner.MODEL_A,
    "b": Winner.MODEL_B,
    "tie": Winner.TIE,
    "both_bad": Winner.BOTH_BAD,
}

Act = Callable[[BattleAccess], Awaitable[BattleView]]


log = logging.getLogger(__name__)


async def told_scores(battle: Battle, pool: BackendPool, say: Words) -> str:
    """What a served reward model thinks of the answers, or that it told nothing; else empty."""
    try:
        told = await score_battle(battle, pool)
    except StillBlindError:
        return ""
    except ScoresError as error:
        log.warning("%s (%s)", error, error.__cause__ or "its reply is none")
        return note_html(error_text(error, say), "muted")
    return scores_html(*told, say) if told else ""


class BattleActions:
    """The acts on battles of one page over one battle service."""

    def __init__(self, service: BattleService, renderer: Renderer) -> None:
        self.service = service
        self.renderer = renderer
        self.page = renderer.page

    async def on_load(self, request: gr.Request) -> Changes:
        """Restore the battle of the page's link, or say what can be asked."""
        say = say_for(request)
        query = request.query_params
        visitor = visitor_by(request)
        texts = self.renderer.texts(say) | {
            self.page.account: account_html(visitor.name, say),
            self.page.tab_admin: gr.update(visible=visitor.is_admin, label=say("page.tab_admin")),
            self.page.tab_tune: gr.update(visible=visitor.is_admin, label=say("page.tab_tune")),
            self.page.export: gr.update(value=say("export.button"), visible=visitor.may_export),
        }
        if not query.get("battle"):
            texts |= await self._open_examples()
            return texts | await self._welcome(say) | self._preset(query, say)
        access = await self._access(request, urlencode(dict(query)))
        try:
            view = await self.service.view(access)
        except RefusedError as error:
            return (
                texts
                | self.renderer.blank()
                | self.renderer.status(error_text(error, say), say, "bad")
            )
        if view.battle.mode is Mode.NAMED:
            texts |= self._named([person.name for person in view.battle.participants], say)
        return texts | await self.renderer.view(view, say) | self.renderer.link(access)

    async def _open_examples(self) -> Changes:
        """Show the examples that the starter's family cannot answer where another is there."""
        is_open = has_others(await self.service.pool.targets())
        return {button: gr.update(visible=is_open) for button in self.page.open_examples}

    def _named(self, names: list[str], say: Words) -> Changes:
        """Who is compared by name, as of a link or of the battle that it opens."""
        page = self.page
        return {
            page.models: gr.update(
                value=names[: len(SIDES)], label=say("mode.models"), info=say("mode.models_info")
            ),
            page.mode: gr.update(value="named", label=say("mode.label"), choices=mode_choices(say)),
        }

    def _preset(self, query: Any, say: Words) -> Changes:
        """What a link asks for: `prompt`, `models` (by name, commas between) or `set`."""
        page = self.page
        prompt = str(query.get("prompt") or "")[: self.service.limits.prompt_chars]
        value = {"value": prompt} if prompt else {}  # what is being typed already stays
        changes: Changes = {
            page.prompt: gr.update(
                label=say("prompt.label"), placeholder=say("prompt.placeholder"), **value
            )
        }
        names = [name for name in str(query.get("models") or "")[:1000].split(",") if name]
        if query.get("set"):
            changes[page.sets] = gr.update(value=str(query["set"])[:100], label=say("set.label"))
            changes[page.mode] = gr.update(
                value="set", label=say("mode.label"), choices=mode_choices(say)
            )
        elif names:
            changes |= self._named(names, say)
        return changes

    async def on_vote(self, choice: str, link: str, marked: bool, request: gr.Request) -> Changes:
        """Store the vote, then show the names."""

        async def judge(access: BattleAccess) -> BattleView:
            if choice == "skip":
                return await self.service.skip(access)
            early = self.service.is_writing(access.battle_id)
            return await self.service.vote(access, Judgement(winner=WINNERS[choice]), partial=early)

        return await self._act(judge, request, link, marked)

    async def on_rank(
        self, link: str, marked: bool, request: gr.Request, *ranks: int | None
    ) -> Changes:
        """Store a ranking of more than two answers."""

        def decide(stored: StoredBattle) -> Judgement:
            num_sides = stored.battle.num_sides
            given = [rank for rank in ranks[:num_sides] if rank]
            if len(given) < num_sides:
                raise ArenaError(say_for(request)("status.rank_all"))
            return Judgement(ranking=tuple(map(int, given)))

        async def judge(access: BattleAccess) -> BattleView:
            early = self.service.is_writing(access.battle_id)
            return await self.service.vote(access, decide, partial=early)

        return await self._act(judge, request, link, marked)

    async def on_tokens(self, index: int, link: str, request: gr.Request) -> Changes:
        """How likely each token of an answer was."""
        say = say_for(request)
        access = await self._access(request, link)
        try:
            tokens = await self.service.tokens(access, index)
        except ArenaError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        return {self.page.tokens: tokens_html(tokens, index, say)}

    async def on_scores(self, link: str, request: gr.Request) -> Changes:
        """What a served reward model thinks of the answers, once the names are shown."""
        if not link:
            return {self.page.scores: ""}
        try:
            battle = (await self.service.view(await self._access(request, link))).battle
        except ArenaError:
            return {self.page.scores: ""}  # the battle itself says what is wrong with it
        return {self.page.scores: await told_scores(battle, self.service.pool, say_for(request))}

    async def on_undo(self, link: str, marked: bool, request: gr.Request) -> Changes:
        """Take the vote back."""
        say = say_for(request)
        changes = await self._act(self.service.undo, request, link, marked)
        if self.page.reveal in changes:
            changes |= self.renderer.status(say("status.undone"), say)
        return changes

    async def on_details(
        self,
        strength: str | None,
        reasons: list[str],
        comment: str,
        edited: str,
        link: str,
        request: gr.Request,
    ) -> Changes:
        """Add strength, reasons, comment and a better answer to the vote given."""
        say = say_for(request)

        def decide(stored: StoredBattle) -> Judgement:
            vote = stored_view(stored).vote
            if vote is None:
                raise NotVotedError("there is no vote to add to; judge the answers first")
            return Judgement(
                winner=vote.judgement.winner,
                ranking=vote.judgement.ranking,
                strength=Strength(strength) if strength else None,
                reasons=tuple(reasons),
                comment=comment[:4000],
                edited_answer=edited[:20_000],
            )

        async def change(access: BattleAccess) -> BattleView:
            return await self.service.vote(access, decide, change=True)

        told = await self._attempt(change, await self._access(request, link), say)
        if isinstance(told, BattleView):
            return self.renderer.status(say("status.details_saved"), say, "good")
        return told

    async def on_new(self, link: str, request: gr.Request) -> Changes:
        """Clear the page; a battle that was not judged is kept, and the voter is told so.

        Answers that are being written go on without the page, which stops reading them then.
        """
        say = say_for(request)
        access = await self._access(request, link)
        if link:
            with contextlib.suppress(RefusedError):  # a stranger's battle is not theirs to keep
                await self.service.keep(access)
        changes = self.renderer.blank() | await self._welcome(say)
        if await is_open(self.service, access):
            changes |= self.renderer.status(say("status.kept"), say)
        return changes | {self.page.prompt: gr.update(value="")}

    async def on_view(self, marked: bool, link: str, request: gr.Request) -> Changes:
        """Show the answers again, with or without marked differences."""
        if not link:
            return {}
        view = await self.service.view(await self._access(request, link))
        return await self.renderer.panes(view, say_for(request), marked=marked)

    # -- shared ---------------------------------------------------------------------------

    async def _act(
        self,
        act: Act,
        request: gr.Request,
        link: str,
        marked: bool,
    ) -> Changes:
        """Do something to the battle, then show it as it was committed."""
        say = say_for(request)
        access = await self._access(request, link)
        told = await self._attempt(act, access, say)
        if isinstance(told, BattleView):
            return await self.renderer.view(told, say, marked=marked)
        with contextlib.suppress(ArenaError):
            view = await self.service.view(access)
            if view.vote is not None:  # given in another tab: show it here, with the way back
                return await self.renderer.view(view, say, marked=marked) | told
        return told

    async def _attempt(self, act: Act, access: BattleAccess, say: Words) -> BattleView | Changes:
        """The battle when it worked; else what to tell, a failed write by its own words."""
        try:
            return await act(access)
        except RefusedError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        except ArenaError as error:
            text = say("status.not_saved", reason=error_text(error, say))
            return self.renderer.status(text, say, "bad")

    async def _welcome(self, say: Words) -> Changes:
        if (fault := self.service.health.fault) is not None:
            return self.renderer.status(error_text(fault, say), say, "bad")
        text, tone = servers_text(await self.service.pool.backends(), say)
        return self.renderer.status(text, say, tone)

    async def _access(self, request: gr.Request, link: str) -> BattleAccess:
        return BattleAccess.by_link(await self.service.voter(secret_of(request)), link)


def secret_of(request: gr.Request) -> str:
    """What tells one voter from another; a program without a cookie is its session."""
    visitor = visitor_by(request)
    own = None if visitor.is_fresh else visitor.secret
    return own or f"session:{request.session_hash}"


def visitor_by(request: gr.Request) -> Visitor:
    """Who acts, as the middleware found out when the act was asked for."""
    return visitor_of(request.request.scope if request.request else {})


def say_for(request: gr.Request) -> Words:
    """The words of the browser's language."""
    return words(negotiate(request.headers.get("accept-language")))
