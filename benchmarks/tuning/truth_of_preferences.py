r"""What do reward models, DPO, best of n and RL learn from votes whose truth is known?

Two variants of the starter are tuned for too short a time; pairs of their answers to training
instructions are voted on by the suite's verifiers, with chosen faults; `arena loop` learns from
the votes and measures on the held-out suite. Printed is a Markdown table of each mark and whether
it is met. What is done already under --home is not done again.

    python benchmarks/tuning/truth_of_preferences.py --home /tmp/truth
    python benchmarks/tuning/truth_of_preferences.py --home /tmp/truth --only-reward \
        --name length --judge length=0.5
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from arena.commands.vote_data import votes_folder
from arena.storage import answer_writes, battle_writes, vote_writes
from arena.storage.battle_writes import Asked, BattleDraft
from arena.storage.quarantine import QuarantineRules
from arena.storage.rows import battle_row
from arena.storage.selection import Selection
from arena.storage.store import Store, now_ms
from arena.values.battle import (
    SYNTHETIC,
    AnswerOutcome,
    AnswerStatus,
    Mode,
    Participant,
    SamplingSettings,
)
from arena.values.vote import Judgement, Winner
from tuning import tune
from tuning.config_files import load_config
from tuning.data.template import render_prompts, tokenize
from tuning.evaluation.suites import STARTER_TRAINING, SuiteItem, load_suite
from tuning.loop.run import run_loop
from tuning.loop.settings import LoopSettings
from tuning.models.generate import sample_ids
from tuning.models.loading import load_variant
from tuning.preference.judge import WINNERS, SyntheticJudge
from tuning.preference.report_text import REPORT_JSON

WEAK = {"w20": (20, 1.0), "w40": (40, 1.3)}
"""Steps of each, and the temperature of its answers, so that two are often of different worth.

Most bad answers of the first go on after the answer, which length alone tells; a quarter of the
bad ones of the second are the shorter ones.
"""
START = "w20"
ANSWER_TOKENS = 64
AT_ONCE = 64
REPEATED = 0.1
MET = {True: "yes", False: "no", None: "shown"}

Answered = tuple[str, str]
"""A model's name, and what it answered."""
Drawn = Sequence[tuple[SuiteItem, Sequence[Answered]]]


def make_weak(home: Path, base: str, console: Console) -> None:
    """The two under-trained variants."""
    for name, (steps, _) in WEAK.items():
        if (home / "models" / name).exists():
            continue
        given = {"base": base, "data": "starter", "name": name, "home": str(home)}
        short = {"method": "full", "training.max_steps": steps, "training.learning_rate": 1e-4}
        steady = {"training.schedule": "constant", "training.max_minutes": None, "samples": 0}
        tune(load_config(None, {**given, **short, **steady}), console=console)


def answers_of(home: Path, name: str, items: Sequence[SuiteItem], seed: int) -> list[list[str]]:
    """Two samples of a model's answer to each item, drawn once and kept."""
    path = home / f"answers-{name}-{len(items)}-{seed}.jsonl"
    found: list[list[str]] = []
    if path.is_file():
        # What a kill cut off ends without a line feed.
        lines = path.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        path.write_text("".join(line for line in lines if line.endswith("\n")))
    if len(found) == len(items):
        return found
    loaded = load_variant(name, home)
    asked = [[{"role": "user", "content": item.prompt}] for item in items]
    prompts = tokenize(loaded.tokenizer, render_prompts(loaded.tokenizer, asked))
    for first in range(len(found), len(prompts), AT_ONCE):
        torch.manual_seed(random.Random(f"{seed} {name} {first}").getrandbits(63))
        drawn = sample_ids(
            loaded.model,
            prompts[first : first + AT_ONCE],
            count=2,
            max_new_tokens=ANSWER_TOKENS,
            temperature=WEAK[name][1],
            stop_ids=loaded.stop_ids,
            pad_id=int(loaded.tokenizer.pad_token_id),
        )
        decoded = [loaded.tokenizer.batch_decode(one, skip_special_tokens=True) for one in drawn]
        new = [[text.strip() for text in texts] for texts in decoded]
        with path.open("a") as file:
            file.write("".join(json.dumps(texts) + "\n" for texts in new))
        found += new
    return found


