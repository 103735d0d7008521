"""/v1/completions as OpenAI and vLLM have it, for those who score texts; log probabilities are held
to transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import serving_models as tiny
import torch

from serving.completion.token_bytes import TokenBytes
from serving.http.server import ServerThread

TEXT = "the river sings ünï 🙂 under"


def ids_of(text: str) -> list[int]:
    return list(tiny.make_tokenizer()(text)["input_ids"])


def post(server: ServerThread, **body: Any) -> dict[str, Any]:
    reply = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def scores(home: Path, ids: list[int], name: str = "lora") -> torch.Tensor:
    """Log probabilities [tokens - 1, vocabulary] of what follows each token."""
    model = tiny.reference_model(home / "base", home / name if name != "base" else None)
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), dim=-1)


def loglikelihoods(answer: dict[str, Any], lengths: list[int]) -> list[tuple[float, bool]]:
    """What lm-eval's `local-completions` reads of an answer (`parse_logprobs`, version 0.4.9)."""
    found = []
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    for choice, length in zip(choices, lengths, strict=True):
        chosen = choice["logprobs"]["token_logprobs"][length:-1]
        tables = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = all(
            value == max(table.values()) for value, table in zip(chosen, tables, strict=True)
        )
        found.append((sum(chosen), is_greedy))
    return found


@pytest.mark.parametrize("as_ids", [True, False])
def test_texts_are_scored_as_lm_eval_asks_for_it(
    tiny_server: ServerThread, tiny_home: Path, as_ids: bool
) -> None:
    """The wire form of its loglikelihood requests: a batch of contexts with what follows them."""
    begin = ids_of("the river")
    greedy = list(tiny.generate(tiny_home / "base", tiny_home / "lora", tuple(begin), 5))
    full = [begin + greedy, ids_of(TEXT), ids_of("the lantern sleeps, and")]
    if not as_ids:
        full = full[1:]
    lengths = [2] * len(full) if not as_ids else [len(begin), 3, 2]
    prompts: Any = full if as_ids else [TEXT, "the lantern sleeps, and"]
    answer = post(
        tiny_server, model="lora", prompt=prompts, max_tokens=1, temperature=0, logprobs=1,
        seed=1234, echo=True,
    )  # fmt: skip
    told = loglikelihoods(answer, lengths)
    for (value, is_greedy), ids, length in zip(told, full, lengths, strict=True):
        table = scores(tiny_home, ids)[length - 1 :]
        wanted = torch.tensor(ids[length:])
        want = float(table.gather(1, wanted[:, None]).sum())
        assert value == pytest.approx(want, abs=1e-3)
        assert is_greedy == bool((table.argmax(dim=-1) == wanted).all())
    if as_ids:
        assert [is_greedy for _, is_greedy in told] == [True, False, False]


def test_log_probabilities_of_prompt_and_answer(tiny_server: ServerThread, tiny_home: Path) -> None:
    ids = ids_of(TEXT)
    ask = {"model": "lora", "prompt": TEXT, "max_tokens": 4, "temperature": 0, "logprobs": 3}
    (whole,) = post(tiny_server, **ask, echo=True)["choices"]
    (answer,) = post(tiny_server, **ask)["choices"]
    assert whole["text"] == TEXT + answer["text"]
    told, alone = whole["logprobs"], answer["logprobs"]
    count = len(ids)
    assert alone["tokens"] == told["tokens"][count:]
    assert alone["token_logprobs"] == pytest.approx(told["token_logprobs"][count:], abs=1e-4)
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
    written = list(tiny.generate(tiny_home / "base", tiny_home / "lora", tuple(ids), 4))
    known = TokenBytes(tiny.make_tokenizer())
    table = scores(tiny_home, ids + written)
    for place, token in enumerate((ids + written)[1:]):
        value = told["token_logprobs"][place + 1]
        assert value == pytest.approx(float(table[place, token]), abs=1e-3)
        likely = table[place].topk(3)
        names = {known.name(int(i)) for i in likely.indices} | {known.name(token)}
        assert told["top_logprobs"][place + 1].keys() == names
        assert max(told["top_logprobs"][place + 1].values()) == pytest.approx(
            float(likely.values[0]), abs=1e-3
        )
    # Offsets: where each token begins in the text; parts of a character at its beginning.
    for name, begin in zip(told["tokens"], told["text_offset"], strict=True):
        if not name.startswith("bytes:"):
            assert whole["text"][begin : begin + len(name)] == name
    assert any(name.startswith("bytes:\\x") for name in told["tokens"])


