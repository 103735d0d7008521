"""Who a request comes from, as the authenticator found out; every right is derived from this.

Knows no HTTP and no user file. A visitor travels in the request's ASGI scope, so that the page,
the API and Gradio's queue see the same one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arena.values.refusals import RefusedError

KEY = "arena.visitor"


class NotAllowedError(RefusedError):
    """The visitor's role does not allow the act."""

    status = 403
    code = "admins_only"


@dataclass(frozen=True)
class Visitor:
    """`secret` tells voters apart, and only its hash is stored.

    `is_fresh`: the secret was made for this request, which came with none; the reply may hand it
    out. `address`: where the request comes from; for limits only, stored nowhere. `name` is empty
    where nobody signs in. `is_open`: the page runs without a user file.
    """

    secret: str | None = None
    name: str = ""
    is_admin: bool = False
    is_open: bool = True
    is_fresh: bool = False
    address: str = ""

    @property
    def may_export(self) -> bool:
        """Admins alone: a dataset holds what everybody wrote."""
        return self.is_admin

    def check_admin(self) -> None:
        """NotAllowedError unless the visitor is an admin."""
        if not self.is_admin:
            raise NotAllowedError("this is for admins only; sign in as one")

    def check_export(self) -> None:
        """NotAllowedError unless the visitor may write a dataset."""
        if not self.may_export:
            raise NotAllowedError(
                "only admins make datasets; sign in as one, or open the link of 'arena users link'"
            )


def visitor_of(scope: Mapping[str, Any]) -> Visitor:
    """The visitor of a request's scope; a stranger where nobody was asked."""
    found = scope.get(KEY)
    return found if isinstance(found, Visitor) else Visitor()


def caller_secret(scope: Mapping[str, Any]) -> str:
    """What tells one caller of the API from another: who signed in, or the cookie.

    A program that keeps no cookies is told by the secret of the battle that it asks about, and is
    somebody else in each: callers of one address have nothing in common.
    """
    visitor = visitor_of(scope)
    headers = dict(scope.get("headers", ()))
    if token := headers.get(b"x-battle-token", b"") if visitor.is_fresh else b"":
        return f"token:{hashlib.sha256(token).hexdigest()}"
    return visitor.secret or f"caller:{secrets.token_urlsafe(24)}"
