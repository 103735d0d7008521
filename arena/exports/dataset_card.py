"""Writes the dataset card of an export from its manifest; says only what the facts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
WHY = {
    "tie": "the voter found both answers equally good",
    "both_bad": "the voter found both answers bad",
    "partial": "voted before both answers had ended, or on a stopped answer",
    "failed": "a side failed after the vote",
    "flagged": "the vote is in quarantine",
    "identity_leak": "an answer names its model",
    "diverged": "the sides were asked in different contexts",
    "named": "the voter knew the names",
    "other_model": "a model outside the filter",
    "other_date": "a date outside the filter",
    "other_tag": "no tag of the filter",
    "empty": "an answer is blank",
    "identical": "both answers are the same",
    "duplicate": "the same row was written before",
    "between": "neither first nor last of a ranking",
    "other_format": "the format has no word for this vote",
}


def write_dataset_card(
    folder: Path,
    about: str,
    manifest: dict[str, Any],
    data_files: dict[str, str],
    *,
    license_name: str,
    features: list[dict[str, str]] | None = None,
) -> None:
    """README.md with the YAML that dataset readers need and a page for people.

    `data_files`: per split what readers open, relative to the folder; empty for formats that
    only other programs read. `features`: the types of columns that a reader could not guess.
    """
    front = _front_matter(manifest, data_files, license_name)
    if features:
        front["dataset_info"] = {"config_name": "default", "features": features}
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    page = f"---\n{text}---\n\n{_page(about, manifest)}"
    (folder / "README.md").write_text(page, encoding="utf-8")


def _front_matter(
    manifest: dict[str, Any], data_files: dict[str, str], license_name: str
) -> dict[str, Any]:
    num_rows = manifest["num_rows"]
    front: dict[str, Any] = {
        "pretty_name": "Arena votes",
        "annotations_creators": ["crowdsourced"],
        "size_categories": [next((n for limit, n in SIZES if num_rows < limit), "n>1M")],
        "tags": ["preference", "human-feedback", manifest["options"]["format"]],
    }
    if data_files:
        files = [{"split": split, "path": path} for split, path in data_files.items()]
        front["configs"] = [{"config_name": "default", "data_files": files}]
    return front | ({"license": license_name} if license_name else {})


def _page(about: str, manifest: dict[str, Any]) -> str:
    splits = ", ".join(f"{split} {num_rows}" for split, num_rows in manifest["splits"].items())
    left_out = manifest["left_out"]
    rows = "".join(
        f"| {reason} | {left_out[reason]} | {WHY.get(reason, '')} |\n" for reason in left_out
    )
    table = f"| left out | judged pairs | why |\n|---|---|---|\n{rows}\n" if rows else ""
    store = manifest["store"]
    single = ", ".join(f"{reason} {n}" for reason, n in manifest["rows_left_out"].items())
    single = f"- Single rows that pairs did not make beside others: {single}.\n" if single else ""
    return (
        "# Arena votes\n\n"
        "People were shown the answers of two or more language models to the same prompt and\n"
        "said which was better.\n\n"
        f"{about}\n\n"
        f"- Rows: {manifest['num_rows']} ({splits}), from {manifest['num_judged_pairs']} judged"
        f" pairs.\n"
        f"{single}"
        f"- Turns without a vote: {store['turns_without_vote']}; with a failed answer:"
        f" {store['turns_failed']}; skipped: {store['skips']}.\n"
        f"- Written by {manifest['program']}; options, counts and hashes are in MANIFEST.json.\n"
        "- No address, session or name of a voter is part of this dataset.\n\n"
        f"{table}"
    )
