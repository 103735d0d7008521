"""What a prompt has to be to be asked; knows no model and no battle."""

from __future__ import annotations

from arena.errors import ArenaError
from arena.values.texts import check_text


class PromptError(ArenaError):
    """The prompt cannot be asked; the message tells the writer why."""

    code = "prompt_unsendable"


def check_prompt(prompt: str, limit: int) -> str:
    """The prompt as it will be asked, of at most `limit` characters; PromptError for others."""
    if not prompt.strip():
        empty = PromptError("The prompt is empty. Write a question or an instruction first.")
        raise empty.coded("prompt_empty")
    if len(prompt) > limit:
        raise PromptError(
            f"The prompt has {len(prompt)} characters; at most {limit} are taken. Shorten it."
        ).coded("prompt_long", count=len(prompt), limit=limit)
    try:
        return check_text("prompt", prompt)
    except ArenaError as error:
        unsendable = PromptError(f"The prompt cannot be sent: {error}")
        raise unsendable.coded("prompt_unsendable", **error.values) from error
