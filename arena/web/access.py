"""What stands between the network and the page: allowed paths, headers, rates, the voter's cookie.

Plain ASGI middleware; knows HTTP, nothing of battles. Whatever is not listed here is not
served, so that a route a new Gradio brings stays shut until somebody has looked at it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arena.battles.rate_limit import RateLimiter
from arena.errors import ArenaError
from arena.i18n import negotiate, words
from arena.web.authentication import Authenticator, claimed_name
from arena.web.guesses import Guesses
from arena.web.proxy import root_path_of
from arena.web.visitors import KEY, Visitor

log = logging.getLogger(__name__)

VOTER_COOKIE = "arena_voter"
COOKIE_SECONDS = 365 * 24 * 3600

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio mounts only with both
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "media-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}

OPEN_PATHS = re.compile(
    r"/(?:"
    r"|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|pwa_icon|healthz"
    r"|(?:assets|static|svelte)/[^?]*"
    r"|api/.*|live/\w+|signin|signout|enter"
    r"|gradio_api/(?:info|startup-events|app_id|queue/join|queue/data|queue/status|cancel|reset"
    r"|heartbeat/\w+|call/[\w-]+(?:/\w+)?)"
    r")"
)
GRADIO = "/gradio_api/"
COUNTED_METHODS = ("POST", "PUT", "PATCH", "DELETE")
# What a stranger may ask for where one has to sign in.
BEFORE_SIGN_IN = ("/signin", "/healthz", "/robots.txt", "/favicon.ico")
PER_ADDRESS = 10  # voters of one address who may be busy at once


class AccessMiddleware:
    """Middleware around the whole page.

    Args:
        app: what to protect.
        requests_per_minute: writing requests of one voter before 429; of one address ten times
            as many, for a cookie is had for nothing.
        allowed_origins: origins besides the page's own that may send writing requests.
        authenticator: who tells visitors apart; without one everybody is a stranger who may vote.
        guesses: counts wrong passwords.
    """

    def __init__(
        self,
        app: ASGIApp,
        requests_per_minute: int,
        allowed_origins: Sequence[str] = (),
        authenticator: Authenticator | None = None,
        guesses: Guesses | None = None,
    ) -> None:
        self.app = app
        self.limiter = RateLimiter(requests_per_minute, 60.0)
        self.address_limiter = RateLimiter(PER_ADDRESS * requests_per_minute, 60.0)
        self.guesses = guesses or Guesses()
        self.allowed_origins = frozenset(allowed_origins)
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers and the cookie added."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = _cookies(headers.get("cookie", ""))
        voter = _voter(cookies)
        fresh = None if voter else secrets.token_urlsafe(24)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            visitor, refusal = await self._visitor(scope, headers, cookies)
            visitor = replace(visitor, address=_address(scope))
            if visitor.secret is None:
                visitor = replace(visitor, secret=fresh, is_fresh=True)
            scope[KEY] = visitor
            refusal = refusal or self._too_many(scope, visitor)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    reply[name] = value
                if scope["path"] == "/signin":
                    # Without a referrer a browser hides a form's origin, which is checked here.
                    reply["referrer-policy"] = "same-origin"
                if fresh and _hands_out(scope, headers):
                    reply.append("set-cookie", _set_cookie(fresh, scope))
            await send(message)

        if refusal is not None:
            await _answer(refusal, send_guarded, scope)
        elif scope["method"] == "POST" and scope["path"].startswith(GRADIO):
            await _known_act(self.app, scope, receive, send_guarded)
        else:
            await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        if not OPEN_PATHS.fullmatch(scope["path"]):
            return 404, "guard.nothing"
        is_harmless = scope["path"] == "/signout"
        is_counted = scope["method"] in COUNTED_METHODS
        if is_counted and not is_harmless and not self._is_own_origin(headers):
            return 403, "guard.foreign"
        return None

    async def _visitor(
        self, scope: Scope, headers: Headers, cookies: dict[str, str]
    ) -> tuple[Visitor, tuple[int, str] | None]:
        """Who asks, and why they may not."""
        voter = _voter(cookies)
        if self.authenticator is None:
            return Visitor(voter), None
        claim = headers.get("authorization", "")
        who = _address(scope), claimed_name(claim)
        is_guess = self.authenticator.is_new_guess(claim)
        if is_guess and not self.guesses.allow(*who):
            return Visitor(), (429, "signin.slow")
        try:
            if claim:  # a password takes long to check
                found = await asyncio.to_thread(self.authenticator.visitor, cookies, voter, claim)
            else:
                found = self.authenticator.visitor(cookies, voter, "")
        except ArenaError as error:
            log.error("%s", error)
            return Visitor(), (503, "guard.users")
        is_named = found is not None and bool(found.name)
        if is_guess and (is_named or not self.authenticator.is_new_guess(claim)):
            self.guesses.was_right(*who)
        if found is not None or scope["path"] in BEFORE_SIGN_IN:
            return found or Visitor(is_open=False), None
        if scope["path"] == "/" and scope["method"] == "GET":
            return Visitor(), (303, "/signin")
        return Visitor(), (401, "guard.sign_in")

    def _too_many(self, scope: Scope, visitor: Visitor) -> tuple[int, str] | None:
        if scope["method"] not in COUNTED_METHODS:
            return None
        address = _address(scope)
        own = self.limiter.allow(address if visitor.is_fresh else visitor.secret or address)
        if not own or not self.address_limiter.allow(address):
            return 429, "guard.too_many"
        return None

    def _is_own_origin(self, headers: Headers) -> bool:
        """A browser says where a request comes from; programs that say nothing are let in."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        try:
            own = urlsplit(origin).netloc == headers.get("host")
        except ValueError:
            return False  # no address at all
        return own or origin in self.allowed_origins


