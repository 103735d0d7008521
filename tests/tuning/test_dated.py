"""Templates that write the date: one date in a run, whenever it goes on or is repeated."""

from __future__ import annotations

import json
import os
import signal
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuning_fixtures import make_base, make_tokenizer

from tuning import TuningConfig, tune
from tuning.config import CheckOptions, DataOptions, TemplateOptions, TrainingOptions
from tuning.data.rendering import render
from tuning.data.template import DEFAULT_TEMPLATE
from tuning.training.checkpoints import CheckpointError, RunFolder, first_day
from tuning.training.inputs import prepare
from tuning.training.reproduce import ReproduceError, reproduce
from tuning.training.train import InterruptedRunError, run_path
from tuning.variant import Variant

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
FIRST, SECOND = date(2024, 2, 29), date(2024, 3, 1)
DATED = "Today is {{ strftime_now('%d %b %Y') }}.\n" + DEFAULT_TEMPLATE
CHAT = [{"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red"}]
TOKENIZER = make_tokenizer()


class Clock(datetime):
    """What transformers takes the time from, standing still."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """Midnight of the first day."""
        return datetime.combine(FIRST, time())


@pytest.mark.parametrize(
    "template",
    [
        DATED,
        "\n  {% if true %}{{ strftime_now('%A') }}{% endif %}\n" + DEFAULT_TEMPLATE,
        "{%- macro today() %}{{ strftime_now('%j') }}{% endmacro %}{{ today() }}"
        + DEFAULT_TEMPLATE,
        "{% if strftime_now is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date }}" + DEFAULT_TEMPLATE,
        "{% set year = strftime_now('%Y') | int %}{{ year + 1 }}" + DEFAULT_TEMPLATE,
        "{{ strftime_now(format='%H:%M') }}" + DEFAULT_TEMPLATE,
    ],
)
def test_a_template_writes_what_transformers_writes_on_that_day(
    monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    TOKENIZER.chat_template = template
    with monkeypatch.context() as patch:
        patch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
        wanted = TOKENIZER.apply_chat_template(CHAT, tokenize=False)
    assert render(TOKENIZER, [CHAT], prompt=False, day=FIRST) == [wanted]
    other = date(2026, 7, 10)
    assert (render(TOKENIZER, [CHAT], prompt=False, day=other) != [wanted]) == (
        "%H" not in template
    )


FORMATS = st.lists(
    st.sampled_from(
        [*(f"%{letter}" for letter in "aAbBdmyYHMSjpIUwWxXcfGuVzZDFTeh%"), "%-d", "%-m"]
    )
    | st.text("abc 0:/,.-", max_size=3)
).map("".join)


@settings(deadline=None)
@given(pattern=FORMATS, day=st.dates(date(1000, 1, 1)))
def test_every_directive_is_pythons(pattern: str, day: date) -> None:
    TOKENIZER.chat_template = "{{ strftime_now(messages[0].content) }}"
    asked = [{"role": "user", "content": pattern}]
    assert render(TOKENIZER, [asked], prompt=False, day=day) == [day.strftime(pattern)]


def config_for(base: Path, data: Path, home: Path, **changes: Any) -> TuningConfig:
    """A run of a few steps that is saved after each."""
    options = {
        "base": str(base),
        "data": (str(data),),
        "name": "v",
        "home": home,
        "training": TrainingOptions(max_steps=6, batch_size=8, precision="fp32"),
        "data_options": DataOptions(heldout=0.1),
        "checks": CheckOptions(save_steps=1, samples=1),
    }
    return TuningConfig(**{**options, **changes})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base whose template writes the date."""
    base = make_base(tmp_path / "base")
    (base / "chat_template.jinja").write_text(DATED)
    return base


def interrupted(config: TuningConfig, monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    """Begin the run on that day, and stop it after its first checkpoint."""
    commit = RunFolder.commit

    def commit_and_stop(self: RunFolder, *args: Any, **others: Any) -> Any:
        made = commit(self, *args, **others)
        os.kill(os.getpid(), signal.SIGTERM)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "commit", commit_and_stop)
        with pytest.raises(InterruptedRunError):
            tune(config, day=day)


