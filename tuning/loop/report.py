"""The report of a loop as one JSON value: what its tasks found, put beside each other.

Knows what was found; knows neither models nor how it is written down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tuning.evaluation.statistics import wilson
from tuning.loop.models import START
from tuning.loop.settings import STEPS
from tuning.loop.verdict import UNKNOWN, compared, verdict
from tuning.loop.votes import INVERTED, SHARES, SHUFFLED, TRUE
from tuning.loop.workshop import Finding, Workshop
from tuning.preference.calibration import learning_curve
from tuning.preference.report_text import REPORT_JSON
from tuning.preference.vote_share import VoteShare

EXAMPLES = 8
NO_FINDING = ("step", "seconds", "cpu_seconds")
KINDS_OF_VOTES = (TRUE, SHUFFLED, INVERTED)


def loop_report(shop: Workshop, left_out: Mapping[str, str]) -> dict[str, Any]:
    """The report as far as the tasks are done; `left_out` says which are not, and why."""
    settings, exported = shop.settings, shop.need("export")
    policies = [_policy(shop, word) for word in settings.policies]
    reward = shop.folder.found(f"reward-{TRUE}")
    own = None if reward is None else _own_report(shop)
    return {
        "format_version": 1,
        "name": settings.name,
        "base": settings.base,
        "base_weights_sha256": shop.beginning.variant.weights_sha256,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **_took(_all_found(shop).values()),
        "settings": settings.to_json(),
        "votes": {
            key: value for key, value in exported.items() if key not in ("files", *NO_FINDING)
        },
        "verifiers": shop.verifiers.to_json(),
        "steps": _steps(shop),
        "left_out": dict(left_out),
        "reward_model": reward and _reward_model(reward, own),
        "agreement": _by_votes(shop, "agree", (*SHARES, *KINDS_OF_VOTES)),
        "curve": _curve(shop, own),
        "best_of": _by_votes(shop, "best", KINDS_OF_VOTES),
        "policies": policies,
        "over_optimisation": _over_optimisation(shop),
        **(policies[0]["verdict"] if policies else {"verdict": UNKNOWN}),
    }


def _all_found(shop: Workshop) -> dict[str, Finding]:
    states = sorted((shop.folder.path / "state").glob("*.json"))
    return {path.stem: shop.need(path.stem) for path in states}


def _steps(shop: Workshop) -> list[dict[str, Any]]:
    found = _all_found(shop)
    return [
        {
            "step": step,
            "about": about,
            "tasks_done": [name for name, one in found.items() if one["step"] == step],
            **_took(one for one in found.values() if one["step"] == step),
        }
        for step, about in STEPS.items()
    ]


def _took(found: Iterable[Finding]) -> dict[str, float]:
    """By the clock, and of processors."""
    every = list(found)
    return {
        key: round(sum(one.get(key, 0.0) for one in every), 1) for key in ("seconds", "cpu_seconds")
    }


def _own_report(shop: Workshop) -> dict[str, Any] | None:
    """What `arena tune` reported of the reward model."""
    path = shop.model(f"reward-{TRUE}") / REPORT_JSON
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _reward_model(reward: Finding, own: dict[str, Any] | None) -> dict[str, Any]:
    names = ("model", "method", "learning_rate", "steps", "stopped_early", "train_seconds",
             "weights_sha256")  # fmt: skip
    return {name: reward[name] for name in names} | {"report": own}


def _by_votes(shop: Workshop, task: str, names: Sequence[str]) -> dict[str, Any]:
    found = {name: shop.folder.found(f"{task}-{name}") for name in names}
    return {name: one for name, one in found.items() if one is not None}


def _curve(shop: Workshop, own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The learning curve, against the held-out votes and against the checks."""
    ceiling = None if own is None else own["ceiling"]["ceiling"]
    files = shop.need("export")["files"]
    heldout = shop.need("export")["num_votes"]["heldout"]
    told = {}
    for against, most in (("votes", ceiling), ("without_noise", None)):
        points = []
        for name in (*SHARES, TRUE):
            agreed = (shop.folder.found(f"agree-{name}") or {}).get(against)
            if agreed is not None:
                points.append((files[name]["num_votes"] - heldout, VoteShare(**agreed)))
        told[against] = learning_curve(points, most)
    return told


