"""Which answers say who wrote them: a vote on such a one is set apart, so no other may be taken."""

from __future__ import annotations

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
