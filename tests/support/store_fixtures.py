"""A real store in a scratch folder, and a hand that fills it with battles and votes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from arena.storage import database
from arena.storage.battle_writes import Asked, BattleDraft, Opened
from arena.storage.rows import battle_row, votes_from
from arena.storage.store import Store
from arena.values.battle import (
    AnswerOutcome,
    AnswerStatus,
    AskAs,
    Mode,
    Participant,
    SamplingSettings,
)
from arena.values.vote import Judgement, Vote, Winner

BASE = Participant("starter", "starter", AskAs.COMPLETION, kind="base", weights_sha256="b" * 64)
LORA = Participant("lora", "lora", kind="lora", weights_sha256="c" * 64, base="starter")
FULL = Participant("full", "full", kind="full", weights_sha256="d" * 64)
HOW = Asked("", SamplingSettings(temperature=0.5))


def votes_of(store: Store, battle: str) -> list[Vote]:
    """All votes on a battle, by turn."""
    with database.reading(store.path, store.config) as db:
        return list(votes_from(db, battle_row(db, battle)))


@dataclass(frozen=True)
class Hand:
    """Plays battles into a store without any server."""

    store: Store

    def voter(self, name: str = "somebody") -> str:
        """The pseudonym of a cookie."""
        return self.store.ensure_voter(f"secret of {name}")

    def battle(
        self,
        texts: Sequence[str] = ("one", "two"),
        *,
        prompt: str = "Say a number.",
        participants: Sequence[Participant] = (BASE, LORA),
        voter: str | None = None,
        mode: Mode = Mode.BLIND,
        statuses: Sequence[AnswerStatus] | None = None,
        leaks: Sequence[bool] | None = None,
        tags: Sequence[str] = (),
        propensity: float | None = 0.5,
    ) -> tuple[str, str]:
        """A battle of one turn with all its answers; returns id and token."""
        new = BattleDraft(
            participants,
            voter or self.voter(),
            mode,
            sampler="uniform",
            propensity=propensity,
            tags=tags,
        )
        self._end(self.store.open_battle(new, prompt, [HOW] * len(texts)), texts, statuses, leaks)
        return new.battle_id, new.token

    def turn(
        self,
        battle: str,
        prompt: str,
        texts: Sequence[str],
        *,
        shared_side: int | None = None,
        statuses: Sequence[AnswerStatus] | None = None,
    ) -> None:
        """One more turn with all its answers."""
        opened = self.store.ask(battle, prompt, [HOW] * len(texts), shared_side=shared_side)
        self._end(opened, texts, statuses)

    def again(self, battle: str, side: int, text: str) -> None:
        """One more attempt of a side at the last turn."""
        opened = self.store.ask_again(battle, {side: HOW})
        self.store.finish_answer(
            opened.answer_ids[side], AnswerOutcome(AnswerStatus.COMPLETE, text)
        )

    def _end(
        self,
        opened: Opened,
        texts: Sequence[str],
        statuses: Sequence[AnswerStatus] | None,
        leaks: Sequence[bool] | None = None,
    ) -> None:
        """How each answer ended; one whose status is streaming stays open."""
        for side, text in enumerate(texts):
            status = AnswerStatus.COMPLETE if statuses is None else statuses[side]
            if status is not AnswerStatus.STREAMING:
                outcome = AnswerOutcome(
                    status,
                    text=text,
                    prompt_sent="sent",
                    seed=7,
                    num_tokens=3,
                    identity_leak=leaks is not None and leaks[side],
                )
                self.store.finish_answer(opened.answer_ids[side], outcome)

    def vote(
        self,
        winner: Winner = Winner.MODEL_A,
        texts: Sequence[str] = ("one", "two"),
        *,
        prompt: str = "Say a number.",
        voter: str | None = None,
        judgement: Judgement | None = None,
        participants: Sequence[Participant] = (BASE, LORA),
        tags: Sequence[str] = (),
    ) -> str:
        """A battle of one turn, judged; returns its id."""
        voter = voter or self.voter()
        battle, _ = self.battle(
            texts, prompt=prompt, participants=participants, voter=voter, tags=tags
        )
        self.store.cast_vote(battle, judgement or Judgement(winner), voter=voter)
        return battle


@pytest.fixture(scope="session")
def quick_folder() -> Iterator[Path]:
    """A folder on the RAM disk where there is one: the same files, no waiting for a disk."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="arena-", dir=memory if os.access(memory, os.W_OK) else None)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def store(quick_folder: Path) -> Store:
    """An empty store in a file."""
    return Store.at_home(Path(tempfile.mkdtemp(dir=quick_folder)))


@pytest.fixture
def hand(store: Store) -> Hand:
    """Fills `store`."""
    return Hand(store)


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama and a byte-level tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<eos>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% if m.role == 'assistant' %}<eos>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("tiny-chat-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
