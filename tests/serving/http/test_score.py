"""Reward models on the wire: scores as transformers and PEFT give them, beside rows that write."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import peft
import pytest
import serving_models as tiny
import torch
import transformers

from arena.backends.client import Target, stream_answer
from arena.backends.http import install_http_client
from arena.backends.scoring import UNREAD, RewardServer, ToldScore, ask_scores
from arena.backends.streams import AnswerEnd
from arena.values.battle import ChatMessage, Participant, SamplingSettings
from serving.config import ServeConfig
from serving.errors import ModelLoadError
from serving.http.server import ServerThread
from serving.models.registry import Registry
from tuning.variant import Base, weights_sha256
from tuning.variant.manifest import seal_variant

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}assistant:{{ ' ' + m.content }}</s>\n"
    "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
QUESTION = "the river sings?"
ANSWERS = ["the lantern sleeps", "under the stone bridge, and so on", "ünï 漢字"]
PAD = 0  # <s>; the tokenizer's own is </s>, which ends answers


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, a LoRA variant, and two reward models: LoRA on the base, and weights of its own."""
    home = tmp_path_factory.mktemp("judges") / "models"
    tiny.save_checkpoint("llama", home / "base", template=TEMPLATE)
    seal_variant(home / "base", name="base", kind="base")
    origin = Base("base", None, weights_sha256(home / "base"))
    tiny.save_adapter("llama", home / "base", home / "lora", "lora")
    seal_variant(home / "lora", name="lora", kind="lora", base=origin)
    torch.manual_seed(3)
    model = with_head(home / "base")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=tiny.LLAMA_LINEAR)
    with tiny.peft_warnings():
        tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    with tiny.peft_warnings():
        tuned.save_pretrained(home / "judge")
    whole = with_head(home / "base")
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    whole.save_pretrained(home / "whole")
    whole.config.max_position_embeddings = 64
    whole.save_pretrained(home / "short")
    for name in ("judge", "whole", "short"):
        save_tokenizer(home / name)
        seal_variant(home / name, name=name, kind="reward", base=origin)
    return home


def with_head(base: Path) -> Any:
    """The base with a random head of one score."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, pad_token_id=PAD, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def save_tokenizer(folder: Path) -> None:
    """The tokenizer with a pad token of its own, as reward models are saved."""
    tokenizer = tiny.make_tokenizer(TEMPLATE)
    tokenizer.save_pretrained(folder)
    saved = transformers.AutoTokenizer.from_pretrained(folder)
    saved.pad_token = "<s>"
    saved.save_pretrained(folder)


def config_for(home: Path, *names: str) -> ServeConfig:
    """The base and the named models on any free port, fp32 on the CPU."""
    models = tuple((name, home / name) for name in names)
    return ServeConfig(
        base=home / "base", base_name="base", models=models, port=0, device="cpu", dtype="float32"
    )


@pytest.fixture(scope="module")
def server(judges: Path) -> Iterator[ServerThread]:
    """All of them served."""
    with ServerThread(config_for(judges, "lora", "judge", "whole", "short")) as running:
        yield running


def expected(home: Path, name: str, answers: list[str]) -> list[float]:
    """Scores by transformers and PEFT, one row at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / name)
    if name == "judge":
        with tiny.peft_warnings():
            model = peft.PeftModel.from_pretrained(with_head(home / "base"), str(home / name))
    else:
        model = with_head(home / name)
    scores = []
    for answer in answers:
        prompt = tokenizer(f"user: {QUESTION}\nassistant:", add_special_tokens=False)["input_ids"]
        said = tokenizer(f" {answer}</s>", add_special_tokens=False)["input_ids"]
        with torch.no_grad(), tiny.peft_warnings():
            logits = model.eval()(input_ids=torch.tensor([[*prompt, *said]])).logits
        scores.append(float(logits[0, 0]))
    return scores


def post(server: ServerThread, path: str, body: Any) -> httpx.Response:
    """One JSON request."""
    headers = {"content-type": "application/json"}
    return httpx.post(f"{server.url}{path}", content=json.dumps(body), headers=headers, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["judge", "whole"])
