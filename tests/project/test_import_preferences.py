"""Foreign preference sets into the store by the readers of tuning, and the arena's own ones out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import Hand

from arena.commands.imports import import_any, run_import
from arena.commands.vote_data import as_files, battle_format
from arena.exports.dataset import ExportOptions, export
from arena.imports.converters import WINNERS as OF_ARENA
from arena.imports.importer import import_file
from arena.imports.readers import ImportRefusedError
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.storage.store import Store
from arena.values.vote import Winner
from tuning.data.preferences.load import read_preferences
from tuning.data.preferences.winners import WINNERS


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


BATTLE = {
    "prompt": "Hi?",
    "model_a": "x",
    "model_b": "y",
    "response_a": "one",
    "response_b": "two",
    "winner": "Model_A",
    "timestamp": "2024-10-14T11:23:41",
}


def test_both_packages_take_the_same_words() -> None:
    assert {str(winner): words for winner, words in OF_ARENA.items()} == WINNERS
    assert set(WINNERS) == set(map(str, Winner))


def test_a_table_of_battles_is_rated_and_a_file_twice_adds_nothing(tmp_path: Path) -> None:
    store = Store.at_home(tmp_path / "home")
    odd = {**BATTLE, "winner": "both bad", "response_a": "a", "prompt": "Other?"}
    path = write(tmp_path / "rows.jsonl", BATTLE, odd)
    assert import_any(store, path, "battles").num_new == 2
    assert import_any(store, path, "battles").num_known == 2
    table = read_rating_input(store).table
    assert table.models == ("x", "y")
    assert sorted(table.outcome.tolist()) == [0, 3]


def test_naive_times_are_utc_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2024-10-14 11:23:41 UTC.
    expected = 1_728_905_021_000
    path = write(tmp_path / "rows.jsonl", BATTLE)
    trl = {"prompt": "q", "chosen": "good", "rejected": "bad", "created_at": BATTLE["timestamp"]}
    old = os.environ.get("TZ")
    try:
        for zone in ("UTC", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            store = Store.at_home(tmp_path / zone.replace("/", "-"))
            import_any(store, path, "battles")
            import_any(store, write(tmp_path / "trl.jsonl", trl), "trl")
            found = read_rating_input(store, VoteFilter(named=True))
            assert set(found.created_ms.tolist()) == {expected}
    finally:
        monkeypatch.setenv("TZ", old) if old else monkeypatch.delenv("TZ")
        time.tzset()


def test_rankings_and_unnamed_models_come_in(tmp_path: Path) -> None:
    store = Store.at_home(tmp_path / "home")
    answers = [{"answer": t, "model": t, "rank": r} for r, t in enumerate("abc", 1)]
    nectar = {"prompt": "\n\nHuman: Hi?\n\nAssistant: ", "answers": answers}
    import_any(store, write(tmp_path / "nectar.jsonl", nectar), "nectar")
    assert len(read_rating_input(store).table) == 3
    hh = {
        "chosen": "\n\nHuman: A?\n\nAssistant: B.\n\nHuman: C?\n\nAssistant: D.",
        "rejected": "\n\nHuman: A?\n\nAssistant: B.\n\nHuman: C?\n\nAssistant: E.",
    }
    assert import_any(store, write(tmp_path / "hh.jsonl", hh), "pairs").num_new == 1
    assert len(read_rating_input(store).table) == 3, "nobody says who wrote them"
    out = tmp_path / "out"
    export(store, out, ExportOptions(format="trl"))
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [m["content"] for m in rows[-1]["prompt"]] == ["A?", "B.", "C?"]


def test_bad_rows_are_named_and_labels_are_no_battles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "rows.jsonl", BATTLE, {**BATTLE, "winner": "first"})
    store = Store.at_home(tmp_path / "home")
    with pytest.raises(ImportRefusedError, match=r"1 bad.*rows.jsonl:2: winner: is 'first'"):
        import_any(store, path, "battles")
    run_import(tmp_path / "home", path, "battles", skip_bad=True, json_out=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["num_new"], sum(told["left_out"].values())) == (1, 1)
    kto = {"prompt": "q", "completion": "good", "label": True}
    with pytest.raises(ImportRefusedError, match="which is no battle; tune on it instead"):
        import_any(store, write(tmp_path / "kto.jsonl", kto), "labels")
    with pytest.raises(ImportRefusedError, match="format 'xml' is unknown; use one of raw, lmsys"):
        import_any(store, path, "xml")
    torn = tmp_path / "torn.json"
    torn.write_text("{")
    with pytest.raises(ImportRefusedError, match=r"torn.json': is no JSON"):
        import_any(store, torn, "battles")
    deep = tmp_path / "deep.jsonl"
    deep.write_text('{"a":' + "[" * 9_000 + "]" * 9_000 + "}\n")
    with pytest.raises(ImportRefusedError, match=r"deep\.jsonl has 1 bad rows"):
        import_any(store, deep, "battles")
    assert battle_format(deep) is None
    with pytest.raises(ImportRefusedError, match="does not exist"):
        import_any(store, tmp_path / "none.jsonl", "battles")


def test_milliseconds_for_seconds_are_the_rows_error(hand: Hand, tmp_path: Path) -> None:
    hand.vote()
    export(hand.store, tmp_path / "lmsys", ExportOptions(format="lmsys"))
    row = json.loads((tmp_path / "lmsys" / "train.jsonl").read_text())
    path = write(tmp_path / "ms.jsonl", {**row, "tstamp": row["tstamp"] * 1000})
    with pytest.raises(ImportRefusedError, match="is not in seconds since 1970"):
        import_file(Store.at_home(tmp_path / "home"), path, "lmsys")
    export(hand.store, tmp_path / "raw", ExportOptions(format="raw"))
    raw = json.loads((tmp_path / "raw" / "battles.jsonl").read_text())
    path = write(tmp_path / "raw.jsonl", {**raw, "created_ms": raw["created_ms"] * 1000})
    with pytest.raises(ImportRefusedError, match="is out of range"):
        import_file(Store.at_home(tmp_path / "home"), path, "raw")


def open_webui(arena: bool) -> dict[str, Any]:
    """A feedback as Open WebUI 0.6 exports it: the whole record of the chat around its content."""
    replies = {
        name: {
            "id": name,
            "parentId": "q",
            "childrenIds": [],
            "role": "assistant",
            "content": [{"type": "text", "text": f"I am {name}."}],
            "model": "arena-model" if arena else name,
            **({"selectedModelId": name, "arena": True} if arena else {}),
        }
        for name in ("llama", "qwen")
    }
    asked = {"id": "q", "parentId": None, "childrenIds": [*replies], "role": "user"}
    history = {"messages": {"q": asked | {"content": "Who?"}, **replies}, "currentId": "qwen"}
    return {
        "id": "f1",
        "user_id": "u1",
        "version": 0,
        "type": "rating",
        "data": {"rating": 1, "model_id": "qwen", "sibling_model_ids": ["llama"], "tags": []},
        "meta": {"arena": arena, "chat_id": "c1", "message_id": "qwen", "message_index": 1},
        "snapshot": {
            "chat": {
                "id": "c1",
                "user_id": "u1",
                "title": "Who?",
                "chat": {"models": ["arena-model"], "history": history},
                "created_at": 1_734_000_000,
            }
        },
        "created_at": 1_734_000_100,
        "updated_at": 1_734_000_100,
    }


@pytest.mark.parametrize("arena", [True, False])
def test_real_exports_of_open_webui_name_the_models(arena: bool, tmp_path: Path) -> None:
    path = tmp_path / "feedback.json"
    path.write_text(json.dumps([open_webui(arena)]))
    store = Store.at_home(tmp_path / "home")
    import_any(store, path, "openwebui")
    table = read_rating_input(store, VoteFilter(named=True)).table
    assert table.models == ("llama", "qwen")
    assert table.outcome.tolist() == [1]
    (folder,) = as_files((str(path),), tmp_path / "other")
    (pair,) = read_preferences([folder]).pairs
    assert (pair.models, pair.chosen[0]["content"]) == (("qwen", "llama"), "I am qwen.")


@pytest.mark.parametrize("name", ["lmsys", "100k", "140k", "openwebui", "55k", "trl", "kto"])
def test_every_export_of_an_arena_can_be_learned_from(
    name: str, hand: Hand, tmp_path: Path
) -> None:
    hand.vote(Winner.MODEL_A, ["good", "poor"], prompt="One?")
    hand.vote(Winner.MODEL_B, ["ill", "well"], prompt="Two?")
    export(hand.store, tmp_path / "out", ExportOptions(format=name))
    (file,) = [*(tmp_path / "out").glob("train.json*")]
    found = read_preferences(as_files((str(file),), tmp_path / "home"))
    labels = {(item.completion[0]["content"], item.label) for item in found.labels()}
    assert labels == {("good", True), ("poor", False), ("well", True), ("ill", False)}
    assert not found.ledger.bad_rows
    assert battle_format(tmp_path / "none") is None