def _hands_out(scope: Scope, headers: Headers) -> bool:
    """Whether who comes without a cookie is given one here: with the page, or with an act that
    brings no battle's secret, by which they would be told.
    """
    if scope["method"] == "GET":
        return bool(scope["path"] == "/")
    is_act = scope["method"] == "POST" and str(scope["path"]).startswith("/api/")
    return is_act and KEY in scope and "x-battle-token" not in headers


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _voter(cookies: dict[str, str]) -> str | None:
    value = cookies.get(VOTER_COOKIE, "")
    return value if re.fullmatch(r"[\w-]{16,64}", value) else None


def _set_cookie(value: str, scope: Scope) -> str:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    path = f"{root_path_of(scope)}/"
    return (
        f"{VOTER_COOKIE}={value}; Path={path}; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
        f"{secure}"
    )


async def _known_act(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Gradio fails on an act that it does not have and on values that are none: that is a 404."""
    unknown = False

    async def send_known(message: Message) -> None:
        nonlocal unknown
        if message["type"] == "http.response.start" and message["status"] == 500:
            unknown = True
        if not unknown:
            await send(message)

    try:
        await app(scope, receive, send_known)
    except Exception as error:
        if not unknown:
            raise
        log.warning("a call that Gradio cannot take: %s", type(error).__name__)
    if unknown:
        await _answer((404, "guard.no_act"), send, scope)


async def _answer(refusal: tuple[int, str], send: Send, scope: Scope) -> None:
    """A status with the key of its text, told in the language asked for; or where to go instead."""
    status, told = refusal
    text = (
        words(negotiate(Headers(scope=scope).get("accept-language")))(told) if status != 303 else ""
    )
    # Gradio's own script looks for `detail`.
    both = {"error": text, "detail": text} if scope["path"].startswith(GRADIO) else {"error": text}
    body = json.dumps(both).encode() if text else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 303:
        headers.append((b"location", (root_path_of(scope) + told).encode()))
    if status == 429:
        headers.append((b"retry-after", b"10"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
