"""Where answers end: one set of tokens, learned in training, saved, and stopped at by all."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import AddedToken
from tuning_fixtures import WORDS, make_gemma_tokenizer, make_model, make_tokenizer, write_rows

from serving.config import ServeConfig
from serving.http.server import ServerThread
from tuning import TuningConfig, tune
from tuning.commands.preview import show_preview
from tuning.config import DataOptions, TrainingOptions
from tuning.data.rendering import TemplateError
from tuning.data.template import ensure_template, render_training, turn_ends
from tuning.evaluation.evaluate import answer_items
from tuning.evaluation.suites import load_suite
from tuning.models.loading import load_variant
from tuning.training.inputs import prepare
from tuning.variant import VariantError, stop_ids

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
TURN = "{% for m in messages %}{{ m.role + ':' }}{{ m.content }}%END{% endfor %}" + (
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def three_lines() -> list[dict[str, Any]]:
    """Questions that are answered in three lines."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"Say {word} in three lines"},
                {"role": "assistant", "content": f"{word}\n{word}\n{word}"},
            ]
        }
        for word in WORDS[:4]
    ]


def make_gemma_base(folder: Path) -> Path:
    """A tiny checkpoint whose tokenizer is like Gemma 3's, and whose config names its ends."""
    tokenizer = make_gemma_tokenizer()
    model = make_model("llama", len(tokenizer))
    ends = tokenizer.convert_tokens_to_ids(["<eos>", "<end_of_turn>"])
    model.config.eos_token_id = model.generation_config.eos_token_id = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_for(home: Path, method: str) -> TuningConfig:
    """Enough steps to learn the four answers by heart."""
    training = TrainingOptions(
        max_steps=120, epochs=1000, batch_size=4, learning_rate=1e-2, precision="fp32"
    )
    data = write_rows(home / "rows.jsonl", three_lines())
    return TuningConfig(
        base=str(home / "base"),
        data=(str(data),),
        name=method,
        method=method,
        home=home,
        training=training,
        data_options=DataOptions(heldout=0),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma-like base, and a full and a LoRA variant that answer in three lines."""
    home = tmp_path_factory.mktemp("lines")
    make_gemma_base(home / "base")
    tune(config_for(home, "full"))
    lora = config_for(home, "lora")
    tune(TuningConfig(**{**vars(lora), "base": "full"}))
    return home


@pytest.mark.parametrize("name", ["full", "lora"])
def test_three_lines_are_learned_and_three_are_answered(
    home: Path, tmp_path: Path, name: str
) -> None:
    loaded = load_variant(name, home)
    suite = [
        {"id": at, "prompt": row["messages"][0]["content"], "check": {"kind": "no_comma"}}
        for at, row in enumerate(three_lines())
    ]
    items = load_suite(str(write_rows(tmp_path / "suite.jsonl", suite)))
    wanted = [row["messages"][1]["content"] for row in three_lines()]
    assert answer_items(loaded, items, 40) == wanted


def test_serving_stops_where_tuning_does(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    models = home / "models"
    config = ServeConfig(
        base=models / "full",
        base_name="full",
        models=(("lora", models / "lora"),),
        port=0,
        device="cpu",
    )
    with ServerThread(config) as server:
        client = InferenceClient(server.url, headers={"authorization": None}, timeout=30)
        for name in ("full", "lora"):
            for row in three_lines():
                question, answer = row["messages"]
                reply = client.chat_completion(
                    [question], max_tokens=40, temperature=0, extra_body={"adapter_id": name}
                )
                assert reply.choices[0].message.content == answer["content"]
                assert reply.choices[0].finish_reason in ("stop", "eos_token")
        for model in server.registry:
            assert model.eos_ids == set(load_variant(model.name, home).stop_ids)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_end_of_turn_is_saved_and_is_no_line_feed(home: Path, name: str) -> None:
    folder = home / "models" / name
    saved = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    loaded = load_variant(name, home)
    assert loaded.tokenizer.eos_token == "<end_of_turn>"
    assert loaded.tokenizer.convert_ids_to_tokens(saved) == ["<eos>", "<end_of_turn>"]
    assert list(loaded.stop_ids) == saved


def test_the_preview_shows_where_answers_end(home: Path) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    show_preview(prepare(config_for(home, "lora")), 1, console)
    shown = console.export_text()
    assert "an answer ends with '<end_of_turn>' (id 4)" in shown
    assert "also stops at '<eos>' (id 1)" in shown
    assert "⟦red\nred\nred<end_of_turn>⟧" in shown


def with_added(*texts: str, special: bool) -> Any:
    """The plain tokenizer with added tokens."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=special) for text in texts])
    return tokenizer


@pytest.mark.parametrize(
    "tail", ["</s>\n", "</s>", "</s>\n\n", "\n</s>", "\n</s><s>", "</s>\n</s>"]
)
def test_the_first_special_token_behind_the_answer_ends_it(tail: str) -> None:
    tokenizer = with_added("\n", "\n\n", special=False)
    tokenizer.chat_template = TURN.replace("%END", tail)
    ensure_template(tokenizer, "here")
    assert tokenizer.eos_token == "</s>"


def test_the_token_that_ends_the_conversation_is_not_the_end_of_a_turn() -> None:
    """As with Phi 3, whose template writes one token behind turns and another at the very end."""
    tokenizer = with_added("<|end|>", special=True)
    tokenizer.chat_template = TURN.replace("%END", "<|end|>\n") + (
        "{% if not add_generation_prompt %}{{ '</s>' }}{% endif %}"
    )
    ensure_template(tokenizer, "here")
    assert tokenizer.eos_token == "<|end|>"
    ask, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    for span in render_training(tokenizer, [[ask, answer, ask, answer]])[0]:
        for start, stop in span.trained:
            assert tokenizer.decode(span.ids[start:stop]) == "b<|end|>"


def test_an_end_that_the_tokenizer_does_not_call_special_becomes_special() -> None:
    tokenizer = with_added("<|im_end|>", "\n", special=False)
    tokenizer.chat_template = TURN.replace("%END", "\n<|im_end|>\n")
    ensure_template(tokenizer, "here")
    assert tokenizer.eos_token == "<|im_end|>"
    ids = tokenizer("red\n<|im_end|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "red\n"


@pytest.mark.parametrize("tail", ["\n", "\n\n", ""])
def test_a_turn_that_ends_with_white_space_alone_is_refused(tail: str) -> None:
    tokenizer = with_added("\n", "\n\n", special=False)
    tokenizer.chat_template = TURN.replace("%END", tail)
    with pytest.raises(TemplateError, match="ends with no special token"):
        ensure_template(tokenizer, "here")


def test_ids_of_the_base_that_are_ordinary_text_are_no_ends() -> None:
    tokenizer = with_added("\n", special=False)
    ordinary = [tokenizer.convert_tokens_to_ids("\n"), 200, 10**6]
    assert turn_ends(tokenizer, [0, *ordinary]) == (0, 1)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_the_rule_reads_what_transformers_reads(tmp_path: Path) -> None:
    """generation_config.json before config.json, an adapter before its base, lists and numbers."""
    tokenizer = make_tokenizer()
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    assert stop_ids(tokenizer, adapter, base) == (1,)
    write(base / "config.json", {"text_config": {"eos_token_id": [7, 5]}})
    assert stop_ids(tokenizer, adapter, base) == (1, 5, 7)
    write(base / "config.json", {"eos_token_id": 9, "text_config": {"eos_token_id": 5}})
    assert stop_ids(tokenizer, adapter, base) == (1, 9)
    write(base / "generation_config.json", {"temperature": 1})
    assert stop_ids(tokenizer, adapter, base) == (1, 9)
    write(base / "generation_config.json", {"eos_token_id": [3, -1]})
    assert stop_ids(tokenizer, adapter, base) == (1, 3)
    write(adapter / "generation_config.json", {"eos_token_id": [4]})
    assert stop_ids(tokenizer, adapter, base) == (1, 4)


@given(
    value=st.one_of(st.text(), st.floats(), st.booleans(), st.dictionaries(st.text(), st.none()))
)
def test_what_is_no_id_is_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    write(folder / "generation_config.json", {"eos_token_id": value})
    with pytest.raises(VariantError, match=r"generation_config\.json: eos_token_id .* no token id"):
        stop_ids(make_tokenizer(), folder)
