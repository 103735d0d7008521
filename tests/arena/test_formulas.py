"""LaTeX to MathML: what counts as a formula, what it becomes, and what never comes through."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

import pytest

from arena.page.html.formulas import ATTRIBUTES, ELEMENTS, formula_html
from arena.page.html.markdown import answer_html


@pytest.mark.parametrize(
    ("text", "display", "tex"),
    [
        ("so $x^2$ is", "inline", "x^2"),
        (r"so \(x^2\) is", "inline", "x^2"),
        ("$$x^2$$", "block", "x^2"),
        ("$$\nx\n+ y_1\n$$\nthen", "block", "x\n+ y_1"),
        ("\\[\nx\n\\]", "block", "x"),
        (r"- one \[ x \] there", "block", "x"),
        ("设$f(x)=x^2$，求", "inline", "f(x)=x^2"),
        ("値は$a_1$です", "inline", "a_1"),
        ("값은 $n$입니다", "inline", "n"),
        ("in $[0, 1)$ and", "inline", "[0, 1)"),
        ("in $]0, 1[$ and", "inline", "]0, 1["),
        ("so $2x + 3$ is", "inline", "2x + 3"),
    ],
)
def test_each_way_to_write_a_formula(text: str, display: str, tex: str) -> None:
    shown = answer_html(text)
    assert f'<math display="{display}" alttext="{tex}">' in shown
    assert "$" not in re.sub(r'alttext="[^"]*"', "", shown)


@pytest.mark.parametrize(
    "text",
    [
        "it costs $5 and $6 or US$ 7",
        "between $ 5 and $ 6",
        r"\$x\$",
        "`$x$`",
        "```\n$$x$$\n```",
        "$$ not closed",
        r"\( not closed",
        "$$\n\n$$",
        "cheap ($$) and ($$$) places",
        "costs $5 (10$ in Canada)",
        "from $$ to $$$",
        "it is $3.50 (was $4)",
        "between $$ and $$ you choose",
        "a $1) first 2$) second",
        "万5$和6$",
    ],
)
def test_what_is_no_formula(text: str) -> None:
    assert "<math" not in answer_html(text)


@pytest.mark.parametrize(
    "tex",
    [r"2x+3=7\\2x=4\\x=2", r"a=1 \newline b=2", r"\begin{cases}1\\2\end{cases}\\x", r"a\cr b"],
)
def test_lines_outside_of_an_environment_are_shown_as_source(tex: str) -> None:
    """The converter would drop the line's end: 2x+3=72x=4x=2."""
    for text in (f"$$\n{tex}\n$$", f"so $${tex}$$ it is", rf"or \({tex}\) so"):
        shown = answer_html(text)
        assert "<math" not in shown
        assert html.escape(tex) in shown


@pytest.mark.parametrize("tex", [r"\begin{aligned}a&=1\\b&=2\end{aligned}", r"x=\$5"])
def test_lines_within_one_and_escaped_dollars_are_drawn(tex: str) -> None:
    assert "<math" in answer_html(f"so ${tex}$ it is")


def test_a_fraction_and_a_sum_have_their_parts() -> None:
    shown = formula_html(r"\sum_{i=1}^{n} \frac{a_i}{\sqrt{2}}", is_display=True)
    root = ElementTree.fromstring(shown)
    assert root.tag == "math"
    parts = {element.tag for element in root.iter()}
    assert parts >= {"munderover", "mfrac", "msub", "msqrt"}
    fraction = root.find(".//mfrac")
    assert fraction is not None
    assert ["".join(part.itertext()) for part in fraction] == ["ai", "2"]


