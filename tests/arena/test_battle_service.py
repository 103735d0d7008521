"""A battle from the prompt to the vote, over a real store and real (good and bad) servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Script

from arena.backends.client import install_http_client
from arena.backends.pool import Roster, RosterError
from arena.backends.streams import Side
from arena.battles.service import BusyError, PromptError, Stage
from arena.battles.view import Access, Scene
from arena.config.page_config import Deadlines, Limits, PageConfig
from arena.i18n import words
from arena.page.html.panes import pane_html, scene_status
from arena.page.html.reveal import reveal_html
from arena.ratings.pair_probabilities import PairingError
from arena.storage.store import Store
from arena.values.battle import AnswerStatus, Mode
from arena.values.refusals import (
    AlreadyVotedError,
    SideFailedError,
    UnfinishedError,
    WrongTokenError,
)
from arena.values.vote import Judgement, Winner

A_WINS = Judgement(winner=Winner.MODEL_A)
FRANCE = "What is the capital of France?"
Play = Callable[[Stage], Coroutine[Any, Any, None]]


def perform(
    scripts: dict[str, Script],
    home: Path,
    play: Play,
    *,
    deadlines: Deadlines | None = None,
    limits: Limits | None = None,
) -> None:
    """Run `play` on a stage over one server with these scripts and a store of its own."""

    async def main(url: str) -> None:
        config = PageConfig(
            (url,), home, deadlines=deadlines or Deadlines(), limits=limits or Limits()
        )
        install_http_client()
        stage = Stage(Store(home / "arena.db"), Roster((url,), config.sampling), config)
        try:
            await play(stage)
        finally:
            await stage.close()

    with FaultServer(scripts) as server:
        asyncio.run(main(server.url))


async def finish(stage: Stage, access: Access) -> Scene:
    """Watch to the end; the last scene."""
    last = None
    async for scene in stage.follow(access):
        last = scene
    assert last is not None
    assert not last.is_running
    return last


async def named(stage: Stage, *names: str, prompt: str = FRANCE) -> Access:
    return await stage.open_named(await stage.voter("one"), names, prompt)


def test_blind_battle_vote_and_reveal(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        voter = await stage.voter("cookie-of-this-browser")
        access = await stage.open_blind(voter, FRANCE)
        scene = await finish(stage, access)
        assert [side.state for side in scene.sides] == ["done", "done"]
        assert scene.sides[0].text == "The capital of France is Paris."
        assert not scene.is_revealed
        assert scene.is_votable
        assert scene.battle.propensity == pytest.approx(1.0)
        page = "".join(pane_html(scene, i, words()) for i in (0, 1)) + reveal_html(scene, words())
        assert "model-one" not in page
        assert "model-two" not in page
        await stage.vote(access, A_WINS)
        scene = await stage.scene(access)
        assert scene.is_revealed
        assert not scene.is_votable
        shown = reveal_html(scene, words())
        for fact in ("model-one", "model-two", "abababababab", "&lt;user&gt;What is the capital"):
            assert fact in shown
        stored = scene.battle.turns[0].answer(0)
        assert stored is not None
        assert (stored.status, stored.num_tokens) == (AnswerStatus.COMPLETE, 7)
        assert stored.weights_sha256 == "ab" * 32
        assert stored.prompt_sent == "<user>" + FRANCE

    perform({"model-one": Script(), "model-two": Script()}, tmp_path, play)


def test_example_meets_a_base_and_its_variant(tmp_path: Path) -> None:
    """Of six pairs three are; eight draws that keep to them by chance: 1 in 256."""

    async def play(stage: Stage) -> None:
        voter = await stage.voter("one")
        for _ in range(8):
            access = await stage.open_blind(voter, FRANCE, is_example=True)
            battle = (await finish(stage, access)).battle
            names = {participant.name for participant in battle.participants}
            assert "base" in names
            assert battle.propensity == pytest.approx(1 / 3)
            assert battle.sampler == "base-and-variant/1"

    variants = {name: Script() for name in ("full", "lora", "prefix")}
    perform({"base": Script(kind="base")} | variants, tmp_path, play)


def test_example_is_drawn_as_ever_where_no_base_is_served(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await stage.open_blind(await stage.voter("one"), FRANCE, is_example=True)
        battle = (await finish(stage, access)).battle
        assert (battle.sampler, battle.propensity) == ("uniform/1", pytest.approx(1.0))

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_sides_run_at_their_own_pace(tmp_path: Path) -> None:
    """A fast side beside a slow one ends within a tenth of its time beside a fast one."""
    fast = Script(words=("w ",) * 400, delay=0.005)
    slow = Script(words=("w ",) * 15, delay=0.2)

    async def play(stage: Stage) -> None:
        pairs = []
        for _ in range(5):  # the machine may be busy with other things for a while
            alone = (await finish(stage, await named(stage, "fast", "fast-two"))).sides[0].ended_at
            beside, slower = (await finish(stage, await named(stage, "fast", "slow"))).sides
            assert alone is not None
            assert beside.ended_at is not None
            assert slower.ended_at is not None
            assert slower.ended_at > beside.ended_at
            pairs.append((alone, beside.ended_at))
            if beside.ended_at <= alone * 1.1:
                return
        raise AssertionError(f"alone and beside a slow one, seconds: {pairs}")

    perform({"fast": fast, "fast-two": fast, "slow": slow}, tmp_path, play)


def test_side_that_fails_is_shown_and_cannot_be_voted_on(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "good", "bad")
        scene = await finish(stage, access)
        assert [side.state for side in scene.sides] == ["done", "failed"]
        assert scene.sides[0].text == "The capital of France is Paris."
        assert not scene.is_votable
        assert "Answer B failed" in scene_status(scene, words())[0]
        assert "This side failed: The server failed" in pane_html(scene, 1, words())
        with pytest.raises(SideFailedError):
            await stage.vote(access, A_WINS)
        assert stage.store.counts()["votes"] == 0

    perform({"good": Script(), "bad": Script(fault="error")}, tmp_path, play)


@pytest.mark.parametrize("after", [0, 3])
def test_side_that_hangs_meets_its_deadline_alone(tmp_path: Path, after: int) -> None:
    async def play(stage: Stage) -> None:
        scene = await finish(stage, await named(stage, "good", "hang"))
        assert [side.state for side in scene.sides] == ["done", "failed"]
        assert scene.sides[1].error_kind == ("idle" if after else "no-token")
        assert scene.sides[1].ended_at is not None
        assert scene.sides[1].ended_at >= 0.4

    scripts = {"good": Script(), "hang": Script(fault="hang", after=after)}
    perform(scripts, tmp_path, play, deadlines=Deadlines(first_token=0.4, idle=0.4))


def test_answers_that_never_end_are_cut(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        scene = await finish(stage, await named(stage, "long", "slow"))
        assert [side.error_kind for side in scene.sides] == ["too-long", "too-long"]

    long = Script(words=("word ",) * 200)
    slow = Script(words=("w ",) * 100, delay=0.05)
    limits = Limits(answer_chars=500)
    perform(
        {"long": long, "slow": slow}, tmp_path, play, deadlines=Deadlines(total=0.6), limits=limits
    )


def test_stop_keeps_the_text_and_allows_a_partial_vote(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "slow", "good")
        async for scene in stage.follow(access):
            if scene.sides[0].num_pieces >= 2 and scene.is_running:
                await stage.stop(access)
        scene = await stage.scene(access)
        assert [side.state for side in scene.sides] == ["stopped", "done"]
        assert scene.sides[0].text.startswith("w w ")
        vote = await stage.vote(access, A_WINS)
        assert vote.partial

    slow = Script(words=("w ",) * 100, delay=0.1)
    perform({"slow": slow, "good": Script()}, tmp_path, play)


def test_stop_before_the_first_word_fails_the_side(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "hang", "good")
        await asyncio.sleep(0.3)
        await stage.stop(access)
        scene = await stage.scene(access)
        assert [side.state for side in scene.sides] == ["failed", "done"]
        assert scene.sides[0].error_kind == "stopped"

    perform({"hang": Script(fault="hang", after=0), "good": Script()}, tmp_path, play)


def test_no_vote_while_a_side_writes(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "slow", "good")
        await asyncio.sleep(0.3)
        with pytest.raises(UnfinishedError):
            await stage.vote(access, A_WINS)

    perform({"slow": Script(delay=0.5), "good": Script()}, tmp_path, play)


def test_the_last_to_leave_ends_the_streams_within_half_a_second(tmp_path: Path) -> None:
    with FaultServer(
        {"one": Script(words=("w ",) * 500, delay=0.3), "two": Script(fault="hang")}
    ) as server:

        async def leave(stage: Stage) -> float:
            access = await named(stage, "one", "two")
            first, second = stage.follow(access), stage.follow(access)
            await anext(second)
            async for scene in first:
                if all(side.text for side in scene.sides):
                    break
            await first.aclose()
            await asyncio.sleep(0.1)
            assert server.open_streams == 2, "somebody still watches"
            left = time.monotonic()
            await second.aclose()
            while server.open_streams and time.monotonic() - left < 30:
                await asyncio.sleep(0.01)
            waited = time.monotonic() - left
            assert stage.num_running == 0
            sides = (await stage.scene(access)).sides
            assert [side.state for side in sides] == ["stopped", "stopped"]
            return waited

        async def main() -> list[float]:
            config = PageConfig((server.url,), tmp_path)
            install_http_client()
            stage = Stage(Store(config.database), Roster((server.url,), config.sampling), config)
            waits = [await leave(stage)]
            while min(waits) > 0.5 and len(waits) < 8:  # the machine may be busy for a while
                waits.append(await leave(stage))
            return waits

        waits = asyncio.run(main())
        assert min(waits) <= 0.5, waits


def test_a_page_that_comes_back_in_time_finds_its_answers_still_written(tmp_path: Path) -> None:
    """A reload leaves and returns; only who stays away ends the streams."""

    async def play(stage: Stage) -> None:
        access = await named(stage, "slow", "slow-two")

        async def look() -> AsyncGenerator[Scene, None]:
            pages = stage.follow(access, grace=0.4, idle=15.0)
            await anext(pages)
            return pages

        await (await look()).aclose()
        await asyncio.sleep(0.1)
        again = await look()
        await asyncio.sleep(0.5)
        assert stage.num_running == 1, "it came back in time"
        await again.aclose()
        left = time.monotonic()
        assert stage.num_running == 1, "it may come back"
        while stage.num_running:
            assert time.monotonic() < left + 30
            await asyncio.sleep(0.01)
        assert all(side.is_finished for side in (await stage.scene(access)).sides)

    slow = Script(words=("w ",) * 500, delay=0.05)
    perform({"slow": slow, "slow-two": slow}, tmp_path, play)


def test_kept_answers_are_written_to_their_end_and_an_unseen_question_is_not(
    tmp_path: Path,
) -> None:
    async def play(stage: Stage) -> None:
        kept, unseen = await named(stage, "slow", "slow"), await named(stage, "slow", "slow")
        async for _ in stage.follow(kept):
            assert await stage.keep(kept)
            break
        running = stage.runs.get(unseen.battle_id)
        assert running is not None
        stage.runs.expect(running, 0.1)
        while stage.num_running:
            await asyncio.sleep(0.01)
        states = [[s.state for s in (await stage.scene(one)).sides] for one in (kept, unseen)]
        assert states == [["done", "done"], ["stopped", "stopped"]]

    perform({"slow": Script(words=("w ",) * 20, delay=0.05)}, tmp_path, play)


def test_votes_belong_to_the_holder_of_the_link(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "one", "two")
        await finish(stage, access)
        stranger = await stage.voter("another browser")
        with pytest.raises(WrongTokenError):
            await stage.vote(Access(stranger, access.battle_id), A_WINS)
        with pytest.raises(WrongTokenError):
            await stage.vote(Access(stranger, access.battle_id, "guess"), A_WINS)
        second_device = Access(stranger, access.battle_id, access.token)
        await stage.vote(second_device, A_WINS)
        with pytest.raises(AlreadyVotedError):
            await stage.vote(access, Judgement(winner=Winner.TIE))
        assert stage.store.counts()["votes"] == 1

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_many_votes_at_once_are_one_row(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "one", "two")
        await finish(stage, access)
        votes = await asyncio.gather(*(stage.vote(access, A_WINS) for _ in range(20)))
        assert len({vote.id for vote in votes}) == 1
        assert stage.store.counts()["votes"] == 1

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_skip_counts_nothing_and_shows_the_names(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await stage.open_blind(await stage.voter("one"), FRANCE)
        await finish(stage, access)
        await stage.skip(access)
        assert (await stage.scene(access)).is_revealed
        assert (stage.store.counts()["votes"], stage.store.counts()["skips"]) == (0, 1)

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_skip_while_they_write_ends_the_answers(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await stage.open_blind(await stage.voter("one"), FRANCE)
        stranger = Access(await stage.voter("another browser"), access.battle_id)
        last = None
        async for scene in stage.follow(access):
            if scene.is_running and all(side.text for side in scene.sides):
                with pytest.raises(WrongTokenError):
                    await stage.skip(stranger)
                assert stage.num_running == 1
                await stage.skip(access)
                assert stage.num_running == 0
            last = scene
        assert last is not None
        assert [side.state for side in last.sides] == ["stopped", "stopped"]
        assert (last.is_revealed, last.is_skipped) == (True, True)
        assert scene_status(last, words())[0].startswith("Skipped.")
        assert (stage.store.counts()["votes"], stage.store.counts()["skips"]) == (0, 1)

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
    async def play(stage: Stage) -> None:
        with pytest.raises(PromptError, match=reason):
            await stage.open_blind(await stage.voter("one"), prompt)
        assert stage.store.counts()["battles"] == 0

    perform({"one": Script(), "two": Script()}, tmp_path, play)


@pytest.mark.parametrize("prompt", ["x", "‮right to left", "\n" * 5000 + "x", "🙂" * 4000])
def test_odd_prompt_is_asked_as_it_is(tmp_path: Path, prompt: str) -> None:
    async def play(stage: Stage) -> None:
        scene = await finish(stage, await named(stage, "one", "two", prompt=prompt))
        assert scene.is_votable
        assert scene.battle.turns[0].prompt == prompt

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_one_model_or_an_unknown_one_or_no_place_left(tmp_path: Path) -> None:
    async def alone(stage: Stage) -> None:
        with pytest.raises(PairingError, match="two models"):
            await stage.open_blind(await stage.voter("one"), FRANCE)
        with pytest.raises(RosterError, match="gone"):
            await named(stage, "one", "gone")

    async def full(stage: Stage) -> None:
        await named(stage, "hang", "hang-too")
        with pytest.raises(BusyError):
            await named(stage, "hang", "hang-too")

    perform({"one": Script()}, tmp_path / "alone", alone)
    hang = Script(fault="hang")
    limits = Limits(running_battles=1)
    perform({"hang": hang, "hang-too": hang}, tmp_path / "full", full, limits=limits)


def test_battle_outlives_the_program(tmp_path: Path) -> None:
    """Answers, link and vote work on a second stage over the same file; cut answers say so."""
    kept: list[Access] = []

    async def before(stage: Stage) -> None:
        kept.append(await stage.open_blind(await stage.voter("one"), FRANCE))
        await finish(stage, kept[0])
        voter = await stage.voter("one")
        battle_id, token = stage.store.create_battle(
            (await stage.scene(kept[0])).battle.participants, voter=voter, mode=Mode.NAMED
        )
        stage.store.add_turn(battle_id, FRANCE)
        for side in (0, 1):
            sampling = stage.config.sampling
            stage.store.start_answer(battle_id, 0, side, prompt_sent="", sampling=sampling)
        kept.append(Access(voter, battle_id, token))

    async def after(stage: Stage) -> None:
        assert stage.store.close_orphans() == 2
        await stage.vote(kept[0], A_WINS)
        assert (await stage.scene(kept[0])).vote is not None
        cut = await stage.scene(kept[1])
        assert [side.state for side in cut.sides] == ["failed", "failed"]
        assert "the program was stopped" in cut.sides[0].error

    scripts = {"one": Script(), "two": Script()}
    perform(scripts, tmp_path, before)
    perform(scripts, tmp_path, after)


def test_answer_that_names_its_model_is_marked(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await stage.open_blind(await stage.voter("one"), FRANCE)
        scene = await finish(stage, access)
        answers = [scene.battle.turns[0].answer(i) for i in (0, 1)]
        leaks = {a.model: a.identity_leak for a in answers if a is not None}
        assert leaks == {"tell-tale": True, "quiet": False}

    tell = Script(words=("I", " am", " Tell-Tale", "."))
    perform({"tell-tale": tell, "quiet": Script()}, tmp_path, play)


def test_speed_is_measured_after_the_first_token() -> None:
    side = Side("done", "x", num_pieces=11, first_piece_at=1.0, ended_at=3.0)
    assert side.tokens_per_second == pytest.approx(5.0)
    assert (
        Side("done", "x", num_pieces=1, first_piece_at=1.0, ended_at=3.0).tokens_per_second is None
    )


def test_next_turn_continues_own_or_shared_answers(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "one", "two")
        await finish(stage, access)
        await stage.next_turn(access, "And of Spain?")
        scene = await finish(stage, access)
        assert scene.battle.is_diverged(1)
        assert [m["content"] for m in scene.battle.context(1, 1)] == [
            FRANCE,
            "Two",
            "And of Spain?",
        ]
        await stage.next_turn(access, "And of Italy?", shared_side=0)
        battle = (await finish(stage, access)).battle
        assert not battle.is_diverged(2)
        assert battle.context(2, 1)[1]["content"] == "One"
        assert len(battle.turns) == 3
        with pytest.raises(PromptError):
            await stage.next_turn(access, " ")

    perform({"one": Script(words=("One",)), "two": Script(words=("Two",))}, tmp_path, play)


def test_one_side_again_keeps_the_other_and_the_old_text(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "one", "two")
        before = await finish(stage, access)
        await stage.regenerate(access, 1)
        with pytest.raises(BusyError):
            await stage.regenerate(access, 0)
        scene = await finish(stage, access)
        attempts = scene.battle.turns[0].attempts
        assert [(a.side, a.superseded) for a in attempts] == [(0, False), (1, True), (1, False)]
        assert scene.battle.turns[0].answer(0) == before.battle.turns[0].answer(0)
        again = scene.battle.turns[0].answer(1)
        assert again is not None
        assert again.sampling.temperature == 0.7, "the likeliest tokens would be the same again"
        assert scene.is_votable

    perform({"one": Script(), "two": Script(delay=0.05)}, tmp_path, play)


def test_stopping_one_side_leaves_the_other(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "slow", "good")
        async for scene in stage.follow(access):
            if scene.sides[0].num_pieces >= 1 and scene.is_running:
                await stage.stop(access, 0)
        assert [side.state for side in (await stage.scene(access)).sides] == ["stopped", "done"]

    good = Script(delay=0.08)
    perform({"slow": Script(words=("w ",) * 99, delay=0.1), "good": good}, tmp_path, play)


def test_vote_can_be_changed_and_taken_back(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await stage.open_blind(await stage.voter("one"), FRANCE)
        await finish(stage, access)
        await stage.vote(access, A_WINS)
        with pytest.raises(AlreadyVotedError):
            await stage.vote(access, Judgement(winner=Winner.TIE))
        reasons = Judgement(winner=Winner.MODEL_A, reasons=("correct",), comment="It is Paris.")
        changed = await stage.vote(access, reasons, change=True)
        assert changed.judgement == reasons
        await stage.undo(access)
        scene = await stage.scene(access)
        assert scene.vote is None
        assert scene.is_votable
        again = await stage.vote(access, A_WINS)
        assert not again.blind, "the names were seen"

    perform({"one": Script(), "two": Script()}, tmp_path, play)


def test_four_sides_are_ranked(tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        access = await named(stage, "a1", "b2", "c3", "d4")
        await finish(stage, access)
        vote = await stage.vote(access, Judgement(ranking=(2, 1, 3, 3)))
        assert vote.judgement.ranking == (2, 1, 3, 3)

    perform({name: Script() for name in ("a1", "b2", "c3", "d4")}, tmp_path, play)