def test_a_prompt_alone_is_told_without_an_answer(tiny_server: ServerThread) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    ask: dict[str, Any] = {"model": "lora", "prompt": TEXT, "max_tokens": 0, "logprobs": 0}
    for echo, text, count in ((True, TEXT, len(ids_of(TEXT))), (False, "", 0)):
        told = api.completions.create(**ask, echo=echo)
        (choice,) = told.choices
        assert (choice.text, choice.finish_reason) == (text, "length")
        assert choice.logprobs is not None
        assert len(choice.logprobs.tokens or ()) == count
        assert told.usage is not None
        assert told.usage.completion_tokens == 0
        assert told.usage.total_tokens == len(ids_of(TEXT))
        chunks = list(api.completions.create(**ask, echo=echo, stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
        assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_adds_up_to_the_answer(
    tiny_server: ServerThread, logprobs: int | None, echo: bool
) -> None:
    api = openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="-")
    ask: Any = {"model": "lora", "prompt": [TEXT, ids_of("a lantern")], "max_tokens": 5, "n": 2,
                "seed": 2, "logprobs": logprobs, "echo": echo}  # fmt: skip
    whole = api.completions.create(**ask)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    texts = [""] * 4
    lists: list[dict[str, list[Any]]] = [{} for _ in range(4)]
    for chunk in api.completions.create(**ask, stream=True):
        (part,) = chunk.choices
        texts[part.index] += part.text
        if part.logprobs is not None:
            for name, values in part.logprobs.model_dump().items():
                lists[part.index].setdefault(name, []).extend(values)
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        if logprobs is None:
            assert choice.logprobs is None
        else:
            assert choice.logprobs is not None
            told, want = lists[choice.index], choice.logprobs.model_dump()
            assert told["tokens"] == want["tokens"]
            assert told["text_offset"] == want["text_offset"]
            assert told["token_logprobs"] == pytest.approx(want["token_logprobs"], abs=1e-4)
    if echo:
        assert whole.choices[0].text.startswith(TEXT)
        assert whole.choices[2].text.startswith("a lantern")


def test_ids_and_their_text_are_one_prompt(tiny_server: ServerThread) -> None:
    want = post(tiny_server, prompt=TEXT, max_tokens=6, temperature=0)
    for prompt in (ids_of(TEXT), [ids_of(TEXT)], [TEXT]):
        told = post(tiny_server, prompt=prompt, max_tokens=6, temperature=0)
        assert told["choices"] == want["choices"]
        assert told["usage"] == want["usage"]
    mixed = post(tiny_server, prompt=[ids_of("a"), TEXT], max_tokens=6, temperature=0)
    assert mixed["choices"][1]["text"] == want["choices"][0]["text"]


def test_the_best_of_several_is_told(tiny_server: ServerThread) -> None:
    ask = {"prompt": [TEXT, "a"], "max_tokens": 6, "seed": 3, "logprobs": 0}
    drawn = post(tiny_server, **ask, n=4)["choices"]
    best = post(tiny_server, **ask, n=2, best_of=4)
    least = post(tiny_server, **ask, n=4, best_of=0)["choices"]  # OpenAI takes 0 too
    assert [choice["text"] for choice in least] == [choice["text"] for choice in drawn]
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]

    def mean(choice: dict[str, Any]) -> float:
        values = choice["logprobs"]["token_logprobs"]
        return sum(values) / len(values)

    for begin, group in ((0, drawn[:4]), (2, drawn[4:])):
        want = sorted(group, key=mean, reverse=True)[:2]
        told = best["choices"][begin : begin + 2]
        assert [choice["text"] for choice in told] == [choice["text"] for choice in want]
    assert best["usage"]["completion_tokens"] == sum(
        len(choice["logprobs"]["tokens"]) for choice in drawn
    )