@pytest.mark.parametrize(
    "tex",
    [
        r"\text{<script>window.pwned = 1</script>}",
        r"\text{&lt;img src=x onerror=alert(1)&gt;}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{position:fixed;inset:0}{x}",
        r"\color{red\" onclick=\"alert(1)}{x}",
        r"\class{votes}{x} \mathcolor{url(http://192.0.2.1/)}{x}",
        r"\unicode{x3c}script\unicode{x3e}",
        '" onload="window.pwned = 1',
    ],
)
def test_nothing_but_the_listed_comes_out(tex: str) -> None:
    shown = formula_html(tex, is_display=False)
    root = ElementTree.fromstring(shown)
    for element in root.iter():
        if element.tag == "code":
            assert element.attrib == {"class": "formula-source", "dir": "ltr"}
            continue
        assert element.tag in ELEMENTS
        assert set(element.attrib) <= ATTRIBUTES | {"alttext"}


@pytest.mark.parametrize(
    "tex",
    [
        r"\frac",
        r"x_1_2",
        r"\left( x",
        r"\newcommand{\a}{\a\a}\a",
        r"\def\a{\a}\a",
        "{" * 60 + "}" * 60,
        "x" * 3000,
    ],
)
def test_what_cannot_be_read_is_shown_as_it_was_written(tex: str) -> None:
    shown = ElementTree.fromstring(formula_html(tex, is_display=False))
    assert (shown.tag, shown.text) == ("code", tex)


TABLES = {
    r"\begin{aligned}2x+3&=7\\2x&=4\\x&=2\end{aligned}": [
        ["2x+3", "=7"],
        ["2x", "=4"],
        ["x", "=2"],
    ],
    r"\begin{gathered}a\\b\end{gathered}": [["a"], ["b"]],
    r"\begin{cases}1&x>0\\0&\text{else}\end{cases}": [["1", "x>0"], ["0", "else"]],
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": [["1", "2"], ["3", "4"]],
    r"\begin{bmatrix}1\end{bmatrix}": [["1"]],
    r"\begin{vmatrix}a&b\\c&d\end{vmatrix}": [["a", "b"], ["c", "d"]],
    r"\begin{split}a&=b\\&=c\end{split}": [["a", "=b"], ["", "=c"]],
    r"\begin{array}{c|c}1&2\end{array}": [["1", "2"]],
}


@pytest.mark.parametrize("tex", TABLES)
def test_a_table_of_maths_has_its_rows_and_cells(tex: str) -> None:
    root = ElementTree.fromstring(formula_html(tex, is_display=True))
    table = root.find(".//mtable")
    assert table is not None
    assert [["".join(cell.itertext()) for cell in row] for row in table] == TABLES[tex]


@pytest.mark.parametrize("name", ["align*", "align", "gather*", "equation*"])
def test_an_environment_needs_no_delimiter(name: str) -> None:
    tex = f"\\begin{{{name}}}\na \\\\\nb\n\\end{{{name}}}"
    if name.startswith("equation"):
        tex = tex.replace("\\\\\n", "")
    for text in (tex, f"So:\n{tex}\nand", f"- one\n\n  {tex.replace(chr(10), chr(10) + '  ')}"):
        shown = answer_html(text)
        assert '<p class="formula"><math display="block"' in shown
        assert "\\begin" not in re.sub(r'alttext="[^"]*"', "", shown)


def test_a_box_is_drawn_and_what_is_not_known_is_shown_as_written() -> None:
    assert '<menclose notation="box">' in formula_html(r"\boxed{x=2}", is_display=True)
    for tex in (r"\begin{eqnarray}a&=&b\end{eqnarray}", r"2x+3&=7\\2x&=4", r"\ce{H2O}", "a & b"):
        assert ElementTree.fromstring(formula_html(tex, is_display=True)).text == tex


def test_deep_nesting_of_any_kind_ends() -> None:
    for piece, count in (
        (r"\sqrt", 390),
        ("x^", 900),
        (r"\frac", 390),
        (r"\left(", 300),
        (r"\bar ", 390),
    ):
        assert formula_html(piece * count, is_display=False)
        assert formula_html(piece * count + "x", is_display=False)
