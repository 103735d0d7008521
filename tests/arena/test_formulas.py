"""LaTeX to MathML: what counts as a formula, what it becomes, and what never comes through."""

from __future__ import annotations

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
    ],
)
def test_what_is_no_formula(text: str) -> None:
    assert "<math" not in answer_html(text)


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
            assert element.attrib == {"class": "formula-source"}
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