@pytest.mark.slow
def test_a_run_that_goes_on_another_day_keeps_its_first_date(
    base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(config_for(base, tiny_data, tmp_path / "whole"), day=FIRST)
    config = config_for(base, tiny_data, tmp_path)
    interrupted(config, monkeypatch, FIRST)
    assert first_day(run_path(config)) == FIRST
    made = tune(config, day=SECOND)
    assert made.run["resumed_at"] in (1, 2)
    assert made.run["template_day"] == FIRST.isoformat()
    assert made.run["tokens_sha256"] == whole.run["tokens_sha256"]
    assert made.weights_sha256 == whole.weights_sha256


@pytest.mark.slow
def test_a_run_that_starts_anew_takes_the_new_date(
    base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(base, tiny_data, tmp_path)
    interrupted(config, monkeypatch, FIRST)
    made = tune(config_for(base, tiny_data, tmp_path, restart=True), day=SECOND)
    assert made.run["template_day"] == SECOND.isoformat()


@pytest.mark.slow
def test_the_date_of_a_template_without_one_is_not_kept(
    tiny_base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tiny_base, tiny_data, tmp_path)
    interrupted(config, monkeypatch, FIRST)
    assert first_day(run_path(config)) is None
    assert tune(config, day=SECOND).run["template_day"] is None


@pytest.mark.slow
def test_rows_that_are_encoded_otherwise_stop_a_run_from_going_on(
    base: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text of a template, and a tokenizer that makes other tokens of it."""
    config = config_for(base, tiny_data, tmp_path)
    interrupted(config, monkeypatch, FIRST)
    give_other_tokens(base)
    with pytest.raises(CheckpointError, match=r"of this name has tokens '.*, now it is '"):
        tune(config, day=FIRST)


def give_other_tokens(base: Path) -> None:
    """Let the tokenizer of a base lose its last merges; its weights stay what they were."""
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["merges"] = content["model"]["merges"][:-40]
    (base / "tokenizer.json").write_text(json.dumps(content))


def made_on(base: Path, data: Path, home: Path, day: date, **changes: Any) -> Variant:
    """A variant of that day."""
    return tune(config_for(base, data, home, **changes), day=day)


@pytest.mark.slow
def test_reproduce_takes_the_date_that_the_variant_was_made_with(
    base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    made = made_on(base, tiny_data, tmp_path, FIRST)
    again = made_on(base, tiny_data, tmp_path / "other", SECOND)
    assert made.run["tokens_sha256"] != again.run["tokens_sha256"]
    assert reproduce(made.folder, tmp_path).same


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["template", "tokenizer"])
def test_reproduce_says_when_the_encoded_rows_differ(
    base: Path, tiny_data: Path, tmp_path: Path, cause: str
) -> None:
    made = made_on(base, tiny_data, tmp_path, FIRST)
    if cause == "template":
        (base / "chat_template.jinja").write_text("Good day.\n" + DATED)
        reason = "the chat template is another one"
    else:
        give_other_tokens(base)
        reason = "the template is the same; the tokenizer, or the version that encodes"
    with pytest.raises(ReproduceError, match=rf"encoded otherwise than .* \({reason}"):
        reproduce(made.folder, tmp_path)


@pytest.mark.slow
def test_reproduce_needs_the_file_of_a_template_no_more(
    tiny_base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(DATED)
    template = TemplateOptions(str(own))
    made = made_on(tiny_base, tiny_data, tmp_path, FIRST, template=template)
    own.unlink()
    assert reproduce(made.folder, tmp_path).same


def test_without_a_day_the_present_one_is_taken(
    base: Path, tiny_data: Path, tmp_path: Path
) -> None:
    before = date.today()
    prepared = prepare(config_for(base, tiny_data, tmp_path))
    assert prepared.day is not None
    assert before <= prepared.day <= date.today()
