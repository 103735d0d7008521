"""Battles from elsewhere: what comes in goes out again, and nothing is guessed."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from forked import run_script
from store_fixtures import BASE, FULL, LORA, Hand

from arena.commands.imports import import_any
from arena.exports.dataset import ExportOptions, export
from arena.imports.importer import import_file
from arena.imports.readers import LARGE, ImportRefusedError
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.storage.selection import Selection
from arena.storage.store import Store
from arena.values.battle import AnswerStatus, Mode
from arena.values.vote import Judgement, Strength, Winner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def busy(hand: Hand) -> Hand:
    """A store in which everything that can be stored has happened."""
    voter, other = hand.voter("x"), hand.voter("y")
    battle, _ = hand.battle(["a1\r\n“𝄞”", "b1"], prompt="p1", voter=voter, tags=["t"])
    hand.again(battle, 1, "again")
    judgement = Judgement(
        Winner.MODEL_B,
        strength=Strength.SLIGHTLY,
        reasons=("correct", "style"),
        comment="why",
        edited_answer="best",
    )
    hand.store.cast_vote(battle, judgement, voter=voter)
    hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=voter, change=True)
    hand.turn(battle, "p2", ["a2", "b2"], shared_side=1)
    hand.store.cast_vote(battle, judgement, voter=voter)
    hand.turn(battle, "p3", ["a3", "b3"])
    hand.store.skip_turn(battle, voter=voter)
    three, _ = hand.battle(["x", "y", "z"], participants=[BASE, LORA, FULL], voter=other)
    hand.store.cast_vote(three, Judgement(ranking=(1, 3, 1)), voter=other)
    leaking, _ = hand.battle(leaks=[True, False], mode=Mode.NAMED)
    (vote,) = hand.store.cast_vote(leaking, Judgement(Winner.MODEL_A), voter=hand.voter()).votes
    hand.store.clear_flag(vote.id, "identity_leak")
    hand.store.flag_vote(vote.id, "by hand", "looks odd")
    undone, _ = hand.battle(statuses=[AnswerStatus.STOPPED, AnswerStatus.COMPLETE])
    hand.store.cast_vote(undone, Judgement(Winner.MODEL_A), voter=hand.voter())
    hand.store.undo_vote(undone, voter=hand.voter())
    hand.battle(statuses=[AnswerStatus.FAILED, AnswerStatus.STREAMING])
    return hand


def export_to(store: Store, out: Path, name: str, **selection: Any) -> Path:
    """Export everything that the format can hold."""
    selected = Selection(**selection)
    export(store, out, ExportOptions(format=name, selection=selected))
    return out


def empty_store(tmp_path: Path, name: str = "second") -> Store:
    """Another store."""
    return Store.at_home(tmp_path / name)


def write_lines(path: Path, rows: list[Any]) -> Path:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_raw_there_and_back_gives_the_same_bytes(busy: Hand, tmp_path: Path) -> None:
    first = export_to(busy.store, tmp_path / "one", "raw")
    second = empty_store(tmp_path)
    done = import_file(second, first, "raw")
    assert (done.num_new, done.num_known) == (5, 0)
    back = export_to(second, tmp_path / "two", "raw")
    assert (back / "battles.jsonl").read_bytes() == (first / "battles.jsonl").read_bytes()
    assert (back / "MANIFEST.json").read_bytes() == (first / "MANIFEST.json").read_bytes()
    for name, filters in (("trl", {}), ("kto", {}), ("lmsys", {})):
        rows = [
            (export_to(store, tmp_path / f"{i}{name}", name, **filters) / "train.jsonl").read_text()
            for i, store in enumerate((busy.store, second))
        ]
        assert len(rows[0].splitlines()) == len(rows[1].splitlines()) > 0
    assert second.counts() == busy.store.counts()


@pytest.mark.slow
def test_raw_opens_with_load_dataset(busy: Hand, tmp_path: Path) -> None:
    """Battles of different fields, and what stands in them comes back as it was written."""
    from datasets import load_dataset

    folder = export_to(busy.store, tmp_path / "one", "raw")
    opened = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    lines = (folder / "battles.jsonl").read_text(encoding="utf-8").splitlines()
    assert [dict(row) for row in opened] == [json.loads(line) for line in lines]
    assert len(opened) == 5


def test_raw_twice_adds_nothing(busy: Hand, tmp_path: Path) -> None:
    first = export_to(busy.store, tmp_path / "one", "raw")
    second = empty_store(tmp_path)
    import_file(second, first, "raw")
    before = second.counts()
    done = import_file(second, first, "raw")
    assert (done.num_new, done.num_known) == (0, 5)
    assert second.counts() == before


@pytest.mark.parametrize("name", ["lmsys", "140k", "openwebui", "trl"])
def test_our_exports_come_back(hand: Hand, tmp_path: Path, name: str) -> None:
    kinds = [Winner.MODEL_A, Winner.MODEL_B, Winner.TIE, Winner.BOTH_BAD]
    for winner in kinds:
        hand.vote(winner, [f"left {winner}\r\n", "  right 𝄞"], voter=hand.voter(winner))
    out = export_to(hand.store, tmp_path / "out", name)
    second = empty_store(tmp_path)
    done = import_file(second, out, name)
    expected = {"lmsys": kinds, "140k": kinds, "openwebui": kinds[:3], "trl": kinds[:2]}[name]
    assert done.num_new == len(expected)
    again = export_to(second, tmp_path / "again", "lmsys", blind_only=True)
    rows = [json.loads(line) for line in (again / "train.jsonl").read_text().splitlines()]
    lmsys = {"both_bad": "tie (bothbad)"}
    assert [row["winner"] for row in rows] == [lmsys.get(w, w) for w in expected]
    assert [row["conversation_a"][-1]["content"] for row in rows] == [
        f"left {winner}\r\n" for winner in expected
    ]
    assert {(row["model_a"], row["model_b"]) for row in rows} == {("starter", "lora")}
    if name != "trl":
        assert len({row["judge"] for row in rows}) == len(expected)


def test_parquet_and_lines_are_the_same_battles(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    out = export_to(hand.store, tmp_path / "out", "lmsys")
    second = empty_store(tmp_path)
    parquet = out / "data/train-00000-of-00001.parquet"
    assert import_file(second, parquet, "lmsys").num_new == 1
    assert import_file(second, out / "train.jsonl", "lmsys").num_known == 1


def test_a_row_of_the_published_dataset(tmp_path: Path) -> None:
    def turn(*texts: str) -> list[dict[str, str]]:
        roles = ["user", "assistant"]
        return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]

    row = {
        "question_id": "58210e39b3fd4441a2bd4a518bb44c2d",
        "model_a": "chatglm-6b",
        "model_b": "koala-13b",
        "winner": "tie (bothbad)",
        "judge": "arena_user_973",
        "conversation_a": turn("hi", "hello", "more", "yes"),
        "conversation_b": turn("hi", "hey", "more", "no"),
        "turn": 2,
        "anony": True,
        "language": "English",
        "tstamp": 1682351448.5,
        "openai_moderation": {"categories": {}, "category_scores": {}, "flagged": False},
        "toxic_chat_tag": {},
    }
    store = empty_store(tmp_path)
    import_file(store, write_lines(tmp_path / "rows.jsonl", [row]), "lmsys")
    found = read_rating_input(store)
    assert found.table.models == ("chatglm-6b", "koala-13b")
    assert found.table.outcome.tolist() == [3]
    assert found.created_ms.tolist() == [1682351448500]


def test_preference_rows_without_names_stay_out_of_the_ratings(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "good", "rejected": "bad"}]
    store = empty_store(tmp_path)
    import_file(store, write_lines(tmp_path / "rows.jsonl", rows), "trl")
    assert len(read_rating_input(store).table) == 0
    assert read_rating_input(store, VoteFilter(named=True)).table.models == (
        "unnamed chosen",
        "unnamed rejected",
    )


def test_a_like_among_three_siblings_is_a_ranking(tmp_path: Path) -> None:
    def message(name: str, parent: str | None, **more: Any) -> dict[str, Any]:
        return {"id": name, "parentId": parent, "childrenIds": [], **more}

    messages = {
        "q": message("q", None, role="user", content="hi") | {"childrenIds": ["x", "y", "z"]},
        **{
            name: message(name, "q", role="assistant", content=f"I am {name}", model=name)
            for name in "xyz"
        },
    }
    row = {
        "id": "1",
        "user_id": "u",
        "type": "rating",
        "data": {"rating": "1", "model_id": "y", "sibling_model_ids": None, "comment": "nice"},
        "meta": {"arena": True, "chat_id": "c", "message_id": "y"},
        "snapshot": {"chat": {"history": {"messages": messages, "currentId": "y"}}},
        "created_at": 1700000000,
    }
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    store = empty_store(tmp_path)
    import_file(store, tmp_path / "rows.json", "openwebui")
    table = read_rating_input(store).table
    wins = {
        (table.models[left], table.models[right], outcome)
        for left, right, outcome in zip(table.left, table.right, table.outcome, strict=True)
    }
    assert wins == {("x", "y", 1), ("x", "z", 2), ("y", "z", 0)}


def test_a_bad_row_changes_nothing_unless_asked(hand: Hand, tmp_path: Path) -> None:
    for i in range(3):
        hand.vote(prompt=f"p{i}")
    out = export_to(hand.store, tmp_path / "out", "lmsys")
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    rows[1]["winner"] = "first"
    path = write_lines(tmp_path / "bad.jsonl", rows)
    store = empty_store(tmp_path)
    with pytest.raises(ImportRefusedError, match="row 2: winner 'first' is unknown"):
        import_file(store, path, "lmsys")
    assert store.counts()["battles"] == 0
    done = import_file(store, path, "lmsys", skip_bad=True)
    assert (done.num_new, sum(done.left_out.values())) == (2, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"conversation_b": []}, "conversation b is not user and assistant in turns"),
        ({"conversation_b": [{"role": "user", "content": "x"}] * 2}, "conversation b is not"),
        ({"model_a": ""}, "model '' is no name"),
        ({"model_a": None}, "model None is no name"),
        ({"tstamp": "noon"}, "could not convert"),
        (
            {
                "conversation_b": [
                    {"role": "user", "content": "other"},
                    {"role": "assistant", "content": "x"},
                ]
            },
            "has other prompts than a",
        ),
        (
            {
                "conversation_a": [
                    {"role": "user", "content": "Say a number."},
                    {"role": "assistant", "content": "nul\0"},
                ]
            },
            "answer holds a null character",
        ),
    ],
)
def test_rows_that_are_no_battle(
    hand: Hand, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    hand.vote()
    out = export_to(hand.store, tmp_path / "out", "lmsys")
    row = json.loads((out / "train.jsonl").read_text())
    path = write_lines(tmp_path / "bad.jsonl", [row | change])
    with pytest.raises(ImportRefusedError, match=words):
        import_file(empty_store(tmp_path), path, "lmsys")


def test_raw_records_are_checked(busy: Hand, tmp_path: Path) -> None:
    out = export_to(busy.store, tmp_path / "out", "raw")
    record = json.loads((out / "battles.jsonl").read_text().splitlines()[0])
    store = empty_store(tmp_path)
    for change, words in (
        ({"version": 2}, "version 2 is not 1"),
        ({"mode": "secret"}, "'secret' is not a valid Mode"),
        ({"participants": record["participants"][:1]}, "2 to 8 sides, not 1"),
        ({"turns": [{}]}, r"is no battle of a raw export \(has no '"),
        ({"turns": 3}, "is no battle of a raw export .*--format names other forms"),
        ({"id": 7}, "battle: id 7 is no text"),
        ({"id": ""}, "no text of 1 to 100 characters"),
        ({"tags": "t"}, "'t' is no list of texts"),
        ({"propensity": 1.5}, "propensity 1.5 is no probability"),
        ({"created_ms": 2**63}, "is out of range"),
        ({"language": 3}, "battle: language 3 is no text or null"),
    ):
        path = write_lines(tmp_path / "bad.jsonl", [record | change])
        with pytest.raises(ImportRefusedError, match=words):
            import_file(store, path, "raw")
    assert store.counts()["battles"] == 0


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("answers", {"attempt": 0}, "answer of side 0, attempt 0"),
        ("answers", {"side": 2}, "answer of side 2"),
        ("answers", {"status": "lost"}, "'lost' is not a valid AnswerStatus"),
        ("answers", {"superseded": 0}, "superseded 0 is no truth value"),
        ("answers", {"total_s": "long"}, "total_s 'long' is no number or null"),
        ("answers", {"text": "nul\0"}, "answer holds a null character"),
        ("answers", {"prompt_sent": "\ud800"}, "prompt_sent holds half of a surrogate pair"),
        ("answers", {"sampling": {"heat": 1}}, "sampling parameter 'heat' is unknown"),
        ("answers", {"side": 1, "attempt": 9}, "side b has two current answers"),
        ("votes", {"winner": "first"}, "'first' is not a valid Winner"),
        ("votes", {"ranking": [1, 2]}, "either a winner or a ranking"),
        ("votes", {"strength": "very"}, "'very' is not a valid Strength"),
        ("votes", {"reasons": ["because"]}, "reason 'because' is unknown"),
        ("votes", {"updated_ms": None}, "updated_ms None is no whole number"),
        ("history", {"action": "guess"}, "action 'guess' is unknown"),
    ],
)
def test_every_field_of_a_raw_record_is_checked(
    busy: Hand, tmp_path: Path, part: str, change: dict[str, Any], words: str
) -> None:
    """A value that the tables would refuse is told with its row, and nothing is written."""
    out = export_to(busy.store, tmp_path / "out", "raw")
    records = [json.loads(line) for line in (out / "battles.jsonl").read_text().splitlines()]
    records[0]["turns"][0][part][0] |= change
    store = empty_store(tmp_path)
    path = write_lines(tmp_path / "bad.jsonl", [*records[1:], records[0]])
    with pytest.raises(ImportRefusedError, match=f"row 5: .*{words}"):
        import_file(store, path, "raw")
    assert store.counts()["battles"] == 0
    assert import_file(store, path, "raw", skip_bad=True).num_new == 4


def lmsys_rows(count: int, length: int) -> list[dict[str, Any]]:
    """Rows of different prompts, each answer so many characters long."""
    return [
        {
            "model_a": f"model-{i % 7}",
            "model_b": f"model-{i % 7 + 1}",
            "winner": ("model_a", "model_b", "tie", "tie (bothbad)")[i % 4],
            "judge": f"arena_user_{i % 50}",
            "conversation_a": [
                {"role": "user", "content": f"Question {i}?"},
                {"role": "assistant", "content": f"é{i} " * (length // 5)},
            ],
            "conversation_b": [
                {"role": "user", "content": f"Question {i}?"},
                {"role": "assistant", "content": f"b{i} " * (length // 5)},
            ],
            "anony": True,
            "language": "English",
            "tstamp": 1_700_000_000.0 + i,
        }
        for i in range(count)
    ]


@pytest.mark.slow
def test_a_large_file_is_the_same_battles_as_small_ones(tmp_path: Path) -> None:
    """Large files are converted in a process of their own."""
    rows = lmsys_rows(9_000, 500)
    large = write_lines(tmp_path / "large.jsonl", rows)
    assert large.stat().st_size > LARGE
    first, second = empty_store(tmp_path, "first"), empty_store(tmp_path, "second")
    done = import_file(first, large, "lmsys")
    assert (done.num_new, done.num_known) == (9_000, 0)
    for i in range(0, 9_000, 3_000):
        part = write_lines(tmp_path / f"{i}.jsonl", [*rows[i : i + 3_000], rows[i]])
        assert part.stat().st_size < LARGE
        done = import_file(second, part, "lmsys")
        assert (done.num_new, done.num_known) == (3_000, 1)
    one, two = (
        export_to(store, tmp_path / f"raw-{store.path.parent.name}", "raw") / "battles.jsonl"
        for store in (first, second)
    )
    assert one.read_bytes() == two.read_bytes()
    rows[8_500]["winner"] = rows[8_999]["winner"] = "first"
    bad = write_lines(tmp_path / "bad.jsonl", [*rows, {"more": 1}])
    with pytest.raises(ImportRefusedError, match=r"has 3 bad rows.*row 8501: winner 'first'"):
        import_file(empty_store(tmp_path, "third"), bad, "lmsys")
    assert empty_store(tmp_path, "third").counts()["battles"] == 0
    done = import_file(first, bad, "lmsys", skip_bad=True)
    assert (done.num_new, done.num_known, done.left_out.total()) == (0, 8_998, 3)
    mixed = write_lines(tmp_path / "mixed.jsonl", [rows[0], *lmsys_rows(2, 50), rows[1]])
    done = import_file(first, mixed, "lmsys")
    assert (done.num_new, done.num_known) == (2, 2)


@pytest.mark.slow
def test_an_import_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """Kill -9 while rows are being written; the same file goes in whole afterwards."""
    large = write_lines(tmp_path / "large.jsonl", lmsys_rows(9_000, 500))
    store = empty_store(tmp_path)
    script = f"""
