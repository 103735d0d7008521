"""What happens when somebody opens the page, or marks differences, as changes of elements.

Answers are asked for and judged elsewhere (see `answers`, `judging`). Knows the battle service and
the page's elements; every right is checked in the service, by the store.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import gradio as gr

from arena.backends.pool import has_others
from arena.battles.service import BattleService
from arena.battles.view import BattleAccess
from arena.errors import ArenaError
from arena.i18n import Words, error_text, negotiate, words
from arena.page.html.frame import account_html
from arena.page.html.panes import servers_text
from arena.page.layout import mode_choices
from arena.page.render import Changes, Renderer, merged
from arena.values.battle import SIDES, Mode
from arena.web.visitors import Visitor, visitor_of


class BattleActions:
    """What opens the page of one battle service."""

    def __init__(self, service: BattleService, renderer: Renderer) -> None:
        self.service = service
        self.renderer = renderer
        self.page = renderer.page

    async def on_load(self, request: gr.Request) -> Changes:
        """Restore the battle of the page's link, or say what can be asked.

        From now on the page can be used: what waited for this can be pressed.
        """
        say = say_for(request)
        query = request.query_params
        visitor = visitor_by(request)
        texts = self.renderer.texts(say)
        texts |= {
            self.page.account: account_html(visitor.name, say),
            self.page.tab_admin: gr.update(visible=visitor.is_admin, label=say("page.tab_admin")),
            self.page.tab_tune: gr.update(visible=visitor.is_admin, label=say("page.tab_tune")),
            self.page.export: gr.update(value=say("export.button"), visible=visitor.may_export),
        }
        texts = merged(texts, self.renderer.ready())
        if not query.get("battle"):
            examples, preset = await self._open_examples(), self._preset(query, say)
            return merged(texts, examples, await welcome(self.service, self.renderer, say), preset)
        try:
            access = await self._access(request, urlencode(dict(query)))
            view = await self.service.view(access)
        except ArenaError as error:
            told = self.renderer.status(error_text(error, say), say, "bad")
            return merged(texts, self.renderer.blank(), told)
        if view.battle.mode is Mode.NAMED:
            names = [person.name for person in view.battle.participants]
            texts = merged(texts, self._named(names, say))
        shown = await self.renderer.view(view, say)
        return merged(texts, shown, self.renderer.link(access))

    async def _open_examples(self) -> Changes:
        """Show the examples that the starter's family cannot answer where another is there."""
        is_open = has_others(await self.service.pool.targets())
        return {button: gr.update(visible=is_open) for button in self.page.open_examples}

    def _named(self, names: list[str], say: Words) -> Changes:
        """Who is compared by name, as of a link or of the battle that it opens."""
        page = self.page
        return {
            page.models: gr.update(
                value=names[: len(SIDES)], label=say("mode.models"), info=say("mode.models_info")
            ),
            page.mode: gr.update(value="named", label=say("mode.label"), choices=mode_choices(say)),
        }

    def _preset(self, query: Any, say: Words) -> Changes:
        """What a link asks for: `prompt`, `models` (by name, commas between) or `set`."""
        page = self.page
        prompt = str(query.get("prompt") or "")[: self.service.limits.prompt_chars]
        value = {"value": prompt} if prompt else {}  # what is being typed already stays
        changes: Changes = {
            page.prompt: gr.update(
                label=say("prompt.label"), placeholder=say("prompt.placeholder"), **value
            )
        }
        names = [name for name in str(query.get("models") or "")[:1000].split(",") if name]
        if query.get("set"):
            changes[page.sets] = gr.update(value=str(query["set"])[:100], label=say("set.label"))
            changes[page.mode] = gr.update(
                value="set", label=say("mode.label"), choices=mode_choices(say)
            )
        elif names:
            changes |= self._named(names, say)
        return changes

    async def on_view(self, marked: bool, link: str, request: gr.Request) -> Changes:
        """Show the answers again, with or without marked differences."""
        if not link:
            return {}
        view = await self.service.view(await self._access(request, link))
        return await self.renderer.panes(view, say_for(request), marked=marked)

    async def _access(self, request: gr.Request, link: str) -> BattleAccess:
        return BattleAccess.by_link(await self.service.voter(secret_of(request)), link)


async def welcome(service: BattleService, renderer: Renderer, say: Words) -> Changes:
    """Who can be asked, or what is wrong with the store."""
    if (fault := service.health.fault) is not None:
        return renderer.status(error_text(fault, say), say, "bad")
    text, tone = servers_text(await service.pool.backends(), say)
    return renderer.status(text, say, tone)


def secret_of(request: gr.Request) -> str:
    """What tells one voter from another; a program without a cookie is its session."""
    visitor = visitor_by(request)
    own = None if visitor.is_fresh else visitor.secret
    return own or f"session:{request.session_hash}"


def visitor_by(request: gr.Request) -> Visitor:
    """Who acts, as the middleware found out when the act was asked for."""
    return visitor_of(request.request.scope if request.request else {})


def say_for(request: gr.Request) -> Words:
    """The words of the browser's language."""
    return words(negotiate(request.headers.get("accept-language")))
