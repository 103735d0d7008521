"""The engine against the outside truth: transformers' and PEFT's own greedy generation."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import serving_models as tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from serving.adapters.peft_reader import read_adapter
from serving.attention.packed import group_by_length
from serving.config import EngineLimits
from serving.engine.engine import Engine
from serving.engine.pacing import PrefillPacing
from serving.engine.request import (
    EngineRequest,
    Event,
    FailureEvent,
    FinishReason,
    PrefillEvent,
    TokenEvent,
)
from serving.engine.sampling import SamplingParams
from serving.errors import EngineFailure, ModelLoadError
from serving.kernels.step import step

KINDS = ("lora", "prefix", "prompt", "ia3", "dora")
# Each architecture as torch runs it, and those that can be compiled in that form too.
COMPILED = tuple(f"{name}, compiled" for name in ("llama", "qwen2", "qwen3", "mistral"))
CASES = (*tiny.CONFIGS, *COMPILED)
NUM_NEW = 12


class Setup:
    """A tiny base, one adapter of each kind, and an engine that has them all."""

    def __init__(self, architecture: str, folder: Path, limits: EngineLimits) -> None:
        self.base = tiny.save_checkpoint(architecture, folder / "base")
        self.folders: dict[str | None, Path | None] = {None: None}
        for number, kind in enumerate(KINDS):
            path = folder / kind
            tiny.save_adapter(architecture, self.base, path, kind, seed=number + 1)
            self.folders[kind] = path
        other = {"r": 2, "use_rslora": True, "target_modules": None}
        other["target_modules"] = tiny.ALL_LINEAR.get(architecture, tiny.LLAMA_LINEAR)[:1]
        tiny.save_adapter(architecture, self.base, folder / "narrow", "lora", seed=9, **other)
        self.folders["narrow"] = folder / "narrow"
        self.limits = limits
        self.engine = self.new_engine()

    def new_engine(self) -> Engine:
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        engine = Engine(model, self.limits)
        adapters = [read_adapter(path, name) for name, path in self.folders.items() if path]
        engine.install_adapters(adapters, engine.prepare_adapters(adapters))
        return engine

    def compiled(self) -> Setup:
        """The same models, steps of few tokens compiled and run by two threads."""
        twin = copy.copy(self)
        twin.engine = self.new_engine()
        start_compiled(twin.engine, 2)
        return twin

    def truth(
        self, adapter: str | None, prompt: tuple[int, ...], count: int = NUM_NEW
    ) -> list[int]:
        tokens = tiny.generate(self.base, self.folders[adapter], prompt, count)
        return list(tokens)


def start_compiled(engine: Engine, num_threads: int) -> None:
    assert engine.compiled is not None
    engine.compiled.compile(step)
    engine.compiled.start(step, num_threads)


class Collected:
    """Keeps the events of one request."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def tokens(self) -> list[int]:
        return [e.choice.token for e in self.events if isinstance(e, TokenEvent)]

    @property
    def is_over(self) -> bool:
        last = self.events[-1] if self.events else None
        return isinstance(last, FailureEvent) or (
            isinstance(last, TokenEvent) and last.finish_reason is not None
        )


def submit(
    engine: Engine, prompt: tuple[int, ...], adapter: str | None = None, count: int = NUM_NEW,
    eos: bool = True, **settings: object,
) -> tuple[EngineRequest, Collected]:  # fmt: skip
    collected = Collected()
    request = EngineRequest(
        prompt, count, collected.events.append, adapter=adapter,
        eos_ids=frozenset({1} if eos else ()), **settings,
    )  # fmt: skip
    engine.submit(request)
    return request, collected


def run(engine: Engine) -> int:
    """To the end; the most rows that were there in a step."""
    most = 0
    while engine.has_work:
        report = engine.step()
        if report is not None:
            most = max(most, report.num_before + report.num_joined)
    return most


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Setup]:
    limits = EngineLimits(6, 256, kv_tokens=2048, prefill_chunk=7, prefix_cache_tokens=0)
    made = {
        architecture: Setup(architecture, tmp_path_factory.mktemp(architecture), limits)
        for architecture in tiny.CONFIGS
    }
    return made | {case: made[case.partition(",")[0]].compiled() for case in COMPILED}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CASES)
