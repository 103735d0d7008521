"""`--data verified:…` as a file of rows: the base answers prompts, and what passes is kept.

An answer that passes its check as it is goes in first; else one that code brings into form and
that passes then (rejection sampling, as in RAFT, Dong et al., 2304.06767). Knows models and checks;
knows no training.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuning.config import TuningConfig
from tuning.data.rendering import render
from tuning.data.template import tokenize
from tuning.errors import TuningError
from tuning.evaluation.suites import load_suite
from tuning.evaluation.texts import lines_of
from tuning.models.generate import context_of, sample_ids
from tuning.models.loading import Loaded, load_variant
from tuning.variant.manifest import write_atomically
from tuning.verified.cleaning import is_worth_learning, repeats, whole_sentences, without_filler
from tuning.verified.prompts import CheckedPrompt, form_asks
from tuning.verified.shaping import WAYS, shape

PREFIX = "verified:"
FORM = "form"
ROWS = 1000
"""Prompts asked by default; not every one gives a row."""
LONGEST = 80
"""Tokens of an answer."""
TEMPERATURE = 0.35
"""Low: a small model that is free to wander says things that nobody should learn."""
TRIES = 4
"""Answers to each prompt of a suite. A built-in one is asked without its demand, where code can
bring the answer into form: some eight prompts share it, and few small models pass as they are."""
BATCH = 64
AS_IT_WAS, IN_FORM, PLAIN = "passed as it was", "brought into form", "plain"


class VerifiedRowsError(TuningError):
    """Rows that cannot be made: a name that means none, or a base that answers nothing right."""


@dataclass(frozen=True)
class VerifiedRow:
    """One prompt and the answer to learn, and how it came about."""

    prompt: str
    answer: str
    how: str


@dataclass(frozen=True)
class Sampled:
    """An answer as the model wrote it; not whole where it was cut off at `LONGEST` tokens."""

    text: str
    is_whole: bool


def with_verified_rows(config: TuningConfig, say: Callable[[str], None]) -> TuningConfig:
    """The settings with a file below `<home>/data` in place of each `verified:…` among the data.

    The file is made by the run's own base, once; later runs read it. VerifiedRowsError names a
    source that means nothing.
    """
    data = [
        str(_file_of(source, config, say)) if source.startswith(PREFIX) else source
        for source in config.data
    ]
    return replace(config, data=tuple(data))


def _file_of(source: str, config: TuningConfig, say: Callable[[str], None]) -> Path:
    name, _, count = source.removeprefix(PREFIX).partition(":")
    if name == FORM:
        asks, tries = form_asks(_count_of(source, count), config.seed), 1
    else:
        path = source.removeprefix(PREFIX)
        if not path:
            raise VerifiedRowsError(f"data {source!r}: give verified:form or verified:SUITE.jsonl")
        asks, tries = [CheckedPrompt(item.prompt, item.check) for item in load_suite(path)], TRIES
    loaded = load_variant(config.base, config.home)
    if not loaded.speaks_chat:
        raise VerifiedRowsError(
            f"data {source!r}: base {config.base!r} has no chat template, so it answers no "
            "prompts; give a tuned base such as smollm2"
        )
    said = json.dumps(
        [[ask.prompt, ask.plain, ask.check and ask.check.model_dump()] for ask in asks]
    )
    key = f"{loaded.variant.weights_sha256} {config.seed} {tries} {said}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    file = config.home / "data" / f"verified-{Path(config.base).name}-{digest}.jsonl"
    if file.is_file():
        say(f"{source}: rows made before, {file}")
        return file
    say(f"{source}: {config.base} answers {len(asks):,} prompts; the rows are kept in {file}")
    rows = make_rows(loaded, asks, tries, config.seed, say)
    if not rows:
        raise VerifiedRowsError(
            f"data {source!r}: no answer of {config.base!r} to {len(asks)} prompts passed its "
            "check; give easier prompts or another base"
        )
    counts = Counter(row.how for row in rows)
    say(f"{len(rows):,} rows: " + ", ".join(f"{counts[how]:,} {how}" for how in counts))
    write_rows(file, rows)
    return file


def _count_of(source: str, text: str) -> int:
    if not text:
        return ROWS
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= 20_000:
        raise VerifiedRowsError(
            f"data {source!r}: {text[:20]!r} is no number of prompts from 1 to 20000"
        )
    return int(text)


def make_rows(
    loaded: Loaded,
    asks: Sequence[CheckedPrompt],
    tries: int,
    seed: int,
    say: Callable[[str], None],
) -> list[VerifiedRow]:
    """A row for each prompt that an answer of the model passes, itself or brought into form."""
    needed: Counter[str] = Counter()
    for ask in asks:
        prompt, times = (ask.plain, 1) if _is_shaped(ask) and ask.plain else (ask.prompt, tries)
        needed[prompt] = max(needed[prompt], times)
    answers = sample_answers(loaded, list(needed.elements()), seed, say)
    given: dict[str, list[Sampled]] = {}
    for prompt, answer in zip(needed.elements(), answers, strict=True):
        given.setdefault(prompt, []).append(answer)
    chance = random.Random(seed)
    rows = []
    for ask in asks:
        plain = given.get(ask.plain or "", [None])[0]
        row = choose(ask, given.get(ask.prompt, []), plain, chance)
        if row is not None:
            rows.append(row)
    return rows


def _is_shaped(ask: CheckedPrompt) -> bool:
    return ask.check is not None and ask.check.kind in WAYS


def choose(
    ask: CheckedPrompt, answers: Sequence[Sampled], plain: Sampled | None, chance: random.Random
) -> VerifiedRow | None:
    """The first answer that passes and is worth learning, else one brought into form, else None.

    `plain` is an answer to the prompt without the demand. Of one that was cut off only the whole
    sentences are used.
    """
    for answer in answers:
        text = without_filler(answer.text)
        passes = ask.check is None or ask.check.passes(text)
        is_own = is_worth_learning(text) and not repeats(text, ask.prompt, _asked_for(ask))
        if answer.is_whole and passes and is_own:
            return VerifiedRow(ask.prompt, text, PLAIN if ask.check is None else AS_IT_WAS)
    if ask.check is None:
        return _shortened(ask, answers)
    for answer in (*([plain] if plain else []), *answers):
        asked = (ask.prompt, ask.plain or "")
        sentences, lines = (
            [part for part in parts if not any(repeats(part, prompt) for prompt in asked)]
            for parts in (whole_sentences(answer.text), _verses(answer.text))
        )
        shaped = shape(ask.check, sentences, lines, chance, ask.topic)
        if shaped is not None and ask.check.passes(shaped):
            return VerifiedRow(ask.prompt, shaped, IN_FORM)
    return None


def _asked_for(ask: CheckedPrompt) -> list[str]:
    """The texts that an answer has to say as they stand in its prompt."""
    content = {} if ask.check is None else ask.check.model_dump()
    texts = [content.get("text"), content.get("phrase"), *(content.get("options") or ())]
    return [text for text in texts if text]


def _verses(answer: str) -> list[str]:
    """Its different lines that are short enough for verse."""
    lines = [line for line in lines_of(without_filler(answer)) if len(line.split()) < 12]
    return list(dict.fromkeys(lines))


def _shortened(ask: CheckedPrompt, answers: Sequence[Sampled]) -> VerifiedRow | None:
    """The whole sentences of a plain answer that was cut off, where there are two or more."""
    for answer in answers:
        sentences = whole_sentences(answer.text)
        text = " ".join(sentences)
        is_cut = not answer.is_whole and len(sentences) > 1
        if is_cut and is_worth_learning(text) and not repeats(text, ask.prompt):
            return VerifiedRow(ask.prompt, text, PLAIN)
    return None


def sample_answers(
    loaded: Loaded, prompts: Sequence[str], seed: int, say: Callable[[str], None]
) -> list[Sampled]:
    """An answer of the model to each prompt; an empty one to a prompt that leaves it no room."""
    import torch

    tokenizer, stops = loaded.tokenizer, loaded.stop_ids
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    ids = tokenize(tokenizer, render(tokenizer, asked, prompt=True))
    context = context_of(loaded.model) or LONGEST * 100
    fits = [at for at, row in enumerate(ids) if len(row) + LONGEST <= context]
    fits.sort(key=lambda at: len(ids[at]))  # those of like length share a batch
    answers = [Sampled("", False)] * len(prompts)
    if not fits:
        return answers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        began = time.monotonic()
        for start in range(0, len(fits), BATCH):
            group = fits[start : start + BATCH]
            made = sample_ids(
                loaded.model,
                [ids[at] for at in group],
                count=1,
                max_new_tokens=LONGEST,
                temperature=TEMPERATURE,
                stop_ids=stops,
                pad_id=stops[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
                batch_size=BATCH,
            )
            for at, (answer,) in zip(group, made, strict=True):
                text = tokenizer.decode(answer, skip_special_tokens=True)
                answers[at] = Sampled(text, bool(answer) and answer[-1] in stops)
            done = start + len(group)
            left = (time.monotonic() - began) / done * (len(fits) - done)
            say(f"{done:,} of {len(fits):,} prompts answered, about {left / 60:.0f} min left")
    return answers


def write_rows(path: Path, rows: Sequence[VerifiedRow]) -> None:
    """The rows as JSON Lines, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        json.dumps(
            {"prompt": row.prompt, "completion": row.answer, "metadata": {"how": row.how}},
            ensure_ascii=False,
        )
        for row in rows
    )
    write_atomically(path, "".join(f"{line}\n" for line in lines))
