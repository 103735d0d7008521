"""Any bytes at any reader of rows: rows, bad rows or one named error; never a traceback.

Files are valid ones that were bent, since bytes of chance alone do not come far into a reader.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuning_fixtures import make_base

from tuning.config import DataOptions, TuningConfig
from tuning.data.corpus import load_corpus
from tuning.data.examples import examples_sha256
from tuning.data.ledger import Ledger
from tuning.errors import TuningError
from tuning.objectives import tune

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Yes."}
COLUMNS = """
    messages conversations prompt completion instruction output response inputs targets question
    answer system system_prompt tools input context choices options history label kto_tag id
    text weight images chosen rejected
"""
EACH = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

texts = st.one_of(
    st.sampled_from(["", " ", "Hi?", "\x00", "\ud800", "\u2028", "</s>", "{}", "[[]]"]),
    st.text(st.characters(codec=None), max_size=8),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    texts,
    st.sampled_from([0, 1, -1, 10**30, 0.5, math.nan, math.inf, -0.0]),
)
turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.one_of(st.sampled_from(["system", "user", "assistant", "tool"]), scalars)},
        optional={
            "content": st.one_of(texts, scalars, st.lists(st.dictionaries(texts, scalars))),
            "from": st.one_of(st.sampled_from(["human", "gpt"]), scalars),
            "value": scalars,
            "weight": scalars,
            "train": scalars,
            "name": scalars,
            "reasoning_content": scalars,
            "tool_calls": st.one_of(scalars, st.lists(st.dictionaries(texts, scalars))),
        },
    ),
    max_size=4,
)
values = st.recursive(
    st.one_of(scalars, turns),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
names = st.one_of(st.sampled_from(COLUMNS.split()), texts)
rows_of_anything = st.dictionaries(names, values, max_size=5)
settings_of_data = st.builds(
    DataOptions,
    heldout=st.sampled_from([0.0, 0.5, 1.0]),
    near_duplicates=st.sampled_from([1.0, 0.5]),
    strict=st.booleans(),
    group_by=st.sampled_from([None, "id"]),
    columns=st.sampled_from([None, {"prompt": "question", "response": "answer"}]),
    drop=st.sampled_from([(), ("images",), ("messages.name",)]),
)


def read(path: Path, options: DataOptions | None = None) -> None:
    """Load a corpus of `path`; only a TuningError of one line that can be printed may come out."""
    ledger = Ledger()
    try:
        corpus = load_corpus((str(path),), options or DataOptions(heldout=0), 0, ledger)
    except TuningError as error:
        said = str(error)
        said.encode()
        assert "\n" not in said
        assert len(said) < 3000 + len(str(path)) * 3
        return
    assert corpus.train
    ledger.check()
    "\n".join(ledger.lines()).encode()
    json.dumps(ledger.to_json(), ensure_ascii=False).encode()
    assert examples_sha256(corpus.train) == corpus.sha256


@pytest.mark.slow
@EACH
@given(st.lists(rows_of_anything, min_size=1, max_size=4), settings_of_data)
def test_rows_of_anything(
    tmp_path: Path, items: list[dict[str, Any]], options: DataOptions
) -> None:
    good = {"question": "Hi?", "answer": "Yes.", "id": "x"}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in [good, *items, good]))
    read(path, options)
    (tmp_path / "rows.json").write_text(json.dumps(items))
    read(tmp_path / "rows.json", options)


def parquet(items: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), stream)
    return stream.getvalue()


PAIRS = [{"question": f"Hi {at}?", "answer": "Yes.", "id": at} for at in range(3)]
LINES = "".join(json.dumps(item) + "\n" for item in PAIRS).encode()
FILES: dict[str, bytes] = {
    "rows.jsonl": LINES,
    "rows.json": json.dumps(PAIRS).encode(),
    "rows.csv": b'question,answer,id\n"Hi, you?",Yes.,1\nGo?,"No ""sir""",2\n',
    "rows.parquet": parquet(PAIRS),
    "chats.parquet": parquet([{"messages": [USER, ANSWER]}]),
    "README.md": b"---\nconfigs:\n- config_name: x\n  data_files:\n  - split: train\n    "
    b"path: rows.jsonl\n---\n",
    "dataset_dict.json": b'{"splits": ["train"]}',
}
BITS = [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"{", b"[" * 3000, b"\r", b"\n", b","]
BITS += [b"9" * 5000, b"\xe2\x80\xa8", b"\xed\xa0\x80", b"NaN", b"1e999", b"&a [*a]", b"!!bool x"]