def test_greedy_tokens_equal_generate_alone(setups: dict[str, Setup], architecture: str) -> None:
    setup = setups[architecture]
    for adapter in setup.folders:
        for prompt in tiny.prompts(2, seed=3):
            _, got = submit(setup.engine, prompt, adapter)
            run(setup.engine)
            assert got.tokens == setup.truth(adapter, prompt), (adapter, prompt)


@pytest.mark.parametrize("architecture", CASES)
def test_greedy_tokens_equal_generate_in_a_mixed_batch(
    setups: dict[str, Setup], architecture: str
) -> None:
    setup = setups[architecture]
    mix = list(zip([*setup.folders, None, "lora"], tiny.prompts(9, seed=4), strict=True))
    collected = [submit(setup.engine, prompt, adapter)[1] for adapter, prompt in mix]
    assert run(setup.engine) == setup.limits.max_rows
    for (adapter, prompt), got in zip(mix, collected, strict=True):
        assert got.tokens == setup.truth(adapter, prompt), (adapter, prompt)
    assert (setup.engine.stats.compiled_steps > 0) == (architecture in COMPILED)


@pytest.mark.parametrize("architecture", CASES)
def test_greedy_tokens_equal_generate_beside_the_base_and_its_own_kind(
    setups: dict[str, Setup], architecture: str
) -> None:
    """Each kind in a batch of its own, and in turns with the base, joining a step later."""
    setup = setups[architecture]
    asked = tiny.prompts(2, seed=3)
    for kind in setup.folders:
        for mix in ((kind, kind), (None, kind, None, kind)):
            pairs = [(adapter, asked[i // (len(mix) // 2)]) for i, adapter in enumerate(mix)]
            collected = []
            for adapter, prompt in pairs:
                collected.append(submit(setup.engine, prompt, adapter)[1])
                setup.engine.step()
            run(setup.engine)
            for (adapter, prompt), got in zip(pairs, collected, strict=True):
                assert got.tokens == setup.truth(adapter, prompt), (mix, adapter)


@pytest.mark.slow
def test_variants_differ_so_that_equality_says_something(setups: dict[str, Setup]) -> None:
    asked = tiny.prompts(3, seed=5)
    for setup in setups.values():
        told = {
            str([setup.truth(adapter, prompt) for prompt in asked]) for adapter in setup.folders
        }
        assert len(told) == len(setup.folders)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_schedule_of_joins_and_cancels_gives_the_tokens_of_running_alone(
    setups: dict[str, Setup], data: st.DataObject
) -> None:
    setup = setups[data.draw(st.sampled_from(CASES))]
    engine = setup.engine
    pool = tiny.prompts(6, seed=6, longest=20)
    plan = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(list(setup.folders)),
                st.sampled_from(pool),
                st.integers(0, 4),  # steps to run before the next one joins
                st.none() | st.integers(0, 6),  # cancel after so many further arrivals' steps
            ),
            min_size=1,
            max_size=8,
        )
    )
    running = []
    for adapter, prompt, steps, cancel_after in plan:
        running.append((adapter, prompt, *submit(engine, prompt, adapter), cancel_after))
        for _ in range(steps):
            engine.step()
        for _, _, request, got, limit in running:
            if limit is not None and len(got.tokens) >= limit:
                request.cancel()
    run(engine)
    for adapter, prompt, request, got, _ in running:
        truth = setup.truth(adapter, prompt)
        if request.cancelled.is_set():
            assert got.tokens == truth[: len(got.tokens)]
        else:
            assert got.tokens == truth
    assert not engine.rows


def test_a_cancelled_row_leaves_before_the_next_step(setups: dict[str, Setup]) -> None:
    engine = setups["llama"].engine
    request, got = submit(engine, (5, 6, 7), count=100)
    other, others = submit(engine, (9, 8), count=5)
    for _ in range(3):
        engine.step()
    request.cancel()
    before = len(got.tokens)
    engine.step()
    assert len(got.tokens) == before
    assert request not in [row.request for row in engine.rows]
    run(engine)
    assert others.is_over
    assert not other.cancelled.is_set()


