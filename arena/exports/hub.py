"""Sends an exported folder to a dataset repository of the Hugging Face hub; knows no votes.

A repository that is new is made private: who voted and what they asked is for the owner to
publish, not for a default.
"""

from __future__ import annotations

import re
from pathlib import Path

from arena.errors import ArenaError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class PushError(ArenaError):
    """The hub cannot be written: no token, a bad name, or its own refusal."""


def check_push(repo: str) -> str:
    """The token of this machine, before any work is done for the push.

    Raises PushError without a token and for a name that is no ORG/NAME.
    """
    from huggingface_hub import get_token

    if not NAME.fullmatch(repo):
        raise PushError(f"--push {repo!r} is no name of a dataset; write ORG/NAME")
    token = get_token()
    if not token:
        raise PushError(
            f"--push {repo} needs a token of the hub; set HF_TOKEN or run 'hf auth login'"
        )
    return token


def push(folder: Path, repo: str, token: str, *, endpoint: str | None = None) -> str:
    """Upload all files of a folder in one commit; returns the page of the dataset.

    Files of an earlier push that the folder no longer has are removed in the same commit.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub = HfApi(endpoint=endpoint, token=token)
    try:
        url = hub.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Export the votes",
            delete_patterns=["data/*", "*.jsonl", "*.json", "*.csv"],
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise PushError(
            f"--push {repo}: the hub refused ({_said(error)}); {folder} is written all the same"
        ) from error
    except HTTPError as error:
        raise PushError(
            f"--push {repo}: the hub does not answer ({error}); {folder} is written all the same"
        ) from error
    return str(url)


def _said(error: Exception) -> str:
    """The first line of an answer of the hub."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