def _policy(shop: Workshop, word: str) -> dict[str, Any]:
    """One policy: what it passes beside its start and its controls, and what it cost."""
    made = shop.folder.found(f"{word}-{TRUE}")
    told: dict[str, Any] = {
        "objective": word,
        "model": made and made["model"],
        "made": made and {key: made[key] for key in ("method", "learning_rate", "steps",
                                                     "train_seconds", "remarks", "weights_sha256")},
        "measured": {},
    }  # fmt: skip
    names = {START: START, **{which: f"{word}-{which}" for which in KINDS_OF_VOTES}}
    passed: dict[str, list[bool]] = {}
    for which, name in names.items():
        found = shop.folder.found(f"answers-{name}")
        if found is None:
            continue
        rows = shop.folder.rows(f"answers-{name}")
        told["measured"][which] = _measured(shop, name, found, rows)
        if shop.verifiers.items:
            passed[which] = [bool(row["passed"]) for row in rows]
    told["compared"] = {
        which: compared(passed[START], passed[which])
        for which in KINDS_OF_VOTES
        if START in passed and which in passed
    }
    both = SHUFFLED in passed and TRUE in passed
    control = compared(passed[SHUFFLED], passed[TRUE]) if both else None
    told["against_control"] = control
    told["families"] = _families(shop, passed) if {START, TRUE} <= passed.keys() else {}
    told["examples"] = _examples(shop, word) if TRUE in told["measured"] else []
    told["verdict"] = verdict(told["compared"].get(TRUE), control, _forgetting(told, TRUE))
    for which in KINDS_OF_VOTES:
        if (rise := _forgetting(told, which)) is not None:
            told["measured"][which]["forgetting"] = rise
    return told


def _measured(
    shop: Workshop, name: str, found: Finding, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    told = {key: value for key, value in found.items() if key not in NO_FINDING}
    if shop.verifiers.items:
        count = sum(bool(row["passed"]) for row in rows)
        lower, upper = wilson(count, len(rows))
        told |= {"accuracy": count / len(rows), "lower": lower, "upper": upper}
    if (scored := shop.folder.found(f"score-{name}")) is not None:
        told["reward"] = scored["mean"]
    if (far := shop.folder.found(f"distance-{name}")) is not None:
        told["distance"] = {key: far[key] for key in ("kl", "lower", "upper", "num_prompts")}
    return told


def _forgetting(told: Mapping[str, Any], which: str) -> float | None:
    """By which share the perplexity of plain text rose over the start's."""
    before, after = (told["measured"].get(name, {}).get("perplexity") for name in (START, which))
    return None if before is None or after is None else after / before - 1


def _families(shop: Workshop, passed: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    items = shop.verifiers.items
    told = {}
    for family in sorted({item.family for item in items}):
        at = [place for place, item in enumerate(items) if item.family == family]
        told[family] = compared([passed[START][i] for i in at], [passed[TRUE][i] for i in at])
    return told


def _examples(shop: Workshop, word: str) -> list[dict[str, Any]]:
    """Answers that changed: those that came to pass, those that no longer do, and others."""
    prompts = [conversation[-1]["content"] for conversation in shop.asked().all]
    before, after = (shop.folder.rows(f"answers-{name}") for name in (START, f"{word}-{TRUE}"))
    groups: dict[str, list[dict[str, Any]]] = {"gained": [], "lost": [], "changed": []}
    for prompt, old, new in zip(prompts, before, after, strict=True):
        if old["answer"] == new["answer"]:
            continue
        same = old["passed"] == new["passed"]
        kind = "changed" if same else "gained" if new["passed"] else "lost"
        groups[kind].append(
            {"kind": kind, "prompt": prompt, "before": old["answer"], "after": new["answer"]}
        )
    verified = bool(shop.verifiers.items)
    kinds = ("gained", "lost") if verified else ("changed",)
    return [one for kind in kinds for one in _some(groups[kind], EXAMPLES)]


def _some(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spread."""
    count = min(most, len(items))
    return [items[at * len(items) // count] for at in range(count)]


def _over_optimisation(shop: Workshop) -> list[dict[str, Any]]:
    """What the reward says and what the checks say, by the distance from the start."""
    points = []
    best = shop.folder.found(f"best-{TRUE}")
    for point in (best or {}).get("curve", ()):
        points.append(
            {
                "what": f"best of {point['n']}",
                "kl": point["kl_bound"],
                "root_kl": math.sqrt(point["kl_bound"]),
                "verified": point["gold"],
                "reward": point["reward"],
            }
        )
    for word in shop.settings.policies:
        name = f"{word}-{TRUE}"
        far, scored = (shop.folder.found(f"{task}-{name}") for task in ("distance", "score"))
        if far is None or scored is None or far["kl"] is None or not shop.verifiers.items:
            continue
        rows = shop.folder.rows(f"answers-{name}")
        points.append(
            {
                "what": word,
                "kl": far["kl"],
                "root_kl": math.sqrt(max(0.0, far["kl"])),
                "verified": sum(bool(row["passed"]) for row in rows) / len(rows),
                "reward": scored["mean"],
            }
        )
    return points
