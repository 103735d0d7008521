"""What the `arena reward` commands print."""

from __future__ import annotations

import json
from pathlib import Path

from tuning.commands.edge import told


@told
def run_score(file: str, model: str, home: Path, base: str | None, *, json_out: bool) -> None:
    """`arena reward score`: the scores of a file's rows, in their order."""
    from tuning.models.scorer import load_scorer
    from tuning.preference.scoring import read_completions
    from tuning.quiet import known_warnings_hidden, quiet_libraries

    quiet_libraries()
    rows = read_completions(file)
    with known_warnings_hidden():
        scorer = load_scorer(model, home, base)
        scores = scorer.scores(rows)
    if json_out:
        variant = scorer.variant
        content = {"model": model, "weights_sha256": variant.weights_sha256, "scores": scores}
        print(json.dumps(content, ensure_ascii=False))
        return
    for (_, completion), score in zip(rows, scores, strict=True):
        text = " ".join(completion[-1]["content"].split())
        print(f"{score:9.4f}  {text[:80]}")


@told
def run_bench(file: str, model: str, home: Path, base: str | None, *, json_out: bool) -> None:
    """`arena reward bench`: what a bench's own rules say of the scores of its answers."""
    from tuning.data.preferences.messages import assistant
    from tuning.models.scorer import load_scorer
    from tuning.preference.reward_benches import load_bench
    from tuning.quiet import known_warnings_hidden, quiet_libraries

    quiet_libraries()
    bench = load_bench(file)
    rows = [(item.prompt, (assistant(text),)) for item in bench.items for text in item.answers]
    with known_warnings_hidden():
        scores = iter(load_scorer(model, home, base).scores(rows))
    found = bench.score([[next(scores) for _ in item.answers] for item in bench.items])
    if json_out:
        print(json.dumps({"model": model, **found}, ensure_ascii=False))
        return
    if "subsets" in found:
        print(f"{model}: {found['score']:.1%} (mean of the subsets)")
        for name, share in found["subsets"].items():
            print(f"{share:8.1%}  {name}, {found['num_prompts'][name]:,} prompts")
        return
    for name, part in (("all", found), *found["domains"].items()):
        shares = ", ".join(f"{level} {part[level]:.1%}" for level in ("hard", "normal", "easy"))
        print(f"{name}: {shares}, {part['num_prompts']:,} prompts")
