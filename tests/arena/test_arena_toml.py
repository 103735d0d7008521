"""arena.toml: what it may say, what is refused and how, and what it changes on the page."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from fault_server import FaultServer, Script
from store_fixtures import Hand

from arena.backends.http import install_http_client
from arena.backends.pool import BackendPool
from arena.battles.pairing import PairSampler, gaps, num_votes
from arena.battles.service import BattleService
from arena.config.arena_toml import ArenaConfig, ArenaConfigError, PairingConfig, read_arena_config
from arena.config.page_config import PageConfig
from arena.storage.store import Store
from arena.values.battle import AskAs, Participant, SamplingSettings
from arena.values.vote import Judgement, Winner

NAMES = ("a-model", "b-model", "c-model")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "arena.toml"
    path.write_text(text)
    return path


def test_missing_file_says_nothing(tmp_path: Path) -> None:
    assert read_arena_config(tmp_path / "arena.toml") == ArenaConfig()


def test_participant_is_asked_as_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELPER_KEY", "abc")
    with FaultServer({"m": Script(), "other": Script()}) as server:
        path = written(
            tmp_path,
            f"""
            hidden = ["secret"]
            [[participant]]
            name = "Helper"
            url = "{server.url}/"
            model = "m"
            mode = "completion"
            system_prompt = "Be brief."
            key_env = "HELPER_KEY"
            temperature = 0.7
            top_p = 0.9
            top_k = 40
            repetition_penalty = 1.1
            max_new_tokens = 33
            seed = 7
            stop = ["END"]
            [[participant]]
            name = "Gone"
            url = "{server.url}"
            model = "nobody"
            """,
        )
        arena_config = read_arena_config(path)
        pool = BackendPool([server.url], SamplingSettings(max_new_tokens=9), arena_config)
        known = asyncio.run(pool.targets())
        problems = [b.problem for b in asyncio.run(pool.backends())]
    assert list(known) == ["m", "other", "Helper"]
    helper = known["Helper"]
    assert helper.participant.ask_as is AskAs.COMPLETION
    assert (helper.participant.system_prompt, helper.key) == ("Be brief.", "abc")
    assert helper.participant.sampling == SamplingSettings(0.7, 0.9, 40, 1.1, 33, 7, ("END",))
    assert known["m"].participant.sampling == SamplingSettings(max_new_tokens=9)
    assert problems == ["", "", "it does not serve nobody"]


@pytest.mark.parametrize(
    ("status", "known", "problems"),
    [
        (500, ["Named"], ["", "{url}/v1/models answered HTTP 500"]),
        (404, ["Named"], ["", "{url}/v1/models answered HTTP 404"]),
        (401, [], ["{url}/v1/models answered HTTP 401"] * 2),
    ],
)
def test_participant_of_a_server_without_a_list_is_taken_by_its_model(
    status: int, known: list[str], problems: list[str], tmp_path: Path
) -> None:
    """As `transformers serve` without a hub cache: it answers, and its list is an error."""
    with FaultServer({"m": Script()}, is_tgi=False, listing=status) as server:
        arena_config = read_arena_config(
            written(
                tmp_path,
                f"""
                [[participant]]
                name = "Named"
                url = "{server.url}"
                model = "m"
                [[participant]]
                name = "Unnamed"
                url = "{server.url}"
                """,
            )
        )
        pool = BackendPool([], SamplingSettings(), arena_config)
        assert list(asyncio.run(pool.targets())) == known
        told = [b.problem for b in asyncio.run(pool.backends())]
        assert told == [problem.format(url=server.url) for problem in problems]


def test_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    """They are part of a participant's fingerprint: 1 is not 1.0 there."""
    text = "[[participant]]\nname = 'x'\nurl = 'http://h'\ntemperature = 1\ntop_p = 1.0"
    (one,) = read_arena_config(written(tmp_path, text)).participants
    assert (repr(one.temperature), repr(one.top_p)) == ("1", "1.0")


