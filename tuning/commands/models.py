"""What the `arena models` commands print and do: list, add, verify, merge, plot, remove, export.

Turns results into tables and JSON; the work itself is in the modules it calls.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tuning.commands.edge import told
from tuning.commands.outputs import PICTURES, check_output
from tuning.errors import TuningError
from tuning.variant.folder import VariantError, list_variants, read_variant
from tuning.variant.manifest import remove_folder


class FolderCommandError(TuningError):
    """A command on variant folders that cannot be carried out as asked."""


@told
def run_list(home: Path, *, json_out: bool) -> None:
    """`arena models list`: the packaged models and the variants under home."""
    from tuning.models.packaged import packaged_models

    rows = [_describe(folder, "packaged") for folder in packaged_models().values()]
    rows += [_describe(folder, str(home)) for folder in list_variants(home)]
    if json_out:
        print(json.dumps({"models": rows}, ensure_ascii=False))
        return
    table = Table()
    for column in ("name", "kind", "base", "weights", "where", "problem"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(str(row[key] or "") for key in row))
    Console().print(table)


def _describe(folder: Path, where: str) -> dict[str, Any]:
    try:
        variant = read_variant(folder)
    except VariantError as error:
        return {
            "name": folder.name,
            "kind": None,
            "base": None,
            "weights_sha256": None,
            "where": where,
            "problem": str(error),
        }
    return {
        "name": variant.name,
        "kind": variant.kind,
        "base": variant.base.id if variant.base else None,
        "weights_sha256": variant.weights_sha256[:12],
        "where": where,
        "problem": None,
    }


@told
def run_add(source: str, home: Path, name: str | None, *, json_out: bool) -> None:
    """`arena models add`: bring a GGUF file, a folder, an adapter or a hub id under home."""
    from tuning.models.add import add_model

    variant = add_model(source, home, name)
    row = _describe(variant.folder, str(home))
    if json_out:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(f"added {row['name']} ({row['kind']}, weights {row['weights_sha256']}) under {home}")


@told
def run_verify(names: Sequence[str], home: Path, base: str | None, *, json_out: bool) -> None:
    """`arena models verify`: hashes, keys, shapes, finite values, delta, base fingerprint.

    With `json_out` every name is checked and listed with its problem; else the first one raises.
    """
    rows: list[dict[str, Any]] = []
    for name in names:
        try:
            rows.append(_verify(name, home, base))
        except TuningError as error:
            if not json_out:
                raise
            rows.append({"name": name, "good": False, "problem": str(error)})
        if not json_out:
            row = rows[-1]
            against = f" against {row['base']}" if row["base"] else ""
            print(f"{name}: {row['kind']}, {row['files']} files and all tensors good{against}")
    if json_out:
        print(json.dumps({"models": rows}, ensure_ascii=False))
        bad = [row["name"] for row in rows if not row["good"]]
        if bad:
            raise FolderCommandError(f"{', '.join(bad)}: not good; `problem` says why")


def _verify(name: str, home: Path, base: str | None) -> dict[str, Any]:
    from tuning.models.loading import find_base
    from tuning.models.resolve import BaseError, resolve_base
    from tuning.variant.verify import verify_variant

    folder = resolve_base(name, home, what="model")
    variant = read_variant(folder)
    base_folder = None
    if variant.base is not None or base is not None:
        try:
            base_folder = find_base(variant, home, base)
        except BaseError as error:
            if base is not None:
                raise
            print(f"{name}: without its base: {error}", file=sys.stderr)
    verify_variant(folder, base_folder)
    return {
        "name": name,
        "good": True,
        "problem": None,
        "kind": variant.kind,
        "files": len(variant.files),
        "weights_sha256": variant.weights_sha256,
        "base": str(base_folder) if base_folder else None,
    }


@told
def run_remove(name: str, home: Path, *, yes: bool) -> None:
    """`arena models remove`: delete a variant under home; packaged models stay.

    `name` is that of a folder, not a path. Of a link only the link is removed.
    """
    variants = {path.name: path for path in list_variants(home)}
    folder = variants.get(name)
    if folder is None:
        known = ", ".join(variants) or "none"
        raise FolderCommandError(f"{name!r}: no variant under {home}; there are: {known}")
    if not yes:
        import typer

        typer.confirm(f"Remove {folder} for good?", abort=True)
    try:
        remove_folder(folder)
    except OSError as error:
        raise FolderCommandError(
            f"{folder}: cannot be removed ({error.strerror}); see who may write there"
        ) from error
    print(f"removed {folder}")


@told
def run_merge(name: str, home: Path, new_name: str | None, base: str | None) -> None:
    """`arena models merge`: write adapter and base as one checkpoint."""
    from tuning.models.merge import merge_variant
    from tuning.quiet import quiet_libraries

    quiet_libraries()
    merged = merge_variant(name, home, new_name or f"{name}-merged", base)
    parity = merged.run["merged"]
    print(
        f"merged {name} into {merged.folder}: logits differ by {parity['fp32']:.1e} in fp32 and "
        f"{parity['saved']:.1e} as saved ({parity['dtype']}), relative to the largest; "
        f"{parity['same_greedy_answers']} of {parity['num_prompts']} greedy answers are the same"
    )


@told
def run_plot(names: Sequence[str], home: Path, out: Path) -> None:
    """`arena models plot`: loss curves of several variants in one picture."""
    from tuning.models.resolve import resolve_base
    from tuning.variant.plots import draw_losses, read_history

    check_output(out, PICTURES)
    draw_losses({name: read_history(resolve_base(name, home, what="model")) for name in names}, out)
    print(f"drew {', '.join(names)}: {out}")


@told
def run_export(
    name: str,
    home: Path,
    target: str,
    out: str,
    *,
    file_type: str,
    adapter: bool,
    base: str | None,
    yes: bool,
    json_out: bool,
) -> None:
    """`arena models export`: a variant for llama.cpp, Ollama, the hub, or as a folder."""
    from tuning.models.export.export import TARGETS, export_variant
    from tuning.quiet import quiet_libraries

    quiet_libraries()
    if target == "hub":
        _send(name, home, out, yes=yes, json_out=json_out)
        return
    if target not in TARGETS:
        known = ", ".join([*TARGETS, "hub"])
        raise FolderCommandError(f"--to {target!r}: is unknown; known are {known}")
    done = export_variant(
        name, home, target, Path(out), file_type=file_type, adapter=adapter, base=base
    )
    if json_out:
        print(
            json.dumps({**asdict(done), "to": target, "path": str(done.path)}, ensure_ascii=False)
        )
        return
    print(f"exported {done.name}{' (merged)' if done.merged else ''}: {done.path}")
    for file in done.files:
        print(f"  {file}")
    for check in done.parity:
        print(
            f"read again by {check.reader}: logits differ by {check.logits:.1e} relative to the "
            f"largest; the same next token at {check.same_top} of {check.positions} positions"
        )
    if target == "ollama":
        print(f"next: ollama create {done.name} -f {done.path}/Modelfile")


def _send(name: str, home: Path, repo: str, *, yes: bool, json_out: bool) -> None:
    from tuning.models.export.hub import files_to_send, send
    from tuning.models.resolve import resolve_base

    variant = read_variant(resolve_base(name, home, what="model"))
    files = files_to_send(variant, repo)
    url = send(variant, repo) if yes else None
    if json_out:
        print(json.dumps({"name": name, "repo": repo, "files": files, "url": url}))
        return
    print(f"{'sent' if yes else 'would send'} to {url or repo}:")
    for file, size in files.items():
        print(f"  {file} ({size / 2**20:.1f} MiB)")
    if not yes:
        print("nothing was sent; repeat with --yes")
