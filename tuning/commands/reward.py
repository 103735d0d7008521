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
