"""What a loop's report says to a person, as blocks of a page. Knows the report's value alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tuning.loop.document import Heading, PageBlock, PagePicture, PageTable, Paragraph
from tuning.loop.models import START
from tuning.loop.plots import PICTURES, WORDS, LoopReport
from tuning.loop.verdict import FORGETTING
from tuning.loop.votes import SHARES, TRUE
from tuning.preference.report_text import share


def blocks_of(report: LoopReport, pictures: Mapping[str, Path]) -> list[PageBlock]:
    """The whole page; `pictures` are the drawn ones by name."""

    def picture(name: str) -> Iterator[PageBlock]:
        if name in pictures:
            yield PagePicture(pictures[name], PICTURES[name][1])

    return [
        *_head(report),
        *_verdicts(report),
        *picture("accuracy"),
        *_votes(report),
        *_reward_model(report),
        *picture("kinds"),
        *_curve(report),
        *picture("curve"),
        *_best_of(report),
        *_policies(report),
        *picture("families"),
        *_over_optimisation(report),
        *picture("over_optimisation"),
        *_examples(report),
        *_steps(report),
    ]


def _head(report: LoopReport) -> Iterator[PageBlock]:
    yield Heading(f"Loop {report['name']}: {report['verdict']}", 1)
    yield Paragraph(
        f"From {report['base']} by {report['votes']['num_votes']['trained']:,} votes in "
        f"{report['seconds'] / 60:.1f} minutes. Intervals are of 95 %."
    )


def _verdicts(report: LoopReport) -> Iterator[PageBlock]:
    for policy in report["policies"]:
        found = policy["verdict"]
        yield Paragraph(f"**{policy['objective']}: {found['verdict']}.** {_sentence(found['why'])}")
    if report["policies"]:
        yield Paragraph(f"The rule. {report['policies'][0]['verdict']['rule']}")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _votes(report: LoopReport) -> Iterator[PageBlock]:
    votes, checks = report["votes"], report["verifiers"]
    yield Heading("Votes")
    ledger = votes["ledger"]
    left = ", ".join(f"{count:,} {why}" for why, count in ledger["left_out"].items()) or "nothing"
    yield Paragraph(
        f"{votes['num_votes']['trained']:,} votes on {votes['num_prompts']['trained']:,} prompts "
        f"are learned from ({votes['num_pairs']['trained']:,} for one side); "
        f"{votes['num_votes']['heldout']:,} votes on {votes['num_prompts']['heldout']:,} other "
        f"prompts are held out. {votes['num_voters']:,} voters are told apart. Left out: {left}; "
        f"bad rows: {ledger['rows']['bad']:,}."
    )
    if checks["suite"] is None:
        yield Paragraph(
            f"**Nothing verifies answers here** ({checks['why_none']}): what is followed, "
            "best of n and over-optimisation are left out, and answers are told by length, "
            "distance and what the reward model thinks of them."
        )
    else:
        yield Paragraph(
            f"Answers are verified by the suite {checks['suite']}: {checks['num_prompts']:,} "
            f"prompts, without {checks['left_out_as_trained']:,} that votes learned from are about."
        )


def _reward_model(report: LoopReport) -> Iterator[PageBlock]:
    if not report["agreement"]:
        return
    yield Heading("Reward model")
    found = report["agreement"]
    names = [name for name in (TRUE, *SHARES, "shuffled", "inverted") if name in found]
    yield PageTable(
        ("learned from", "held-out votes", "checks in place of votes"),
        [
            (_learned_from(name), share(found[name]["votes"]), share(found[name]["without_noise"]))
            for name in names
        ],
    )
    own = (report["reward_model"] or {}).get("report")
    if own is not None:
        yield from _beside(own)
    yield from _groups(found.get(TRUE, {}))


def _learned_from(name: str) -> str:
    return f"{SHARES[name]:.0%} of the votes" if name in SHARES else WORDS[name]


def _beside(own: LoopReport) -> Iterator[PageBlock]:
    """The baselines and the ceiling of the reward model's own report."""
    ceiling = own["ceiling"]
    if ceiling["ceiling"] is not None:
        yield Paragraph(
            f"Repeated votes agree in {ceiling['rate']:.1%}, so a judge without fault would agree "
            f"with {ceiling['ceiling']:.1%} of single votes."
        )
    yield PageTable(
        ("beside it", "held-out votes", "pairs of one and the same model", "the reward model is"),
        [
            (one["about"], share(one["agreement"]), share(one["same_model"]), one["reward_is"])
            for one in own["baselines"].values()
        ],
    )
    yield Paragraph(
        f"On pairs of one and the same model: {share(own['same_model'])}. Its own report, with "
        f"calibration and length, is reward_report.md in its folder, {own['name']}."
    )