import os
from pathlib import Path
from arena.imports.importer import import_file
from arena.storage.bulk_insert import BulkWriter
from arena.storage.store import Store
add, added = BulkWriter.add, []
def dying(self, block):
    added.append(add(self, block))
    if len(added) == 2:
        os.kill(os.getpid(), 9)
    return added[-1]
BulkWriter.add = dying
import_file(Store(Path({str(store.path)!r})), Path({str(large)!r}), "lmsys")
"""
    assert run_script(script).status == -signal.SIGKILL
    assert store.counts()["battles"] == 0
    assert import_file(store, large, "lmsys").num_new == 9_000
    with closing(sqlite3.connect(store.path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.slow
def test_an_import_that_finds_no_room_changes_nothing(tmp_path: Path) -> None:
    """Writes fail for real, once a file has grown to four megabytes."""
    large = write_lines(tmp_path / "large.jsonl", lmsys_rows(9_000, 500))
    store = empty_store(tmp_path)
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))
from arena.cli import main
sys.argv = ["arena", "import", {str(large)!r}, "--format", "lmsys",
            "--home", {str(store.path.parent)!r}]
main()
"""
    done = run_script(script)
    assert done.status == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the disk failed" in done.stderr or "no space left" in done.stderr
    assert store.counts()["battles"] == 0
    assert import_file(store, large, "lmsys").num_new == 9_000


