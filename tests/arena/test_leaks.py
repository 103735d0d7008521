"""Which answers say who wrote them: a vote on such a one is set apart, so no other may be taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from arena.battles.leaks import names_itself

NAMES = ("starter", "starter-lora", "HuggingFaceTB/SmolLM2-135M")


@pytest.mark.parametrize(
    "text",
    [
        "I am ChatGPT.",
        "Hello! I'm Claude, how can I help?",
        "My name is Llama 3.",
        "I am a model called Qwen2.5.",
        "As a large language model trained by a company, Gemini cannot vote.",
        "Ich bin Mistral.",
        "Je suis DeepSeek-V3.",
        "Soy GPT-4.",
        "我是Qwen。",
        "I am starter.",
        "This was written by starter-lora.",
        "(smollm2-135m)",
    ],
)
def test_an_answer_that_names_its_model(text: str) -> None:
    assert names_itself(text, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am happy.",
        "I'm sorry, I do not know. I am a small model.",
        "My name is Anna and I like soy sauce.",
        "Je suis content. Ich bin froh. Soy feliz. 我是一个学生。",
        "I am in command of the falcon, in bloom on granite.",
        "A fruit is a good starter.",
        "I am a phi­losopher. I am Yiannis.",
        "Tell me about ChatGPT and Llama: both are models.",
        "Miami am Meer: gut für Lamas.",
        "The starter-loras differ.",
    ],
)
def test_an_answer_that_names_nobody(text: str) -> None:
    assert not names_itself(text, NAMES)


SERVED = ("starter", "aurora-7b", "acme/Falkon-Chat")
DOCS = Path(__file__).parents[2] / "docs" / "arena.md"


def measured(name: str) -> tuple[int, float, float]:
    """Number of labelled sentences in a file (`+` names itself), precision, recall."""
    lines = (Path(__file__).parent / "data" / name).read_text(encoding="utf-8").splitlines()
    found = [(line[0] == "+", names_itself(line[2:], SERVED)) for line in lines]
    right = sum(named and told for named, told in found)
    precision = right / sum(told for _, told in found)
    return len(lines), precision, right / sum(named for named, _ in found)


def test_the_docs_say_how_often_it_is_right() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, row in (
        ("identity_sentences.txt", "| {}, half of them naming their model | {:.2f} | {:.2f} |"),
        ("identity_sentences_fresh.txt", "| {} fresh ones | {:.2f} | {:.2f} |"),
    ):
        assert row.format(*measured(name)) in text


def test_served_names_and_makers_count_only_where_they_are_served() -> None:
    assert names_itself("I was made by acme.", SERVED)
    assert not names_itself("I was made by acme.", ("starter",))
    assert names_itself("I am aurora-7b.", SERVED)
    assert not names_itself("I am aurora.", SERVED)


@pytest.mark.parametrize("piece", ["I am a ", "我是一个", "Я ", "as a language model, ", "I, "])
def test_a_long_text_is_looked_through_in_time(piece: str) -> None:
    """Processor time, with room for a slow machine; twice as long a text takes about twice it."""
    import time

    began = time.process_time()
    names_itself(piece * (40_000 // len(piece)), SERVED)
    assert time.process_time() - began < 5
