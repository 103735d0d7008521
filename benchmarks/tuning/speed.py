"""How fast is LoRA tuning here, against TRL's SFTTrainer, the plain transformers Trainer, litgpt?

Each contender is a process of its own that loads once; steps are asked for in turn, so that
whatever else the machine does meets all alike. Time is CPU time, one thread. The losses of the
first steps must agree within 1e-5 before anything is printed. litgpt pins other versions and runs
in its own environment: name its Python with `--litgpt`.

    python benchmarks/tuning/speed.py --shape small-wide --repeats 5 --out tuning_speed.json
    python benchmarks/tuning/speed.py --shape small-wide --part run --repeats 3
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

from contender import BATCH, LENGTH, SHAPES, build_base

CONTENDERS = ("ours", "transformers", "trl", "litgpt", "ours-bf16", "transformers-bf16", "trl-bf16")
AGREEMENT = 1e-5


class Contender:
    """A process that answers each line with one measurement."""

    def __init__(self, name: str, shape: str, weights: Path, python: str, log: IO[str]) -> None:
        self.name = name
        script = Path(__file__).with_name("contender.py")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._log = log
        self._process = subprocess.Popen(
            [python, str(script), name, shape, str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, line: str) -> dict[str, float]:
        """One measurement; RuntimeError with the end of its log when the process died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
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


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Measurements of each contender, taken in turn; the first, a warm-up, is left out."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.contenders}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as logs:
        build_base(SHAPES[arguments.shape]).save_pretrained(scratch)
        weights = Path(scratch) / "model.safetensors"
        contenders = [
            Contender(
                name,
                arguments.shape,
                weights,
                arguments.litgpt if name == "litgpt" else sys.executable,
                logs.enter_context(tempfile.TemporaryFile("w+")),
            )
            for name in arguments.contenders
        ]
        try:
            for repeat in range(arguments.repeats + 1):
                for contender in contenders:
                    found = contender.ask(f"{arguments.part} {arguments.rows}")
                    if repeat:
                        runs[contender.name].append(found)
        finally:
            for contender in contenders:
                contender.close()
    return runs


def check_losses(runs: dict[str, list[dict[str, float]]]) -> None:
    """Refuse to compare contenders that compute different losses."""
    losses = {name: found[0]["loss"] for name, found in runs.items() if "bf16" not in name}
    if losses and max(losses.values()) - min(losses.values()) > AGREEMENT * max(losses.values()):
        raise SystemExit(f"the contenders compute different losses: {losses}")


def summarise(name: str, found: list[dict[str, float]]) -> dict[str, Any]:
    """Tokens per CPU second: number of measurements, median, best and worst; peak memory."""
    rates = [run.get("tokens", BATCH * LENGTH) / run["seconds"] for run in found]
    row: dict[str, Any] = {
        "contender": name,
        "n": len(rates),
        "median": statistics.median(rates),
        "best": max(rates),
        "worst": min(rates),
        "peak_mib": max(run["peak_mib"] for run in found),
    }
    for key in ("loss", "building", "training", "saving"):
        if key in found[0]:
            row[key] = statistics.median(run[key] for run in found)
    return row


def report(arguments: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> None:
    """Print a Markdown table and write the JSON."""
    rows = [summarise(name, found) for name, found in runs.items()]
    content = {
        "shape": {arguments.shape: SHAPES[arguments.shape]},
        "part": arguments.part,
        "rows": arguments.rows,
        "threads": 1,
        "load_average": os.getloadavg(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")},
        "results": rows,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    by_name = {row["contender"]: row for row in rows}
    print(f"{arguments.shape}, {arguments.part}: tokens per CPU second, one thread")
    print("| contender | ours / it | median | best | worst | n | peak MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        half = "-bf16" if row["contender"].endswith("-bf16") else ""
        ours = by_name.get(f"ours{half}")
        ratio = f"{ours['median'] / row['median']:.2f}" if ours else ""
        print(
            f"| {row['contender']} | {ratio} | {row['median']:.0f} | {row['best']:.0f} | "
            f"{row['worst']:.0f} | {row['n']} | {row['peak_mib']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="small-wide")
    parser.add_argument(
        "--part", choices=("step", "run", "packed", "wide-run", "wide-packed"), default="step"
    )
    parser.add_argument("--rows", type=int, default=64, help="rows of a whole run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS[:3])
    parser.add_argument("--litgpt", default=sys.executable, help="Python that has litgpt")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    runs = measure(arguments)
    if arguments.part == "step":
        check_losses(runs)
    report(arguments, runs)


if __name__ == "__main__":
    main()
