"""A battle from the prompt to the vote, over a real store and real (good and bad) servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Script

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool, ParticipantError
from arena.battles.service import BattleService, BusyError, PromptError
from arena.battles.view import BattleAccess, BattleView
from arena.config.arena_toml import PairingConfig
from arena.config.page_config import Deadlines, PageConfig, PageLimits
from arena.i18n import words
from arena.page.html.panes import pane_html, view_status
from arena.page.html.reveal import kind_text, reveal_html
from arena.ratings.pair_probabilities import PairingError
from arena.storage.battle_writes import Asked, BattleDraft
from arena.storage.store import Store
from arena.values.battle import AnswerStatus, AskAs, Mode, Participant, SamplingSettings
from arena.values.examples import OPEN_EXAMPLES, STARTER_EXAMPLES
from arena.values.refusals import (
    AlreadyVotedError,
    SideFailedError,
    UnfinishedError,
    WrongTokenError,
)
from arena.values.vote import Judgement, Winner

A_WINS = Judgement(winner=Winner.MODEL_A)
FRANCE = "What is the capital of France?"
Play = Callable[[BattleService], Coroutine[Any, Any, None]]


def perform(
    scripts: dict[str, Script],
    home: Path,
    play: Play,
    *,
    deadlines: Deadlines | None = None,
    limits: PageLimits | None = None,
) -> None:
    """Run `play` on a battle service over one server with these scripts and a store of its own."""

    async def main(url: str) -> None:
        config = PageConfig(
            (url,), home, deadlines=deadlines or Deadlines(), limits=limits or PageLimits()
        )
        install_http_client()
        service = BattleService(
            Store(home / "arena.db"),
            BackendPool((url,), config.sampling),
            config.limits,
            config.deadlines,
        )
        try:
            await play(service)
        finally:
            await service.close()

    with FaultServer(scripts) as server:
        asyncio.run(main(server.url))


async def finish(service: BattleService, access: BattleAccess) -> BattleView:
    """Watch to the end; the last view."""
    last = None
    async for view in service.follow(access):
        last = view
    assert last is not None
    assert not last.is_running
    return last


async def named(service: BattleService, *names: str, prompt: str = FRANCE) -> BattleAccess:
    return await service.open_named(await service.voter("one"), names, prompt)


def test_blind_battle_vote_and_reveal(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        voter = await service.voter("cookie-of-this-browser")
        access = await service.open_blind(voter, FRANCE)
        view = await finish(service, access)
        assert [side.state for side in view.sides] == ["done", "done"]
        assert view.sides[0].text == "The capital of France is Paris."
        assert not view.is_revealed
        assert view.is_votable
        assert view.battle.propensity == pytest.approx(1.0)
        page = "".join(pane_html(view, i, words()) for i in (0, 1)) + reveal_html(view, words())
        assert "model-one" not in page
        assert "model-two" not in page
        await service.vote(access, A_WINS)
        view = await service.view(access)
        assert view.is_revealed
        assert not view.is_votable
        shown = reveal_html(view, words())
        for fact in ("model-one", "model-two", "abababababab", "&lt;user&gt;What is the capital"):
            assert fact in shown
        stored = view.battle.turns[0].answer(0)
        assert stored is not None
        assert (stored.status, stored.num_tokens) == (AnswerStatus.COMPLETE, 7)
        assert stored.weights_sha256 == "ab" * 32
        assert stored.prompt_sent == "<user>" + FRANCE

    perform({"model-one": Script(), "model-two": Script()}, tmp_path, play)


def test_example_meets_a_base_and_its_variant(tmp_path: Path) -> None:
    """Of six pairs three are; eight draws that keep to them by chance: 1 in 256."""

    async def play(service: BattleService) -> None:
        voter = await service.voter("one")
        for _ in range(8):
            access = await service.open_blind(voter, FRANCE, is_example=True)
            battle = (await finish(service, access)).battle
            names = {participant.name for participant in battle.participants}
            assert "base" in names
            assert battle.propensity == pytest.approx(1 / 3)
            assert battle.sampler == "base-and-variant/1"

    variants = {name: Script() for name in ("full", "lora", "prefix")}
    perform({"base": Script(kind="base")} | variants, tmp_path, play)


def test_own_prompt_is_not_put_to_two_of_the_starters_family(tmp_path: Path) -> None:
    """Of six pairs three are two starters; eight draws that miss them by chance: 1 in 256."""

    async def play(service: BattleService) -> None:
        voter = await service.voter("one")
        for _ in range(8):
            access = await service.open_blind(voter, FRANCE)
            battle = (await finish(service, access)).battle
            assert "real" in {participant.name for participant in battle.participants}
            assert battle.propensity == pytest.approx(1 / 3)
            assert battle.sampler == "uniform/1+not-two-starters/1"

    toy = {"starter": Script(kind="base"), "starter-full": Script(), "starter-lora": Script()}
    perform(toy | {"real": Script(kind="full")}, tmp_path, play)


def test_own_prompt_meets_the_starters_where_there_is_nothing_else(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE)
        assert (await finish(service, access)).battle.sampler == "uniform/1"

    perform({"starter": Script(kind="base"), "starter-lora": Script()}, tmp_path, play)


def test_a_required_pair_is_seen_on_own_prompts_too(tmp_path: Path) -> None:
    """And a model that is only called like the starter is another one."""
    pair = ("starter", "starter-lora")

    async def play(service: BattleService) -> None:
        service.sampler.drawing = PairingConfig(required=(pair,), required_share=0.999)
        voter = await service.voter("one")
        drawn = []
        for _ in range(2):
            battle = (await finish(service, await service.open_blind(voter, FRANCE))).battle
            drawn.append({participant.name for participant in battle.participants})
        assert set(pair) in drawn
        service.sampler.drawing = PairingConfig()
        for _ in range(8):
            access = await service.open_blind(voter, FRANCE)
            battle = (await finish(service, access)).battle
            assert "starter-pro" in {participant.name for participant in battle.participants}

    models = {"starter": Script(kind="base"), "starter-lora": Script(), "starter-pro": Script()}
    perform(models, tmp_path, play)


def test_example_is_drawn_as_ever_where_no_base_is_served(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE, is_example=True)
        battle = (await finish(service, access)).battle
        assert (battle.sampler, battle.propensity) == ("uniform/1", pytest.approx(1.0))

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_a_checkpoint_with_a_template_is_called_what_it_is() -> None:
    """No base in the reader's sense, and nobody tuned it here; but the base of what was."""
    instruct = Participant("smollm2", "smollm2", ask_as=AskAs.CHAT, kind="base")
    wanted = "instruction-tuned checkpoint"
    assert kind_text(instruct, words()) == wanted
    assert kind_text(instruct, words(), 1) == f"{wanted}, base of one variant"
    assert kind_text(instruct, words(), 3) == f"{wanted}, base of 3 variants"
    plain = replace(instruct, ask_as=AskAs.COMPLETION)
    assert kind_text(plain, words(), 3) == "base model"


