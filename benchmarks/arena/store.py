"""How fast the store takes votes, imports and exports, and what memory that needs.

    python benchmarks/arena/store.py --battles 100000 --folder /var/tmp

Votes a second are durable ones (each waits for the disk), beside the disk's own fsync rate.
Two thirds of the battles have a winner. Ratios are of what is asked for to the time by the clock,
so nothing else may run; memory is that of all processes of a command together. Prints a table,
writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 5.0

VOTER = """
import sys, time
from pathlib import Path
from arena.values.vote import Judgement, Winner
from arena.storage.quarantine import QuarantineRules
from arena.storage.store import Store
store = Store(Path(sys.argv[1]), rules=QuarantineRules(0, 0, 0))
voter = store.ensure_voter(sys.argv[2])
count, end = 0, time.monotonic() + float(sys.argv[4])
winners = [Winner.MODEL_A, Winner.MODEL_B]
while time.monotonic() < end:
    store.cast_vote(sys.argv[3], Judgement(winners[count % 2]), voter=voter, change=True)
    count += 1
print(count)
"""


REFRESH = """
import json, resource, statistics, sys, time
from pathlib import Path
sys.path.insert(0, "tests/support")
from store_fixtures import BASE, LORA, Hand
from arena.page.html.leaderboard import board_html
from arena.storage.pair_cache import PairCache
from arena.ratings import rate
from arena.storage.store import Store
from arena.storage.rating_input import read_rating_input
from arena.i18n import words
store = Store.at_home(Path(sys.argv[1]))
hand, pair_cache, say = Hand(store), PairCache(store), words()
read_rating_input(pair_cache)
clock, cpu = [], []
for _ in range(int(sys.argv[2])):
    hand.vote()
    before, used = time.perf_counter(), time.process_time()
    board_html(rate(read_rating_input(pair_cache).table), say)
    clock.append(time.perf_counter() - before)
    cpu.append(time.process_time() - used)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([statistics.median(clock), statistics.median(cpu), peak]))
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
                "winner": ("model_a", "model_b", "model_a", "model_b", "tie", "tie (bothbad)")[
                    i % 6
                ],
                "judge": f"arena_user_{i % 5000}",
                "conversation_a": sides[0],
                "conversation_b": sides[1],
                "turn": 1,
                "anony": True,
                "language": "English",
                "tstamp": 1_700_000_000.0 + i,
            }
            file.write(json.dumps(row) + "\n")


@dataclass(frozen=True)
class Cost:
    """What a command needed: seconds by the clock and of the processor, peak memory of all its
    processes together (looked at five times a second).
    """

    seconds: float
    cpu_s: float
    peak_mb: float


def arena(*arguments: str) -> Cost:
    """Run a command in a process of its own."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "arena.cli", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as child:
        peak = 0.0
        while True:
            done, status, used = os.wait4(child.pid, os.WNOHANG)
            if done:
                break
            peak = max(peak, resident_mb(child.pid))
            time.sleep(0.2)
        child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, arguments
    seconds = time.monotonic() - started
    return Cost(seconds, used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss / 1024))


def resident_mb(pid: int) -> float:
    """Memory of a process and of those that it started; nothing for one that has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    own = int(lines[0].split()[1]) / 1024 if lines else 0.0
    return own + sum(resident_mb(int(child)) for child in children)


def refresh_after_a_vote(home: Path, rounds: int = 11) -> Cost:
    """What the leaderboard's tab costs after one more vote: the median of some rounds."""
    done = subprocess.run(
        [sys.executable, "-c", REFRESH, str(home), str(rounds)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def votes_per_second(folder: Path, num_writers: int) -> float:
    """Durable votes a second of some writing processes on one store."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from store_fixtures import Hand

    from arena.storage.store import Store

    store = Store(folder / f"votes-{num_writers}.db")
    hand = Hand(store)
    voters = map(str, range(num_writers))
    told = [
        [str(store.path), f"secret of {name}", hand.battle(voter=hand.voter(name))[0], str(SECONDS)]
        for name in voters
    ]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", VOTER, *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for words in told
    ]
    return sum(int(writer.communicate()[0]) for writer in writers) / SECONDS


def main() -> None:
    """Measure and print: how many times better than asked for, or than the disk alone, first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--battles", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "store.json")
    options = parser.parse_args()
    found: dict[str, object] = {"battles": options.battles}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print(f"{'ratio':>7}  what", flush=True)
        for num_writers in (1, 8):
            syncs = fsync_rate(folder)
            votes = votes_per_second(folder, num_writers)
            found[f"writers_{num_writers}"] = {"fsync_per_s": syncs, "votes_per_s": votes}
            print(
                f"{votes / syncs:7.2f}  durable votes a second, {num_writers} writers: {votes:.0f},"
                f" the disk syncs {syncs:.0f} times a second",
                flush=True,
            )
        write_rows(folder / "rows.jsonl", options.battles)
        home = folder / "home"
        rows = str(folder / "rows.jsonl")
        steps: tuple[tuple[str, float, Callable[[], Cost]], ...] = (
            ("import", 60, lambda: arena("import", rows, "--format", "lmsys", "--home", str(home))),
            ("export", 60, lambda: arena("export", "--home", str(home))),
            ("leaderboard", 60, lambda: arena("leaderboard", "--json", "--home", str(home))),
            ("refresh after a vote", 0.2, lambda: refresh_after_a_vote(home)),
        )
        for step, limit_s, work in steps:
            cost = work()
            found[step] = {"limit_s": limit_s, **asdict(cost)}
            print(
                f"{limit_s / cost.seconds:7.2f}  {step}: {cost.seconds:.3f} s by the clock,"
                f" {cost.cpu_s:.3f} s of the processor, peak {cost.peak_mb:.0f} MB",
                flush=True,
            )
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
