"""Answers as HTML: whatever a model writes, only our own few tags come out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from arena.page.html.markdown import answer_html, code_css, plain_html

TEXT = {"p", "br", "em", "strong", "s", "code", "pre", "ul", "ol", "li", "blockquote", "a", "span"}
MATH = {"math", "mrow", "mi"}  # of the formula below; tests/arena/test_formulas.py has the rest
SAFE_TAGS = TEXT | MATH | {"h4", "h5", "h6", "hr", "table", "thead", "tbody", "tr", "th", "td"}
SAFE_ATTRIBUTES = {
    "href",
    "target",
    "rel",
    "class",
    "tabindex",
    "style",
    "start",
    "display",
    "alttext",
}
ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:x)",
    "<javascript:alert(1)>",
    "![x](https://evil.example/beacon.png)",
    '![x" onerror="alert(1)](https://evil.example/a)',
    '[x](https://evil.example/" onmouseover="alert(1))',
    "<div style='position:fixed;inset:0;z-index:9999'>cover</div>",
    "<form action=https://evil.example><button>Vote</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<style>body{display:none}</style>",
    "```html\n</code></pre><script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "$\\href{javascript:alert(1)}{x}$",
    "[a]: javascript:alert(1)\n\n[a]",
    "# <script>alert(1)</script>",
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
    "<x onclick=alert(1)>custom</x>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]


class Reader(HTMLParser):
    """Notes every tag and attribute of a piece of HTML, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")


@pytest.mark.parametrize("text", ATTACKS)
@pytest.mark.parametrize("final", [True, False])
def test_attack_comes_out_as_text(text: str, final: bool) -> None:
    reader = Reader()
    reader.feed(answer_html(text, final=final))
    assert reader.tags <= SAFE_TAGS
    assert set(reader.attributes) <= SAFE_ATTRIBUTES
    for address in reader.attributes.get("href", set()):
        assert address.startswith(("http://", "https://", "mailto:"))
    for style in reader.attributes.get("style", set()):
        assert style.startswith("text-align:")  # of a table's columns


def test_link_opens_elsewhere_and_tells_nothing() -> None:
    found = answer_html("[site](https://example.org/a?b=1&c=2)")
    assert 'href="https://example.org/a?b=1&amp;c=2"' in found
    assert 'rel="noopener noreferrer nofollow"' in found


def test_image_is_words_and_is_not_fetched() -> None:
    found = answer_html("![a cat](https://example.org/cat.png)")
    assert "<img" not in found
    assert "a cat (https://example.org/cat.png)" in found


def test_headings_stay_below_those_of_the_page() -> None:
    found = answer_html("# One\n\n## Two\n\n###### Six")
    assert [found.count(tag) for tag in ("<h4>", "<h5>", "<h6>")] == [1, 1, 1]
    assert "<h1" not in found


def test_code_is_coloured_once_whole_and_keeps_its_indent() -> None:
    text = "```python\n\ndef f():\n\tif x:\n        return '<b>'\n```"
    coloured, plain = answer_html(text), answer_html(text, final=False)
    assert 'class="hl-k"' in coloured
    assert "hl-" not in plain
    assert "\n\tif x:\n        return" in plain
    assert "&lt;b&gt;" in coloured
    assert ".hl-k" in code_css()


def test_unknown_language_is_plain_code() -> None:
    assert answer_html("```nosuch\na < b\n```").count("&lt;") == 1


def test_single_line_breaks_are_kept() -> None:
    assert "<br" in answer_html("one\ntwo")


def test_a_persons_text_is_escaped() -> None:
    assert plain_html("<b> & \n") == "&lt;b&gt; &amp; \n"


@pytest.mark.slow
def test_long_nested_text_ends() -> None:
    assert len(answer_html("> " * 5000 + "x")) > 0
    assert len(answer_html("[" * 20_000)) > 0
    assert len(answer_html("*a " * 10_000)) > 0
