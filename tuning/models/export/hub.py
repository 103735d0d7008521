"""Sends a variant folder to a model repository of the Hugging Face hub.

A repository that is new is made private. Knows the folder's files; its card is the folder's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from tuning.models.export.errors import ModelExportError
from tuning.variant.checkpoint import one_line
from tuning.variant.folder import VARIANT_FILE, Variant

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def files_to_send(variant: Variant, repo: str) -> dict[str, int]:
    """What would go to the repository: name and bytes of each file.

    ModelExportError for a name that is no ORG/NAME.
    """
    if not NAME.fullmatch(repo):
        raise ModelExportError(f"--out {repo!r}: is no name of a repository; write ORG/NAME")
    names = [*variant.files, VARIANT_FILE, "README.md"]
    paths = [variant.folder / name for name in names]
    return {path.name: path.stat().st_size for path in paths if path.is_file()}


def send(variant: Variant, repo: str, *, endpoint: str | None = None) -> str:
    """Upload the files in one commit; returns the page of the model. An error says why not."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    token = get_token()
    if not token:
        raise ModelExportError(
            f"--out {repo}: the hub asks for a token; set HF_TOKEN or run 'hf auth login'"
        )
    hub = HfApi(endpoint=endpoint, token=token)
    names = list(files_to_send(variant, repo))
    try:
        url = hub.create_repo(repo, repo_type="model", private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=Path(variant.folder),
            allow_patterns=names,
            commit_message=f"Add {variant.name}",
        )
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise ModelExportError(f"--out {repo}: the hub refused ({one_line(error)})") from error
    return str(url)
