"""Reads the header of a GGUF file: settings and the list of its tensors, no weight.

The layout is ggml's (docs/gguf.md there, versions 2 and 3, little-endian). Lengths are held
against the file before anything is read by them, which the `gguf` library's reader does not do.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from gguf import GGMLQuantizationType

from tuning.errors import TuningError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
MOST_DIMENSIONS = 8
# Blocks carry fp16 scales, so half precision keeps more of a quantised value than bf16.
KEPT_AS = {"F32": "float32", "BF16": "bfloat16"}
BLOCKS_KEPT_AS = "float16"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class GgufError(TuningError):
    """A GGUF file that cannot be read or converted; names it and the remedy."""


@dataclass(frozen=True)
class GgufFacts:
    """What the header says. `settings` holds single values; of an array, how many there are.

    `tensors` has the number of elements and the quantisation of each tensor by its name.
    """

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, tuple[int, str]]

    @property
    def architecture(self) -> str:
        """llama.cpp's word for it."""
        return str(self.settings["general.architecture"])

    @property
    def name(self) -> str:
        """What the model is called by whoever made the file."""
        return " ".join(str(self.settings.get("general.name", self.path.stem)).split())

    @property
    def licence(self) -> str | None:
        """The licence by its short name, where the file has one."""
        found = self.settings.get("general.license")
        return " ".join(str(found).split()) if found else None

    @property
    def types(self) -> dict[str, int]:
        """How many tensors each quantisation has."""
        return dict(sorted(Counter(kind for _, kind in self.tensors.values()).items()))

    @property
    def num_parameters(self) -> int:
        """Elements of all tensors."""
        return sum(size for size, _ in self.tensors.values())

    @property
    def has_template(self) -> bool:
        """Whether it brings a chat template."""
        return bool(self.settings.get("tokenizer.chat_template"))

    def setting(self, name: str) -> Any:
        """A setting of the architecture, by its name there; None without."""
        return self.settings.get(f"{self.architecture}.{name}")

    @property
    def dtype(self) -> str:
        """Number format of the checkpoint that is made of it."""
        kinds = set(self.types) - {"F32"} or {"F32"}
        return KEPT_AS.get(next(iter(kinds)), BLOCKS_KEPT_AS) if len(kinds) == 1 else BLOCKS_KEPT_AS

    @property
    def disk_bytes(self) -> int:
        """Size of the checkpoint, near enough to see whether it fits."""
        return self.num_parameters * BYTES[self.dtype] + 2**24

    @property
    def memory_bytes(self) -> int:
        """Memory that the conversion takes: the checkpoint, and its largest tensors in fp32."""
        return 2 * self.num_parameters * BYTES[self.dtype] + 2**29

    def told(self) -> str:
        """One line for the person who waits."""
        quantised = ", ".join(f"{kind} {count}" for kind, count in self.types.items())
        return (
            f"{self.path.name}: {self.architecture}, {self.num_parameters / 1e6:,.1f}M parameters "
            f"({quantised} tensors); takes {self.disk_bytes / 2**20:,.0f} MiB of disk as "
            f"{self.dtype} and about {self.memory_bytes / 2**20:,.0f} MiB of memory meanwhile"
        )


def read_facts(path: Path) -> GgufFacts:
    """Read the header of a GGUF file; GgufError when it is none, is cut short or holds no model."""
    try:
        with path.open("rb") as stream:
            facts = _Header(stream, path).read()
    except OSError as error:
        raise GgufError(f"{path}: cannot be read ({error.strerror}); give a GGUF file") from error
    if facts.settings.get("general.type") == "adapter":
        raise GgufError(
            f"{path}: is an adapter for llama.cpp, not a model; add the adapter's own folder"
        )
    if not facts.tensors or "general.architecture" not in facts.settings:
        raise GgufError(f"{path}: holds no model (no tensors or no architecture); give another")
    return facts


class _Header:
    """A walk over the header that never reads, or counts, further than the file goes."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._size = path.stat().st_size

    def read(self) -> GgufFacts:
        magic = self._stream.read(len(MAGIC))
        if magic != MAGIC:
            raise GgufError(
                f"{self._path}: is no GGUF file (it begins with {magic!r}); download it again"
            )
        version = self._number("I")
        if version not in VERSIONS:
            raise self._broken(f"version {version} is none of {VERSIONS}")
        num_tensors, num_settings = self._count(24), self._count(13)
        settings = {}
        for _ in range(num_settings):
            name = self._text()
            settings[name] = self._value(self._number("I"))
        tensors = {}
        for _ in range(num_tensors):
            name = self._text()
            tensors[name] = self._tensor(name)
        return GgufFacts(self._path, settings, tensors)

    def _tensor(self, name: str) -> tuple[int, str]:
        num_dimensions = self._number("I")
        if num_dimensions > MOST_DIMENSIONS:
            raise self._broken(f"tensor {name[:80]} has {num_dimensions} dimensions")
        size = prod(self._number("Q") for _ in range(num_dimensions))
        kind, offset = self._number("I"), self._number("Q")
        if offset > self._size:
            raise self._broken(f"tensor {name[:80]} lies behind the end of the file")
        try:
            return size, GGMLQuantizationType(kind).name
        except ValueError:
            raise self._broken(f"tensor {name[:80]} is of unknown type {kind}") from None

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self._text()
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind != ARRAY or depth:
            raise self._broken(f"a setting is of unknown type {kind}")
        inner = self._number("I")
        if inner in SCALARS:
            size = struct.calcsize(SCALARS[inner])
            count = self._count(size)
            self._stream.seek(count * size, 1)
            return count
        count = self._count(8)
        for _ in range(count):
            self._value(inner, depth + 1)
        return count

    def _count(self, least: int) -> int:
        """How many things follow, each of `least` bytes or more: no more than there is room for."""
        count = int(self._number("Q"))
        if count * least > self._size - self._stream.tell():
            raise self._broken(f"it counts {count} where the file ends")
        return count

    def _text(self) -> str:
        return self._bytes(self._count(1)).decode("utf-8", "replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise self._broken("the file ends within it")
        return found

    def _broken(self, what: str) -> GgufError:
        return GgufError(
            f"{self._path}: its header cannot be read ({what}); download the file again"
        )
