"""Which licences the installed packages have; one that nobody looked at yet ends with status 1.

`python tools/licences.py` lists them. A licence is what a package's metadata says: its expression,
else its classifiers, else its text's first line. Reads no network.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions

FREE = re.compile(
    r"""(?:apache|mit|bsd|0bsd|psf|python\ software\ foundation|cnri|isc|mozilla|mpl|unlicense
        |zlib|cc0|bsl-1\.0|boost|public\ domain|hpnd|historical\ permission|the\ unlicense)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Licences under which a program may be used and passed on, changed too, by keeping a notice."""

NO_LICENCE = ("dfsg approved", "osi approved")
"""Classifiers that stand among the licences and name none."""

LOOKED_AT: Mapping[str, str] = {
    "axe-playwright-python": "MIT by its LICENSE, MPL-2.0 the axe in it; its metadata says nothing",
}
"""Packages whose metadata says too little, and what was found."""


def licences_of(package: Distribution) -> list[str]:
    """What its metadata says, each licence by itself; nothing where it says nothing."""
    told = package.metadata
    if expression := told.get("License-Expression"):
        parts = re.split(r"\s+(?:AND|OR)\s+|[()]", expression)
        return [part.strip() for part in parts if part.strip()]
    classes = [
        line.split(" :: ")[-1]
        for line in told.get_all("Classifier") or []
        if line.startswith("License")
    ]
    named = [one for one in classes if one.lower() not in NO_LICENCE]
    return named or [line for line in (told.get("License") or "").splitlines()[:1] if line.strip()]


def unknown(packages: Iterable[Distribution]) -> dict[str, list[str]]:
    """Packages with a licence that is none of FREE, or with none, by name."""
    found = {}
    for package in packages:
        name = str(package.metadata["Name"])
        licences = licences_of(package)
        is_free = licences and all(FREE.match(one) for one in licences)
        # NVIDIA's own libraries, which a CUDA build of torch brings; we pass none of them on.
        if not (is_free or name in LOOKED_AT or name.startswith(("nvidia-", "cuda-"))):
            found[name] = licences
    return found


def main() -> int:
    """List all, then those that somebody has to look at."""
    packages = sorted(distributions(), key=lambda one: str(one.metadata["Name"]).lower())
    for package in packages:
        name = str(package.metadata["Name"])
        told = LOOKED_AT.get(name) or ", ".join(licences_of(package)) or "none named"
        print(f"{name} {package.version}: {told}")
    bad = unknown(packages)
    for name, licences in bad.items():
        print(f"licences: {name} is under {licences or 'nothing'}: look at it", file=sys.stderr)
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
