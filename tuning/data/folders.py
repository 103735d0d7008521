"""Decides which files of a folder, or splits of a saved data set, are trained and which are not.

A README's `configs` decide where there are any, as for `datasets`; else names do, whose words say
train, validation or test. Knows names and paths; reads no rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning.errors import TuningError
from tuning.yaml_text import parse_yaml

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
# Rows that other programs read: a folder that would train them is refused.
FOREIGN = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tsv", ".arrow", ".feather", ".orc", ".xlsx")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Files that say something about a data set and are no rows of it, as `datasets` has them.
ABOUT = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"}


class DataError(TuningError):
    """A data source that cannot be used; names the source, the line where known, the remedy."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder that are read, and those that are not, each with the reason."""

    read: tuple[Path, ...]
    left: tuple[tuple[str, str], ...]


def list_folder(folder: Path, source: str) -> Listing:
    """The files of `folder` to train on; DataError where there are none or it is not clear."""
    files, left = _walk(folder, source)
    chosen = _named_by_readme(folder, source, files)
    if chosen is None:
        chosen = _named_by_words(folder, source, files)
    for item in chosen:
        if item.suffix.lower() in FOREIGN:
            raise DataError(
                f"data {source!r}: {_relative(item, folder)} holds rows in a form that is not "
                f"read; unpack or convert it to one of {', '.join(SUFFIXES)}, or give the files "
                "themselves"
            )
    taken = set(chosen)
    for item in files:
        if item not in taken:
            left.append((_relative(item, folder), _why_not(item, folder)))
    above = {place for item in chosen for place in (item, *item.parents)}
    left = [(name, why) for name, why in left if folder / name not in above]
    return Listing(tuple(chosen), tuple(sorted(left)))


def pick_split(names: Sequence[str], source: str) -> str:
    """The one split to train on, of those a data set has; DataError where it is not clear."""
    if "train" in names:
        return "train"
    splits = {name: _split_of([name]) for name in names}
    for wanted in ("train", None):
        fitting = [name for name in names if splits[name] == wanted]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise DataError(
                f"data {source!r}: has several splits to train on ({_some(fitting)}); give the "
                "files of one"
            )
    raise DataError(
        f"data {source!r}: has no split to train on, only {_some(names)}; give a file itself to "
        "train on it"
    )


def _walk(folder: Path, source: str) -> tuple[list[Path], list[tuple[str, str]]]:
    """Data files below `folder` in the order of their names, and what is left at once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"data {source!r}: cannot be read ({error}); check the folder") from error

    files: list[Path] = []
    left: list[tuple[str, str]] = []
    for place, folders, names in os.walk(folder, onerror=refuse):
        for name in [*folders, *names]:
            item = Path(place, name)
            shown = _relative(item, folder)
            if _is_hidden(name, is_folder=name in folders):
                left.append((shown, "hidden"))
            elif not _is_plain(name):
                raise DataError(
                    f"data {source!r}: the name {shown!a} is not UTF-8; rename the file"
                )
            elif name in names and (item.suffix.lower() not in SUFFIXES + FOREIGN or name in ABOUT):
                left.append((shown, "no data file"))
            elif name in folders and item.is_symlink():
                left.append((shown, "link to a folder"))
            elif name in names and not item.is_file():
                left.append((shown, "no plain file"))
            elif name in names:
                files.append(item)
        folders[:] = [name for name in folders if not _is_hidden(name, is_folder=True)]
    return sorted(files), left


def _named_by_words(folder: Path, source: str, files: Sequence[Path]) -> list[Path]:
    """Train files where there are any, else those whose names say no split."""
    if not files:
        raise DataError(
            f"data {source!r}: the folder holds no {', '.join(SUFFIXES)} files; give one that does"
        )
    splits: dict[Path, str | None] = {}
    for item in files:
        words = [item.stem, *reversed(item.relative_to(folder).parent.parts)]
        try:
            splits[item] = _split_of(words)
        except ValueError as error:
            raise DataError(
                f"data {source!r}: {_relative(item, folder)} {error}; rename it, or give the "
                "files themselves"
            ) from error
    for wanted in ("train", None):
        chosen = [item for item in files if splits[item] == wanted]
        if chosen:
            return chosen
    raise DataError(
        f"data {source!r}: the folder holds only validation and test files "
        f"({_some([_relative(item, folder) for item in files])}); give a file itself to train on it"
    )


def _split_of(names: Sequence[str]) -> str | None:
    """The split that the first name with a split word in it says; ValueError where it says two."""
    for name in names:
        words = re.split(r"[\W\d_]+", name.lower())
        said = [split for split, known in SPLIT_WORDS.items() if set(known) & set(words)]
        if len(said) > 1:
            raise ValueError(f"is named after {' and '.join(said)} at once")
        if said:
            return said[0]
    return None


def _why_not(item: Path, folder: Path) -> str:
    try:
        split = _split_of([item.stem, *reversed(item.relative_to(folder).parent.parts)])
    except ValueError:
        split = None
    return f"{split} split" if split in ("validation", "test") else "not in the train split"


def _named_by_readme(folder: Path, source: str, files: Sequence[Path]) -> list[Path] | None:
    """The train files that the README's `configs` name; None where it names none."""
    config = _default_config(_front_matter(folder / "README.md", source), source)
    if config is None or ("data_files" not in config and "data_dir" not in config):
        return None
    patterns = _train_patterns(config.get("data_files"), source)
    place = folder
    if config.get("data_dir"):
        _refuse_outside(config["data_dir"], source)
        place = folder / config["data_dir"]
        if patterns is None:
            within = [item for item in files if item.is_relative_to(place)]
            return _named_by_words(place, source, within)
    chosen: dict[Path, None] = {}
    for pattern in patterns or []:
        _refuse_outside(pattern, source)
        chosen.update(dict.fromkeys(_fitting(place, pattern, source, files)))
    if not chosen:
        names = _some([ascii(item) for item in patterns or []])
        raise DataError(
            f"data {source!r}: README.md names {names or 'nothing'} to train on, and there is no "
            "such file; mend configs.data_files, or give the files themselves"
        )
    return list(chosen)


