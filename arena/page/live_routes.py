"""What the page's own script asks for: acts on battles, and the stream of their answers.

The script posts an act, one that asks for answers or one that judges them, and gets changes of
elements; where answers are written from then on, the reply goes on as the stream of server-sent
events of the battle until the last word. A page that comes back asks for that stream alone. The
same battle service, the same checks as everywhere. Knows HTTP and the page's actions; decides
nothing about rights.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from json import JSONDecodeError
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from arena.battles.running import GRACE_SECONDS
from arena.battles.service import BattleService
from arena.battles.view import BattleAccess
from arena.errors import ArenaError
from arena.i18n import Words, negotiate, words
from arena.page.actions.answers import AnswerActions, Question
from arena.page.actions.judging import Details, JudgingActions
from arena.page.layout import VOTES
from arena.page.live_updates import ElementNumbers, PageUpdates, as_event
from arena.page.render import Changes
from arena.values.battle import SIDES
from arena.values.texts import check_text
from arena.values.vote import Strength
from arena.web.visitors import caller_secret, visitor_of

IDLE_SECONDS = 15.0
"""A stream says so often that it is alive; what stands between may close a silent one."""
EVENT_STREAM = "text/event-stream"
ASKING = ("send", "again", "next")
RETRY = b"retry: 200\n\n"
"""A browser that lost the stream comes back within the grace of a battle that nobody watches."""


class BadActError(ArenaError):
    """The body of an act is not what the page's script sends."""


class _Act:
    """One posted act: its body, read with care, and who sent it."""

    def __init__(self, body: Any, voter: str, say: Words) -> None:
        if not isinstance(body, Mapping):
            raise BadActError("an act is a JSON object")
        self._body = body
        self.say = say
        self.shown = BattleAccess.by_link(voter, self.text("link"))

    def text(self, name: str) -> str:
        value = self._body.get(name) or ""
        if not isinstance(value, str):
            raise BadActError(f"{name} is no text")
        # The prompt is checked where all prompts are, and refused in the voter's language.
        return value if name == "prompt" else check_text(name, value)

    @property
    def side(self) -> int | None:
        """The side that is meant; None for all."""
        value = self._body.get("side")
        if value is None or (isinstance(value, int) and 0 <= value < len(SIDES)):
            return value
        raise BadActError("side is none of a battle's")

    @property
    def one_side(self) -> int:
        """The side that is meant, where it cannot be all."""
        if self.side is None:
            raise BadActError("side is none of a battle's")
        return self.side

    @property
    def choice(self) -> str:
        """Which of the vote's buttons was pressed."""
        value = self.text("choice")
        if value not in VOTES:
            raise BadActError("choice is none of a vote's")
        return value

    @property
    def ranks(self) -> list[int | None]:
        """The rank of each side; None for one that has none yet."""
        value = self._body.get("ranks")
        if not isinstance(value, list) or not all(rank is None or is_count(rank) for rank in value):
            raise BadActError("ranks are no list of numbers")
        return value

    @property
    def details(self) -> Details:
        """What a voter says beside the vote."""
        strength, reasons = self.text("strength"), self._body.get("reasons") or []
        if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
            raise BadActError("reasons are no list of texts")
        if strength and strength not in set(Strength):
            raise BadActError("strength is none of a vote's")
        given = Strength(strength) if strength else None
        return Details(given, reasons, self.text("comment"), self.text("edited"))

    @property
    def marked(self) -> bool:
        """Whether the page marks differences."""
        return self._body.get("marked") is True

    @property
    def question(self) -> Question:
        """What stood in the composer."""
        models = self._body.get("models") or []
        if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
            raise BadActError("models are no list of names")
        for name in models:
            check_text("models", name)
        following = self.text("following") or "new"
        if following not in ("new", "own", *SIDES):
            raise BadActError("following is no way to go on")
        is_example = self._body.get("example") is True
        return Question(self.text("prompt"), self.text("mode"), models, following, is_example)


def live_router(
    service: BattleService,
    actions: AnswerActions,
    judging: JudgingActions,
    numbers: ElementNumbers,
) -> APIRouter:
    """The routes under `/live`."""
    router = APIRouter(prefix="/live")
    does: dict[str, Callable[[_Act], Any]] = {
        "send": lambda act: actions.send(act.shown, act.question, act.say),
        "again": lambda act: actions.again(act.shown, act.side, act.say),
        "stop": lambda act: actions.stop(act.shown, act.side, act.say),
        "next": lambda act: actions.next_in_set(act.shown, act.text("set"), act.say),
        "marked": lambda act: actions.shown(act.shown, act.say, marked=True),
        "vote": lambda act: judging.vote(act.shown, act.choice, act.say, marked=act.marked),
        "rank": lambda act: judging.rank(act.shown, act.ranks, act.say, marked=act.marked),
        "undo": lambda act: judging.undo(act.shown, act.say, marked=act.marked),
        "details": lambda act: judging.details(act.shown, act.details, act.say),
        "tokens": lambda act: judging.tokens(act.shown, act.one_side, act.say),
        "after": lambda act: judging.after(act.shown, act.text("set"), act.say),
        "leave": lambda act: judging.leave(act.shown, act.say),
    }

    def add(name: str, do: Callable[[_Act], Any]) -> None:
        @router.post(f"/{name}")
        async def act(request: Request) -> Response:
            try:
                body = await request.json()
            except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
                raise BadActError("an act is a JSON object") from error
            address = visitor_of(request.scope).address
            voter = await service.voter(caller_secret(request.scope), address)
            say = _say(request)
            changes: Changes = await do(_Act(body, voter, say))
            told = {"changes": numbers(changes)}
            access = BattleAccess.by_link(voter, str(changes.get(actions.page.link) or ""))
            running = service.running_battles.get(access.battle_id)
            wants = EVENT_STREAM in request.headers.get("accept", "")
            if name not in ASKING or not wants or running is None:
                return JSONResponse(told)
            which = {"link": access.link, "run": running.key}
            updates = PageUpdates(actions.renderer, numbers, say)
            return _stream(service, access, updates, as_event(told | which))

    for name, do in does.items():
        add(name, do)

    @router.post("/hello")
    async def hello() -> dict[str, str]:
        """Answers a page whose acts will arrive; where it lies wrong it is refused before."""
        return {}

    @router.get("/{battle_id}")
    async def watch(battle_id: str, request: Request, t: str = "") -> Response:
        voter = await service.known_voter(caller_secret(request.scope))
        access = BattleAccess(voter, battle_id, t or None)
        await service.view(access)  # refuses strangers before the stream begins
        return _stream(
            service, access, PageUpdates(actions.renderer, numbers, _say(request)), RETRY
        )

    return router


def _stream(
    service: BattleService, access: BattleAccess, updates: PageUpdates, first: bytes
) -> Response:
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
    events = _events(service, access, updates, first)
    return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)


async def _events(
    service: BattleService, access: BattleAccess, updates: PageUpdates, first: bytes
) -> AsyncIterator[bytes]:
    """Changes as they come, then the whole page once; leaving ends the answers after a moment."""
    yield first
    async for view in service.follow(access, grace=GRACE_SECONDS, idle=IDLE_SECONDS):
        if view.is_running:
            changed = await updates.changes(view)
            yield as_event(changed) if changed else b": still here\n\n"
        elif view.live is None:
            yield as_event(await updates.end(view))


def is_count(value: Any) -> bool:
    """Whether a value of JSON is a whole number from 1 on; `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _say(request: Request) -> Words:
    return words(negotiate(request.headers.get("accept-language")))
