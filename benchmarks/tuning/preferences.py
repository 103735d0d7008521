"""How fast are steps of DPO and of a reward model here, against TRL's trainers?

Each contender is a process of its own that loads once; steps are asked for in turn, so that
whatever else the machine does meets all alike. Time is CPU time, one thread. The losses must agree
within 5e-5 before anything is printed.

    python benchmarks/tuning/preferences.py --objective dpo --shape small-wide --repeats 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from contender import SHAPES

CONTENDERS = ("ours", "trl")
AGREEMENT = 5e-5
"""Relative: a loss is of differences between sums of 70 log-probabilities, some 700 nats each."""


class Contender:
    """A process that answers each line with one measurement."""

    def __init__(self, name: str, objective: str, shape: str, log: IO[str]) -> None:
        self.name, self._log = name, log
        script = Path(__file__).with_name("preference_contender.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), name, objective, shape],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def step(self) -> dict[str, float]:
        """One measurement; RuntimeError with the end of its log when the process died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._process.stdout.readline()
        if not answer:
            self._log.seek(0)
            raise RuntimeError(f"{self.name}: {self._log.read()[-2000:]}")
        found: dict[str, float] = json.loads(answer)
        return found

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()


def measure(objective: str, shape: str, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Steps of each contender, taken in turn; the first, a warm-up, is left out."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with ExitStack() as logs:
        contenders = [
            Contender(name, objective, shape, logs.enter_context(tempfile.TemporaryFile("w+")))
            for name in CONTENDERS
        ]
        try:
            for repeat in range(repeats + 1):
                for contender in contenders:
                    found = contender.step()
                    if repeat:
                        runs[contender.name].append(found)
        finally:
            for contender in contenders:
                contender.close()
    losses = {name: found[0]["loss"] for name, found in runs.items()}
    if max(losses.values()) - min(losses.values()) > AGREEMENT * max(losses.values()):
        raise SystemExit(f"the contenders compute different losses: {losses}")
    return runs


def summarise(found: list[dict[str, float]]) -> dict[str, Any]:
    """Tokens per CPU second: number of steps, median, best and worst; peak memory; loss."""
    rates = [run["tokens"] / run["seconds"] for run in found]
    return {
        "n": len(rates),
        "median": statistics.median(rates),
        "best": max(rates),
        "worst": min(rates),
        "peak_mib": max(run["peak_mib"] for run in found),
        "loss": found[0]["loss"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objective", choices=("dpo", "reward"), default="dpo")
    parser.add_argument("--shape", choices=SHAPES, default="small-wide")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = measure(arguments.objective, arguments.shape, arguments.repeats)
    rows = {name: summarise(found) for name, found in runs.items()}
    if arguments.out:
        content = {
            "objective": arguments.objective,
            "shape": {arguments.shape: SHAPES[arguments.shape]},
            "threads": 1,
            "load_average": os.getloadavg(),
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
            "results": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{arguments.objective}, {arguments.shape}: tokens per CPU second, one thread")
    print("| contender | ours / it | median | best | worst | n | peak MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, row in rows.items():
        ratio = rows["ours"]["median"] / row["median"]
        print(
            f"| {name} | {ratio:.2f} | {row['median']:.0f} | {row['best']:.0f} | "
            f"{row['worst']:.0f} | {row['n']} | {row['peak_mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