def _groups(found: LoopReport) -> Iterator[PageBlock]:
    for key, head in (("kinds", "what is wrong with the worse answer"), ("voters", "voter")):
        groups = found.get(key, {})
        if len(groups) < (1 if key == "kinds" else 2):
            continue
        yield PageTable((head, "agreement"), [(name, share(one)) for name, one in groups.items()])
        if key == "kinds":
            yield from _not_learned(groups)


def _not_learned(groups: LoopReport) -> Iterator[PageBlock]:
    chance = [name for name, one in groups.items() if one["lower"] <= 0.5 <= one["upper"]]
    against = [name for name, one in groups.items() if one["upper"] < 0.5]
    if chance:
        yield Paragraph(f"**Not learned** (the interval holds 50 %): {', '.join(chance)}.")
    if against:
        yield Paragraph(f"**Learned the wrong way round**: {', '.join(against)}.")


def _curve(report: LoopReport) -> Iterator[PageBlock]:
    curve = report["curve"]["votes"]
    if curve["next"] is None:
        return
    yield Heading("What more votes would bring")
    after = curve["next"]
    yield Paragraph(
        f"A doubling of the votes brought {curve['per_doubling'] * 100:+.1f} points of agreement "
        f"with held-out votes; {after['num_votes']:,} votes would bring about "
        f"{after['agreement']:.1%}, if the line goes on. Each point is one reward model: a "
        "difference within the intervals may be chance."
    )


def _best_of(report: LoopReport) -> Iterator[PageBlock]:
    found = {which: one for which, one in report["best_of"].items() if one["curve"]}
    if not found:
        return
    yield Heading("Best of n")
    first = next(iter(found.values()))
    yield Paragraph(
        f"The reward model picks among answers of the start to {first['num_prompts']:,} prompts; "
        "the gain is over one answer, with the interval over prompts."
    )
    sizes = [point["n"] for point in first["curve"]]
    rows = [
        (WORDS[which], str(n), f"{point['gold']:.1%}", _gain(one["gain"].get(str(n))),
         f"{point['most']:.1%}", f"{point['reward']:.2f}", f"{point['length']:.1f}")
        for which, one in found.items()
        for n, point in zip(sizes, one["curve"], strict=True)
    ]  # fmt: skip
    yield PageTable(("learned from", "n", "followed", "gain", "any of n", "reward", "tokens"), rows)


def _gain(found: LoopReport | None) -> str:
    if found is None:
        return ""
    return (
        f"{found['gain'] * 100:+.1f} ({found['lower'] * 100:+.1f} to {found['upper'] * 100:+.1f})"
    )


def _policies(report: LoopReport) -> Iterator[PageBlock]:
    for policy in report["policies"]:
        if not policy["measured"]:
            continue
        yield Heading(f"Policy: {policy['objective']}")
        yield PageTable(
            ("", "followed", "gained / lost", "p (exact McNemar)", "tokens", "distance, nats",
             "perplexity", "change", "reward"),
            [_policy_row(policy, which, found) for which, found in policy["measured"].items()],
        )  # fmt: skip
        for remark in (policy["made"] or {}).get("remarks", ()):
            yield Paragraph(_sentence(remark.rstrip(".")))
        yield from _families(policy)


