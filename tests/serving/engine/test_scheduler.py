"""Memory of the engine: bounded by its budget, given up by the youngest, real when it runs out."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import serving_models as tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from serving.adapters.peft_reader import read_adapter
from serving.config import EngineLimits
from serving.engine.engine import Engine
from serving.engine.request import EngineRequest, Event, FailureEvent, TokenEvent
from serving.engine.sampling import SamplingParams
from serving.errors import EngineFailure, ModelLoadError, OutOfMemoryFailure
from serving.models.loading import require_room
from serving.models.memory import free_bytes

LIMITS = EngineLimits(8, 80, kv_tokens=160, prefill_chunk=8, prefix_cache_tokens=0)
NUM_NEW = 40
KINDS = ("lora", "prefix")


class Tight:
    """A tiny Llama with a LoRA and a prefix, and engines over it."""

    def __init__(self, folder: Path) -> None:
        self.base = tiny.save_checkpoint("llama", folder / "base")
        self.folders: dict[str | None, Path | None] = {None: None}
        for kind in KINDS:
            self.folders[kind] = tiny.save_adapter("llama", self.base, folder / kind, kind)

    def engine(self, limits: EngineLimits = LIMITS) -> Engine:
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        engine = Engine(model, limits)
        adapters = [read_adapter(path, name) for name, path in self.folders.items() if path]
        engine.install_adapters(adapters, engine.prepare_adapters(adapters))
        return engine

    def truth(self, adapter: str | None, prompt: tuple[int, ...], count: int) -> list[int]:
        return list(tiny.generate(self.base, self.folders[adapter], prompt, count))


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Tight:
    return Tight(tmp_path_factory.mktemp("tight"))


def submit(
    engine: Engine, prompt: tuple[int, ...], adapter: str | None = None, count: int = NUM_NEW,
    **wishes: object,
) -> list[Event]:  # fmt: skip
    events: list[Event] = []
    request = EngineRequest(
        prompt, count, events.append, adapter=adapter, eos_ids=frozenset({1}), **wishes
    )  # type: ignore[arg-type]
    engine.submit(request)
    return events


def tokens(events: list[Event]) -> list[int]:
    return [event.choice.token for event in events if isinstance(event, TokenEvent)]


def run(engine: Engine) -> int:
    """To the end, with a look at the budget after each step; the most rows that were there."""
    most = 0
    while engine.has_work:
        report = engine.step()
        if report is not None:
            most = max(most, report.num_rows)
        assert engine.pool.num_slots * engine.pool.capacity <= engine.limits.kv_tokens
    return most


@pytest.mark.slow
def test_the_youngest_give_way_and_all_come_to_their_end(tight: Tight) -> None:
    engine = tight.engine()
    asked = list(zip([None, *KINDS] * 3, tiny.prompts(9, seed=7, longest=16), strict=True))
    told = [submit(engine, prompt, adapter) for adapter, prompt in asked]
    most = run(engine)
    for (adapter, prompt), events in zip(asked, told, strict=True):
        assert tokens(events) == tight.truth(adapter, prompt, NUM_NEW), (adapter, prompt)
    assert engine.stats.rows_preempted > 0
    assert most > LIMITS.kv_tokens // LIMITS.max_total_tokens


def test_the_oldest_is_never_held_up(tight: Tight) -> None:
    engine = tight.engine()
    prompts = [tiny.long_prompt(12, seed) for seed in range(6)]
    oldest = submit(engine, prompts[0])
    for prompt in prompts[1:]:
        submit(engine, prompt)
    engine.step()
    while engine.rows and tokens(oldest) != tight.truth(None, prompts[0], NUM_NEW):
        before = len(tokens(oldest))
        engine.step()
        assert len(tokens(oldest)) >= before + (1 if before else 0)
    run(engine)


@pytest.mark.slow
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_schedule_in_little_memory_gives_the_tokens_of_running_alone(
    tight: Tight, data: st.DataObject
) -> None:
    """Greedy rows against transformers, sampled ones against the same seed alone with room."""
    engine = tight.engine()
    roomy = tight.engine(EngineLimits(max_total_tokens=80, prefix_cache_tokens=0))
    pool = tiny.prompts(5, seed=6, longest=20)
    plan = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from([None, *KINDS]),
                st.sampled_from(pool),
                st.none() | st.integers(0, 3),  # a seed, or greedy
                st.integers(0, 6),  # steps until the next one joins
            ),
            min_size=3,
            max_size=8,
        )
    )
    running = []
    for adapter, prompt, seed, steps in plan:
        params = SamplingParams(do_sample=seed is not None, temperature=1.2, seed=seed)
        running.append((adapter, prompt, params, submit(engine, prompt, adapter, sampling=params)))
        for _ in range(steps):
            engine.step()
    run(engine)
    for adapter, prompt, params, events in running:
        if params.do_sample:
            alone = submit(roomy, prompt, adapter, sampling=params)
            run(roomy)
            assert tokens(events) == tokens(alone)
        else:
            assert tokens(events) == tight.truth(adapter, prompt, NUM_NEW)


@contextmanager
def address_space(spare: int) -> Iterator[None]:
    """Let this process take only `spare` more bytes: what comes after is the real error."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.slow
