"""The `arena judge` command: a program votes on a page over its API, as people do, and says so.

Its battles are marked synthetic, so that the ratings and exports of people's votes leave them out.
Knows HTTP and the words of the API; the verdicts are those of tuning's judge.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Protocol

import httpx2

from arena.errors import ArenaError
from arena.values.battle import SYNTHETIC

PATIENCE_S = 300.0
"""How long one battle may take, and how long a busy page is asked again."""
PAUSE_S = 0.05
VOTER_COOKIE = "arena_voter"
"""By which the page tells voters apart, as `arena.web.access` names it."""


class JudgeError(ArenaError):
    """The page cannot be reached, or refuses what the judge asks of it."""


class Prompt(Protocol):
    """What of an item of a suite is asked."""

    prompt: str


class Decides(Protocol):
    """A judge: from an item, the left and the right answer and a voter's name to a winner."""

    def decide(self, item: Any, left: str, right: str, voter: str = "") -> str:
        """The winner's word."""
        ...


@dataclass(frozen=True)
class JudgeRequest:
    """The command line of `arena judge`. `repeat`: share of battles that a second voter judges."""

    url: str
    suite: str
    count: int
    noise: float
    position: float
    length: float
    repeat: float
    voters: int
    parallel: int
    models: tuple[str, ...]
    seed: int


def run_judge(request: JudgeRequest, *, json_out: bool) -> None:
    """Judge, and print how many votes of each kind were cast."""
    from tuning.evaluation.suites import load_suite
    from tuning.preference.judge import SyntheticJudge

    judge = SyntheticJudge(request.noise, request.position, request.length, request.seed)
    if request.models and len(request.models) != 2:
        raise JudgeError(f"--model: {len(request.models)} given; name two, or none for any pair")
    _check_address(request.url)
    if not 0 <= request.repeat <= 1 or min(request.voters, request.parallel, request.count) < 1:
        raise JudgeError("--repeat is a share from 0 to 1, --voters and --count are at least 1")
    counts = cast_votes(request, load_suite(request.suite, request.count), judge)
    if json_out:
        print(json.dumps(dict(counts)))
    else:
        total = sum(count for word, count in counts.items() if word != "skipped")
        told = ", ".join(f"{word} {count}" for word, count in sorted(counts.items()))
        print(f"{total} synthetic votes at {request.url} ({told})")


def _check_address(url: str) -> None:
    try:
        parts = httpx2.URL(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.host) and parts.port != 0
    except (httpx2.InvalidURL, ValueError):
        is_address = False
    if not is_address:
        raise JudgeError(f"--url {url!r}: is no address; write it like http://127.0.0.1:7860")


def cast_votes(request: JudgeRequest, items: Any, judge: Decides) -> Counter[str]:
    """`count` battles, the suite's prompts in turn, each judged; votes by their winner."""
    jobs = list(enumerate(islice(cycle(items), request.count)))
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        voters = [stack.enter_context(_Voter(request.url, at)) for at in range(request.voters)]
        with ThreadPoolExecutor(request.parallel) as pool:

            def one(job: tuple[int, Any]) -> list[str]:
                number, item = job
                first = voters[number % len(voters)]
                others = []
                if len(voters) > 1 and _is_repeated(number, request.repeat):
                    others = [voters[(number + 1) % len(voters)]]
                # A pair by name stands as it is given: in turns, so that no model has one side.
                models = request.models[:: -1 if number % 2 else 1]
                return list(_battle(first, others, item, judge, models))

            for words in pool.map(one, jobs):
                counts.update(words)
    return counts


def _is_repeated(number: int, share: float) -> bool:
    """Whether a battle is among the evenly spread share that is judged twice."""
    return int((number + 1) * share) > int(number * share)


def _no_page(url: str) -> JudgeError:
    return JudgeError(
        f"--url {url}: does not answer as a page of the arena does; give the address that "
        "`arena up` prints"
    )


class _Voter:
    """One voter: a client with a cookie of its own."""

    def __init__(self, url: str, number: int) -> None:
        self.name = f"judge {number}"
        self.url = url
        cookies = {VOTER_COOKIE: secrets.token_urlsafe(24)}
        self._client = httpx2.Client(
            base_url=url, cookies=cookies, timeout=PATIENCE_S, trust_env=False
        )

    def __enter__(self) -> _Voter:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        token: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON of an answer; a page that is busy is asked again."""
        headers = {} if token is None else {"x-battle-token": token}
        ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                reply = self._client.request(method, path, json=body, headers=headers)
            except httpx2.HTTPError as error:
                raise JudgeError(
                    f"--url {self.url}: cannot be reached ({error}); start `arena up` first"
                ) from error
            if reply.status_code not in (429, 503) or time.monotonic() > ends:
                break
            time.sleep(1.0)
        if reply.is_error:
            raise JudgeError(
                f"--url {self.url}: {method} {path} was refused with {reply.status_code} "
                f"({reply.text[:200]})"
            )
        try:
            return reply.json()
        except ValueError as error:
            raise _no_page(self.url) from error


def _battle(
    voter: _Voter, others: list[_Voter], item: Prompt, judge: Decides, models: tuple[str, ...]
) -> Iterator[str]:
    """One battle, and the winner that each voter names; `skipped` where an answer failed."""
    body = {"prompt": item.prompt, "source": SYNTHETIC}
    opened = voter.call("POST", "/api/battles", body=body | ({"models": models} if models else {}))
    if not isinstance(opened, dict) or not {"battle", "token"} <= opened.keys():
        raise _no_page(voter.url)
    path, token = f"/api/battles/{opened['battle']}", opened["token"]
    ends = time.monotonic() + PATIENCE_S
    while (view := voter.call("GET", path, token))["running"]:
        if time.monotonic() > ends:
            raise JudgeError(f"battle {opened['battle']} still writes after {PATIENCE_S:.0f} s")
        time.sleep(PAUSE_S)
    if not view["votable"]:
        voter.call("POST", f"{path}/skip", token)
        yield "skipped"
        return
    left, right = (side["text"] for side in view["sides"])
    for one in (voter, *others):
        winner = judge.decide(item, left, right, one.name)
        one.call("POST", f"{path}/votes", token, {"winner": winner})
        yield winner
