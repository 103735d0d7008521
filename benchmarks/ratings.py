"""How long ratings with intervals take, from the same table of strings, beside other programs.

    python benchmarks/ratings.py --votes 1000000 --models 100 --peers /path/to/python

`--peers` is the Python of an environment with `evalica` and `arena-rank`; without it only
this program is timed. Each program is timed in a process of its own: `cold` is its first
fit after the import, `warm` the best of three more. Prints a table, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

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

TIMER = """
import json, time
def timed():
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found
cold, found = timed()
warm = min(timed()[0] for _ in range(3))
print(json.dumps({"cold_s": cold, "warm_s": warm, **found}))
"""

PROGRAMS = {
    "instruct-arena": """
import numpy as np
from arena.ratings import rate
from arena.votetable import table_from_columns
def work():
    board = rate(table_from_columns(model_a, model_b, winner))
    best = board.ratings[0]
    return {"best": best.rating, "interval": best.upper - best.lower}
""",
    "instruct-arena, bootstrap x100 after the fit": """
from arena.bradley_terry import FitConfig, fit
from arena.resampling import bootstrap
from arena.votetable import table_from_columns, to_cells
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


def run(python: str, name: str, votes: int, models: int) -> dict[str, float] | str:
    """Seconds of one program, or the last line of its error."""
    code = TABLE.format(votes=votes, models=models) + PROGRAMS[name] + TIMER
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Time every program there is and print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--peers", help="Python with evalica and arena-rank")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "ratings.json")
    options = parser.parse_args()
    found = {}
    for name in PROGRAMS:
        is_ours = name.startswith("instruct-arena")
        python = sys.executable if is_ours else options.peers
        if python:
            found[name] = run(python, name, options.votes, options.models)
            print(f"{name:<46} {found[name]}", flush=True)
    told = {"votes": options.votes, "models": options.models, "seconds": found}
    options.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
