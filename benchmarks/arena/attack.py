"""How far an attacker with many cookies brings a model, with and without the marks of bursts.

    python benchmarks/arena/attack.py --cookies 1000

Four models, the last of them the worst: after honest votes it has rank 4. The attacker knows it by
its answers, passes over the battles without it, and gives it one vote from each fresh cookie. `all
at once` is what the page took before it had limits of addresses, `one address` as many as come in
within ten minutes now (30 at once, then 30 a minute), `slowly` 15 in each ten minutes, `others too`
votes at random in battles without it as well. Prints votes given, votes in quarantine, rating and
rank of the model, without and with the rule. Everything goes through a store, as on the page.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/support"))

from store_fixtures import BASE, Hand

from arena.ratings import rate
from arena.storage.quarantine import QuarantineRules
from arena.storage.rating_input import read_rating_input
from arena.storage.store import Store
from arena.values.vote import Winner

STRENGTHS = {"best": 0.6, "good": 0.3, "fair": 0.0, "target": -0.9}
MODELS = [replace(BASE, name=name, weights_sha256=f"{i}" * 64) for i, name in enumerate(STRENGTHS)]
TEN_MINUTES = 600_000


def cast(hand: Hand, draw: random.Random, number: str, wanted: bool, pair: list[int]) -> None:
    """One vote of a new cookie; `wanted`: for the target, else as the strengths say."""
    strengths = [list(STRENGTHS.values())[i] for i in pair]
    chance = 1 / (1 + 10 ** ((strengths[1] - strengths[0]) / 1.0))
    is_left = (pair[0] == 3) if wanted else draw.random() < chance
    winner = Winner.MODEL_A if is_left else Winner.MODEL_B
    participants = [MODELS[i] for i in pair]
    hand.vote(winner, prompt=number, participants=participants, voter=hand.voter(number))


def age(hand: Hand, milliseconds: int) -> None:
    """Let time go by: all that there is gets older."""
    for table in ("votes", "voters"):
        sql = f"UPDATE {table} SET created_ms = created_ms - {milliseconds}"
        hand.store.write(lambda db, sql=sql: db.execute(sql))


def attack(kind: str, cookies: int, honest: int, rules: QuarantineRules, folder: Path) -> str:
    """One line of the table."""
    hand, draw = Hand(Store(folder / "arena.db", rules=rules)), random.Random(0)
    for i in range(honest):
        cast(hand, draw, f"honest {i}", False, draw.sample(range(4), 2))
        if i % 10 == 9:
            age(hand, TEN_MINUTES)
    age(hand, 24 * 3_600_000)
    number = {"one address": min(cookies, 330)}.get(kind, cookies)
    for i in range(number):
        if kind == "slowly" and i % 15 == 0:
            age(hand, TEN_MINUTES + 1)
        pair = [3, draw.randrange(3)]
        draw.shuffle(pair)
        if kind == "others too" and draw.random() < 0.5:
            cast(hand, draw, f"other {i}", False, draw.sample(range(3), 2))
        cast(hand, draw, f"attack {i}", True, pair)
    found = read_rating_input(hand.store)
    line = next(line for line in rate(found.table).ratings if line.model == "target")
    flagged = found.left_out.get("flagged", 0)
    return f"{number:>6} {flagged:>8} {line.rating:>7.0f} {line.rank:>5}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cookies", type=int, default=1_000)
    parser.add_argument("--honest", type=int, default=400)
    options = parser.parse_args()
    print("attack       rule     votes  flagged  rating  rank")
    for kind in ("all at once", "one address", "slowly", "others too"):
        for told, rules in (("without", QuarantineRules(burst=0)), ("with", QuarantineRules())):
            with tempfile.TemporaryDirectory() as folder:
                line = attack(kind, options.cookies, options.honest, rules, Path(folder))
                print(f"{kind:<12} {told:<8} {line}", flush=True)


if __name__ == "__main__":
    main()