def test_length_is_tested_before_eos(setups: dict[str, Setup]) -> None:
    setup = setups["llama"]
    prompt = tiny.prompts(1, seed=8)[0]
    third = setup.truth(None, prompt)[2]
    for count, reason in ((3, FinishReason.LENGTH), (4, FinishReason.EOS_TOKEN)):
        collected = Collected()
        setup.engine.submit(
            EngineRequest(prompt, count, collected.events.append, eos_ids=frozenset({third}))
        )
        run(setup.engine)
        assert len(collected.tokens) == 3
        last = collected.events[-1]
        assert isinstance(last, TokenEvent)
        assert last.finish_reason is reason


@pytest.mark.parametrize("case", ["qwen2", "qwen2, compiled"])
def test_logprobs_are_those_of_the_model(setups: dict[str, Setup], case: str) -> None:
    setup = setups[case]
    prompt = tiny.prompts(1, seed=9)[0]
    _, got = submit(setup.engine, prompt, num_top=3)
    run(setup.engine)
    model = tiny.reference_model(setup.base, None)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *got.tokens]])).logits[0]
    truth = torch.log_softmax(logits.float(), -1)
    for i, event in enumerate(got.events):
        assert isinstance(event, TokenEvent)
        row = truth[len(prompt) - 1 + i]
        assert event.choice.logprob == pytest.approx(float(row.max()), abs=1e-4)
        assert [t for t, _ in event.choice.top] == row.topk(3).indices.tolist()


def test_a_seed_gives_the_same_tokens_alone_and_in_company(setups: dict[str, Setup]) -> None:
    engine = setups["llama"].engine
    params = SamplingParams(do_sample=True, temperature=1.3, top_k=50, top_p=0.95, seed=11)
    prompt = (5, 6, 7, 8)
    _, alone = submit(engine, prompt, "lora", sampling=params)
    run(engine)
    for i, company in enumerate(tiny.prompts(4, seed=10)):
        submit(engine, company, list(KINDS)[i], sampling=SamplingParams(do_sample=True, seed=i))
        engine.step()
    _, together = submit(engine, prompt, "lora", sampling=params)
    _, other = submit(engine, prompt, "lora", sampling=SamplingParams(do_sample=True, seed=12))
    run(engine)
    assert together.tokens == alone.tokens
    assert other.tokens != alone.tokens


@pytest.mark.slow
def test_sampled_tokens_follow_the_model_s_exact_probabilities(setups: dict[str, Setup]) -> None:
    """Chi-square of first tokens over fixed seeds, base and LoRA rows mixed in every batch.

    The probabilities are transformers': its model, its PEFT, its warpers, in double precision.
    """
    setup, prompt, draws = setups["llama"], (5, 6, 7), 3000
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(1.4), TopKLogitsWarper(9), TopPLogitsWarper(0.97)]
    )
    params = {"do_sample": True, "temperature": 1.4, "top_k": 9, "top_p": 0.97}
    told: dict[str | None, list[Collected]] = {None: [], "lora": []}
    for seed in range(draws):
        for adapter, kept in told.items():
            sampling = SamplingParams(**params, seed=seed)  # type: ignore[arg-type]
            kept.append(submit(setup.engine, prompt, adapter, count=1, sampling=sampling)[1])
    run(setup.engine)
    for adapter, kept in told.items():
        counts = Counter(c.tokens[0] for c in kept)
        model = tiny.reference_model(setup.base, setup.folders[adapter])
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt])).logits[:, -1].double()
        exact = torch.softmax(warpers(torch.tensor([prompt]), logits)[0], -1)
        support = exact.nonzero()[:, 0].tolist()
        assert set(counts) <= set(support)
        assert len(support) >= 5
        chi = sum(
            (counts[t] - draws * float(exact[t])) ** 2 / (draws * float(exact[t])) for t in support
        )
        # 99.9 % quantile at 8 degrees of freedom; fewer degrees have a smaller one.
        assert chi < 26.1, adapter