def test_files_that_are_no_rows(tmp_path: Path) -> None:
    store = empty_store(tmp_path)
    (tmp_path / "x.jsonl").write_text("{}\nnot json\n")
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("x.jsonl", "row 2: no JSON"),
        ("x.json", "holds no JSON list"),
        ("x.parquet", "is no Parquet file"),
        ("x.txt", "no .jsonl, .json or .parquet"),
        ("folder", "holds no"),
        ("missing.jsonl", "does not exist"),
    ):
        with pytest.raises(ImportRefusedError, match=words):
            import_file(store, tmp_path / name, "lmsys")
    with pytest.raises(ImportRefusedError, match="format 'xml' is unknown"):
        import_file(store, tmp_path / "x.json", "xml")


def test_a_file_read_as_another_format_is_refused(tmp_path: Path) -> None:
    """It would bring the same judgements in twice; the same format again adds nothing."""
    row = {"prompt": "hi", "chosen": "good", "rejected": "bad"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    store = empty_store(tmp_path)
    assert import_any(store, tmp_path / "rows.jsonl", "pairs").num_new == 1
    assert import_any(store, tmp_path / "rows.jsonl", "pairs").num_known == 1
    with pytest.raises(ImportRefusedError, match="imported as pairs before"):
        import_file(store, tmp_path / "rows.jsonl", "trl")
    assert store.counts()["votes"] == 1


def test_a_time_that_nobody_knows_stays_unknown(tmp_path: Path) -> None:
    """It is no 1970 in an export, and none after that was imported."""
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]
    row = {"model_a": "a", "model_b": "b", "winner": "model_a"}
    row |= {
        "conversation_a": messages,
        "conversation_b": [messages[0], {**messages[1], "content": "y"}],
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    store = empty_store(tmp_path)
    import_file(store, tmp_path / "rows.jsonl", "lmsys")
    names = {"trl": "created_at", "lmsys": "tstamp", "140k": "timestamp", "csv": "created_at"}
    for kind, name in names.items():
        export(store, tmp_path / kind, ExportOptions(format=kind))
        (file,) = (tmp_path / kind).glob("train.*")
        text = file.read_text()
        assert "1970" not in text
        if file.suffix == ".jsonl":
            assert json.loads(text.splitlines()[0])[name] is None
            again = empty_store(tmp_path / f"{kind}-again")
            import_file(again, file, kind)
            (told,) = read_rating_input(again, VoteFilter(named=True)).created_ms
            assert told == 0
