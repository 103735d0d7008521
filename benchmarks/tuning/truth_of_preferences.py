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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tuning import tune
from tuning.config_files import load_config
from tuning.data.template import render_prompts, tokenize
from tuning.evaluation.suites import STARTER_TRAINING, SuiteItem, load_suite
from tuning.loop.run import run_loop
from tuning.loop.settings import LoopSettings
from tuning.models.generate import sample_ids
from tuning.models.loading import load_variant
from tuning.preference.judge import WINNERS, SyntheticJudge

# Too short for either, so that both answers of a pair are often of different worth.
WEAK = {
    "weak-full": {"method": "full", "training.max_steps": 10, "training.learning_rate": 1e-4},
    "weak-lora": {"method": "lora", "training.max_steps": 8, "training.learning_rate": 2e-3},
}
START = "weak-full"
ANSWER_TOKENS = 64
AT_ONCE = 32
TEMPERATURE = 1.0
REPEATED = 0.1
MOST_BATTLES = 12
"""Battles for each vote that is wanted, before the script gives up."""


def make_weak(home: Path, base: str, console: Console) -> None:
    """The two under-trained variants."""
    for name, settings in WEAK.items():
        if (home / "models" / name).exists():
            continue
        given = {"base": base, "data": "starter", "name": name, "home": str(home)}
        steady = {"training.schedule": "constant", "training.max_minutes": None, "samples": 0}
        tune(load_config(None, {**given, **steady, **settings}), console=console)


def answers_of(home: Path, name: str, items: Sequence[SuiteItem], seed: int) -> list[list[str]]:
    """Two samples of a model's answer to each item."""
    loaded = load_variant(name, home)
    asked = [[{"role": "user", "content": item.prompt}] for item in items]
    prompts = tokenize(loaded.tokenizer, render_prompts(loaded.tokenizer, asked))
    found: list[list[str]] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for first in range(0, len(prompts), AT_ONCE * 4):
            drawn = sample_ids(
                loaded.model,
                prompts[first : first + AT_ONCE * 4],
                count=2,
                max_new_tokens=ANSWER_TOKENS,
                temperature=TEMPERATURE,
                stop_ids=loaded.stop_ids,
                pad_id=int(loaded.tokenizer.pad_token_id),
            )
            for answers in drawn:
                texts = loaded.tokenizer.batch_decode(answers, skip_special_tokens=True)
                found.append([text.strip() for text in texts])
    return found


def battles(home: Path, count: int, seed: int) -> list[dict[str, Any]]:
    """Items with the answers of both models, drawn once and kept."""
    path = home / f"answers-{count}-{seed}.json"
    if path.is_file():
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    items = random.Random(seed).sample(load_suite(STARTER_TRAINING), count)
    by_model = {name: answers_of(home, name, items, seed) for name in WEAK}
    made = [
        {"item": item.model_dump(mode="json", include={"id"}), "prompt": item.prompt,
         "answers": {name: by_model[name][at] for name in WEAK}}
        for at, item in enumerate(items)
    ]  # fmt: skip
    path.write_text(json.dumps(made))
    return made


def votes(
    drawn: Sequence[Mapping[str, Any]], judge: SyntheticJudge, seed: int, *, shuffle_sides: bool
) -> Iterator[dict[str, Any]]:
    """Votes on pairs: a third of each model against itself, a third of one against the other.

    A tenth is judged by a second voter. Sides are drawn, or without `shuffle_sides` the first
    model is always on the left.
    """
    items = {item.id: item for item in load_suite(STARTER_TRAINING)}
    names = list(WEAK)
    draw = random.Random(f"{seed} pairs")
    for number, one in enumerate(drawn):
        kind = number % 3
        pair = [(names[0], 0), (names[1], 0)] if kind == 2 else [(names[kind], 0), (names[kind], 1)]
        if shuffle_sides:
            draw.shuffle(pair)
        left, right = (one["answers"][name][at] for name, at in pair)
        if left == right or not left or not right:
            continue
        voters = ["one", "two"] if draw.random() < REPEATED else ["one"]
        for voter in voters:
            yield {
                "prompt": [{"role": "user", "content": one["prompt"]}],
                "completion_a": [{"role": "assistant", "content": left}],
                "completion_b": [{"role": "assistant", "content": right}],
                "winner": judge.decide(items[one["item"]["id"]], left, right, voter),
                "model_a": pair[0][0],
                "model_b": pair[1][0],
                "voter": voter,
                "vote_id": str(number),
            }


def write_votes(path: Path, found: Iterator[dict[str, Any]], count: int) -> int:
    """`count` votes for one side, with the ties and both-bad votes between; how many in all."""
    decided, lines = 0, []
    for vote in found:
        if decided == count:
            break
        decided += vote["winner"] in WINNERS
        lines.append(json.dumps(vote) + "\n")
    if decided < count:
        raise SystemExit(f"only {decided} votes for one side; draw more answers with --battles")
    path.write_text("".join(lines))
    return len(lines)


def marks(report: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Each mark: what it is, what was measured, whether it is met."""
    found = report["agreement"]["true"]["without_noise"]
    own = report["reward_model"]["report"]
    yield "reward model agrees with the judge without noise, >= 80 %", _share(found), (
        found["share"] >= 0.8)  # fmt: skip
    for name in ("longer", "author", "likelihood", "untuned"):
        one = own["baselines"][name]
        yield (
            f"and beats: {one['about']}",
            (
                f"{_share(one['agreement'])} against {_share(own['agreement'])}; same model "
                f"{_share(one['same_model'])} against {_share(own['same_model'])}"
            ),
            one["reward_is"] == "better",
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


def print_table(report: Mapping[str, Any], num_votes: int) -> None:
    """The marks, the kinds of error, and the time."""
    counts = report["votes"]["num_pairs"]
    print(f"{num_votes} votes, of which {counts['trained'] + counts['heldout']} for one side; "
          f"{counts['trained']} trained on; {report['seconds'] / 60:.1f} minutes; verdict: "
          f"{report['verdict']}\n")  # fmt: skip
    print("| mark | measured | met |\n|---|---|---|")
    for what, measured, met in marks(report):
        print(f"| {what} | {measured} | {'yes' if met else 'no'} |")
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
    parser.add_argument("--battles", type=int, default=4000, help="instructions that are answered")
    parser.add_argument(
        "--judge", nargs="*", default=["noise=0.1"], help="noise=, position=, length="
    )
    parser.add_argument("--fixed-sides", action="store_true")
    parser.add_argument("--only-reward", action="store_true")
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
    drawn = battles(given.home, given.battles, given.seed)
    path = given.home / f"votes-{given.name}.jsonl"
    cast = votes(
        drawn, SyntheticJudge(seed=given.seed, **faults), given.seed,
        shuffle_sides=not given.fixed_sides,
    )  # fmt: skip
    num_votes = write_votes(path, cast, given.votes)
    settings = LoopSettings(
        base=START,
        data=(str(path),),
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
    report = run_loop(settings, lambda: [str(path)], skip=frozenset(skip), console=console)
    print_table(report, num_votes)


if __name__ == "__main__":
    main()