def test_scores_are_those_of_transformers_and_peft(
    name: str, server: ServerThread, judges: Path
) -> None:
    wanted = expected(judges, name, ANSWERS)
    assert max(wanted) - min(wanted) > 0.1
    by_texts = post(server, "/v1/score", {"model": name, "text_1": QUESTION, "text_2": ANSWERS})
    content = by_texts.json()
    assert [item["score"] for item in content["data"]] == pytest.approx(wanted, abs=1e-4)
    assert [item["index"] for item in content["data"]] == [0, 1, 2]
    assert content["model"] == name
    assert content["weights_sha256"] == weights_sha256(judges / name)
    assert by_texts.headers["x-weights-sha256"] == content["weights_sha256"]
    assert content["parent"] == ("base" if name == "judge" else None)
    rows = [
        {
            "prompt": [{"role": "user", "content": QUESTION}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for answer in ANSWERS
    ]
    by_rows = post(server, f"/models/{name}/score", {"rows": rows}).json()
    assert [item["score"] for item in by_rows["data"]] == pytest.approx(wanted, abs=1e-4)
    chat = post(
        server, "/pooling", {"model": name, "messages": rows[1]["prompt"] + rows[1]["completion"]}
    )
    assert chat.json()["data"][0]["data"] == pytest.approx([wanted[1]], abs=1e-4)


@pytest.mark.slow
def test_rows_are_scored_while_others_write_and_neither_changes(
    server: ServerThread, judges: Path
) -> None:
    wanted = expected(judges, "judge", ANSWERS)

    def write(number: int) -> str:
        body = {
            "inputs": f"the river {number}",
            "parameters": {"max_new_tokens": 40, "adapter_id": "lora" if number % 2 else "base"},
        }
        return str(post(server, "/generate", body).json()["generated_text"])

    def judge(_: int) -> list[float]:
        body = {"model": "judge", "text_1": QUESTION, "text_2": ANSWERS}
        return [item["score"] for item in post(server, "/score", body).json()["data"]]

    alone = [write(number) for number in range(6)]
    with ThreadPoolExecutor(12) as pool:
        written = pool.map(write, range(6))
        scored = pool.map(judge, range(6))
        assert list(written) == alone
        for scores in scored:
            assert scores == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_reranking_and_prediction_have_the_shapes_of_tei(
    server: ServerThread, judges: Path
) -> None:
    wanted = expected(judges, "judge", ANSWERS)
    order = sorted(range(3), key=lambda index: -wanted[index])
    body = {"query": QUESTION, "texts": ANSWERS, "raw_scores": True, "return_text": True}
    ranked = post(server, "/models/judge/rerank", body).json()
    assert [item["index"] for item in ranked] == order
    assert [item["text"] for item in ranked] == [ANSWERS[index] for index in order]
    pairs = {"inputs": [[QUESTION, answer] for answer in ANSWERS], "adapter_id": "judge"}
    made = post(server, "/predict", pairs).json()
    assert [item[0]["score"] for item in made] == pytest.approx(
        [1 / (1 + math.exp(-score)) for score in wanted], abs=1e-4
    )
    jina = {"model": "judge", "query": QUESTION, "documents": ANSWERS, "top_n": 1}
    best = post(server, "/v1/rerank", jina).json()["results"]
    assert [item["index"] for item in best] == order[:1]


@pytest.mark.slow
def test_a_reward_model_writes_nothing_and_others_score_nothing(server: ServerThread) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "model": "judge"}
    for path, body in (
        ("/models/judge/generate", {"inputs": "a"}),
        ("/generate_stream", {"inputs": "a", "parameters": {"adapter_id": "judge"}}),
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"model": "whole", "prompt": "a"}),
    ):
        refused = post(server, path, body)
        assert refused.status_code == 422, path
        assert "reward model" in refused.text
    texts = {"text_1": "a", "text_2": "b"}
    for name, status, said in (
        ("lora", 422, "judge, whole"),
        ("base", 422, "no reward model"),
        ("nobody", 404, "nobody"),
    ):
        refused = post(server, "/score", {**texts, "model": name})
        assert (refused.status_code, said in refused.text) == (status, True)
    kinds = {
        item["id"]: item["kind"] for item in httpx.get(f"{server.url}/v1/models").json()["data"]
    }
    assert kinds["judge"] == kinds["whole"] == "reward"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "text_1"),
        ({"text_1": ["a", "b"], "text_2": ["c"]}, "as many"),
        ({"text_1": "a", "text_2": []}, "at least one"),
        ({"text_1": "a", "text_2": ["b"] * 300}, "at most 256"),
        ({"prompt": "a"}, "go together"),
        ({"prompt": "a", "completion": "b", "rows": []}, "give"),
        ({"rows": [{"prompt": "a"}]}, "completion"),
        ({"prompt": "a", "completion": [{"role": "user", "content": "b"}]}, "assistant"),
        ({"text_1": "a", "text_2": "w " * 700}, "tokens"),
        ({"text_1": "a", "text_2": "\ud800"}, "surrogate"),
    ],
)
def test_bodies_that_say_nothing_to_score_are_refused(
    body: dict[str, Any], said: str, server: ServerThread
) -> None:
    refused = post(server, "/models/judge/score", body)
    assert refused.status_code in (400, 422)
    assert said in refused.text


