"""`arena leaderboard` and `arena export` on a real store, through the command itself."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_fixtures import BASE, FULL, LORA, Hand
from typer.testing import CliRunner

from arena.cli import app
from arena.errors import ArenaError
from arena.i18n import languages, words
from arena.page.actions.results import vote_filter_of
from arena.page.html.leaderboard import board_html, over_time_html
from arena.ratings import RatingConfig, rate
from arena.ratings.over_time import rate_over_time
from arena.ratings.vote_table import TableError, table_from_columns
from arena.storage.rating_input import VoteFilter, read_rating_input
from arena.storage.store import Store
from arena.values.battle import Mode
from arena.values.times import TimeError
from arena.values.vote import Judgement, Winner


def run(*arguments: str) -> str:
    """Output of the command; errors of the user come out as exceptions."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def board_of(home: Path, *arguments: str) -> dict[str, Any]:
    """What a script reads."""
    found: dict[str, Any] = json.loads(
        run("leaderboard", "--json", "--home", str(home), *arguments)
    )
    return found


@pytest.fixture(scope="module")
def home(quick_folder: Path) -> Path:
    """Eight votes for lora, three for its base, one tie and one both-bad; sides vary."""
    hand = Hand(Store.at_home(quick_folder / "leaderboard"))
    for winner, count in (
        (Winner.MODEL_B, 5),
        (Winner.MODEL_A, 2),
        (Winner.TIE, 1),
        (Winner.BOTH_BAD, 1),
    ):
        for _ in range(count):
            hand.vote(winner)
    for winner, count in ((Winner.MODEL_A, 3), (Winner.MODEL_B, 1)):
        for _ in range(count):
            hand.vote(winner, participants=[LORA, BASE], tags=["swapped"])
    return hand.store.path.parent


def test_the_json_that_scripts_read(home: Path) -> None:
    board = board_of(home)
    first, second = board["ratings"]
    assert (first["model"], second["model"]) == ("lora", "starter")
    assert first["lower"] < first["rating"] < first["upper"]
    assert (first["rank"], first["num_battles"], first["num_wins"]) == (1, 13, 8)
    assert (first["num_ties"], first["num_both_bad"]) == (1, 1)
    assert board["position_effect"] == {"estimated": False}  # 13 votes tell too little
    assert board["pairs"][0]["model"] == "lora"
    assert board["num_votes"] == 13


def test_the_table_that_people_read(home: Path) -> None:
    text = run("leaderboard", "--home", str(home))
    assert text.splitlines()[1].split()[:2] == ["1", "lora"]
    assert "P(lora > starter) = 0.9" in text
    assert "13 votes; ties: half; both bad: tie" in text


def test_what_one_vote_cannot_tell_is_no_number(hand: Hand) -> None:
    """Five decisive votes make the pair a finding, even if one side won them all."""
    home = hand.store.path.parent
    hand.vote(Winner.MODEL_B)
    pair = ">{} &gt; {}</th><td"
    text = run("leaderboard", "--home", str(home))
    assert "lora > starter: too few votes to tell" in text
    assert "P(" not in text
    assert text.count("(not determined by the votes)") == 2
    page = board_html(rate(read_rating_input(hand.store).table), words())
    assert pair.format("lora", "starter") + ' colspan="3">too few votes to tell</td>' in page
    assert page.count("(not determined by the votes)") == 2
    for _ in range(4):
        hand.vote(Winner.MODEL_B)
    assert "P(lora > starter) = 0.9" in run("leaderboard", "--home", str(home))
    page = board_html(rate(read_rating_input(hand.store).table), words())
    assert "too few votes to tell" not in page
    assert re.search(pair.format("lora", "starter") + r">9\d\.\d %</td>", page)


