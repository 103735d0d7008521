"""The page to sign in on, and the ways in and out; plain HTML, as it stands before all else.

Knows the authenticator and the words of the page; knows no battle and no Gradio.
"""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from arena.i18n import Words, negotiate, words
from arena.web.authentication import ADMIN, SESSION_COOKIE, SESSION_SECONDS, Authenticator
from arena.web.guesses import Guesses
from arena.web.proxy import root_path_of

PATH = "/signin"
STYLE = (Path(__file__).parent / "static" / "signin.css").read_text(encoding="utf-8")


def signin_router(authenticator: Authenticator, guesses: Guesses) -> APIRouter:
    """`/signin`, `/signout`, and `/enter?key=…` for the admin of a page without users."""
    router = APIRouter()

    @router.get(PATH)
    async def show(request: Request) -> Response:
        if authenticator.users is None:
            return RedirectResponse(f"{root_path_of(request.scope)}/", 303)
        return HTMLResponse(page_html(_say(request)))

    @router.post(PATH)
    async def sign_in(request: Request) -> Response:
        say = _say(request)
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        if not guesses.allow(_address(request), name):
            return HTMLResponse(page_html(say, say("signin.slow"), name), 429)
        session = await run_in_threadpool(authenticator.sign_in, name, password)
        if session is None:
            return HTMLResponse(page_html(say, say("signin.wrong"), name), 401)
        guesses.was_right(_address(request), name)
        return _with_session(request, session)

    @router.get("/enter")
    async def enter(request: Request, key: str = "") -> Response:
        address = _address(request)
        session = authenticator.enter(key) if guesses.allow(address, ADMIN) else None
        if session is None:
            return HTMLResponse("There is nothing here.", 404)
        guesses.was_right(address, ADMIN)
        return _with_session(request, session)

    @router.post("/signout")
    async def sign_out(request: Request) -> Response:
        root = root_path_of(request.scope)
        reply = RedirectResponse(root + PATH, 303)
        reply.delete_cookie(SESSION_COOKIE, path=f"{root}/")
        return reply

    return router


def _with_session(request: Request, session: str) -> Response:
    home = f"{root_path_of(request.scope)}/"
    reply = RedirectResponse(home, 303)
    reply.set_cookie(
        SESSION_COOKIE,
        session,
        path=home,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return reply


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _say(request: Request) -> Words:
    return words(negotiate(request.headers.get("accept-language")))


def page_html(say: Words, problem: str = "", name: str = "") -> str:
    """The whole page with its form; `problem` is told above it."""
    told = f'<p class="bad" role="alert">{html.escape(problem)}</p>' if problem else ""
    title = html.escape(say("page.title"))
    return (
        f'<!doctype html><html lang="{say.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="robots" content="noindex"><title>{title}</title><style>{STYLE}</style></head>'
        f'<body><main><span class="mark" aria-hidden="true"><i></i><i></i></span><h1>{title}</h1>'
        f'{told}<form method="post" action="{PATH[1:]}">'
        f"<label>{html.escape(say('signin.name'))}"
        '<input name="name" autocomplete="username" required autofocus '
        f'value="{html.escape(name)}">'
        f"</label><label>{html.escape(say('signin.password'))}"
        '<input name="password" type="password" autocomplete="current-password" required></label>'
        f"<button>{html.escape(say('signin.enter'))}</button></form></main></body></html>"
    )