def cast_votes(
    store: Store, drawn: Drawn, judge: SyntheticJudge, count: int, seed: int, *, shuffle_sides: bool
) -> None:
    """`count` votes for one side, with the ties and both-bad votes between, as a page stores them.

    Of each instruction all pairs of its four answers are judged, a tenth of them by a second voter
    too. No voter judges the same two texts twice.
    Sides are drawn, or without `shuffle_sides` the weaker model is always on the left.
    """
    draw = random.Random(f"{seed} pairs")
    voters = [store.ensure_voter(f"judge {number}") for number in range(2)]
    decided = 0
    for item, answers in drawn:
        judged: list[tuple[Sequence[Answered], list[str]]] = []
        seen: set[frozenset[str]] = set()
        for pair in combinations(answers, 2):
            sides = draw.sample(pair, 2) if shuffle_sides else list(pair)
            (_, left), (_, right) = sides
            texts = frozenset(" ".join(text.split()) for text in (left, right))
            if "" in texts or len(texts) < 2 or texts in seen:
                continue
            seen.add(texts)
            said = []
            for voter in ("one", "two")[: 1 + (draw.random() < REPEATED)]:
                if decided < count:
                    said.append(judge.decide(item, left, right, voter))
                    decided += said[-1] in WINNERS
            if said:
                judged.append((sides, said))
        store.write(partial(write_battles, prompt=item.prompt, judged=judged, voters=voters))
        if decided == count:
            return
    raise SystemExit(f"only {decided} votes for one side; have more --instructions answered")


def write_battles(db: Any, prompt: str, judged: Any, voters: Sequence[str]) -> None:
    """Battles of one prompt, answered and judged, in the transaction of `db`."""
    for sides, winners in judged:
        now = now_ms()
        seen = [Participant(name=name, model=name, kind="full") for name, _ in sides]
        new = BattleDraft(seen, voters[0], Mode.BLIND, source=SYNTHETIC)
        battle_writes.create(db, new, now)
        asked = [Asked(one.model, SamplingSettings(temperature=WEAK[one.name][1])) for one in seen]
        opened = battle_writes.ask(db, new.battle_id, prompt, None, asked, now, "truth")
        for side, answer_id in opened.answer_ids.items():
            outcome = AnswerOutcome(AnswerStatus.COMPLETE, sides[side][1])
            answer_writes.finish(db, answer_id, outcome, (), now)
        for voter, winner in zip(voters, winners, strict=False):
            vote_writes.cast(
                db, battle_row(db, new.battle_id), voter, Judgement(Winner(winner)),
                partial=False, change=False, now=now, rules=QuarantineRules(),
            )  # fmt: skip


def shuffled_again(
    home: Path, votes: Path, name: str, times: int, seed: int, console: Console
) -> list[float]:
    """How often reward models of votes whose winners a coin drew agree with a judge without noise.

    Each goes some way in a direction of its own, so one alone says little: what is near a half is
    their mean.
    """
    rows = [json.loads(line) for line in (votes / "train.jsonl").read_text().splitlines()]
    found = []
    for number in range(times):
        own = f"{name}-shuffled-{number}"
        folder = home / "models" / own
        if not folder.exists():
            draw = random.Random(f"{seed} shuffle {number}")
            cast = [
                {**row, "winner": draw.choice(WINNERS) if row["winner"] in WINNERS else "tie"}
                for row in rows
            ]
            path = home / f"{own}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in cast))
            given = {"base": START, "data": str(path), "name": own, "home": str(home)}
            of_scores = {"objective": "reward", "heldout": 0.15, "seed": seed}
            tune(load_config(None, {**given, **of_scores}), console=console)
        report = json.loads((folder / REPORT_JSON).read_text())
        (without_noise,) = report["beside"].values()
        found.append(without_noise["share"])
    return found


def marks(report: Mapping[str, Any]) -> Iterator[tuple[str, str, bool | None]]:
    """Each mark: what it is, what was measured, whether it is met."""
    found = report["agreement"]["true"]["without_noise"]
    own = report["reward_model"]["report"]
    yield "reward model agrees with the judge without noise, >= 80 %", _share(found), (
        found["share"] >= 0.8)  # fmt: skip
    for name in ("longer", "shorter", "author", "untuned", "likelihood"):
        one = own["baselines"][name]
        yield (
            # Likelihood knows what the start knows; it is shown, and need not be beaten.
            f"and {'beside' if name == 'likelihood' else 'beats'}: {one['about']}",
            (
                f"{_share(one['agreement'])} against {_share(own['agreement'])}; same model "
                f"{_share(one['same_model'])} against {_share(own['same_model'])}"
            ),
            None if name == "likelihood" else one["reward_is"] == "better",
        )
    if "shuffled" in report["agreement"]:
        one = report["agreement"]["shuffled"]["without_noise"]
        yield "shuffled votes: at chance", _share(one), one["lower"] <= 0.5 <= one["upper"]
    for which, best in report["best_of"].items():
        gain = best["gain"].get("8")
        if gain is not None:
            met = gain["lower"] > 0 if which == "true" else gain["lower"] <= 0 <= gain["upper"]
            words = {"true": "raises", "shuffled": "does not move"}
            if which in words:
                yield (
                    f"best of 8 ({which}) {words[which]} it",
                    (
                        f"{100 * gain['gain']:+.1f} ({100 * gain['lower']:+.1f} to "
                        f"{100 * gain['upper']:+.1f})"
                    ),
                    met,
                )
    for policy in report["policies"]:
        for which, change in policy["compared"].items():
            points = 100 * (change["after"] - change["before"])
            rise = policy["measured"][which].get("forgetting", 0.0)
            told = (
                f"{100 * change['before']:.1f} -> {100 * change['after']:.1f} ({points:+.1f}), "
                f"p = {change['p']:.2g}, perplexity {100 * rise:+.1f} %"
            )
            word = policy["objective"]
            if which == "true":
                least = 10 if word == "dpo" else 0
                met = points >= least and change["p"] < 0.05 and rise <= 0.05
                yield f"{word} raises it by >= {least} points, perplexity <= +5 %", told, met
            elif which == "shuffled":
                yield f"{word} on shuffled votes moves nothing", told, change["p"] >= 0.05
            else:
                yield f"{word} on inverted votes does harm", told, (
                    points < 0 and change["p"] < 0.05)  # fmt: skip


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no such pair"
    return f"{found['share']:.1%} ({found['lower']:.1%} to {found['upper']:.1%})"