def test_options_choose_votes_and_rules(home: Path) -> None:
    assert board_of(home, "--tag", "swapped")["num_votes"] == 4
    assert board_of(home, "--both-bad", "drop", "--ties", "drop")["num_votes"] == 11
    assert board_of(home, "--since", "2090-01-01")["ratings"] == []
    assert board_of(home, "--ties", "davidson")["tie_parameter"] > 0
    for option, value in (("--ties", "often"), ("--both-bad", "x"), ("--reason", "pretty")):
        with pytest.raises(ArenaError, match=value):
            board_of(home, option, value)
    with pytest.raises(ArenaError, match="ISO 8601"):
        board_of(home, "--since", "yesterday")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_written(home: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "plots" / f"board{suffix}"
    run("leaderboard", "--home", str(home), "--plot", str(path))
    start = path.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") or b"<svg" in start or b"<?xml" in start
    with pytest.raises(ArenaError, match=r"\.png, \.svg"):
        run("leaderboard", "--home", str(home), "--plot", str(tmp_path / "board.gif"))


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_matrix_and_history_are_drawn(home: Path, tmp_path: Path, suffix: str) -> None:
    """What is drawn can be read off the SVG, where names stand as comments of their outlines."""
    matrix, history = tmp_path / f"matrix{suffix}", tmp_path / f"history{suffix}"
    plots = ("--plot-matrix", str(matrix), "--plot-history", str(history))
    run("leaderboard", "--home", str(home), *plots)
    for path, said in (
        (matrix, ("lora", "starter", "9 : 4", "4 : 9")),
        (history, ("lora", "rating")),
    ):
        if suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            drawn = path.read_text()
            assert [text for text in said if f"<!-- {text}" not in drawn] == []


def test_style_control_gives_the_plain_rating_beside(hand: Hand) -> None:
    """The longer answer always wins: style takes the credit that the plain rating gave."""
    for i in range(6):
        words = "word " * (5 + i)
        hand.vote(Winner.MODEL_B, ["one two", words], prompt=f"p{i}")
        hand.vote(Winner.MODEL_A, ["# long\n- **b** " + words, "two"], prompt=f"q{i}")
    home = hand.store.path.parent
    board = board_of(home, "--style")
    effects = {effect["name"]: effect["log_odds"] for effect in board["style_effects"]}
    assert set(effects) == {"length", "headers", "lists", "bold"}
    assert effects["length"] > 0
    assert len(board["plain_ratings"]) == 2
    text = run("leaderboard", "--home", str(home), "--style")
    assert "Style: length +" in text
    assert "(plain 1000)" in text


def test_ratings_over_time_end_with_the_rating_of_all(home: Path) -> None:
    found = read_rating_input(Store.at_home(home))
    times, boards = rate_over_time(found, RatingConfig(), num_points=4)
    assert times == sorted(times)
    assert boards[-1] == rate(found.table)
    assert [board.num_votes for board in boards] == sorted({b.num_votes for b in boards})


def test_the_tab_shows_pairs_and_who_beats_whom(home: Path) -> None:
    """Each language; numbers by hand: lora won 5 of 9 on the right and 3 of 4 on the left."""
    found = read_rating_input(Store.at_home(home))
    for language in languages():
        page = board_html(rate(found.table), words(language), {"flagged": 2, "named": 1})
        assert '<th scope="row">lora &gt; starter</th>' in page
        assert re.search(r'<td class="won" style="--share:19%">9 : 4 <small>69 %</small>', page)
        assert re.search(r'<td class="lost" style="--share:19%">4 : 9 <small>31 %</small>', page)
    assert words("en")("leaderboard.left_out_flagged", count=2) in board_html(
        rate(found.table), words("en"), {"flagged": 2}
    )
    assert "<table" not in board_html(rate(table_from_columns([], [], [])), words())


@pytest.mark.parametrize("language", ["de", "es", "fr", "zh"])
def test_what_the_votes_do_not_support_is_said_in_the_voters_language(
    hand: Hand, language: str
) -> None:
    """Two groups, an undefeated model, few votes and voters: no English sentence is left."""
    hand.vote(participants=[BASE, LORA])
    hand.vote(participants=[replace(BASE, name="third"), replace(LORA, name="fourth")])
    board = rate(read_rating_input(hand.store).table)
    assert {note.code for note in board.notes} == {"groups", "loose", "side_left_out", "few_voters"}
    page = board_html(board, words(language))
    for note in board.notes:
        told = words(language)(f"leaderboard.note_{note.code}", **note.values)
        assert html.escape(told) in page
        assert html.escape(str(note)) not in page
    assert "starter" in page


def test_the_tab_filters_by_time_and_takes_style_out(home: Path) -> None:
    """The filter of the tab's fields; beside each rating without style stands the one with it."""
    vote_filter = vote_filter_of("", " sums ", "2026-01-31", " 2026-02-01T12:00:00+00:00 ")
    assert vote_filter == VoteFilter(tag="sums", since_ms=1769817600000, until_ms=1769947200000)
    with pytest.raises(TimeError, match="'soon' is no ISO 8601 date"):
        vote_filter_of("", "", "soon", "")
    store = Store.at_home(home)
    plain, styled = read_rating_input(store), read_rating_input(store, VoteFilter(style=True))
    page = board_html(rate(styled.table), words("fr"), {}, rate(plain.table))
    assert words("fr")("leaderboard.plain") in page
    lengths = [line.split(" : ")[0] for line in re.findall(r"<li>([^<]* points [^<]*)</li>", page)]
    assert lengths == ["Longueur", "Titres", "Éléments de liste", "Texte en gras"]
    for line in rate(plain.table).ratings:
        assert f"<td>{line.rating:.0f}</td></tr>" in page
    before = board_html(
        rate(plain.table), words(), read_rating_input(store, VoteFilter(until_ms=1)).left_out
    )
    assert words()("leaderboard.left_out_other_date", count=13) in before


def test_a_name_is_text_on_the_tab(hand: Hand) -> None:
    hand.vote(participants=[replace(BASE, name="<b>x"), LORA])
    assert "<b>x" not in board_html(rate(read_rating_input(hand.store).table), words())


def test_the_drawing_over_time_is_svg_with_a_name(home: Path) -> None:
    times, boards = rate_over_time(
        read_rating_input(Store.at_home(home)), RatingConfig(), num_points=3
    )
    drawn = over_time_html(times, boards, words())
    assert drawn.startswith('<figure role="img" aria-label="Ratings over time"><svg')
    assert "lora" in drawn
    assert "<svg" not in over_time_html([], [], words())


@pytest.mark.parametrize(("wins", "ties", "told"), [(1, 0, "1 : 0"), (2, 1, "2.5 : 0.5")])
def test_shares_of_few_votes_are_grey_behind_their_counts(
    hand: Hand, wins: int, ties: int, told: str
) -> None:
    """A hundred per cent of one vote is no finding."""
    for i, winner in enumerate([Winner.MODEL_A] * wins + [Winner.TIE] * ties):
        hand.vote(winner, prompt=f"p{i}")
    page = board_html(rate(read_rating_input(hand.store).table), words())
    assert re.search(rf'<td class="thin" [^>]*>{re.escape(told)} <small>', page)
    assert 'class="won"' not in page
    assert 'class="lost"' not in page


def test_a_home_without_votes_is_named(tmp_path: Path) -> None:
    for command in ("leaderboard", "export"):
        with pytest.raises(ArenaError, match=r"has no arena\.db"):
            run(command, "--home", str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_export_command(home: Path, tmp_path: Path) -> None:
    done = json.loads(run("export", "--json", "--home", str(home), "--out", str(tmp_path / "x")))
    assert done["splits"] == {"train": 11}
    assert done["left_out"] == {"tie": 1, "both_bad": 1}
    text = run("export", "--home", str(home))
    assert text.startswith(f"11 rows in {home}")
    assert (home / "exports/trl/MANIFEST.json").is_file()
    for arguments, message in (
        (("--format", "xml"), "format 'xml' is unknown; use one of trl"),
        (("--include", "ties"), "--include 'ties' is unknown"),
        (("--test-fraction", "1"), "test fraction 1.0 is no share"),
    ):
        with pytest.raises(ArenaError, match=message):
            run("export", "--home", str(home), "--out", str(tmp_path / "y"), *arguments)


def test_named_and_flagged_votes_are_left_out_and_counted(hand: Hand) -> None:
    hand.vote()
    named, _ = hand.battle(mode=Mode.NAMED)
    leaking, _ = hand.battle(leaks=[True, False])
    for battle in (named, leaking):
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_B), voter=hand.voter())
    found = read_rating_input(hand.store)
    assert len(found.table) == 1
    assert found.left_out == {"named": 1, "flagged": 1}
    assert len(read_rating_input(hand.store, VoteFilter(named=True, flagged=True)).table) == 3


