"""Answers as HTML: whatever a model writes, only our own few tags come out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.page.html.differences import marked_html
from arena.page.html.formulas import ATTRIBUTES, ELEMENTS
from arena.page.html.markdown import AnswerLabels, answer_html, code_css, plain_html

TEXT = {"p", "br", "em", "strong", "s", "code", "pre", "ul", "ol", "li", "blockquote", "a", "span"}
TEXT |= {"div", "button", "details", "summary"}  # around code, tables and thoughts
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
    "dir",
    "type",
    "data-copy",
    "open",
}
CLASSES = {"code", "code-box", "copy", "table-box", "no-image", "thoughts", "plain"}
CLASSES |= {"formula", "formula-source"}
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
@pytest.mark.parametrize("around", ["{}", "<think>{}</think>{}"])
@pytest.mark.parametrize("whole", [True, False])
def test_attack_comes_out_as_text(text: str, around: str, whole: bool) -> None:
    reader = Reader()
    reader.feed(answer_html(around.format(text, text), whole=whole))
    assert reader.attributes.get("type", set()) <= {"button"}
    classes = {name for name in reader.attributes.get("class", set()) if name[:3] != "hl-"}
    assert classes <= CLASSES
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
    assert [found.count(tag) for tag in ("<h4 ", "<h5 ", "<h6 ")] == [1, 1, 1]
    assert "<h1" not in found


def test_code_is_coloured_once_whole_and_keeps_its_indent() -> None:
    text = "```python\n\ndef f():\n\tif x:\n        return '<b>'\n```"
    coloured, plain = answer_html(text), answer_html(text, whole=False)
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


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**注意：**请看", "<strong>注意：</strong>请看"),
        ("他说**“注意”**请看", "他说<strong>“注意”</strong>请看"),
        ("これは**強調（例）**です。", "これは<strong>強調（例）</strong>です。"),
        ("한국어 **강조(예)**입니다", "한국어 <strong>강조(예)</strong>입니다"),
        ("价格~~很高。~~现在低", "价格<s>很高。</s>现在低"),
        ("**a.**b", "**a.**b"),  # as CommonMark has it in other scripts
        ("**a** b *c*", "<strong>a</strong> b <em>c</em>"),
        ("snake_case_名前", "snake_case_名前"),
    ],
)
def test_emphasis_beside_signs_of_east_asia(text: str, html: str) -> None:
    assert answer_html(text) == f'<p dir="auto">{html}</p>\n'


@pytest.mark.parametrize("mark", ["<br>", "<br/>", "<BR />"])
def test_a_cell_has_line_breaks(mark: str) -> None:
    shown = answer_html(f"| a{mark}b | `x{mark}` |\n|---|---|\n| 1{mark}{mark}2 | &lt;br&gt; |\n")
    assert '<th dir="auto">a<br>\nb</th>' in shown
    assert '<td dir="auto">1<br>\n<br>\n2</td>' in shown
    assert f'<code dir="ltr">x{mark.replace("<", "&lt;").replace(">", "&gt;")}</code>' in shown
    assert '<td dir="auto">&lt;br&gt;</td>' in shown, "who writes its name means its name"


def test_a_line_break_outside_of_a_table_is_no_html_either() -> None:
    assert "&lt;br&gt;" in answer_html("a <br> b")


def test_a_table_has_a_box_to_scroll_in() -> None:
    shown = answer_html("| a | b |\n|---|---|\n| 1 | 2 |\n")
    assert shown.startswith('<div class="table-box" tabindex="0"><table dir="ltr">')
    assert shown.endswith("</table></div>\n")


@pytest.mark.parametrize(
    ("text", "opening"),
    [
        ("- مرحبا\n- hello", '<ul dir="rtl">\n<li dir="rtl">'),
        ("1. 12\n2. שלום", '<ol dir="rtl">\n<li dir="ltr">'),
        ("> مرحبا\n\nhello", '<blockquote dir="rtl">\n<p dir="auto">'),
        (
            "| שם | b |\n|---|---|\n| 1 | 2 |\n",
            '<div class="table-box" tabindex="0"><table dir="rtl">',
        ),
        ("# مرحبا", '<h4 dir="auto">'),
        ("```\nمرحبا\n```", '<div class="code-box">'),
    ],
)
def test_each_block_has_a_direction_of_its_own(text: str, opening: str) -> None:
    assert answer_html(text).startswith(opening)


def test_code_runs_from_left_to_right_and_can_be_copied() -> None:
    for text in ("```\nمرحبا = 1\n```", "    مرحبا = 1\n"):
        assert '<pre class="code" dir="ltr" tabindex="0"><code>مرحبا = 1\n</code>' in answer_html(
            text
        )
    assert '<code dir="ltr">x</code>' in answer_html("مرحبا `x`")
    labels = AnswerLabels("Gedanken", "<Kopieren>")
    assert "data-copy>&lt;Kopieren&gt;</button>" in answer_html("```\nx\n```", labels)
    assert "data-copy" not in answer_html("```\nx\n", labels, whole=False)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        (
            "<think>\nso *b*\n\nand </div>\n</think>\n\nYes.",
            '<details class="thoughts"><summary>Thoughts</summary><div class="plain" dir="auto">'
            "so *b*\n\nand &lt;/div&gt;</div></details>\n" + '<p dir="auto">Yes.</p>\n',
        ),
        ("<think>\n\n</think>\n\nYes.", '<p dir="auto">Yes.</p>\n'),
        (
            "<Thinking>so",
            '<details class="thoughts" open><summary>Thoughts</summary>'
            '<div class="plain" dir="auto">so</div></details>\n',
        ),
        ("I <think>so</think>", '<p dir="auto">I &lt;think&gt;so&lt;/think&gt;</p>\n'),
    ],
)
def test_thoughts_are_folded_away(text: str, html: str) -> None:
    assert answer_html(text) == html


def test_differences_are_words_that_the_other_lacks() -> None:
    shown = marked_html("one two  three\nfour ", "one six three four")
    assert shown == (
        '<div class="answer marked" dir="auto">one <mark>two</mark>  three\nfour </div>'
    )
    assert marked_html("<b> x", "x") == (
        '<div class="answer marked" dir="auto"><mark>&lt;b&gt;</mark> x</div>'
    )
    assert marked_html("", "x") == '<div class="answer marked" dir="auto"></div>'


PIECES = (
    *(
        "<think>",
        "</think>",
        "$",
        "$$",
        "\\begin{align*}",
        "\\end{align*}",
        "\\frac",
        "{",
        "}",
        "&",
    ),
    *(
        "|",
        "|---|\n",
        "<br>",
        "```",
        "`",
        "**",
        "_",
        "~~",
        "：",
        "注",
        "مرحبا",
        "x",
        "5",
        " ",
        "\t",
    ),
    *("\n", "\n\n", "- ", "1. ", "> ", "# ", "<script>", "[x](javascript:1)", "&lt;", '"', "'"),
    *("![a](http://e/x)", "<a href=x onclick=y>", "\\text{", "\\(", "\\)", "=", "🙂", "\r\n", "("),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.booleans())
def test_whatever_is_written_only_the_listed_comes_out(text: str, whole: bool) -> None:
    reader = Reader()
    reader.feed(answer_html(text, whole=whole))
    assert reader.tags <= SAFE_TAGS | ELEMENTS
    assert set(reader.attributes) <= SAFE_ATTRIBUTES | ATTRIBUTES
    assert not reader.attributes.get("href", set()) - {"http://e/x"}
