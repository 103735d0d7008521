"""Templates of mixtures: what they write, and that they can neither reach out nor run for long."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.data.mixture.templates import (
    MAX_CHARACTERS,
    MissingColumnError,
    Sandbox,
    TemplateRefusedError,
    TextTemplate,
)

ROW: dict[str, Any] = {
    "text": "It was fine.",
    "label": 1,
    "choices": ["good", "bad"],
    "film title": "Up",
    "turns": [{"role": "user", "content": "Hi"}],
    "items": "things",
    "none": None,
}


def render(text: str, row: dict[str, Any] = ROW) -> str:
    """The text of a row."""
    return TextTemplate(text, Sandbox()).render(row)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" {{ text }} \n", "It was fine."),
        ("{{ choices[label] }}", "bad"),
        ("{{ turns[0].content }}", "Hi"),
        ("{{ row['film title'] }}", "Up"),
        ("{{ row.text | upper }}", "IT WAS FINE."),
        ("{% for one in choices %}\n{{ loop.index }}. {{ one }}\n{% endfor %}", "1. good\n2. bad"),
        ("{% if label == 1 %}yes{% else %}no{% endif %}", "yes"),
        ("{{ 'a' if absent is defined else 'b' }}", "b"),
        ("{{ absent | default('c') }}", "c"),
        ("{{ choices | join(', ') }}; {{ text | replace('.', '!') }}", "good, bad; It was fine!"),
        ("{{ choices | tojson }}", '["good", "bad"]'),
        ("{{ text ~ label }}{{ choices[:1] | length }}", "It was fine.11"),
        ("{# nothing #}", ""),
        ("<b>{{ '&' }}</b>", "<b>&</b>"),
    ],
)
def test_templates_write_what_they_say(text: str, expected: str) -> None:
    assert render(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.__class__ }}",
        "{{ text['__class__'] }}",
        "{{ text['upper'] }}",
        "{{ text.upper }}",
        "{{ text.format }}",
        "{{ row.items }}{{ turns.append }}",
        "{{ loop }}",
        "{{ self.__init__ }}",
        "{{ choices | first | attr('__class__') }}",
        "{{ choices | map('upper') | list }}",
        "{{ ['a', 'b'] | sort(attribute='__class__') }}",
        "{{ text() }}",
        "{{ range(9) }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ joiner() }}",
        "{{ namespace() }}",
        "{% set x = text %}{{ x }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'secret' %}",
        "{% import 'secret' as s %}",
        "{% extends 'secret' %}",
        "{% block x %}{% endblock %}",
        "{% with a = text %}{{ a }}{% endwith %}",
        "{% filter upper %}a{% endfilter %}",
        "{% for x in choices recursive %}{{ loop(choices) }}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ text | wordwrap(1) }}",
        "{{ {'a': 1} }}",
        "{{ text",
        "{% if %}",
        "{{ text | nonsense }}",
        "{{ text is nonsense }}",
        "{{ " + "(" * 5000,
        "{{ " + "[" * 3000 + "]" * 3000 + " }}",
        "{{ none.content }}",
        "{{ none + 1 }}",
        "{{ label | first }}",
        "{{ choices | sum }}",
        "{{ (turns + [{}]) | sort }}",
    ],
)
def test_templates_reach_nothing_and_never_break_out(text: str) -> None:
    """Refused when read or when rendered, by the module's own error."""
    with pytest.raises(TemplateRefusedError):
        render(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in big %}{% for b in big %}{% endfor %}{% endfor %}",
        "{% for a in big %}{{ big }}{% endfor %}",
        "{{ big | replace('a', big) }}",
        "{{ big | replace('', big) }}",
        "{{ big | list | join(big) }}",
    ],
)
def test_templates_are_bounded(text: str) -> None:
    """Each would write or turn 10^8 times and more."""
    began = time.process_time()
    with pytest.raises(TemplateRefusedError, match=r"more than 1,?0"):
        render(text, {"big": "a" * 9_999})
    assert time.process_time() - began < 10


def test_a_text_as_long_as_allowed_is_written() -> None:
    assert len(render("{{ big }}", {"big": "a" * MAX_CHARACTERS})) == MAX_CHARACTERS
    with pytest.raises(TemplateRefusedError, match="more than 1,000,000 characters"):
        render("{{ big }}{{ big }}", {"big": "a" * MAX_CHARACTERS})


def test_a_missing_column_is_named() -> None:
    with pytest.raises(
        MissingColumnError, match=r"column 'txet' is not in the row \(it has .*text"
    ):
        render("{{ txet }}")
    with pytest.raises(TemplateRefusedError, match="no attribute 'txet'"):
        render("{{ row.txet }}")


PIECES = [*"{}%|.[]()'~+-*<>", " ", "text", "choices", "for ", "in ", "if ", "else", "loop"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(), max_size=3),
)
def test_no_text_and_no_row_breaks_it(text: str, row: dict[str, Any]) -> None:
    """Either a text comes out or the one error that says why not."""
    for template in (text, "{{" + text + "}}", "{%" + text + "%}"):
        with suppress(TemplateRefusedError):
            assert isinstance(render(template, row), str)
