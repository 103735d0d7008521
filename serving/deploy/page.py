"""What a person and the page need of a deployment: README.md, and the models for arena.toml.

Participants keep their names, so that votes and ratings go on. Knows a bundle; starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from serving.deploy.bundle import Bundle, DeployedModel

PARTICIPANTS = "arena.toml"


def participants(models: Sequence[DeployedModel]) -> str:
    """The tables for `<home>/arena.toml` that keep each model's name and way of asking."""
    tables = ["# Put these tables into arena.toml in the folder that `arena ui --home` names."]
    for one in models:
        lines = ["[[participant]]"]
        # A JSON string is a TOML string, but for characters beyond the first plane written as two.
        for key, value in (("name", one.name), ("url", one.url), ("model", one.model)):
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
        if one.completes:
            lines.append('mode = "completion"')
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def readme(target: str, bundle: Bundle, left_out: Mapping[str, str]) -> str:
    """The card of the folder: the command, what is served with which weights, what is not."""
    served = "\n".join(
        f"| {_cell(one.name)} | {_cell(one.model)} | {one.url} | {one.weights_sha256[:12]} |"
        for one in bundle.models
    )
    missing = "\n".join(f"- `{name}` {why}." for name, why in left_out.items())
    return (
        f"# Models for {target}\n\n{bundle.needs} Then, in this folder:\n\n"
        f"```sh\n{bundle.command}\n```\n\n"
        "| model | name there | address | weights |\n|---|---|---|---|\n"
        f"{served}\n\n"
        "The page asks them where `arena.toml` of its home has the tables of the file of that name "
        "here. A base without a chat template is asked by completion: the engine would give it "
        "that of the variants.\n\n"
        + (f"Left out:\n\n{missing}\n" if missing else "Nothing is left out.\n")
    )


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