def _policy_row(policy: LoopReport, which: str, found: LoopReport) -> tuple[str, ...]:
    change = policy["compared"].get(which)
    far = found.get("distance")
    rise = found.get("forgetting")
    return (
        WORDS[which],
        f"{found['accuracy']:.1%} ({found['lower']:.1%} to {found['upper']:.1%})"
        if "accuracy" in found
        else "not verified",
        "" if change is None else f"{change['gained']} / {change['lost']}",
        "" if change is None else f"{change['p']:.2g}",
        f"{found['mean_tokens']:.1f}",
        "" if not far or far["kl"] is None else f"{far['kl']:.2f}",
        f"{found['perplexity']:.2f}" if "perplexity" in found else "",
        "" if rise is None else f"{rise:+.1%}{' !' if rise > FORGETTING else ''}",
        "" if found.get("reward") is None else f"{found['reward']:.2f}",
    )


def _families(policy: LoopReport) -> Iterator[PageBlock]:
    families = policy["families"]
    if not families:
        return
    yield PageTable(
        ("family", "prompts", "before", "after", "gained / lost", "p"),
        [
            (name, str(one["num_prompts"]), f"{one['before']:.0%}", f"{one['after']:.0%}",
             f"{one['gained']} / {one['lost']}", f"{one['p']:.2g}")
            for name, one in families.items()
        ],
    )  # fmt: skip
    yield Paragraph(f"Of {len(families)} families one in twenty has p < 0.05 by chance alone.")


def _over_optimisation(report: LoopReport) -> Iterator[PageBlock]:
    points = report["over_optimisation"]
    if len(points) < 2:
        return
    yield Heading("Reward against checks")
    yield PageTable(
        ("", "distance, nats", "reward", "followed"),
        [
            (point["what"], f"{point['kl']:.2f}",
             "" if point["reward"] is None else f"{point['reward']:.2f}",
             f"{point['verified']:.1%}")
            for point in points
        ],
    )  # fmt: skip
    best = report["best_of"].get(TRUE)
    if best is not None and best["curve"]:
        yield Paragraph(_after_peak(best))


def _after_peak(best: LoopReport) -> str:
    """Whether the checks fall where the reward still rises."""
    last, change = best["curve"][-1]["n"], best["after_peak"]
    if change is None:
        return f"No over-optimisation is seen: the checks say most at best of {last}."
    fall = f"from best of {best['peak']} to best of {last} by {_gain(change)} points"
    if change["upper"] < 0:
        return f"**Over-optimised**: the reward rises to the end, while the checks fall {fall}."
    return f"The checks fall {fall}, which may be chance, while the reward rises."


def _examples(report: LoopReport) -> Iterator[PageBlock]:
    for policy in report["policies"]:
        if not policy["examples"]:
            continue
        yield Heading(f"Answers that changed: {policy['objective']}")
        yield PageTable(
            ("", "prompt", "before", "after"),
            [
                (one["kind"], one["prompt"], one["before"] or "", one["after"] or "")
                for one in policy["examples"]
            ],
            numbers=4,
        )


def _steps(report: LoopReport) -> Iterator[PageBlock]:
    yield Heading("Steps")
    yield PageTable(
        ("step", "what it does", "seconds", "of one core"),
        [
            (one["step"], one["about"], f"{one['seconds']:.0f}", f"{one['cpu_seconds']:.0f}")
            for one in report["steps"]
        ],
        numbers=2,
    )
    if report["left_out"]:
        yield PageTable(("left out", "because"), list(report["left_out"].items()), numbers=2)
    yield Paragraph(
        f"{START} is {report['base']} (weights {report['base_weights_sha256'][:12]}). Written "
        f"{report['written']}; all numbers are in report.json."
    )