def test_an_open_example_meets_the_family_it_was_written_for(tmp_path: Path) -> None:
    """Two of five models are it: one pair of ten. Without a variant, one side is of it at least."""
    variants = {name: Script(parent="starter") for name in ("starter-full", "starter-lora")}
    toy = {"starter": Script(kind="base"), **variants}

    async def play(service: BattleService) -> None:
        voter = await service.voter("one")
        for _ in range(4):
            access = await service.open_blind(voter, OPEN_EXAMPLES[0], is_example=True)
            battle = (await finish(service, access)).battle
            names = {participant.name for participant in battle.participants}
            assert (names, battle.sampler) == ({"smollm2", "smollm2-lora"}, "base-and-variant/1")
            access = await service.open_blind(voter, STARTER_EXAMPLES[0], is_example=True)
            battle = (await finish(service, access)).battle
            assert {one.name for one in battle.participants} <= toy.keys()
        assert service.pool.num_variants() == {"starter": 2, "smollm2": 1}

    for home in ("pair", "alone"):
        (tmp_path / home).mkdir()
    real = {"smollm2": Script(kind="base"), "smollm2-lora": Script(parent="smollm2")}
    perform(toy | real, tmp_path / "pair", play)

    async def play_alone(service: BattleService) -> None:
        voter = await service.voter("one")
        for _ in range(8):
            access = await service.open_blind(voter, OPEN_EXAMPLES[0], is_example=True)
            battle = (await finish(service, access)).battle
            assert "smollm2" in {participant.name for participant in battle.participants}
            assert battle.sampler == "uniform/1+not-two-starters/1"

    perform(toy | {"smollm2": Script(kind="base")}, tmp_path / "alone", play_alone)