MISTAKES = {
    "not = [toml": "cannot be read as TOML",
    "colour = 1": "colour is unknown",
    "[[participant]]\nname = 'x'": "no url",
    "[[participant]]\nname = 'x'\nurl = 'nonsense'": "nonsense",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nkey = 'k'": "participant.key is unknown",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nmode = 'sing'": "use chat or completion",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nkey_env = 'NO_SUCH_KEY'": "NO_SUCH_KEY",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nmax_new_tokens = 0": "1 or more",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nseed = 'one'": "is 'one'; give a whole number",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\ntop_k = 1.5": "give a whole number",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nstop = 'END'": "a list of texts",
    "[[participant]]\nname='x'\nurl='http://h'\n[[participant]]\nname='x'\nurl='http://i'": "twice",
    "[drawing]\nstrategy = 'magic'": "under_voted_first",
    "[drawing]\nweights = {a = -1}": "drawing.weights.a is -1; give 0, or 0.000001 to 1,000,000",
    "[drawing]\nweights = {a = nan}": "give 0, or 0.000001",
    "[drawing]\nweights = {a = inf}": "give 0, or 0.000001",
    "[drawing]\nweights = {a = 1e17}": "drawing.weights.a is 1e+17; give 0, or 0.000001",
    "[drawing]\nweights = {a = 5e-324}": "drawing.weights.a is 5e-324; give 0, or 0.000001",
    "[drawing]\nweights = {a = true}": "drawing.weights.a is True; give 0, or 0.000001",
    "[drawing]\nrequired = [['a']]": "two different names",
    "[drawing]\nrequired = 'a'": "drawing.required is 'a'; give pairs",
    "[drawing]\npace = 1": "drawing.pace is unknown",
    "[limits]\npace = 1": "limits.pace is unknown; known are address_battles_per_minute",
    "[limits]\nprompt_chars = 0": "limits.prompt_chars is 0; give a whole number, 1 to",
    "[limits]\nprompt_chars = 1.5": "limits.prompt_chars is 1.5; give a whole number",
    "[limits]\nprompt_chars = true": "limits.prompt_chars is True; give a whole number",
    "[limits]\nbody_bytes = 99999999999": "give a whole number, 1 to 1000000000",
    "[limits]\nupdates_per_second = 0": "limits.updates_per_second is 0; give a number above 0",
    "[limits]\nupdates_per_second = nan": "give a number above 0",
    "limits = 1": "limits is 1; write it as a table",
    "drawing = 1": "drawing is 1; write it as a table",
    "hidden = 'one'": "hidden is 'one'; give a list of names",
    "participant = 1": "write each as a table [[participant]]",
    "participant = [1]": "write it as a table",
    "[[participant]]\nname = ' '\nurl = 'http://h'": "give it a name",
    "[[participant]]\nname = 5\nurl = 'http://h'": "name of 5 is 5; give it a name",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\nmodel = 5": "model of 'x' is 5; give the model",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\ntemperature = true": "is True; give a number",
    "[[participant]]\nname = 'x'\nurl = 'http://h'\ntop_p = '1'": "is '1'; give a number",
    "[drawing]\nrequired = [['a', 'a']]": "two different names",
    "[drawing]\nrequired_share = 1": "required_share",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistake_is_named_with_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ArenaConfigError) as caught:
        read_arena_config(written(tmp_path, text))
    assert MISTAKES[text] in str(caught.value)
    assert "arena.toml" in str(caught.value)
    assert "\n" not in str(caught.value).split("(")[0]


def judge(store: Store, left: str, right: str, winner: Winner) -> None:
    """One blind battle with its vote, written as the page does."""
    voter = store.ensure_voter("one")
    pair = [Participant(name, name) for name in (left, right)]
    battle, _ = Hand(store).battle(["hi 0", "hi 1"], participants=pair, voter=voter)
    store.cast_vote(battle, Judgement(winner=winner), voter=voter)


@pytest.fixture
def voted(tmp_path: Path) -> Store:
    """a and b were compared four times, each left twice, a and c once, b and c never."""
    store = Store.at_home(tmp_path)
    for winner in (Winner.MODEL_A, Winner.MODEL_B):  # each side in turn: no effect of the side
        judge(store, "a-model", "b-model", winner)
        judge(store, "b-model", "a-model", winner)
    judge(store, "c-model", "a-model", Winner.MODEL_A)
    return store


def test_fewer_votes_come_first_and_required_pairs_have_their_share(voted: Store) -> None:
    drawing = PairingConfig(
        "under_voted_first", required=(("c-model", "a-model"),), required_share=0.4
    )
    chances = asyncio.run(PairSampler(voted, drawing).chances(NAMES))
    plain = asyncio.run(PairSampler(voted, PairingConfig("under_voted_first")).chances(NAMES))
    assert plain["b-model", "c-model"] > plain["a-model", "c-model"] > plain["a-model", "b-model"]
    assert chances["a-model", "c-model"] == pytest.approx(0.4 + 0.6 * plain["a-model", "c-model"])
    assert sum(chances.values()) == pytest.approx(1)


def test_information_goes_where_least_is_known(voted: Store) -> None:
    chances = asyncio.run(PairSampler(voted, PairingConfig("information_seeking")).chances(NAMES))
    assert min(chances, key=chances.__getitem__) == ("a-model", "b-model")
    assert min(chances.values()) > 0.05


