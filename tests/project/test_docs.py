"""The pages say what the program does: commands, options, make targets and links exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cli_reference
import engine_page
import pytest
import settings_table

from tuning.commands.settings import setting_notes
from tuning.config_files import setting_keys

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SHELL = {"console", "sh", "bash", "shell"}
TREE = dict(cli_reference.commands())


@dataclass(frozen=True)
class Line:
    """One command line of a page, its continuation lines joined."""

    page: str
    text: str

    def calls(self, program: str) -> Iterator[list[str]]:
        """The words after `program`, for each call of it in this line."""
        for part in re.split(r"&&|\|\||;|\|", self.text):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words and Path(words[0]).name == program:
                yield words[1:]


def shell_lines(page: Path) -> Iterator[Line]:
    """The commands in fenced shell blocks; in a `console` block those after a `$`."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language not in SHELL:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            prompt, _, rest = line.partition("$ ")
            if language == "console" and not prompt and rest:
                yield Line(page.name, rest)
            elif language != "console" and line.strip():
                yield Line(page.name, line)


LINES = [line for page in PAGES if page.is_file() for line in shell_lines(page)]


def mistakes(words: list[str]) -> list[str]:
    """What `arena <words>` gets wrong: an unknown command or an unknown option."""
    path: tuple[str, ...] = ()
    rest = list(words)
    while rest and (*path, rest[0]) in TREE:
        path = (*path, rest.pop(0))
    command = TREE[path]
    if getattr(command, "commands", None) and rest and rest[0] != "--help":
        return [f"no command 'arena {' '.join((*path, rest[0]))}'"]
    known = cli_reference.options(command)
    given = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
    given = {word for word in given if not re.fullmatch(r"-\d+(\.\d+)?", word)}
    return [f"'arena {' '.join(path)}' has no {option}" for option in sorted(given - known)]


def test_a_wrong_line_is_seen() -> None:
    """The check itself, both ways."""
    assert mistakes(["models"]) == []
    assert mistakes(["nonsense"]) == ["no command 'arena nonsense'"]
    assert mistakes(["up", "--home", "x", "--port=1"]) == []
    assert mistakes(["up", "--hom", "x"]) == ["'arena up' has no --hom"]


def test_every_call_of_arena_is_possible() -> None:
    found = [(line, words) for line in LINES for words in line.calls("arena")]
    assert len(found) >= 5, "the pages show the commands"
    wrong = [f"{line.page}: {problem}" for line, words in found for problem in mistakes(words)]
    assert not wrong


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for line in LINES
        for words in line.calls("make")
        for word in words
        if "=" not in word and not word.startswith("-")
    }
    assert {"arena", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor and linked.suffix == ".md":
                assert anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The names that headings of a page get: lower case, dashes for spaces, no other signs."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ +(.+?)\s*$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=str)
def test_files_and_names_that_the_page_leads_to_exist(page: Path) -> None:
    """Each `….py`, and each `CamelCase` name in the code; a path may leave out its package."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    folders = ("arena", "serving", "tuning", "tests", "tools", "benchmarks")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    paths = [f"/{path.relative_to(ROOT)}" for path in files]
    named = set(re.findall(r"`(?:python )?([\w/]+\.py)\b", text))
    assert not [one for one in named if not any(path.endswith(f"/{one}") for path in paths)]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    classes = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)\b[^`]*`", text))
    assert not [one for one in classes if not re.search(rf"\b{one}\b", code)]


@pytest.mark.slow
def test_cli_page_is_what_the_program_says() -> None:
    assert cli_reference.PAGE.read_text(encoding="utf-8") == cli_reference.render(), (
        "docs/cli.md is old: run `make docs`"
    )


@pytest.mark.parametrize("name", settings_table.render())
def test_tables_of_settings_and_checks_are_what_the_code_says(name: str) -> None:
    assert settings_table.shown(name) == settings_table.render()[name], (
        "docs/tuning.md is old: run `make docs`"
    )


def test_page_of_engines_shows_what_was_found() -> None:
    found = json.loads(engine_page.FOUND.read_text(encoding="utf-8"))
    assert engine_page.PAGE.read_text(encoding="utf-8") == engine_page.shown(found)


def test_the_table_of_settings_is_whole() -> None:
    """Every key of the config, the starter's among them, with a default and a meaning."""
    found = {note.key: (note.default, note.meaning) for note in setting_notes()}
    assert set(found) == set(setting_keys())
    assert all(default and meaning for default, meaning in found.values())
    assert found["lora.rank"] == ("16", "Size of the low-rank matrices.")
    assert found["data_options.heldout"][0] == "0.02"
    assert found["training.packing"][0] == "false"
    assert "| `lora` | `epochs` 6, `max_minutes` 1.7," in settings_table.shown("starter settings")


def test_every_command_and_option_has_a_help_text() -> None:
    for words, command in TREE.items():
        assert command.help or command.short_help, f"arena {' '.join(words)}"
        for parameter in command.params:
            if getattr(parameter, "opts", [""])[0].startswith("-"):
                assert parameter.help, f"arena {' '.join(words)} {parameter.opts[0]}"


def test_readme_shows_every_step_of_the_loop() -> None:
    shown = {
        words[0] for line in LINES if line.page == "README.md" for words in line.calls("arena")
    }
    assert {"up", "tune", "eval", "export"} <= shown