@pytest.mark.slow
def test_sides_run_at_their_own_pace(tmp_path: Path) -> None:
    """A fast side beside a slow one ends within a tenth of its time beside a fast one."""
    fast = Script(words=("w ",) * 400, delay=0.005)
    slow = Script(words=("w ",) * 15, delay=0.2)

    async def play(service: BattleService) -> None:
        tries = []
        for _ in range(5):  # the machine may be busy with other things for a while
            alone = (
                (await finish(service, await named(service, "fast", "fast-two"))).sides[0].ended_at
            )
            beside, slower = (await finish(service, await named(service, "fast", "slow"))).sides
            assert alone is not None
            assert beside.ended_at is not None
            assert slower.ended_at is not None
            tries.append((alone, beside.ended_at, slower.ended_at))
            if slower.ended_at > beside.ended_at and beside.ended_at <= alone * 1.1:
                return
        raise AssertionError(f"alone, beside a slow one, and that one, seconds: {tries}")

    perform({"fast": fast, "fast-two": fast, "slow": slow}, tmp_path, play)


def test_side_that_fails_is_shown_and_cannot_be_voted_on(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "good", "bad")
        view = await finish(service, access)
        assert [side.state for side in view.sides] == ["done", "failed"]
        assert view.sides[0].text == "The capital of France is Paris."
        assert not view.is_votable
        assert "Answer B failed" in view_status(view, words())[0]
        assert "This answer failed: The server failed" in pane_html(view, 1, words())
        with pytest.raises(SideFailedError):
            await service.vote(access, A_WINS)
        assert service.store.counts()["votes"] == 0

    perform({"good": Script(), "bad": Script(fault="error")}, tmp_path, play)


@pytest.mark.parametrize("after", [0, 3])
def test_side_that_hangs_meets_its_deadline_alone(tmp_path: Path, after: int) -> None:
    async def play(service: BattleService) -> None:
        view = await finish(service, await named(service, "good", "hang"))
        assert [side.state for side in view.sides] == ["done", "failed"]
        assert view.sides[1].error_kind == ("idle" if after else "no-token")
        assert view.sides[1].ended_at is not None
        assert view.sides[1].ended_at >= 0.4

    scripts = {"good": Script(), "hang": Script(fault="hang", after=after)}
    perform(scripts, tmp_path, play, deadlines=Deadlines(first_token=0.4, idle=0.4))