@pytest.mark.parametrize("case", ["llama", "llama, compiled"])
def test_a_failing_row_is_answered_alone_and_the_others_go_on(
    setups: dict[str, Setup], case: str
) -> None:
    setup = setups[case]

    def broken(scores: torch.Tensor) -> None:
        raise RuntimeError("a grammar broke")

    prompt = tiny.prompts(1, seed=12)[0]
    _, bad = submit(setup.engine, (4, 5), mask=broken)
    _, worse = submit(setup.engine, (4, tiny.VOCAB + 7))  # no such token: the forward raises
    _, good = submit(setup.engine, prompt, "lora")
    run(setup.engine)
    assert good.tokens == setup.truth("lora", prompt)
    for failed, text in ((bad, "a grammar broke"), (worse, "index out of range")):
        (event,) = failed.events
        assert isinstance(event, FailureEvent)
        assert isinstance(event.error, EngineFailure)
        assert text in str(event.error)


def test_adapters_of_another_base_are_refused(setups: dict[str, Setup], tmp_path: Path) -> None:
    foreign = setups["gpt2"].folders["lora"]
    assert foreign is not None
    engine = setups["llama"].engine
    with pytest.raises(ModelLoadError, match="tuned from another base"):
        engine.prepare_adapters([read_adapter(foreign, "foreign")])


@pytest.mark.parametrize("case", ["llama", "llama, compiled"])
def test_prompt_logprobs_equal_the_model_over_chunks(setups: dict[str, Setup], case: str) -> None:
    setup = setups[case]
    for prompt in (tuple(range(5, 27)), (9,)):
        for adapter in (None, "lora"):
            _, got = submit(setup.engine, prompt, adapter, prompt_logprobs=True)
            run(setup.engine)
            first = got.events[0]
            assert isinstance(first, PrefillEvent)
            model = tiny.reference_model(setup.base, setup.folders[adapter])
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([prompt])).logits[0].float()
            truth = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor([prompt[1:]]).T)
            assert first.logprobs[0] is None
            assert list(first.logprobs[1:]) == pytest.approx(truth[:, 0].tolist(), abs=1e-4)
            assert got.tokens == setup.truth(adapter, prompt)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_a_shared_beginning_is_computed_once_per_variant(tmp_path: Path, architecture: str) -> None:
    limits = EngineLimits(kv_tokens=4096, max_total_tokens=256, prefix_cache_tokens=400)
    setup = Setup(architecture, tmp_path, limits)
    engine = setup.engine
    shared = tiny.long_prompt(120)
    for adapter in (None, "lora", "prefix", "prompt"):
        first = engine.stats.prefill_tokens
        for tail in ((5, 6), (7, 8, 9)):
            _, got = submit(engine, (*shared, *tail), adapter)
            run(engine)
            assert got.tokens == setup.truth(adapter, (*shared, *tail)), adapter
        assert engine.stats.prefill_tokens - first == 120 + 2 + 3, adapter
        assert engine.cache.num_tokens <= 400
    assert engine.cache.num_reused == 4 * 120
    # The base's entry had to go for the others: it is computed again, and right again.
    before = engine.stats.prefill_tokens
    _, got = submit(engine, (*shared, 3), None)
    run(engine)
    assert got.tokens == setup.truth(None, (*shared, 3))
    assert engine.stats.prefill_tokens - before == 121


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])
def test_rows_of_very_different_lengths_share_a_step(tmp_path: Path, architecture: str) -> None:
    limits = EngineLimits(kv_tokens=8192, max_total_tokens=512, prefix_cache_tokens=0)
    setup = Setup(architecture, tmp_path, limits)
    asked = [(None, (5, 6)), ("lora", tiny.long_prompt(400, 1)), ("prefix", (7,)),
             (None, (8, 9, 10)), ("lora", tiny.long_prompt(420, 2)), (None, (11,))]  # fmt: skip
    collected = [submit(setup.engine, prompt, adapter)[1] for adapter, prompt in asked]
    run(setup.engine)
    for (adapter, prompt), got in zip(asked, collected, strict=True):
        assert got.tokens == setup.truth(adapter, prompt), (adapter, len(prompt))


def test_neighbours_attend_together_unless_too_much_is_read_in_vain() -> None:
    assert group_by_length([]) == []
    assert group_by_length([9]) == [slice(0, 1)]
    # A long one after three short ones would have each of them read 250 keys more.
    assert group_by_length([50, 50, 50, 300]) == [slice(0, 3), slice(3, 4)]
    assert group_by_length([50, 50, 150]) == [slice(0, 3)]
    assert group_by_length([100] * 16) == [slice(0, 16)]
    assert group_by_length([100, 4000, 90, 80]) == [slice(0, 1), slice(1, 2), slice(2, 4)]


