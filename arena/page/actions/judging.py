"""Voting, ranking, skipping, taking back, adding details, leaving: as the changes they lead to.

Each is a plain request of the page's script (see `live_routes`) and no event of Gradio: it is heard
whatever has become of the session that the page once had. Knows the battle service and the page's
elements; every right is checked in the service, by the store. No HTTP.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from arena.backends.pool import BackendPool
from arena.backends.scoring import ScoresError
from arena.battles.reward_watch import score_battle
from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess, BattleView, stored_view
from arena.errors import ArenaError
from arena.i18n import Words, error_text
from arena.page.actions.answers import is_open
from arena.page.actions.battles import welcome
from arena.page.actions.prompt_sets import shown_progress
from arena.page.html.frame import note_html
from arena.page.html.scores import scores_html
from arena.page.html.token_probabilities import tokens_html
from arena.page.render import Changes, Renderer
from arena.storage.rows import StoredBattle
from arena.values.battle import Battle
from arena.values.refusals import NotVotedError, RefusedError, StillBlindError
from arena.values.vote import Judgement, Strength, Winner

WINNERS = {
    "a": Winner.MODEL_A,
    "b": Winner.MODEL_B,
    "tie": Winner.TIE,
    "both_bad": Winner.BOTH_BAD,
}
SKIP = "skip"

Act = Callable[[BattleAccess], Awaitable[BattleView]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Details:
    """What a voter adds to a vote."""

    strength: Strength | None = None
    reasons: Sequence[str] = ()
    comment: str = ""
    edited: str = ""


class JudgingActions:
    """The acts of one page that judge a battle or leave it.

    `marked` of an act: whether the page marks the words that the other answer lacks.
    """

    def __init__(self, service: BattleService, set_judging: SetJudging, renderer: Renderer) -> None:
        self.service = service
        self.set_judging = set_judging
        self.renderer = renderer
        self.page = renderer.page

    async def vote(
        self, shown: BattleAccess, choice: str, say: Words, *, marked: bool = False
    ) -> Changes:
        """Store the vote, then show the names. `choice`: of `WINNERS`, or `SKIP`."""

        async def judge(access: BattleAccess) -> BattleView:
            if choice == SKIP:
                return await self.service.skip(access)
            early = self.service.is_writing(access.battle_id)
            return await self.service.vote(access, Judgement(winner=WINNERS[choice]), partial=early)

        return await self._act(judge, shown, say, marked)

    async def rank(
        self, shown: BattleAccess, ranks: Sequence[int | None], say: Words, *, marked: bool = False
    ) -> Changes:
        """Store a ranking of more than two answers."""

        def decide(stored: StoredBattle) -> Judgement:
            num_sides = stored.battle.num_sides
            given = [rank for rank in ranks[:num_sides] if rank]
            if len(given) < num_sides:
                raise ArenaError(say("status.rank_all"))
            return Judgement(ranking=tuple(given))

        async def judge(access: BattleAccess) -> BattleView:
            early = self.service.is_writing(access.battle_id)
            return await self.service.vote(access, decide, partial=early)

        return await self._act(judge, shown, say, marked)

    async def undo(self, shown: BattleAccess, say: Words, *, marked: bool = False) -> Changes:
        """Take the vote back."""
        is_undone = False

        async def undo(access: BattleAccess) -> BattleView:
            nonlocal is_undone
            view = await self.service.undo(access)
            is_undone = True
            return view

        changes = await self._act(undo, shown, say, marked)
        return changes | self.renderer.status(say("status.undone"), say) if is_undone else changes

    async def details(self, shown: BattleAccess, details: Details, say: Words) -> Changes:
        """Add strength, reasons, comment and a better answer to the vote given."""

        def decide(stored: StoredBattle) -> Judgement:
            vote = stored_view(stored).vote
            if vote is None:
                raise NotVotedError("there is no vote to add to; judge the answers first")
            return Judgement(
                winner=vote.judgement.winner,
                ranking=vote.judgement.ranking,
                strength=details.strength,
                reasons=tuple(details.reasons),
                comment=details.comment[:4000],
                edited_answer=details.edited[:20_000],
            )

        async def change(access: BattleAccess) -> BattleView:
            return await self.service.vote(access, decide, change=True)

        told = await self._attempt(change, shown, say)
        if isinstance(told, BattleView):
            return self.renderer.status(say("status.details_saved"), say, "good")
        return told

    async def tokens(self, shown: BattleAccess, side: int, say: Words) -> Changes:
        """How likely each token of an answer was."""
        try:
            tokens = await self.service.tokens(shown, side)
        except ArenaError as error:
            return self.renderer.status(error_text(error, say), say, "bad")
        return {self.page.tokens: tokens_html(tokens, side, say)}

    async def after(self, shown: BattleAccess, chosen_set: str, say: Words) -> Changes:
        """What is told once a battle was judged: how far the voter is in the set that is judged
        (no set: empty), and what a served reward model thinks of the answers."""
        changes: Changes = {self.page.scores: ""}
        if chosen_set:
            progress = await shown_progress(self.set_judging, shown.voter, chosen_set, say)
            changes[self.page.set_progress] = progress
        with contextlib.suppress(ArenaError):  # the battle itself says what is wrong with it
            battle = (await self.service.view(shown)).battle
            changes[self.page.scores] = await told_scores(battle, self.service.pool, say)
        return changes

    async def leave(self, shown: BattleAccess, say: Words) -> Changes:
        """Clear the page; a battle that was not judged is kept, and the voter is told so.

        Answers that are being written go on without the page, which stops reading them then.
        """
        if shown.battle_id:
            with contextlib.suppress(RefusedError):  # a stranger's battle is not theirs to keep
                await self.service.keep(shown)
        changes = self.renderer.blank() | await welcome(self.service, self.renderer, say)
        if await is_open(self.service, shown):
            changes |= self.renderer.status(say("status.kept"), say)
        return changes | {self.page.prompt: gr.update(value="")}

    # -- shared ---------------------------------------------------------------------------

    async def _act(self, act: Act, access: BattleAccess, say: Words, marked: bool) -> Changes:
        """Do something to the battle, then show it as it was committed."""
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