def test_answers_that_never_end_are_cut(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        view = await finish(service, await named(service, "long", "slow"))
        assert [side.error_kind for side in view.sides] == ["too-long", "too-long"]

    long = Script(words=("word ",) * 200)
    slow = Script(words=("w ",) * 100, delay=0.05)
    limits = PageLimits(answer_chars=500)
    perform(
        {"long": long, "slow": slow}, tmp_path, play, deadlines=Deadlines(total=0.6), limits=limits
    )


def test_stop_keeps_the_text_and_allows_a_partial_vote(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "slow", "good")
        async for view in service.follow(access):
            if view.sides[0].num_pieces >= 2 and view.is_running:
                await service.stop(access)
        view = await service.view(access)
        assert [side.state for side in view.sides] == ["stopped", "done"]
        assert view.sides[0].text.startswith("w w ")
        vote = (await service.vote(access, A_WINS)).vote
        assert vote is not None
        assert vote.partial

    slow = Script(words=("w ",) * 100, delay=0.1)
    perform({"slow": slow, "good": Script()}, tmp_path, play)


def test_stop_before_the_first_word_fails_the_side(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "hang", "good")
        await asyncio.sleep(0.3)
        await service.stop(access)
        view = await service.view(access)
        assert [side.state for side in view.sides] == ["failed", "done"]
        assert view.sides[0].error_kind == "stopped"

    perform({"hang": Script(fault="hang", after=0), "good": Script()}, tmp_path, play)


def test_no_vote_while_a_side_writes(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "slow", "good")
        await asyncio.sleep(0.3)
        with pytest.raises(UnfinishedError):
            await service.vote(access, A_WINS)

    perform({"slow": Script(delay=0.5), "good": Script()}, tmp_path, play)


def test_the_last_to_leave_ends_the_streams_within_half_a_second(tmp_path: Path) -> None:
    with FaultServer(
        {"one": Script(words=("w ",) * 500, delay=0.3), "two": Script(fault="hang")}
    ) as server:

        async def leave(service: BattleService) -> float:
            access = await named(service, "one", "two")
            first, second = service.follow(access), service.follow(access)
            await anext(second)
            async for view in first:
                if all(side.text for side in view.sides):
                    break
            await first.aclose()
            await asyncio.sleep(0.1)
            assert server.open_streams == 2, "somebody still watches"
            left = time.monotonic()
            await second.aclose()
            while server.open_streams and time.monotonic() - left < 30:
                await asyncio.sleep(0.01)
            waited = time.monotonic() - left
            assert service.num_running == 0
            sides = (await service.view(access)).sides
            assert [side.state for side in sides] == ["stopped", "stopped"]
            return waited

        async def main() -> list[float]:
            config = PageConfig((server.url,), tmp_path)
            install_http_client()
            service = BattleService(
                Store(config.database), BackendPool((server.url,), config.sampling)
            )
            waits = [await leave(service)]
            while min(waits) > 0.5 and len(waits) < 8:  # the machine may be busy for a while
                waits.append(await leave(service))
            return waits

        waits = asyncio.run(main())
        assert min(waits) <= 0.5, waits


def test_a_page_that_comes_back_in_time_finds_its_answers_still_written(tmp_path: Path) -> None:
    """A reload leaves and returns; only who stays away ends the streams."""

    async def play(service: BattleService) -> None:
        access = await named(service, "slow", "slow-two")

        async def look() -> AsyncGenerator[BattleView, None]:
            pages = service.follow(access, grace=0.4, idle=15.0)
            await anext(pages)
            return pages

        await (await look()).aclose()
        await asyncio.sleep(0.1)
        again = await look()
        await asyncio.sleep(0.5)
        assert service.num_running == 1, "it came back in time"
        await again.aclose()
        left = time.monotonic()
        assert service.num_running == 1, "it may come back"
        while service.num_running:
            assert time.monotonic() < left + 30
            await asyncio.sleep(0.01)
        assert all(side.is_finished for side in (await service.view(access)).sides)

    slow = Script(words=("w ",) * 500, delay=0.05)
    perform({"slow": slow, "slow-two": slow}, tmp_path, play)


def test_kept_answers_are_written_to_their_end_and_an_unseen_question_is_not(
    tmp_path: Path,
) -> None:
    async def play(service: BattleService) -> None:
        kept, unseen = await named(service, "slow", "slow"), await named(service, "slow", "slow")
        async for _ in service.follow(kept):
            assert await service.keep(kept)
            break
        running = service.running_battles.get(unseen.battle_id)
        assert running is not None
        service.running_battles.expect(running, 0.1)
        while service.num_running:
            await asyncio.sleep(0.01)
        states = [[s.state for s in (await service.view(one)).sides] for one in (kept, unseen)]
        assert states == [["done", "done"], ["stopped", "stopped"]]

    perform({"slow": Script(words=("w ",) * 20, delay=0.05)}, tmp_path, play)


def test_votes_belong_to_the_holder_of_the_link(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "one", "two")
        await finish(service, access)
        stranger = await service.voter("another browser")
        with pytest.raises(WrongTokenError):
            await service.vote(BattleAccess(stranger, access.battle_id), A_WINS)
        with pytest.raises(WrongTokenError):
            await service.vote(BattleAccess(stranger, access.battle_id, "guess"), A_WINS)
        second_device = BattleAccess(stranger, access.battle_id, access.token)
        await service.vote(second_device, A_WINS)
        with pytest.raises(AlreadyVotedError):
            await service.vote(access, Judgement(winner=Winner.TIE))
        assert service.store.counts()["votes"] == 1

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_many_votes_at_once_are_one_row(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "one", "two")
        await finish(service, access)
        views = await asyncio.gather(*(service.vote(access, A_WINS) for _ in range(20)))
        assert len({view.vote.id for view in views if view.vote}) == 1
        assert service.store.counts()["votes"] == 1

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_skip_counts_nothing_and_shows_the_names(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE)
        await finish(service, access)
        await service.skip(access)
        assert (await service.view(access)).is_revealed
        assert (service.store.counts()["votes"], service.store.counts()["skips"]) == (0, 1)

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_skip_while_they_write_ends_the_answers(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE)
        stranger = BattleAccess(await service.voter("another browser"), access.battle_id)
        last = None
        async for view in service.follow(access):
            if view.is_running and all(side.text for side in view.sides):
                with pytest.raises(WrongTokenError):
                    await service.skip(stranger)
                assert service.num_running == 1
                await service.skip(access)
                assert service.num_running == 0
            last = view
        assert last is not None
        assert [side.state for side in last.sides] == ["stopped", "stopped"]
        assert (last.is_revealed, last.is_skipped) == (True, True)
        assert view_status(last, words())[0].startswith("Skipped.")
        assert (service.store.counts()["votes"], service.store.counts()["skips"]) == (0, 1)

    slow = Script(words=("w ",) * 500, delay=0.05)
    perform({"one": slow, "two": slow}, tmp_path, play)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 8001, "8001 characters; at most 8000"),
        ("half \ud83d", "surrogate"),
        ("nul \0", "null character"),
    ],
)
def test_prompt_that_cannot_be_asked_is_told(tmp_path: Path, prompt: str, reason: str) -> None:
    async def play(service: BattleService) -> None:
        with pytest.raises(PromptError, match=reason):
            await service.open_blind(await service.voter("one"), prompt)
        assert service.store.counts()["battles"] == 0

    perform({"one": Script(), "two": Script()}, tmp_path, play)