def test_many_prompts_and_answers_as_there_is_room(tiny_server: ServerThread) -> None:
    for wish, count in (({"prompt": [[i] for i in range(2, 66)]}, 64), ({"n": 16}, 16),
                        ({"prompt": ["a", "b"], "n": 40}, 80)):  # fmt: skip
        told = post(tiny_server, **{"prompt": "a", "max_tokens": 1, "seed": 1, **wish})
        assert [choice["index"] for choice in told["choices"]] == list(range(count))
    messages = [{"role": "user", "content": "a"}]
    ask = {"model": "lora", "messages": messages, "max_tokens": 2, "n": 9, "seed": 0,
           "logprobs": True, "top_logprobs": 20}  # fmt: skip
    reply = httpx.post(f"{tiny_server.url}/v1/chat/completions", json=ask).json()
    assert len(reply["choices"]) == 9
    entry = reply["choices"][0]["logprobs"]["content"][0]
    assert len(entry["top_logprobs"]) == 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": [[]]}, "cannot be empty"),
        ({"prompt": []}, "cannot be empty"),
        ({"prompt": [2, 400]}, "token id 400, not from 0 to 399"),
        ({"prompt": [[-1]]}, "token id -1"),
        ({"prompt": [True, 3]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"logprobs": 21}, "`logprobs` must be >= 0 and <= 20. Given: 21"),
        ({"logprobs": -1}, "`logprobs` must be"),
        ({"n": 3, "best_of": 2}, "`best_of` must be >= 3"),
        ({"best_of": 200}, "`best_of` must be"),
        ({"best_of": -1}, "`best_of` must be"),
        ({"best_of": 2, "stream": True}, "`best_of` > `n` is not supported when streaming"),
        ({"prompt": ["a", "b"], "n": 65}, "`n` must be > 0 and <= 64"),
        ({"max_tokens": -1}, "strictly positive"),
        ({"prompt": [3] * 512}, "tokens"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_server: ServerThread, change: dict[str, Any], words: str
) -> None:
    reply = httpx.post(f"{tiny_server.url}/v1/completions", json={"prompt": "a", **change})
    assert reply.status_code == 422
    assert words in reply.json()["error"]


def test_the_longest_prompt_is_scored_in_pieces(tiny_server: ServerThread, tiny_home: Path) -> None:
    """Longer than one chunk of a prompt, and as long as the model takes."""
    ids = list(tiny.long_prompt(511, seed=4))
    told = post(tiny_server, model="lora", prompt=ids, max_tokens=1, logprobs=1, echo=True)
    values = told["choices"][0]["logprobs"]["token_logprobs"]
    table = scores(tiny_home, ids)
    want = table.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert values[0] is None
    assert values[1:-1] == pytest.approx(want, abs=2e-3)


def test_parts_of_characters_carry_their_own_bytes(tiny_server: ServerThread) -> None:
    """A prompt that is to be continued by the rest of a character, as OpenAI tells it."""
    messages = [{"role": "user", "content": "a"}]
    seen = {"part": 0, "whole": 0}
    for seed in range(6):
        ask = {"model": "full", "messages": messages, "max_tokens": 60, "seed": seed,
               "temperature": 1.5, "logprobs": True, "top_logprobs": 3}  # fmt: skip
        choice = httpx.post(f"{tiny_server.url}/v1/chat/completions", json=ask).json()["choices"][0]
        entries = choice["logprobs"]["content"]
        kept = [e for e in entries if e["token"] not in ("<s>", "</s>")]
        raw = b"".join(bytes(entry["bytes"]) for entry in kept)
        assert raw.decode("utf-8", "replace") == choice["message"]["content"]
        for entry in kept:
            is_text = entry["token"].encode() == bytes(entry["bytes"])
            seen["whole" if is_text else "part"] += 1
    assert min(seen.values()) > 0


@pytest.mark.parametrize("text", ["🙂", "ünï 漢字", "plain", "a🙂b"])
def test_bytes_of_tokens_add_up_to_the_text(text: str) -> None:
    tokenizer = tiny.make_tokenizer()
    known = TokenBytes(tokenizer)
    assert b"".join(known.of(token) for token in tokenizer(text)["input_ids"]) == text.encode()
    assert known.of(10**6) == b""
    assert known.of(0) == b"<s>"


def test_bytes_of_a_sentencepiece_tokenizer() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = {"<unk>": 0, "▁the": 1, "<0xF0>": 2, "<0x9F>": 3, "<0x99>": 4, "<0x82>": 5, "ü": 6}
    inner = Tokenizer(models.BPE(words, [], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    known = TokenBytes(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>"))
    assert [known.of(token) for token in range(1, 7)] == [
        b" the", b"\xf0", b"\x9f", b"\x99", b"\x82", "ü".encode(),
    ]  # fmt: skip
    assert known.name(2) == "bytes:\\xf0"
    assert known.name(1) == " the"
    assert known.written(1, "the") == b"the"


def test_counts_so_far_come_with_every_chunk_if_asked_for(tiny_server: ServerThread) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    for route, body in (
        ("completions", {"prompt": "a"}),
        ("chat/completions", {"model": "lora", "messages": [{"role": "user", "content": "a"}]}),
    ):
        ask = {**body, "max_tokens": 4, "ignore_eos": True, "stream": True,
               "stream_options": options}  # fmt: skip
        reply = httpx.post(f"{tiny_server.url}/v1/{route}", json=ask)
        lines = [x[6:] for x in reply.text.splitlines() if x.startswith("data: {")]
        chunks = [json.loads(line) for line in lines]
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["choices"]]
        assert counts == [1, 2, 3, 4]