@st.composite
def bent(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut, with bytes changed, put in or left out."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        bit = draw(st.one_of(st.sampled_from(BITS), st.binary(max_size=6)))
        kind = draw(st.sampled_from(["cut", "in", "over", "out"]))
        if kind == "cut":
            content = content[:at]
        else:
            length = {"in": 0, "over": len(bit), "out": draw(st.integers(1, 30))}[kind]
            content = content[:at] + (b"" if kind == "out" else bit) + content[at + length :]
    return content


@pytest.mark.parametrize("name", FILES)
@EACH
@given(data=st.data())
def test_bent_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = data.draw(st.one_of(bent(FILES[name]), st.binary(max_size=60)))
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    if name in ("README.md", "dataset_dict.json"):
        (folder / "rows.jsonl").write_bytes(LINES)
    (folder / name).write_bytes(content)
    read(folder)
    if name.startswith(("rows", "chats")):
        read(folder / name)
    (folder / name).unlink()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", b"[" * 200_000),
        ("deep.jsonl", b'{"question": ' + b"[" * 900 + b"]" * 900 + b', "answer": "x"}\n'),
        ("deep.jsonl", LINES + b'{"id": ' + b"[" * 900 + b"]" * 900 + b', "question": "a"}\n'),
        ("column.jsonl", b'{"a": 1, "' + b"b" * 100_000 + b'": 1}\n'),
        ("columns.jsonl", json.dumps({str(at): at for at in range(20_000)}).encode()),
        ("role.jsonl", json.dumps({"messages": [{"role": "r" * 100_000}]}).encode()),
        ("surrogate.jsonl", b'{"\\ud800": "x", "question": "Hi?", "answer": "Yes."}\n'),
        ("group.jsonl", b'{"id": "\\ud800", "question": "Hi?", "answer": "Yes."}\n' * 2),
        ("twice.csv", b"question,answer,answer\na,b,c\n"),
        ("short.csv", b"question,answer\na\n"),
        ("nul.csv", b"question,answer\na\x00,b\n"),
        ("wide.csv", b"question,answer\n" + b"x," * 100_000),
        ("cut.parquet", parquet(PAIRS)[:-20]),
        ("magic.parquet", b"PAR1" + b"\xff" * 40 + b"PAR1"),
    ],
)
def test_known_bombs(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    read(path)
    read(path, DataOptions(heldout=0.5, group_by="id"))


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """One of the two would be lost."""
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.csv"
    path.write_text("question,answer,answer\na,b,c\n")
    with pytest.raises(TuningError, match=r"rows\.csv': has the column 'answer' twice"):
        load_corpus((str(path),), DataOptions(), 0, Ledger())
    table = pyarrow.Table.from_arrays([["a"], ["b"], ["c"]], ["question", "answer", "answer"])
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(TuningError, match=r"rows\.parquet': has the column 'answer' twice"):
        load_corpus((str(tmp_path / "rows.parquet"),), DataOptions(), 0, Ledger())


@pytest.mark.parametrize("name", FILES)
def test_a_run_on_a_broken_file_leaves_no_folder(tmp_path: Path, name: str, base: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(FILES[name][: len(FILES[name]) // 2] + b'"\xff')
    with pytest.raises(TuningError):
        tune(
            TuningConfig(
                base=str(base),
                data=(str(folder),),
                name="v",
                home=tmp_path / "home",
                data_options=DataOptions(strict=True),
            )
        )
    assert list((tmp_path / "home" / "models").iterdir()) == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")