@pytest.mark.parametrize("prompt", ["x", "‮right to left", "\n" * 5000 + "x", "🙂" * 4000])
def test_odd_prompt_is_asked_as_it_is(tmp_path: Path, prompt: str) -> None:
    async def play(service: BattleService) -> None:
        view = await finish(service, await named(service, "one", "two", prompt=prompt))
        assert view.is_votable
        assert view.battle.turns[0].prompt == prompt

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_one_model_or_an_unknown_one_or_no_place_left(tmp_path: Path) -> None:
    async def alone(service: BattleService) -> None:
        with pytest.raises(PairingError, match="two models"):
            await service.open_blind(await service.voter("one"), FRANCE)
        with pytest.raises(ParticipantError, match="gone"):
            await named(service, "one", "gone")

    async def full(service: BattleService) -> None:
        await named(service, "hang", "hang-too")
        with pytest.raises(BusyError):
            await named(service, "hang", "hang-too")

    perform({"one": Script()}, tmp_path / "alone", alone)
    hang = Script(fault="hang")
    limits = PageLimits(running_battles=1)
    perform({"hang": hang, "hang-too": hang}, tmp_path / "full", full, limits=limits)


def test_battle_outlives_the_program(tmp_path: Path) -> None:
    """Answers, link and vote work on a second service over the same file; cut answers say so."""
    kept: list[BattleAccess] = []

    async def before(service: BattleService) -> None:
        kept.append(await service.open_blind(await service.voter("one"), FRANCE))
        await finish(service, kept[0])
        voter = await service.voter("one")
        pair = (await service.view(kept[0])).battle.participants
        cut = BattleDraft(pair, voter, Mode.NAMED)
        service.store.open_battle(cut, FRANCE, [Asked("", SamplingSettings())] * 2)
        kept.append(BattleAccess(voter, cut.battle_id, cut.token))

    async def after(service: BattleService) -> None:
        assert service.store.close_orphans() == 2
        await service.vote(kept[0], A_WINS)
        assert (await service.view(kept[0])).vote is not None
        cut = await service.view(kept[1])
        assert [side.state for side in cut.sides] == ["failed", "failed"]
        assert "The program was stopped" in cut.sides[0].error

    scripts = {"one": Script(), "two": Script()}
    perform(scripts, tmp_path, before)
    perform(scripts, tmp_path, after)


