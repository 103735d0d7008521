"""How fast the store takes votes, imports and exports, and what memory that needs.

    python benchmarks/store.py --battles 100000 --folder /var/tmp

Votes a second are durable ones (each waits for the disk), beside the disk's own fsync rate.
Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECONDS = 5.0

VOTER = """
import sys, time
from pathlib import Path
from arena.judgement import Judgement, Winner
from arena.quarantine import QuarantineRules
from arena.store import Store
store = Store(Path(sys.argv[1]), rules=QuarantineRules(0, 0, 0))
voter = store.ensure_voter(sys.argv[2])
count, end = 0, time.monotonic() + float(sys.argv[4])
winners = [Winner.MODEL_A, Winner.MODEL_B]
while time.monotonic() < end:
    store.cast_vote(sys.argv[3], Judgement(winners[count % 2]), voter=voter, change=True)
    count += 1
print(count)
"""


def fsync_rate(folder: Path) -> float:
    """Appends with fsync a second on the disk of a folder."""
    path = folder / "fsync"
    count, end = 0, time.monotonic() + 2
    with path.open("wb") as file:
        while time.monotonic() < end:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            count += 1
    path.unlink()
    return count / 2


def write_rows(path: Path, count: int) -> None:
    """LMSYS rows as JSON lines."""
    with path.open("w") as file:
        for i in range(count):
            prompt = {"role": "user", "content": f"Question {i} about everyday things?"}
            sides = [
                [prompt, {"role": "assistant", "content": f"Answer {i} of side {side}. " * 8}]
                for side in "ab"
            ]
            row = {
                "question_id": str(i),
                "model_a": f"model-{i % 100}",
                "model_b": f"model-{(i * 7 + 1 + i % 100) % 100}",
                "winner": ("model_a", "model_b", "tie", "tie (bothbad)")[i % 4],
                "judge": f"arena_user_{i % 5000}",
                "conversation_a": sides[0],
                "conversation_b": sides[1],
                "turn": 1,
                "anony": True,
                "language": "English",
                "tstamp": 1_700_000_000.0 + i,
            }
            file.write(json.dumps(row) + "\n")


def arena(*arguments: str) -> tuple[float, float]:
    """Seconds of a command and its peak memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "arena.cli", *arguments],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.monotonic() - started, max(before, after) / 1024


def votes_per_second(folder: Path, num_writers: int) -> float:
    """Durable votes a second of some writing processes on one store."""
    sys.path.insert(0, str(ROOT / "tests"))
    from store_fixtures import BASE, LORA, Hand

    from arena.battle import Mode
    from arena.store import Store

    store = Store(folder / f"votes-{num_writers}.db")
    battle, _ = store.create_battle([BASE, LORA], voter=None, mode=Mode.BLIND)
    Hand(store).turn(battle, "prompt", ["one", "two"])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", VOTER, str(store.path), str(i), battle, str(SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(num_writers)
    ]
    return sum(int(writer.communicate()[0]) for writer in writers) / SECONDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--battles", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "store.json")
    options = parser.parse_args()
    found: dict[str, object] = {"battles": options.battles}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        found["fsync_per_s"] = fsync_rate(folder)
        for num_writers in (1, 8):
            found[f"votes_per_s_{num_writers}_writers"] = votes_per_second(folder, num_writers)
        write_rows(folder / "rows.jsonl", options.battles)
        home = str(folder / "home")
        for step, arguments in (
            ("import", ["import", str(folder / "rows.jsonl"), "--format", "lmsys"]),
            ("export", ["export", "--out", str(folder / "out")]),
            ("leaderboard", ["leaderboard", "--json"]),
        ):
            seconds, megabytes = arena(*arguments, "--home", home)
            found[step] = {"seconds": seconds, "peak_mb_so_far": megabytes}
            print(step, found[step], flush=True)
    print(json.dumps(found, indent=2))
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