def test_a_request_that_finds_no_memory_is_answered_alone(tight: Tight) -> None:
    many = 4_000_000
    engine = tight.engine(
        replace(LIMITS, kv_tokens=16 * many, max_total_tokens=2 * many, prefill_chunk=256)
    )
    prompt = tiny.prompts(1, seed=31)[0]
    fits = submit(engine, prompt, "prefix")
    engine.step()
    with address_space(256 * 2**20):
        too_big = submit(engine, (5,) * many, "lora")  # 1 GB of keys and values
        for _ in range(3):
            engine.step()
    (event,) = too_big
    assert isinstance(event, FailureEvent)
    assert isinstance(event.error, OutOfMemoryFailure)
    later = submit(engine, prompt, "lora")
    run(engine)
    assert tokens(fits) == tight.truth("prefix", prompt, NUM_NEW)
    assert tokens(later) == tight.truth("lora", prompt, NUM_NEW)
    assert engine.stats.rows_failed == 1


def test_what_can_never_fit_is_refused_and_holds_nobody_up(tight: Tight) -> None:
    engine = tight.engine(replace(LIMITS, kv_tokens=30, max_total_tokens=30))
    never = submit(engine, tiny.long_prompt(27), "prefix", count=2)  # 5 virtual tokens as well
    later = submit(engine, (5, 6, 7), count=5)
    run(engine)
    (event,) = never
    assert isinstance(event, FailureEvent)
    assert isinstance(event.error, EngineFailure)
    assert "34 tokens do not fit the memory for 30" in str(event.error)
    assert tokens(later) == tight.truth(None, (5, 6, 7), 5)


def test_the_budget_is_cut_to_the_memory_there_is(tight: Tight) -> None:
    engine = tight.engine(
        EngineLimits(kv_tokens=4000, max_total_tokens=2000, prefix_cache_tokens=1000)
    )
    # 2 layers, keys and values, 2 heads of 8 numbers of 4 bytes each.
    assert engine.pool.bytes_per_token == 2 * 2 * 2 * 8 * 4
    engine.limit_memory(256 * 5000)
    assert engine.limits.kv_tokens == 4000
    engine.limit_memory(256 * 1600)
    assert (engine.limits.kv_tokens, engine.limits.prefix_cache_tokens) == (1200, 400)
    assert engine.limits.max_total_tokens == 1200
    assert engine.pool.max_tokens == 1200
    with pytest.raises(ModelLoadError, match="free some or serve a smaller model"):
        engine.limit_memory(256 * 40)


def test_free_memory_is_what_machine_and_container_leave(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    5000 kB\n")
    cpu = torch.device("cpu")
    assert free_bytes(cpu, meminfo, tmp_path / "none") == 5000 * 1024
    assert free_bytes(cpu, tmp_path / "none", tmp_path / "none") is None
    for name, text in (("max", "3000000\n"), ("current", "2000000\n"),
                       ("stat", "anon 5\ninactive_file 400000\n")):  # fmt: skip
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_bytes(cpu, meminfo, tmp_path) == 1_400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(cpu, meminfo, tmp_path) == 5000 * 1024
    real = free_bytes(cpu)
    assert real is not None
    assert 2**26 < real < 2**46


def test_weights_that_do_not_go_into_memory_are_refused(tmp_path: Path) -> None:
    require_room(tmp_path, 2**30, 2**31)
    require_room(tmp_path, 2**30, None)
    with pytest.raises(ModelLoadError, match=r"take 4.0 GiB and 2.0 GiB of memory are free"):
        require_room(tmp_path, 2**32, 2**31)