def test_prompt_tokens_are_dosed_by_what_they_cost() -> None:
    """A step takes 10 ms, two may pass; 200 prompt tokens added 40 ms, so 100 add 20."""
    pace = PrefillPacing()
    assert pace.budget(256) == 256  # Nothing is known yet.
    pace.record(0.010, 0, 1)
    pace.record(0.050, 200, 1)
    assert pace.budget(256) == 96  # In sixteens.
    assert pace.budget(64) == 64
    pace.record(9.0, 4, 1)  # Too few tokens to learn from.
    assert pace.budget(256) == 96
    assert pace.budget(999, num_prefilling=3, num_decoding=1) == 304  # Three wait, one is held up.
    assert pace.budget(256, num_prefilling=1, num_decoding=3) == 96
    assert pace.budget(256, num_prefilling=2, num_decoding=0) == 192
    pace.record(0.030, 0, 8)  # More rows, longer steps: more may be added.
    assert pace.budget(256, num_decoding=8) == 256
    assert pace.budget(256, num_decoding=7) == 96
    slow = PrefillPacing()
    slow.record(0.010, 0, 1)
    for tokens in (200, 20):
        slow.record(0.010 + tokens * 0.01, tokens, 1)
    assert slow.budget(256) == 16  # Never so few that the prompt starves.
    assert slow.budget(7) == 7


@pytest.mark.parametrize("seen", [(16, 64, 256), (16, 64)])
def test_doses_are_never_so_small_that_the_fixed_cost_prevails(seen: tuple[int, ...]) -> None:
    """40 ms and 0.2 for each token: 256 add 91.2, 0.356 each; at twice as much for each, 78."""
    pace = PrefillPacing()
    pace.record(0.020, 0, 4)
    for tokens in seen:
        pace.record(0.020 + 0.040 + tokens * 0.0002, tokens, 4)
    assert pace.budget(256, num_decoding=4) == 80
    quick = replace(pace, steps={4: 0.0115})  # Four of its steps, 46 ms, do not pay for 78.
    assert quick.budget(256, num_decoding=4) == 16


def test_doses_follow_the_cost_of_many_tokens_where_few_cost_hardly_less() -> None:
    """16 tokens add 15 ms and each further one 0.05 ms: two steps of 10 ms pay for 116."""
    pace = PrefillPacing()
    pace.record(0.010, 0, 1)
    for tokens in (16, 256):
        pace.record(0.025 + (tokens - 16) * 0.00005, tokens, 1)
    for _ in range(100):
        budget = pace.budget(256)
        pace.record(0.025 + (budget - 16) * 0.00005, budget, 1)
    assert 112 <= pace.budget(256) <= 144  # It sometimes looks whether more are cheaper now.


def test_one_bad_moment_does_not_forbid_a_dose_for_ever() -> None:
    pace = PrefillPacing()
    pace.record(0.010, 0, 1)
    pace.record(5.0, 200, 1)
    for _ in range(1000):
        budget = pace.budget(256)
        pace.record(0.010 + budget * 0.0001, budget, 1)
    assert pace.budget(256) >= 192


