"""How long ratings with intervals take, from the same table of strings, beside other programs.

    python benchmarks/arena/ratings.py --votes 1000000 --models 100 --peers /path/to/python

`--peers` is the Python of an environment with `evalica` and `arena-rank`; without it only
this program is timed. Each program runs in a process of its own, one after the other, some
rounds over: `cold` is its first fit after the import, `warm` the better of two more. Seconds
are of the processor, all threads together, so that a busy machine changes them little; medians
over the rounds. Linear algebra has one thread (OMP_NUM_THREADS=1, for all programs): idle
threads of a pool spin, which counts as time of the processor and makes nothing faster.

`from the store` reads a SQLite file with the same votes and their 5,000 voters, from the copy of
the pairs that the first reader left (`first reading` is that reader); it gives intervals clustered
by voter. Prints a table, how many times faster this program is first; writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

TABLE = """
import numpy as np
draw = np.random.default_rng(0)
theta = draw.normal(scale=0.5, size={models})
left = draw.integers({models}, size={votes})
right = (left + draw.integers(1, {models}, size={votes})) % {models}
wins = draw.random({votes}) < 1 / (1 + np.exp(theta[right] - theta[left]))
tied = draw.random({votes}) < 0.15
names = np.array([f"model-{{i:03}}" for i in range({models})], dtype=object)
words = np.array(["model_b", "model_a", "tie"], dtype=object)
model_a, model_b = names[left].tolist(), names[right].tolist()
winner = words[np.where(tied, 2, wins.astype(int))].tolist()
"""

FILL = """
import sys
from pathlib import Path
sys.path.insert(0, "benchmarks/arena")
from made_store import fill
fill(Path({path!r}), names.tolist(), left.tolist(), right.tolist(), winner)
"""

TIMER = """
import json, time
def timed():
    started, by_clock = time.process_time(), time.perf_counter()
    found = work()
    return time.process_time() - started, time.perf_counter() - by_clock, found
cold, clock, found = timed()
warm = min(timed()[0] for _ in range(2))
print(json.dumps({"cold_s": cold, "cold_by_the_clock_s": clock, "warm_s": warm, **found}))
"""

FROM_STORE = """
from pathlib import Path
from arena.storage.pair_cache import PairCache
from arena.ratings import rate
from arena.storage.store import Store
from arena.storage.rating_input import read_rating_input
store = Store(Path({path!r}))
def work():
    best = rate(read_rating_input(PairCache(store)).table).ratings[0]
    return {{"best": best.rating, "interval": best.upper - best.lower}}
"""

PROGRAMS = {
    "instruct-arena": """
import numpy as np
from arena.ratings import rate
from arena.ratings.vote_table import table_from_columns
def work():
    board = rate(table_from_columns(model_a, model_b, winner))
    best = board.ratings[0]
    return {"best": best.rating, "interval": best.upper - best.lower}
""",
    "instruct-arena, bootstrap x100 after the fit": """
from arena.ratings.bradley_terry import FitConfig, fit
from arena.ratings.resampling import bootstrap
from arena.ratings.vote_table import table_from_columns, to_cells
table = table_from_columns(model_a, model_b, winner)
cells, config = to_cells(table), FitConfig()
result = fit(cells, config)
def work():
    rounds = bootstrap(cells, table, config, result, num_rounds=100, clustered=False)
    return {"spread": float(rounds.std(axis=0).mean())}
""",
    "evalica (no interval)": """
import evalica
known = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
def work():
    found = evalica.bradley_terry(model_a, model_b, [known[w] for w in winner], limit=1000)
    return {"best": float(found.scores.max())}
""",
    "arena-rank": """
import pandas as pd
from arena_rank.models.bradley_terry import BradleyTerry
from arena_rank.utils.data_utils import PairDataset
frame = pd.DataFrame({"model_a": model_a, "model_b": model_b, "winner": winner})
def work():
    data = PairDataset.from_pandas(frame)
    model = BradleyTerry(n_competitors=len(data.competitors))
    found = model.compute_ratings_and_cis(data, significance_level=0.05)
    return {"best": float(max(found["ratings"]))}
""",
}


def run(python: str, code: str) -> dict[str, float] | str:
    """Seconds of one program, or the last line of its error."""
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return found


def scripts(options: argparse.Namespace, folder: Path) -> dict[str, tuple[str, str]]:
    """Python and code of every program; the first reading of the store comes before the others."""
    table = TABLE.format(votes=options.votes, models=options.models)
    path = str(folder / "votes.db")
    filled = run(sys.executable, table + FILL.format(path=path))
    assert not isinstance(filled, str), filled
    from_store = FROM_STORE.format(path=path) + TIMER
    found = {
        "from the store, first reading": (sys.executable, from_store),
        "from the store": (sys.executable, from_store),
    }
    for name, program in PROGRAMS.items():
        python = sys.executable if name.startswith("instruct-arena") else options.peers
        if python:
            found[name] = (python, table + program + TIMER)
    return found


def medians(rounds: list[dict[str, float] | str]) -> dict[str, float] | str:
    """The median of each number over the rounds, or the first error."""
    for found in rounds:
        if isinstance(found, str):
            return found
    numbers = [found for found in rounds if isinstance(found, dict)]
    return {key: statistics.median(found[key] for found in numbers) for key in numbers[0]}


def main() -> None:
    """Time every program there is and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", help="Python with evalica and arena-rank")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "ratings.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = scripts(options, Path(folder))
        rounds: dict[str, list[dict[str, float] | str]] = {name: [] for name in programs}
        for number in range(options.rounds):
            for name, (python, code) in programs.items():
                if number == 0 or name != "from the store, first reading":
                    rounds[name].append(run(python, code))
    found = {name: medians(told) for name, told in rounds.items()}
    ours = found["instruct-arena"]
    assert isinstance(ours, dict), ours
    print(f"{'cold ratio':>10} {'warm ratio':>10} {'cold s':>8} {'warm s':>8}  program")
    for name, told in found.items():
        if isinstance(told, str):
            print(f"{name}: {told}")
            continue
        cold, warm = told["cold_s"], told["warm_s"]
        ratios = f"{cold / ours['cold_s']:10.2f} {warm / ours['warm_s']:10.2f}"
        print(f"{ratios} {cold:8.3f} {warm:8.3f}  {name}")
    told_all = {"votes": options.votes, "models": options.models, "programs": found}
    options.out.write_text(json.dumps(told_all, indent=2) + "\n")


if __name__ == "__main__":
    main()