def test_a_pair_judged_often_is_known_better_than_one_judged_once(voted: Store) -> None:
    """The chain b - a - c: the gap b to c is as uncertain as both of its links together."""
    known = gaps(asyncio.run(PairSampler(voted, PairingConfig("information_seeking"))._votes()))
    often, once, never = (
        known[pair][0]
        for pair in (("a-model", "b-model"), ("a-model", "c-model"), ("b-model", "c-model"))
    )
    assert often < 0.8 * once
    assert once < never
    chances = asyncio.run(PairSampler(voted, PairingConfig("information_seeking")).chances(NAMES))
    assert chances["a-model", "b-model"] < 0.9 * chances["a-model", "c-model"]


def test_what_is_known_of_the_votes(voted: Store) -> None:
    sampler = PairSampler(voted, PairingConfig("under_voted_first"))
    board = asyncio.run(sampler._votes())
    assert num_votes(board)["a-model", "b-model"] == 4
    variance, chance = gaps(board)["a-model", "b-model"]
    assert variance > 0
    assert 0 < chance < 1
    assert gaps(board)["a-model", "c-model"][1] < 0.5, "c won their only battle"


def test_strategies_work_before_the_first_vote(tmp_path: Path) -> None:
    for strategy in ("uniform", "under_voted_first", "information_seeking"):
        sampler = PairSampler(Store.at_home(tmp_path), PairingConfig(strategy))
        assert list(asyncio.run(sampler.chances(NAMES)).values()) == pytest.approx([1 / 3] * 3)


def test_sides_of_drawn_pairs_are_fair(tmp_path: Path) -> None:
    """1,000 draws; 4 standard deviations of a fair coin are 63."""
    sampler = PairSampler(Store.at_home(tmp_path), PairingConfig())

    async def draw_many() -> Counter[bool]:
        return Counter([(d := await sampler.draw(NAMES)).left < d.right for _ in range(1000)])

    assert abs(asyncio.run(draw_many())[True] - 500) < 63


def test_probability_of_the_pair_is_stored_with_each_battle(tmp_path: Path) -> None:
    drawing = PairingConfig(
        "uniform", weights={"a-model": 3.0}, required=(("b-model", "c-model"),), required_share=0.4
    )

    async def play(url: str) -> None:
        install_http_client()
        config = PageConfig((url,), tmp_path)
        pool = BackendPool((url,), config.sampling)
        service = BattleService(Store(config.database), pool, drawing=drawing)
        chances = await service.sampler.chances(NAMES)
        assert sum(chances.values()) == pytest.approx(1)
        voter = await service.voter("one")
        for _ in range(6):
            access = await service.open_blind(voter, "Say hi.")
            async for view in service.follow(access):
                battle = view.battle
            pair = tuple(sorted(p.name for p in battle.participants))
            assert battle.propensity == pytest.approx(chances[pair])
            assert battle.sampler == "uniform+weighted+required/1"
        await service.close()

    with FaultServer({name: Script() for name in NAMES}) as server:
        asyncio.run(play(server.url))


PICKED = """
[[participant]]
name = "best"
url = "http://127.0.0.1:1"
model = "m"
"""


def test_a_participant_may_be_picked_from_by_a_reward_model(tmp_path: Path) -> None:
    """Answers are drawn at temperature 1 where the page's own would give the same one each time."""
    path = written(tmp_path, PICKED + 'best_of = 8\nreward = "judge"')
    (participant,) = read_arena_config(path).participants
    sampling = participant.sampling(SamplingSettings(temperature=0.0, max_new_tokens=9))
    assert sampling == SamplingSettings(1.0, max_new_tokens=9, best_of=8, reward="judge")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("best_of = 8", "best_of and reward go together"),
        ('reward = "judge"', "best_of and reward go together"),
        ('best_of = 1\nreward = "judge"', "2 or more"),
        ('best_of = 8\nreward = " "', "give the name of a reward model"),
        ('best_of = 8\nreward = "judge"\nmode = "completion"', "answers of a chat"),
        ('best_of = 8\nreward = "judge"\ntemperature = 0', "a temperature above 0"),
    ],
)
def test_picking_that_cannot_be_is_refused(tmp_path: Path, lines: str, says: str) -> None:
    with pytest.raises(ArenaConfigError, match=says):
        read_arena_config(written(tmp_path, PICKED + lines))


def test_participants_keep_the_fingerprint_they_had_before_there_was_picking() -> None:
    """It is what a store knows them by; the value is that of the program before."""
    plain = Participant("m", "m", sampling=SamplingSettings(0.5, max_new_tokens=9))
    assert plain.fingerprint() == (
        "a2786630175b018ef5a36e27d87a9fdb7ec6fa08a3569e957ea106e65fc728b1"
    )
    picked = SamplingSettings(0.5, max_new_tokens=9, best_of=8, reward="judge")
    assert Participant("m", "m", sampling=picked).fingerprint() != plain.fingerprint()