def test_a_long_prompt_does_not_hold_up_running_streams(setups: dict[str, Setup]) -> None:
    setup = setups["llama"]
    _, running = submit(setup.engine, (5, 6, 7), "lora", count=30, eos=False)
    setup.engine.step()
    long = tiny.long_prompt(60)
    _, late = submit(setup.engine, long, "prefix")
    steps = 0
    while not late.tokens:
        before = len(running.tokens)
        setup.engine.step()
        steps += 1
        assert len(running.tokens) == before + 1
    assert steps == -(-60 // setup.limits.prefill_chunk)
    run(setup.engine)
    assert late.tokens == setup.truth("prefix", long)


@pytest.mark.slow
def test_an_input_gain_on_a_joined_layer_takes_the_group_apart(tmp_path: Path) -> None:
    setup = Setup("llama", tmp_path, EngineLimits(max_total_tokens=256, prefix_cache_tokens=0))
    prompt = tiny.prompts(1, seed=30)[0]
    engine = setup.engine
    _, running = submit(engine, prompt, "lora", count=20, eos=False)
    engine.step()
    folder = tmp_path / "gated"
    tiny.save_adapter("llama", setup.base, folder, "ia3", feedforward=["k_proj", "up_proj"])
    setup.folders["gated"] = folder
    adapters = [*engine.adapters.adapters, read_adapter(folder, "gated")]
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    collected = [submit(engine, prompt, name)[1] for name in setup.folders]
    run(engine)
    assert [c.tokens for c in collected] == [setup.truth(name, prompt) for name in setup.folders]
    truth = setup.truth("lora", prompt)
    assert running.tokens[: len(truth)] == truth


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_mixed_batch_on_cuda_gives_the_tokens_of_the_cpu(tmp_path: Path) -> None:
    setup = Setup("llama", tmp_path, EngineLimits(max_total_tokens=256, prefix_cache_tokens=0))
    model = AutoModelForCausalLM.from_pretrained(setup.base, dtype=torch.float32).cuda()
    engine = Engine(model, setup.limits)
    adapters = [read_adapter(path, name) for name, path in setup.folders.items() if path]
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    mix = list(zip(setup.folders, tiny.prompts(7, seed=4), strict=True))
    collected = [submit(engine, prompt, adapter)[1] for adapter, prompt in mix]
    run(engine)
    for (adapter, prompt), got in zip(mix, collected, strict=True):
        assert got.tokens == setup.truth(adapter, prompt), adapter


HALF_KINDS = {"llama": ("lora", "prefix", "prompt", "ia3", "dora"), "gpt2": ("lora", "prefix")}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", tiny.CONFIGS)
def test_half_formats_run_near_transformers(
    tmp_path: Path, architecture: str, dtype: torch.dtype
) -> None:
    """Against the same model, and PEFT over it, in the same format."""
    base = tiny.save_checkpoint(architecture, tmp_path / "base")
    prompt = tiny.long_prompt(20)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    truths = {None: half_logprobs(model, prompt)}
    for number, kind in enumerate(HALF_KINDS.get(architecture, ())):
        folder = tiny.save_adapter(architecture, base, tmp_path / kind, kind, seed=number)
        with tiny.peft_warnings():
            plain = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
            tuned = peft.PeftModel.from_pretrained(plain, str(folder)).to(dtype).eval()
        truths[kind] = half_logprobs(tuned, prompt)
    engine = Engine(model, EngineLimits(max_total_tokens=64, prefix_cache_tokens=0))
    adapters = [read_adapter(tmp_path / kind, kind) for kind in truths if kind]
    engine.install_adapters(adapters, engine.prepare_adapters(adapters))
    told = {kind: submit(engine, prompt, kind, count=1, prompt_logprobs=True)[1] for kind in truths}
    assert run(engine) == len(truths)
    for kind, truth in truths.items():
        first, last = told[kind].events
        assert isinstance(first, PrefillEvent)
        assert isinstance(last, TokenEvent)
        known = truth[:-1].gather(1, torch.tensor([prompt[1:]]).T)[:, 0]
        found = torch.tensor(first.logprobs[1:])
        torch.testing.assert_close(found, known, atol=0.15, rtol=0.02, msg=kind)
        assert last.choice.logprob == pytest.approx(float(truth[-1, last.choice.token]), abs=0.15)


def half_logprobs(model: torch.nn.Module, prompt: tuple[int, ...]) -> torch.Tensor:
    """Log probabilities of what follows each token of the prompt."""
    ids = torch.tensor([prompt])
    with torch.inference_mode(), tiny.peft_warnings():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    return torch.log_softmax(logits[-len(prompt) :].float(), -1)


def test_adapter_behind_the_last_hidden_state_is_refused(tmp_path: Path) -> None:
    """A step keeps only the tokens that are read there, so rows could not be told apart."""
    base = tiny.save_checkpoint("llama", tmp_path / "base")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*save_embedding_layers.*")
        tiny.save_adapter("llama", base, tmp_path / "head", "lora", target_modules=["lm_head"])
    saved = tmp_path / "head" / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(saved).items() if "lora" in k}, saved)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    engine = Engine(model, EngineLimits(2, 64, kv_tokens=256))
    with pytest.raises(ModelLoadError, match="lm_head lies behind the last hidden state"):
        engine.stacks.check(read_adapter(tmp_path / "head", "head"))