def _refuse_outside(pattern: Any, source: str) -> None:
    if not isinstance(pattern, str) or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise DataError(
            f"data {source!r}: README.md names {pattern!a}, which is no file of the "
            "folder; mend configs, or give the files themselves"
        )


def _fitting(place: Path, pattern: str, source: str, files: Sequence[Path]) -> list[Path]:
    """The files that a pattern names: of those found by a wildcard only visible data files."""
    try:
        found = sorted(place.glob(pattern))
    except (ValueError, OSError) as error:
        raise DataError(
            f"data {source!r}: README.md names {pattern!a} ({error}); mend it"
        ) from error
    if not any(sign in pattern for sign in "*?["):
        if any(item.is_dir() for item in found):
            raise DataError(
                f"data {source!r}: README.md names {pattern!a}, which is a folder; name its files, "
                f"such as {pattern.rstrip('/')}/*, or write it as data_dir"
            )
        return [item for item in found if item.is_file()]
    visible = set(files)
    asked = _num_hidden(Path(pattern))
    return [
        item
        for item in found
        if item in visible
        or (
            0 < _num_hidden(item.relative_to(place)) <= asked
            and item.is_file()
            and item.suffix.lower() in SUFFIXES
        )
    ]


def _front_matter(readme: Path, source: str) -> Mapping[str, Any]:
    """The YAML at the head of a README; empty where there is none."""
    try:
        text = readme.read_bytes().decode("utf-8-sig") if readme.is_file() else ""
        lines = [line.rstrip() for line in text.split("\n")]
        if lines[0] != "---" or "---" not in lines[1:]:
            return {}
        content = parse_yaml("\n".join(lines[1 : lines.index("---", 1)]))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data {source!r}: the head of README.md is no YAML ({error}); mend it, or give the "
            "files themselves"
        ) from error
    return content if isinstance(content, Mapping) else {}


def _default_config(front: Mapping[str, Any], source: str) -> Mapping[str, Any] | None:
    configs = front.get("configs")
    if not isinstance(configs, list) or not configs:
        return None
    if not all(isinstance(item, Mapping) for item in configs):
        raise DataError(f"data {source!r}: configs of README.md is no list of maps; mend it")
    for fits in (
        [item for item in configs if str(item.get("default")).lower() == "true"],
        [item for item in configs if item.get("config_name") == "default"],
        configs,
    ):
        if len(fits) == 1:
            found: Mapping[str, Any] = fits[0]
            return found
    names = [str(item.get("config_name")) for item in configs]
    raise DataError(
        f"data {source!r}: README.md has several configs ({_some(names)}) and none is the "
        "default; give the files of one"
    )


def _train_patterns(data_files: Any, source: str) -> list[Any] | None:
    """Patterns of the split to train on: of a text or list all, of a map or of splits one."""
    if data_files is None:
        return None
    if isinstance(data_files, Mapping):
        data_files = [{"split": name, "path": path} for name, path in data_files.items()]
    if not isinstance(data_files, list):
        return [data_files]
    by_split: dict[str, list[Any]] = {}
    for item in data_files:
        split, path = "train", item
        if isinstance(item, Mapping):
            split, path = str(item.get("split", "train")), item.get("path")
        by_split.setdefault(split, []).extend(path if isinstance(path, list) else [path])
    return by_split[pick_split(list(by_split), source)] if by_split else []


def _relative(item: Path, folder: Path) -> str:
    return item.relative_to(folder).as_posix()


def _is_hidden(name: str, *, is_folder: bool) -> bool:
    """As `datasets` has it: what begins with a dot, and folders such as `__pycache__`."""
    return name.startswith(".") or (is_folder and name.startswith("__"))


def _num_hidden(file: Path) -> int:
    folders = sum(_is_hidden(name, is_folder=True) for name in file.parts[:-1])
    return folders + _is_hidden(file.name, is_folder=False)


def _is_plain(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