def test_answer_that_names_its_model_is_marked(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE)
        view = await finish(service, access)
        answers = [view.battle.turns[0].answer(i) for i in (0, 1)]
        leaks = {a.model: a.identity_leak for a in answers if a is not None}
        assert leaks == {"tell-tale": True, "quiet": False}

    tell = Script(words=("I", " am", " Tell-Tale", "."))
    perform({"tell-tale": tell, "quiet": Script()}, tmp_path, play)


def test_next_turn_continues_own_or_shared_answers(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "one", "two")
        await finish(service, access)
        await service.next_turn(access, "And of Spain?")
        view = await finish(service, access)
        assert view.battle.is_diverged(1)
        assert [m["content"] for m in view.battle.context(1, 1)] == [
            FRANCE,
            "Two",
            "And of Spain?",
        ]
        await service.next_turn(access, "And of Italy?", shared_side=0)
        battle = (await finish(service, access)).battle
        assert not battle.is_diverged(2)
        assert battle.context(2, 1)[1]["content"] == "One"
        assert len(battle.turns) == 3
        with pytest.raises(PromptError):
            await service.next_turn(access, " ")

    perform({"one": Script(words=("One",)), "two": Script(words=("Two",))}, tmp_path, play)


def test_one_side_again_keeps_the_other_and_the_old_text(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "one", "two")
        before = await finish(service, access)
        await service.regenerate(access, 1)
        with pytest.raises(BusyError):
            await service.regenerate(access, 0)
        view = await finish(service, access)
        attempts = view.battle.turns[0].attempts
        assert [(a.side, a.superseded) for a in attempts] == [(0, False), (1, True), (1, False)]
        assert view.battle.turns[0].answer(0) == before.battle.turns[0].answer(0)
        again = view.battle.turns[0].answer(1)
        assert again is not None
        assert again.sampling.temperature == 0.7, "the likeliest tokens would be the same again"
        assert view.is_votable

    perform({"one": Script(), "two": Script(delay=0.05)}, tmp_path, play)


def test_stopping_one_side_leaves_the_other(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "slow", "good")
        async for view in service.follow(access):
            if view.sides[0].num_pieces >= 1 and view.is_running:
                await service.stop(access, 0)
        assert [side.state for side in (await service.view(access)).sides] == ["stopped", "done"]

    good = Script(delay=0.08)
    perform({"slow": Script(words=("w ",) * 99, delay=0.1), "good": good}, tmp_path, play)


def test_vote_can_be_changed_and_taken_back(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await service.open_blind(await service.voter("one"), FRANCE)
        await finish(service, access)
        await service.vote(access, A_WINS)
        with pytest.raises(AlreadyVotedError):
            await service.vote(access, Judgement(winner=Winner.TIE))
        reasons = Judgement(winner=Winner.MODEL_A, reasons=("correct",), comment="It is Paris.")
        changed = (await service.vote(access, reasons, change=True)).vote
        assert changed is not None
        assert changed.judgement == reasons
        await service.undo(access)
        view = await service.view(access)
        assert view.vote is None
        assert view.is_votable
        again = (await service.vote(access, A_WINS)).vote
        assert again is not None
        assert not again.blind, "the names were seen"

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_four_sides_are_ranked(tmp_path: Path) -> None:
    async def play(service: BattleService) -> None:
        access = await named(service, "a1", "b2", "c3", "d4")
        await finish(service, access)
        vote = (await service.vote(access, Judgement(ranking=(2, 1, 3, 3)))).vote
        assert vote is not None
        assert vote.judgement.ranking == (2, 1, 3, 3)

    perform({name: Script() for name in ("a1", "b2", "c3", "d4")}, tmp_path, play)
