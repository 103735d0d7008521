"""The catalogue is whole in every language, and the header of a browser picks one of them."""

from __future__ import annotations

import re
import string
import tomllib

import pytest

from arena.i18n import FOLDER, languages, negotiate, words


def fields(text: str) -> set[str]:
    """Names in braces that the program fills in."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_there_are_five_languages_and_chinese_in_both_ways_to_write_it() -> None:
    assert languages() == ("de", "en", "es", "fr", "zh", "zh-Hant")


@pytest.mark.parametrize("language", ["de", "es", "fr", "zh", "zh-Hant"])
def test_language_has_every_text_with_the_same_fields(language: str) -> None:
    english, other = words("en").texts, words(language).texts
    assert other.keys() == english.keys()
    same = {key for key in english if other[key] == english[key]}
    assert len(same) < 0.15 * len(english), sorted(same)
    for key in english:
        assert fields(other[key]) == fields(english[key]), key


def test_every_text_that_the_code_asks_for_exists() -> None:
    from pathlib import Path

    import arena

    code = "".join(path.read_text() for path in Path(arena.__file__).parent.rglob("*.py"))
    asked = set(re.findall(r"say\([\"']([a-z_]+\.[a-z_]+)[\"']", code))
    assert len(asked) > 60
    assert asked <= words().texts.keys()


def test_no_text_is_left_over() -> None:
    """Keys asked for by name, or by a family of names that the code puts together."""
    from pathlib import Path

    import arena

    code = "".join(path.read_text() for path in Path(arena.__file__).parent.rglob("*.py"))
    families = {
        "help",
        "kind",
        "reason",
        "leaderboard",
        "reveal",
        "side",
        "vote",
        "history",
        "admin",
        "tune",
    }
    families |= {"status.voted", "error", "problem", "flag", "evidence"}
    unused = {
        key
        for key in words().texts
        if key not in code and not any(key.startswith(family) for family in families)
    }
    assert unused == set()


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("en;q=0.5, fr;q=0.9", "fr"),
        ("tlh, zh-Hans-CN;q=0.4", "zh"),
        ("zh-TW,zh;q=0.9,en;q=0.8", "zh-Hant"),
        ("zh-HK", "zh-Hant"),
        ("zh-Hant-MO", "zh-Hant"),
        ("zh-Hans-HK, en;q=0.5", "zh"),
        ("zh-SG", "zh"),
        ("zh", "zh"),
        ("en-HK", "en"),
        ("xx", "en"),
        ("de;q=abc, es", "es"),
        (",,;q=1", "en"),
    ],
)
def test_best_known_language_wins(header: str | None, language: str) -> None:
    assert negotiate(header) == language


def test_missing_key_is_a_bug() -> None:
    with pytest.raises(KeyError):
        words()("no.such")


def test_errors_of_the_page_are_told_in_the_voters_language() -> None:
    """Every code that an error of the page carries has a text in the catalogue."""
    import re
    from pathlib import Path

    import arena
    from arena.errors import ArenaError
    from arena.i18n import error_text
    from arena.values.refusals import WrongTokenError

    code = "".join(path.read_text() for path in Path(arena.__file__).parent.rglob("*.py"))
    codes = set(re.findall(r"coded\(\s*\"([\w-]+)\"", code))
    codes |= set(re.findall(r"^    code = \"([\w-]+)\"", code, re.MULTILINE))
    codes |= set(re.findall(r"AnswerError\(\s*\"([\w-]+)\"", code))
    assert len(codes) > 25
    assert {f"error.{name}" for name in codes} <= words().texts.keys()
    wrong = WrongTokenError("battle 'x' is not yours; open it by its own link")
    assert error_text(wrong, words("de")).startswith("Dieser Vergleich gehört Ihnen nicht")
    long = ArenaError("9 characters").coded("prompt_long", count=9, limit=5)
    assert error_text(long, words("fr")).startswith("Le prompt a 9 caractères ; 5 au plus")
    assert error_text(ArenaError("only here"), words("zh")) == "only here"


def test_whatever_keeps_a_server_or_a_vote_out_has_a_text() -> None:
    """Each fault of a server, each mark of quarantine, each way a model ends an answer."""
    from typing import get_args

    from arena.backends.probing import Fault

    faults = {f"problem.{name}" for name in get_args(Fault) if name}
    marks = {"rate", "same_side", "same_prompt", "identity_leak", "failed_side"}
    ends = {"eos_token", "stop", "stop_sequence", "length"}
    told = faults | {f"flag.{mark}" for mark in marks} | {f"reveal.end_{end}" for end in ends}
    assert told <= words().texts.keys()


def test_every_refusal_that_a_voter_can_meet_has_a_text_of_its_own() -> None:
    """Errors of the parts under the page; those of commands alone keep their own words."""
    import importlib
    import pkgutil

    import arena
    from arena.errors import ArenaError

    under_the_page = (
        "arena.values",
        "arena.battles",
        "arena.ratings.pair_probabilities",
        "arena.ratings.vote_table",
        "arena.storage.database",
        "arena.exports.dataset",
        "arena.exports.folders",
        "arena.exports.archive",
        "arena.exports.writers",
    )
    for module in pkgutil.walk_packages(arena.__path__, "arena."):
        if module.name.startswith(under_the_page):
            importlib.import_module(module.name)
    coded_where_raised = {"BusyError", "TooManyError", "RefusedError"}

    def below(kind: type[ArenaError]) -> set[type[ArenaError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    met = {kind for kind in below(ArenaError) if kind.__module__.startswith(under_the_page)}
    assert len(met) > 15
    bare = {kind.__name__ for kind in met if not kind.code}
    assert bare == coded_where_raised
    assert {f"error.{kind.code}" for kind in met if kind.code} <= words().texts.keys()


def test_traditional_chinese_has_no_simplified_signs() -> None:
    """Signs that only the simplified way to write has, of those that the other catalogue uses."""
    simplified = set("这们说时对战输赢请择语种还开关应务过为会与从动处发样页义员错误")
    own = tomllib.loads((FOLDER / "zh-Hant.toml").read_text(encoding="utf-8"))
    found = "".join(text for table in own.values() for text in table.values())
    assert simplified & set("".join(words("zh").texts.values()))
    assert not simplified & set(found)
    assert words("zh-Hant")("vote.tie") == "都好"
