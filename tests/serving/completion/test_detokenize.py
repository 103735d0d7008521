"""Streaming text out of real tokenizers: byte-level and SentencePiece style with byte fallback."""

from __future__ import annotations

from typing import Any

import pytest
import serving_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from serving.completion.detokenize import Detokenizer, StopFinder, special_ids

TEXTS = [
    "hello 🙂 world",
    "漢字かな",
    " leading",
    "ünïcödé\n\ttabs",
    "👩‍👩‍👧 family",
    "a  b   c",
    "é",
]


def sentencepiece_style() -> PreTrainedTokenizerFast:
    """A Llama-like BPE: words begin with a mark for the blank, unknown characters become bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words += ["▁", *"abcdefghijklmnopqrstuvwxyz", "▁h", "▁a", "lo"]
    vocabulary = {word: i for i, word in enumerate(words)}
    merges = [("▁", "h"), ("▁", "a"), ("l", "o")]
    inner = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


TOKENIZERS = {
    "byte level": tiny.make_tokenizer(),
    "sentencepiece": sentencepiece_style(),
    "bytes, in Python": ByT5Tokenizer(),  # A slow one, which leaves broken characters out.
}


def stream(tokenizer: Any, prompt: list[int], ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer, prompt)
    pieces = [detokenizer.push(token) for token in ids]
    return [*pieces, detokenizer.flush()]


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_add_up(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    prompt = tokenizer("hello")["input_ids"]
    ids = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
    pieces = stream(tokenizer, prompt, ids)
    assert not any("�" in piece for piece in pieces)
    whole = tokenizer.decode(prompt + ids, skip_special_tokens=True)
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    assert before + "".join(pieces) == whole
    assert text.strip() in "".join(pieces)


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(2, 300), max_size=12), name=st.sampled_from(list(TOKENIZERS)))
def test_any_tokens_add_up_to_what_decode_says(ids: list[int], name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = [token for token in ids if token < len(tokenizer)]
    prompt = tokenizer("hello")["input_ids"]
    text = "".join(stream(tokenizer, prompt, ids))
    whole = tokenizer.decode(prompt + ids, skip_special_tokens=True)
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    if "�" not in whole:
        assert before + text == whole
    elif name == "byte level":
        # A bad byte may be shown as several marks or as one; what is not broken is the same.
        # (Byte fallback takes good bytes back when a bad one follows; a stream cannot.)
        assert (before + text).replace("�", "") == whole.replace("�", "")


def test_special_tokens_are_no_text() -> None:
    tokenizer = TOKENIZERS["byte level"]
    assert special_ids(tokenizer) == {0, 1}
    ids = tokenizer("the river", add_special_tokens=False)["input_ids"]
    assert "".join(stream(tokenizer, [0], [*ids[:1], 1, *ids[1:]])) == "the river"


def test_a_character_in_pieces_comes_with_its_last_piece() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = tokenizer("🙂", add_special_tokens=False)["input_ids"][-4:]
    assert stream(tokenizer, [], ids) == ["", "", "", "🙂", ""]
    assert "".join(stream(tokenizer, [], ids[:2])) == "��"


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab.", max_size=20),
    stops=st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 5), max_size=20),
    keep=st.booleans(),
)
def test_stop_strings_are_found_wherever_pieces_break(
    text: str, stops: list[str], cuts: list[int], keep: bool
) -> None:
    finder = StopFinder(stops)
    shown, place = "", 0
    for cut in [*cuts, len(text)]:
        piece = text[place : place + cut]
        place += cut
        done = finder.push(piece)
        shown += finder.show(final=done or place >= len(text), keep_stop=keep)
        # What is shown never has to be taken back.
        assert text.startswith(shown)
        if done or place >= len(text):
            break
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    if finder.match is None:
        assert shown == text
        assert not ends
    else:
        # The match is complete no later than the piece that completes the first stop string.
        assert finder.match[1] <= min(e for e, _ in ends) or finder.match in [
            (at, end) for end, at in ends
        ]
        assert shown == text[: finder.match[1] if keep else finder.match[0]]