def test_one_name_with_two_weights_is_two_models(hand: Hand) -> None:
    hand.vote(participants=[BASE, LORA])
    hand.vote(participants=[BASE, replace(LORA, weights_sha256="9" * 64)])
    models = read_rating_input(hand.store).table.models
    assert models == ("lora @9999999999", "lora @cccccccccc", "starter")


def test_a_ranking_of_three_weighs_as_two_votes(hand: Hand) -> None:
    battle, _ = hand.battle(["a", "b", "c"], participants=[BASE, LORA, FULL])
    hand.store.cast_vote(battle, Judgement(ranking=(3, 1, 2)), voter=hand.voter())
    table = read_rating_input(hand.store).table
    assert table.weight.sum() == pytest.approx(2.0)
    assert len(set(table.cluster.tolist())) == 1  # type: ignore[union-attr]


def test_intervals_by_resampling(home: Path) -> None:
    """About as wide as the sandwich, from the same fit; too few rounds are refused."""
    plain, resampled = board_of(home), board_of(home, "--bootstrap", "400")
    for one, two in zip(plain["ratings"], resampled["ratings"], strict=True):
        assert two["rating"] == one["rating"]
        width = two["upper"] - two["lower"]
        assert width != one["upper"] - one["lower"]
        assert width == pytest.approx(one["upper"] - one["lower"], rel=0.5)
    assert "400 resamples" in run("leaderboard", "--home", str(home), "--bootstrap", "400")
    with pytest.raises(ArenaError, match="--bootstrap 5 gives no interval"):
        board_of(home, "--bootstrap", "5")