def test_rows_that_cannot_be_read_leave_the_others_their_scores(server: ServerThread) -> None:
    """Asked for, and as the page asks: the others have the scores that they have alone."""
    rows = [{"prompt": QUESTION, "completion": text} for text in (ANSWERS[0], "w " * 99, "the")]
    body = {"model": "short", "rows": rows}
    assert post(server, "/score", body).status_code == 422
    told = post(server, "/score", body | {"skip_unreadable": True}).json()["data"]
    alone = post(server, "/score", body | {"rows": rows[::2]}).json()["data"]
    assert [item["index"] for item in told] == [0, 1, 2]
    assert told[1]["score"] is None
    assert "at most 64 tokens" in told[1]["error"]
    assert [told[0]["score"], told[2]["score"]] == pytest.approx(
        [item["score"] for item in alone], abs=1e-5
    )
    none = post(server, "/score", body | {"rows": rows[1:2], "skip_unreadable": True}).json()
    assert [item["score"] for item in none["data"]] == [None]

    async def ask() -> list[ToldScore]:
        install_http_client()
        asked: list[tuple[list[ChatMessage], str]] = [
            ([{"role": "user", "content": QUESTION}], row["completion"]) for row in rows
        ]
        return await ask_scores(RewardServer("short", server.url), asked)

    scores = asyncio.run(ask())
    assert scores[1] == UNREAD
    assert scores[::2] == pytest.approx([item["score"] for item in alone], abs=1e-5)


@pytest.mark.slow
def test_without_a_name_the_only_reward_model_scores(judges: Path) -> None:
    with ServerThread(config_for(judges, "judge")) as alone:
        body = {"text_1": QUESTION, "text_2": ANSWERS[0]}
        assert post(alone, "/score", body).json()["model"] == "judge"
    with pytest.raises(ModelLoadError, match="is a reward model"):
        Registry(ServeConfig(base=judges / "whole", base_name="whole", device="cpu"))


def asked(server: ServerThread, **body: Any) -> httpx.Response:
    """A chat whose answer is picked of several."""
    content = {
        "model": "lora",
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 6,
        "temperature": 1.5,
        "seed": 3,
        **body,
    }
    return httpx.post(f"{server.url}/v1/chat/completions", json=content, timeout=60)


def test_a_reward_model_picks_the_best_of_several_answers(server: ServerThread) -> None:
    """The picked answer is the one that /score puts first; all of them cost tokens."""
    reply = asked(server, best_of=4, reward="judge").json()
    picked = reply["best_of"]
    assert (picked["n"], picked["reward"], len(picked["scores"])) == (4, "judge", 4)
    said = reply["choices"][0]["message"]["content"]
    body = {"model": "judge", "text_1": QUESTION, "text_2": [said]}
    (scored,) = httpx.post(f"{server.url}/score", json=body).json()["data"]
    assert max(picked["scores"]) == pytest.approx(scored["score"], abs=1e-4)
    assert len(set(picked["scores"])) > 1
    assert len(reply["choices"]) == 1
    # The same four answers one by one, each by its own seed.
    ones = [asked(server, seed=3 + at).json() for at in range(4)]
    assert said in [one["choices"][0]["message"]["content"] for one in ones]
    made = sum(one["usage"]["completion_tokens"] for one in ones)
    assert reply["usage"]["completion_tokens"] == made


