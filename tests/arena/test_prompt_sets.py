"""Judging a prompt set: files, answers in advance or live, blind copies, and going on later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fault_server import FaultServer, Script
from running import run_arena

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.prompt_sets import SetError, add_set, list_sets, load_set, read_set
from arena.battles.service import BattleService
from arena.battles.set_judging import SetJudging
from arena.battles.view import BattleAccess, BattleView
from arena.config.page_config import PageConfig
from arena.i18n import words
from arena.page.html.panes import pane_html
from arena.page.html.set_progress import progress_html
from arena.storage.store import Store
from arena.values.battle import Mode
from arena.values.refusals import WrongTokenError
from arena.values.vote import Judgement, Winner

PROMPTS = ("Name a fruit.", "Name a tool.", "Name a city.")
A_WINS = Judgement(winner=Winner.MODEL_A)
Play = Callable[[BattleService, FaultServer], Coroutine[Any, Any, None]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with the set `three`."""
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "three.txt").write_text("\n".join(PROMPTS) + "\n\n")
    return tmp_path


def perform(home: Path, scripts: dict[str, Script], play: Play) -> None:
    """Run `play` on a battle service over one server with these scripts."""

    async def main(server: FaultServer) -> None:
        install_http_client()
        config = PageConfig((server.url,), home)
        service = BattleService(Store(config.database), BackendPool((server.url,), config.sampling))
        try:
            await play(service, server)
        finally:
            await service.close()

    with FaultServer(scripts) as server:
        asyncio.run(main(server))


async def finish(service: BattleService, access: BattleAccess) -> BattleView:
    return [view async for view in service.follow(access)][-1]


async def answer(service: BattleService, server: FaultServer, *names: str) -> Any:
    from arena.battles.set_answers import answer_set

    home = service.store.path.parent
    chosen = load_set(home, "three")
    return await asyncio.to_thread(answer_set, home, chosen, [server.url], names, 2)


