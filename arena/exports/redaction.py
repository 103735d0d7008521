"""Replaces e-mail addresses, telephone numbers and secret keys in texts; finds no names."""

from __future__ import annotations

import re
from collections import Counter

from arena.storage.selection import JudgedPair, SideView

PATTERNS = {
    "key": re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
        r"|\b(?:sk|pk|rk)-(?:[A-Za-z0-9]+-)?[A-Za-z0-9_-]{20,}"
        r"|\bhf_[A-Za-z0-9]{20,}"
        r"|\bgh[pousr]_[A-Za-z0-9]{30,}"
        r"|\bgithub_pat_[A-Za-z0-9_]{40,}"
        r"|\bxox[abprs]-[A-Za-z0-9-]{10,}"
        r"|\bAKIA[0-9A-Z]{16}\b"
        r"|\bAIza[0-9A-Za-z_-]{35}"
        r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        re.S,
    ),
    "email": re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
    # International (+49 30 123456) or grouped North American (555-123-4567) numbers only:
    # a bare run of digits is more often a fact than a telephone.
    "phone": re.compile(
        r"(?<![\w+])\+\d{1,3}(?:[ ().-]{0,2}\d){7,12}(?!\w)"
        r"|(?<![\w.+-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
    ),
}


def redact(text: str, found: Counter[str]) -> str:
    """The text with each find replaced by its kind in brackets; finds are counted."""
    for kind, pattern in PATTERNS.items():
        text, count = pattern.subn(f"[{kind}]", text)
        if count:
            found[kind] += count
    return text


def redact_pair(pair: JudgedPair, found: Counter[str]) -> JudgedPair:
    """The pair with every text of people and models redacted."""
    left = _redact_side(pair.left, found)
    if pair.is_diverged:
        right = _redact_side(pair.right, found)
    else:  # one context, counted once
        right = pair.right._replace(text=redact(pair.right.text, found), context=left.context)
    return pair._replace(
        comment=redact(pair.comment, found),
        edited_answer=redact(pair.edited_answer, found),
        left=left,
        right=right,
    )


def _redact_side(view: SideView, found: Counter[str]) -> SideView:
    context = [{**m, "content": redact(m["content"], found)} for m in view.context]
    return view._replace(text=redact(view.text, found), context=context)