def print_table(report: Mapping[str, Any]) -> None:
    """The marks, the kinds of error, and the time."""
    counts, every = report["votes"]["num_pairs"], report["votes"]["num_votes"]
    print(f"{sum(every.values())} votes, of which {sum(counts.values())} for one side; "
          f"{counts['trained']} trained on; verdict: {report['verdict']}; "
          f"{report['seconds'] / 60:.1f} minutes, {report['cpu_seconds'] / 60:.1f} of one core\n"
          )  # fmt: skip
    print("| mark | measured | met |\n|---|---|---|")
    for what, measured, met in marks(report):
        print(f"| {what} | {measured} | {MET[met]} |")
    print("\n| kind of error | agreement with the judge without noise |\n|---|---|")
    for kind, one in report["agreement"]["true"]["kinds"].items():
        print(f"| {kind} | {_share(one)}, {one['num_pairs']} pairs |")
    length = report["reward_model"]["report"]["length"]
    print(f"\nlength: correlation {length['correlation']}, regression {length['regression']}, "
          f"longer wins {_share(length['longer_wins'])}")  # fmt: skip
    for against, curve in report["curve"].items():
        shown = ", ".join(f"{p['num_votes']}: {p['share']:.1%}" for p in curve["points"])
        print(f"curve against {against}: {shown}; next {curve['next']}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--votes", type=int, default=2000, help="votes for one side")
    parser.add_argument("--instructions", type=int, default=1280, help="that are answered")
    parser.add_argument(
        "--judge", nargs="*", default=["noise=0.1"], help="noise=, position=, length="
    )
    parser.add_argument("--fixed-sides", action="store_true")
    parser.add_argument("--only-reward", action="store_true")
    parser.add_argument("--shuffles", type=int, default=0, help="more reward models as a control")
    parser.add_argument("--skip", nargs="*", default=[], help="steps of the loop to leave out")
    parser.add_argument("--prompts", type=int, help="only so many prompts of the suite")
    parser.add_argument("--policy", nargs="*", default=["dpo", "rl"])
    parser.add_argument("--name", default="truth")
    parser.add_argument("--set", nargs="*", default=[], dest="assignments")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    console = Console(stderr=True)
    given.home.mkdir(parents=True, exist_ok=True)
    make_weak(given.home, given.base, console)
    faults = {key: float(value) for key, value in (text.split("=") for text in given.judge)}
    judge = SyntheticJudge(seed=given.seed, **faults)
    items = random.Random(given.seed).sample(load_suite(STARTER_TRAINING), given.instructions)
    by_model = {name: answers_of(given.home, name, items, given.seed) for name in WEAK}
    drawn = [
        (item, [(name, text) for name in WEAK for text in by_model[name][at]])
        for at, item in enumerate(items)
    ]
    path = given.home / f"{given.name}.db"
    if not path.is_file():
        part = given.home / f".{given.name}.db"
        part.unlink(missing_ok=True)
        store = Store(part)
        cast_votes(
            store, drawn, judge, given.votes, given.seed, shuffle_sides=not given.fixed_sides
        )
        store.close()
        part.rename(path)
    chosen = Selection(sources=(SYNTHETIC,))
    votes = votes_folder(Store(path), given.home, given.name, chosen)
    settings = LoopSettings(
        base=START,
        data=(str(votes),),
        name=given.name,
        home=given.home,
        policies=tuple(given.policy),
        suite="starter",
        max_new_tokens=ANSWER_TOKENS,
        seed=given.seed,
        prompts=given.prompts,
        assignments=tuple(given.assignments),
    )
    skip = {*given.skip}
    if given.only_reward:
        skip |= {"curve", "best-of", "policy", "shuffled", "inverted", "eval"}
    report = run_loop(settings, lambda: [str(votes)], skip=frozenset(skip), console=console)
    print_table(report)
    if given.shuffles:
        shares = shuffled_again(given.home, votes, given.name, given.shuffles, given.seed, console)
        told = ", ".join(f"{share:.1%}" for share in sorted(shares))
        print(f"reward models of shuffled votes agree with the judge without noise in {told}; "
              f"mean {statistics.fmean(shares):.1%}")  # fmt: skip


if __name__ == "__main__":
    main()