def test_prompts_are_read_from_lines_and_from_json(tmp_path: Path) -> None:
    plain = tmp_path / "a b.txt"
    plain.write_text("﻿one\r\n\n two \n", encoding="utf-8")
    assert read_set(plain).prompts == ("one", " two ")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('"one"\n{"prompt": "two\\nlines", "id": 7}\n')
    assert read_set(rows).prompts == ("one", "two\nlines")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.jsonl", '"a"\n{broken', "line 2"),
        ("x.jsonl", '{"question": "a"}', "no prompt"),
        ("x.jsonl", '["a"]', "no prompt"),
        ("x.txt", "\n \n", "no prompt"),
        ("x.txt", "half \0", "null character"),
        ("x.csv", "a", ".jsonl, .txt"),
        ("<x>.txt", "a", "letters and digits"),
    ],
)
def test_prompt_file_that_makes_no_sense_is_told(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SetError) as caught:
        read_set(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_set_is_added_once_and_a_name_never_leaves_the_folder(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one\n")
    assert add_set(home, file).prompts == ("one",)
    assert add_set(home, file).name == "mine"
    assert list_sets(home) == ["mine", "three"]
    file.write_text("two\n")
    with pytest.raises(SetError, match="--overwrite"):
        add_set(home, file)
    assert add_set(home, file, overwrite=True).prompts == ("two",)
    assert load_set(home, "mine").prompts == ("two",)
    for name in ("../mine", "/etc/passwd", "", "gone", ".."):
        with pytest.raises(SetError, match="unknown"):
            load_set(home, name)


def test_live_set_is_judged_blind_and_gone_on_with_after_a_restart(home: Path) -> None:
    async def first(service: BattleService, server: FaultServer) -> None:
        set_judging, voter = SetJudging(service, home), await service.voter("one")
        task = await set_judging.next(voter, "three")
        assert (task.index, task.progress.num_done, task.progress.total) == (0, 0, 3)
        assert task.access is not None
        view = await finish(service, task.access)
        assert view.battle.turns[0].prompt == PROMPTS[0]
        assert view.battle.mode is Mode.BLIND
        assert not view.is_revealed
        assert view.battle.propensity == pytest.approx(1 / 3)
        again = await set_judging.next(voter, "three")
        assert again.access is not None
        assert again.access.battle_id == task.access.battle_id, "an open one is not thrown away"
        await service.vote(task.access, A_WINS)
        task = await set_judging.next(voter, "three")
        assert task.access is not None
        await finish(service, task.access)
        await service.skip(task.access)
        other = await set_judging.progress(await service.voter("two"), "three")
        assert other.num_done == 0

    async def later(service: BattleService, server: FaultServer) -> None:
        set_judging, voter = SetJudging(service, home), await service.voter("one")
        progress = await set_judging.progress(voter, "three")
        assert (set(progress.judged), set(progress.skipped)) == ({0}, {1})
        task = await set_judging.next(voter, "three")
        assert task.index == 2
        assert task.access is not None
        await finish(service, task.access)
        await service.vote(task.access, A_WINS)
        assert (await set_judging.next(voter, "three")).access is None
        (home / "sets" / "three.txt").write_text("Name a fruit.\nAnother.\nName a city.\n")
        assert (await set_judging.next(voter, "three")).index == 1, (
            "a changed prompt is judged anew"
        )

    scripts = {name: Script() for name in ("plain-one", "plain-two", "plain-three")}
    perform(home, scripts, first)
    perform(home, scripts, later)


def test_answers_in_advance_are_judged_without_a_server(home: Path) -> None:
    """Each voter gets blind copies of their own; one's reveal shows another nothing."""

    async def prepare(service: BattleService, server: FaultServer) -> None:
        done = await answer(service, server)
        assert (done.total, done.before, done.answered, done.failed) == (3, 0, 3, 0)
        assert len(server.requests) == 9
        done = await answer(service, server)
        assert (done.before, done.answered) == (3, 0), "a second run asks nothing again"
        assert len(server.requests) == 9

    async def judge(service: BattleService, server: FaultServer) -> None:
        set_judging = SetJudging(service, home)
        one, two = await service.voter("one"), await service.voter("two")
        mine, theirs = await set_judging.next(one, "three"), await set_judging.next(two, "three")
        assert mine.access is not None
        assert theirs.access is not None
        view = await service.view(mine.access)
        assert view.is_votable
        assert view.battle.propensity == pytest.approx(1 / 3)
        assert "plain-" not in "".join(pane_html(view, i, words()) for i in (0, 1))
        texts = {side.text for side in view.sides}
        assert len(texts) == 2
        assert texts <= {"It is 1.", "It is 2.", "It is 3."}
        vote = (await service.vote(mine.access, A_WINS)).vote
        assert vote is not None
        assert vote.blind
        assert (await service.view(mine.access)).is_revealed
        assert not (await service.view(theirs.access)).is_revealed
        vote = (await service.vote(theirs.access, A_WINS)).vote
        assert vote is not None
        assert vote.blind
        with pytest.raises(WrongTokenError):
            await service.view(BattleAccess(two, mine.access.battle_id))
        assert server.requests == []

    def number(i: int) -> Script:
        return Script(words=("It", " is", f" {i}", "."))

    perform(home, {f"plain-{i}": number(i) for i in (1, 2, 3)}, prepare)
    perform(home, {"other": Script()}, judge)


def test_failed_prompt_comes_again_at_the_end(home: Path) -> None:
    async def play(service: BattleService, server: FaultServer) -> None:
        set_judging, voter = SetJudging(service, home), await service.voter("one")
        order = []
        for _ in range(3):
            task = await set_judging.next(voter, "three")
            assert task.access is not None
            order.append(task.index)
            if len(order) == 1:
                server.scripts["plain-one"].fault = "error"
            view = await finish(service, task.access)
            server.scripts["plain-one"].fault = ""
            if view.is_votable:
                await service.vote(task.access, A_WINS)
        assert order == [0, 1, 2]
        assert (await set_judging.next(voter, "three")).index == 0

    slow = Script(delay=0.05)
    perform(home, {"plain-one": slow, "plain-two": Script()}, play)


def test_answers_that_failed_are_asked_again_and_never_judged(home: Path) -> None:
    async def play(service: BattleService, server: FaultServer) -> None:
        server.scripts["plain-one"].fault = "error"
        done = await answer(service, server, "plain-one", "plain-two")
        assert (done.answered, done.failed) == (0, 3)
        server.scripts["plain-one"].fault = ""
        done = await answer(service, server, "plain-one", "plain-two")
        assert (done.before, done.answered, done.failed) == (0, 3, 0)

    perform(home, {"plain-one": Script(), "plain-two": Script(), "third": Script()}, play)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
@pytest.mark.parametrize("length", [8_001, 20_000])
def test_set_with_a_prompt_too_long_to_be_asked_is_not_added(
    tmp_path: Path, ending: str, length: int
) -> None:
    file = tmp_path / f"long{ending}"
    prompts = ["Name a fruit.", "x" * length]
    lines = prompts if ending == ".txt" else [json.dumps({"prompt": p}) for p in prompts]
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(SetError, match=f"prompt 2: {length} characters, and at most 8000"):
        add_set(tmp_path / "home", file)
    assert list_sets(tmp_path / "home") == []
    file.write_text(file.read_text().replace("x" * length, "x" * 8_000))
    assert len(add_set(tmp_path / "home", file).prompts) == 2


@pytest.mark.parametrize("place", [0, 1, 3])
def test_prompt_that_cannot_be_asked_is_passed_over_with_a_note(home: Path, place: int) -> None:
    """A file put there by hand: whoever judges goes on, and reads how many were passed over."""
    prompts = list(PROMPTS)
    prompts.insert(place, "long " * 2_000)
    (home / "sets" / "three.txt").write_text("\n".join(prompts) + "\n")

    async def play(service: BattleService, server: FaultServer) -> None:
        judging = SetJudging(service, home)
        voter = await service.voter("secret of a patient voter")
        seen = []
        for _ in range(3):
            task = await judging.next(voter, "three")
            assert task.access is not None
            seen.append(task.index)
            await finish(service, task.access)
            await service.vote(task.access, A_WINS)
        assert place not in seen
        end = await judging.next(voter, "three")
        assert (end.access, end.progress.num_done, end.progress.total) == (None, 4, 4)
        told = progress_html(end.progress, words())
        assert "1 passed over: too long, or refused by models" in told

    perform(home, {"one": Script(), "two": Script()}, play)


def test_prompt_that_models_refuse_is_passed_over_after_two_battles(home: Path) -> None:
    """As one with more tokens than any model reads: the page cannot know that beforehand."""

    async def play(service: BattleService, server: FaultServer) -> None:
        judging = SetJudging(service, home)
        voter = await service.voter("secret of a voter of a refused prompt")
        refused = 0
        while (task := await judging.next(voter, "three")).access is not None:
            server.scripts["two"] = Script(fault="422" if task.index == 1 else "")
            last = await finish(service, task.access)
            if last.is_votable:
                await service.vote(task.access, A_WINS)
            else:
                refused += 1
        assert refused == 2
        assert task.progress.passed == {1}
        assert task.progress.num_done == task.progress.total == 3

    perform(home, {"one": Script(), "two": Script()}, play)


def test_set_is_answered_in_advance_but_for_what_cannot_be_asked(home: Path) -> None:
    (home / "sets" / "three.txt").write_text("\n".join(["long " * 2_000, *PROMPTS]) + "\n")

    async def play(service: BattleService, server: FaultServer) -> None:
        done = await answer(service, server, "one", "two")
        assert (done.total, done.answered, done.failed) == (4, 3, 1)

    perform(home, {"one": Script(), "two": Script()}, play)


def test_commands_add_answer_and_list(tmp_path: Path) -> None:
    file = tmp_path / "two.txt"
    file.write_text("Name a fruit.\nName a tool.\n")
    with FaultServer({"plain-one": Script(), "plain-two": Script()}) as server:
        words = ["sets", "answer", file, "--backend", server.url, "--home", tmp_path / "home"]
        done = run_arena(*words, "--json", cwd=tmp_path)
        assert done.status == 0, done.stderr
        assert json.loads(done.stdout)["answered"] == 2
        assert "2 of 2 prompts asked" in done.stderr
        wrong = run_arena(*words, "--participant", "gone", cwd=tmp_path)
        assert wrong.status == 1
        assert "arena: a set is answered by 2 to 8" in wrong.stderr
    listed = run_arena("sets", "list", "--home", tmp_path / "home", "--json", cwd=tmp_path)
    expected = {"name": "two", "num_prompts": 2, "num_answered": 2}
    assert json.loads(listed.stdout) == {"sets": [expected]}