def test_the_admin_sees_clears_and_marks(hand: Hand) -> None:
    leaking, _ = hand.battle(leaks=[True, False])
    cast = hand.store.cast_vote(leaking, Judgement(Winner.MODEL_A), voter=hand.voter())
    vote = cast.votes[0].id
    command = ["quarantine", "--home", str(hand.store.path.parent)]
    found = json.loads(run(*command, "--json"))
    assert found["flagged"] == 1
    assert found["votes"][0]["reasons"] == {"identity_leak": "side a names itself"}
    assert f"vote {vote}, battle {leaking}" in run(*command)
    cleared = run(*command, "--clear", str(vote), "--reason", "identity_leak")
    assert cleared == "0 votes in quarantine\n"
    assert "odd, marked by hand" in run(*command, "--flag", str(vote), "--reason", "odd")
    for arguments, told in (
        (["--clear", str(vote)], "--reason is missing"),
        (["--clear", "1", "--flag", "1", "--reason", "odd"], "two acts"),
        (["--flag", "99", "--reason", "odd"], "vote 99 is unknown"),
    ):
        with pytest.raises(ArenaError, match=told):
            run(*command, *arguments)


def test_rarely_drawn_pairs_weigh_more(hand: Hand) -> None:
    """One over the probability, in units of the mean of all, at most ten of them: by hand."""
    drawn = [0.5] * 14 + [0.25, 0.001]
    for i, propensity in enumerate(drawn):
        battle, _ = hand.battle(prompt=f"p{i}", propensity=propensity)
        hand.store.cast_vote(battle, Judgement(Winner.MODEL_A), voter=hand.voter())
    mean = (14 * 2 + 4 + 1000) / 16  # 64.5
    weight = read_rating_input(hand.store, VoteFilter(propensity=True)).table.weight
    assert weight.tolist() == pytest.approx([2 / mean] * 14 + [4 / mean, 10.0])
    assert read_rating_input(hand.store).table.weight.tolist() == [1.0] * 16


def test_propensity_needs_to_be_known(hand: Hand) -> None:
    hand.vote()
    assert read_rating_input(hand.store, VoteFilter(propensity=True)).table.weight.tolist() == [1.0]
    battle, _ = hand.battle(propensity=None)
    hand.store.cast_vote(battle, Judgement(Winner.TIE), voter=hand.voter())
    with pytest.raises(TableError, match="1 votes have no propensity"):
        read_rating_input(hand.store, VoteFilter(propensity=True))