def test_a_picked_answer_is_streamed_whole(server: ServerThread) -> None:
    """One chunk with the answer of the same request without a stream, and how it was made."""
    whole = asked(server, best_of=4, reward="judge").json()
    lines = asked(server, best_of=4, reward="judge", stream=True).text.split("\n\n")
    chunks = [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[6] != "["]
    (chunk,) = [chunk for chunk in chunks if chunk.get("choices")]
    content = whole["choices"][0]["message"]["content"]
    assert chunk["choices"][0]["delta"]["content"] == content
    assert chunk["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert chunk["best_of"]["scores"] == pytest.approx(whole["best_of"]["scores"], abs=1e-4)


def num_scored(home: Path, answer: str) -> int:
    """Tokens of a row that a reward model reads: the prompt, the answer and its end."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "short")
    asked = tokenizer(f"user: {QUESTION}\nassistant:", add_special_tokens=False)["input_ids"]
    said = tokenizer(f" {answer}</s>", add_special_tokens=False)["input_ids"]
    return len(asked) + len(said)


def bias_to(home: Path, *texts: str) -> dict[str, float]:
    """A bias after which no other tokens are drawn."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "short")
    return {str(tokenizer.convert_tokens_to_ids(text)): 100.0 for text in texts}


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_as_long_as_the_reward_model_can_read(
    server: ServerThread, judges: Path, *, stream: bool
) -> None:
    """An answer that never ends stops where `short` could not read on, and all are scored."""
    bias = bias_to(judges, " w397", " w398", " w399")
    body = {"best_of": 4, "reward": "short", "max_tokens": None, "logit_bias": bias}
    reply = asked(server, **body, stream=stream, stream_options={"include_usage": True})
    assert reply.status_code == 200, reply.text
    if stream:
        lines = [line[5:] for line in reply.text.split("\n\n") if line.startswith("data: {")]
        told = {key: value for line in lines for key, value in json.loads(line).items() if value}
    else:
        told = reply.json()
        assert num_scored(judges, told["choices"][0]["message"]["content"]) == 64
        assert told["choices"][0]["finish_reason"] == "length"
    assert [type(score) for score in told["best_of"]["scores"]] == [float] * 4
    room = 64 - num_scored(judges, " w397") + 1
    assert told["usage"]["completion_tokens"] == 4 * room


def test_an_answer_that_grew_too_long_is_not_picked(server: ServerThread, judges: Path) -> None:
    """Half a character becomes three tokens when it is written again; the others are scored."""
    bias = bias_to(judges, " w397", "\u0142")  # The byte 0xA0, which begins no character.
    body = {"max_tokens": 22, "logit_bias": bias}
    reply = asked(server, **body, best_of=8, reward="short").json()
    ones = [asked(server, **body, seed=3 + at).json() for at in range(8)]
    said = [one["choices"][0]["message"]["content"] for one in ones]
    readable = [num_scored(judges, answer) <= 64 for answer in said]
    assert set(readable) == {True, False}
    scores = reply["best_of"]["scores"]
    assert [score is not None for score in scores] == readable
    best = max((score, -at) for at, score in enumerate(scores) if score is not None)
    assert reply["choices"][0]["message"]["content"] == said[-best[1]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"best_of": 0}, "`best_of` must be > 0"),
        ({"best_of": 999}, "`best_of` must be > 0"),
        ({"reward": "judge"}, "give `best_of` > 1"),
        ({"best_of": 2, "reward": "judge", "n": 2}, "leave `n` out"),
        ({"best_of": 2, "reward": "judge", "temperature": 0}, "you must use sampling"),
        ({"best_of": 2, "reward": "judge", "logprobs": True}, "`logprobs` cannot be used"),
        ({"best_of": 2, "reward": "lora"}, "lora"),
        ({"best_of": 2, "reward": "nobody"}, "nobody"),
        ({"best_of": 2}, "judge"),
        ({"best_of": 2, "reward": "short", "min_tokens": 60}, "`min_tokens` must be"),
        (
            {"best_of": 2, "reward": "short", "max_tokens": 30, "logit_bias": {"256": 100.0}},
            "the reward model short can read none of the 2 answers",
        ),
        (
            {"best_of": 2, "reward": "short", "messages": [{"role": "user", "content": "a " * 99}]},
            "the reward model short reads at most 64 tokens",
        ),
    ],
)
def test_picking_that_cannot_be_is_refused(
    server: ServerThread, body: dict[str, Any], says: str
) -> None:
    reply = asked(server, **body)
    assert reply.status_code in (404, 422)
    assert says in reply.text


def test_a_participant_of_the_arena_is_picked_from(server: ServerThread) -> None:
    """As arena.toml says: best_of and reward travel with the sampling of each answer."""
    participant = Participant(
        "best", "lora", sampling=SamplingSettings(1.5, max_new_tokens=6, best_of=4, reward="judge")
    )

    async def answer() -> list[Any]:
        target = Target(participant, server.url, "tgi", "lora")
        messages: list[ChatMessage] = [{"role": "user", "content": QUESTION}]
        return [part async for part in stream_answer(target, messages)]

    *pieces, end = asyncio.run(answer())
    assert len(pieces) == 1
    assert isinstance(end, AnswerEnd)
