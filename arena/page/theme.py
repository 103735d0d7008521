"""The look of the page: Gradio's theme variables and our own style sheet; no font is fetched."""

from __future__ import annotations

import html
import json
from pathlib import Path

import gradio as gr

from arena.i18n import TRADITIONAL, TRADITIONAL_REGIONS, languages, words
from arena.page.html.markdown import code_css

STATIC = Path(__file__).parent / "static"
STYLES = ("arena.css", "tune.css")
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Calm neutral colours; the two sides carry the only strong ones (see `arena.css`)."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=list(SANS),
        font_mono=list(MONO),
    ).set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0e1116",
        body_text_color="#1b2430",
        body_text_color_dark="#e6eaf0",
        body_text_color_subdued="#566172",
        body_text_color_subdued_dark="#a3adbb",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#161b22",
        background_fill_secondary="#f6f7f9",
        background_fill_secondary_dark="#0e1116",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161b22",
        block_border_color="#dfe3e9",
        block_border_color_dark="#2b323d",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_text_color="#566172",
        block_label_text_color_dark="#a3adbb",
        block_title_text_color="#3a4454",
        block_title_text_color_dark="#c4ccd8",
        input_background_fill="#ffffff",
        input_background_fill_dark="#0e1116",
        input_border_width="1px",
        input_border_color="#cfd6df",
        input_border_color_dark="#39424f",
        button_border_width="1px",
        input_placeholder_color="#667085",
        input_placeholder_color_dark="#98a2b3",
        button_primary_background_fill="#3538cd",
        button_primary_background_fill_hover="#2d31a6",
        button_primary_background_fill_dark="#5b5ff0",
        button_primary_background_fill_hover_dark="#6e72f5",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#eef1f5",
        button_secondary_background_fill_dark="#1c222b",
        button_secondary_background_fill_hover_dark="#262d38",
        button_secondary_border_color="#cfd6df",
        button_secondary_border_color_dark="#39424f",
        button_secondary_text_color="#1b2430",
        button_secondary_text_color_dark="#e6eaf0",
    )


def css() -> str:
    """Our style sheet and the colours of code."""
    own = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in STYLES)
    return own + "\n" + code_css()


def _unheard() -> str:
    """What a page says that has no answer yet, by language: it cannot ask for its reader's."""
    texts = {language.lower(): words(language)("status.unheard") for language in languages()}
    for region in TRADITIONAL_REGIONS:
        texts[f"zh-{region}"] = texts[TRADITIONAL.lower()]
    return json.dumps(texts, ensure_ascii=False)


def head(root_path: str, prompt_chars: int) -> str:
    """Our scripts with what they need to know, and what a search engine should know of the page.

    Args:
        root_path: the path that the page lies under.
        prompt_chars: the longest prompt.
    """
    tune = ("wire", "chart", "watch", "loop", "votes", "rows")
    scripts = ("live.js", "arena.js", "texts.js", *(f"tune_{one}.js" for one in tune), "tune.js")
    script = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in scripts)
    return (
        '<meta name="robots" content="noindex">'
        '<meta name="referrer" content="no-referrer">'
        f'<meta name="arena-root-path" content="{html.escape(root_path)}">'
        f'<meta name="arena-prompt-limit" content="{prompt_chars}">'
        f'<meta name="arena-unheard" content="{html.escape(_unheard())}">'
        f"<style>{css()}</style><script>{script}</script>"
    )
