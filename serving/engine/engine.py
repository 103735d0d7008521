"""One copy of base weights and the rows that run on it: requests join and leave at any step.

Each step is one forward over the new tokens of every row, whatever adapter a row uses. Token
ids in and out; knows no text, no names of models, no HTTP and no threads (`worker` has those), and
leaves it to the `scheduler` who runs.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import replace

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from serving.adapters.lora import PreparedStacks
from serving.adapters.manager import AdapterManager
from serving.adapters.peft_reader import Adapter
from serving.attention import packed
from serving.attention.pool import KVPool
from serving.attention.prefix_cache import PrefixCache
from serving.config import EngineLimits
from serving.engine.batch import Row, StepPlan, plan_step
from serving.engine.compiled_runner import CompiledRunner, reason_against
from serving.engine.request import (
    EngineRequest,
    FinishReason,
    PrefillEvent,
    ScoreEvent,
    TokenEvent,
)
from serving.engine.sampling import ChosenToken, choose
from serving.engine.scheduler import Scheduler
from serving.engine.stats import EngineStats, StepReport, StepTimer
from serving.errors import ModelLoadError, NotFiniteFailure


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread calls everything here,
    except `submit` (append only) and `prepare_adapters`.
    """

    def __init__(self, model: PreTrainedModel, limits: EngineLimits) -> None:
        self.model = model.eval().requires_grad_(False)
        assert limits.max_total_tokens, "callers settle what the model allows"
        self.limits = limits
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.stats = EngineStats()
        self._state = packed.install(model)
        self.pool = self._state.pool = KVPool(
            packed.learn_shapes(model, self._state),
            dtype=self.dtype,
            device=self.device,
            max_tokens=limits.kv_tokens,
        )
        self.adapters = AdapterManager(model, self._state, self.pool)
        self.stacks = self.adapters.stacks
        self.cache = PrefixCache(limits.prefix_cache_tokens)
        self.weight_bytes = step_weight_bytes(model)
        self.compiled: CompiledRunner | None = None
        if reason_against(model) is None:
            self.compiled = CompiledRunner(
                model, self.pool, self.stacks, self._state, limits.max_total_tokens
            )
        self.on_compute: Callable[[], None] = lambda: None
        self._states: torch.Tensor | None = None
        self._scheduler = Scheduler(limits, self.pool, self.adapters, self.cache, self.stats)

    # --- requests -------------------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """What runs."""
        return self._scheduler.rows

    @property
    def waiting(self) -> deque[EngineRequest]:
        """What waits for a place or for memory."""
        return self._scheduler.waiting

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rows or self.waiting)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; its events go to its sink."""
        total = len(request.prompt) + request.max_new_tokens
        assert request.prompt, "a prompt has at least one token"
        assert total <= self.limits.max_total_tokens, "callers check the token limits"
        self._scheduler.submit(request)

    def limit_memory(self, num_bytes: int) -> None:
        """Lower the budget to what `num_bytes` hold; ModelLoadError if that is next to nothing.

        Call before the first request.
        """
        most = num_bytes // self.pool.bytes_per_token
        if most >= self.limits.kv_tokens + self.limits.prefix_cache_tokens:
            return
        cached = min(self.limits.prefix_cache_tokens, most // 4)
        budget = min(self.limits.kv_tokens, most - cached)
        if budget < 64:
            raise ModelLoadError(
                f"{num_bytes / 2**20:.0f} MiB of memory are left for keys and values, which hold "
                f"{max(budget, 0)} tokens; free some or serve a smaller model"
            )
        total = min(self.limits.max_total_tokens, budget)
        self.limits = replace(
            self.limits, kv_tokens=budget, prefix_cache_tokens=cached, max_total_tokens=total
        )
        self.pool.max_tokens = budget
        self.cache.max_tokens = cached

    def step(self) -> StepReport | None:
        """Plan, run, emit: one forward over the new tokens of every row, and what comes of it.

        The report says what ran and how long each part took; None when nothing was to do.
        """
        timer = StepTimer()
        with timer("filter"):
            self._scheduler.drop_cancelled()
        with timer("plan"):
            plan = self._plan()
        if plan is None:
            return None
        with timer("run"):
            result = self._run(plan)
        with timer("emit"):
            if isinstance(result, Exception):
                self._run_alone(plan, result)
            else:
                self._emit(plan, result)
        return self._report(plan, timer, failed=isinstance(result, Exception))

    def fail_all(self, error: Exception) -> None:
        """End every request, running or waiting, with `error`."""
        self._scheduler.fail_all(error)

    # --- adapters -------------------------------------------------------------------------

    def prepare_adapters(self, adapters: Sequence[Adapter]) -> PreparedStacks:
        """Check and stack the adapters to be in use from now on; safe beside running steps."""
        return self.adapters.prepare(adapters)

    def install_adapters(self, adapters: Sequence[Adapter], prepared: PreparedStacks) -> None:
        """Swap the set of adapters; ones that rows still run on must be among them."""
        self.adapters.install(adapters, prepared)
        self.cache.forget({None, *(adapter.name for adapter in adapters)})

    def running_adapters(self) -> set[str]:
        """Keys of the adapters that rows, running or waiting, use."""
        return self._scheduler.running_adapters()

    # --- one step -------------------------------------------------------------------------

    def _plan(self) -> StepPlan | None:
        """Let waiting requests join, and choose the tokens that run; None when there are none."""
        self._scheduler.admit()
        self._scheduler.make_room()
        if not self.rows:
            return None
        num_decoding = sum(row.is_decoding for row in self.rows)
        most = self.limits.prefill_chunk
        budget = self.stats.pacing.budget(most, len(self.rows) - num_decoding, num_decoding)
        return plan_step(self.rows, self.pool, budget, most)

    def _run(self, plan: StepPlan) -> torch.Tensor | Exception:
        """Logits [wanted places, vocab] of the step's tokens, or what made the forward fail.

        `on_compute` is told before.
        """
        self.on_compute()
        try:
            is_plain = not plan.is_scoring  # compiled steps give logits alone
            if is_plain and self.compiled is not None and self.compiled.takes(plan):
                self.stats.compiled_steps += 1
                return self.compiled.run(plan)
            return self._run_model(plan)
        except Exception as error:
            return error

    def _run_model(self, plan: StepPlan) -> torch.Tensor:
        self._states = None
        watch = self._watch_states() if plan.is_scoring else None
        self._state.layout = plan.layout
        self.stacks.step = self.stacks.mask(plan.adapters, plan.counts)
        try:
            with torch.inference_mode():
                output = self.model(
                    input_ids=plan.tokens,
                    position_ids=plan.positions,
                    use_cache=False,
                    logits_to_keep=plan.wanted,
                )
        finally:
            self._state.layout = None
            self.stacks.step = None
            if watch is not None:
                watch.remove()
        return output.logits[0]  # type: ignore[no-any-return]

    def _watch_states(self) -> RemovableHandle:
        """Keep what the output head is given: [wanted places, hidden], after the last norm."""

        def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self._states = inputs[0].reshape(-1, inputs[0].shape[-1])

        head = self.model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        return head.register_forward_pre_hook(keep)

    def _score(self, plan: StepPlan, without: Sequence[Row]) -> None:
        """Score the rows that are read whole and have a head, and let them leave."""
        for row, place in plan.ends_of_scored():
            if row in without:
                continue
            head, states = row.request.head, self._states
            assert head is not None
            assert states is not None
            score = float(states[place].float() @ head.to(states.device).float())
            if not math.isfinite(score):
                self._scheduler.fail(row, not_finite(row))
                continue
            self._scheduler.remember(row)
            self._scheduler.remove(row)
            row.request.sink(ScoreEvent(score))

    def _emit(self, plan: StepPlan, logits: torch.Tensor) -> None:
        """Advance the rows, choose a token for each whose prompt is read, and hand it out."""
        for row, count in zip(plan.rows, plan.counts, strict=True):
            row.length += count
            row.pending = row.pending[count:]
        with torch.inference_mode():
            broken = plan.not_finite(logits)
            for row in broken:
                self._scheduler.fail(row, not_finite(row))
            ready = plan.collect(logits, without=broken)
            self._score(plan, without=broken)
        for row in ready.rows:
            if not row.has_begun:
                self._scheduler.remember(row)
                if row.request.prompt_logprobs:
                    known = PrefillEvent(tuple(row.prompt_logprobs), tuple(row.prompt_tops))
                    row.request.sink(known)
        chosen = self._choose(ready.rows, ready.logits) if ready.rows else []
        for row, token in zip(ready.rows, chosen, strict=True):
            if isinstance(token, Exception):
                self._scheduler.fail(row, token)
            else:
                self._hand_out(row, token)
        self.stats.count_forward(plan.num_prompt_tokens, len(chosen))

    def _choose(
        self, rows: Sequence[Row], logits: torch.Tensor
    ) -> Sequence[ChosenToken | Exception]:
        tops = [row.request.num_top for row in rows]
        try:
            with torch.inference_mode():
                return choose(logits, [row.sampler for row in rows], tops)
        except Exception:
            # One row's parameters or grammar failed: find it, let the others go on.
            results: list[ChosenToken | Exception] = []
            for i, row in enumerate(rows):
                try:
                    with torch.inference_mode():
                        results += choose(logits[i : i + 1], [row.sampler], tops[i : i + 1])
                except Exception as error:
                    results.append(error)
            return results

    def _hand_out(self, row: Row, chosen: ChosenToken) -> None:
        """Send a row its token; a row that is done with it leaves."""
        request, token = row.request, chosen.token
        row.sampler.generated.append(token)
        if request.accept is not None:
            try:
                request.accept(token)
            except Exception as error:
                self._scheduler.fail(row, error)
                return
        finish = None
        if len(row.sampler.generated) >= request.max_new_tokens:
            finish = FinishReason.LENGTH
        elif token in request.eos_ids:
            finish = FinishReason.EOS_TOKEN
        if finish is None:
            row.pending = [token]
        else:
            self._scheduler.remove(row)
        request.sink(TokenEvent(chosen, finish))

    def _run_alone(self, plan: StepPlan, error: Exception) -> None:
        """A step failed: run its rows one by one, so that only those at fault are answered so.

        Safe to repeat: a forward writes the same keys and values to the same places.
        """
        if len(plan.rows) == 1:
            self._scheduler.fail(plan.rows[0], error)
            return
        for row in list(plan.rows):
            chunk = self.limits.prefill_chunk
            single = plan_step([row], self.pool, chunk, chunk)
            result = self._run(single)
            if isinstance(result, Exception):
                self._scheduler.fail(row, result)
            else:
                self._emit(single, result)

    # --- what is told of a step -----------------------------------------------------------

    def _report(self, plan: StepPlan, timer: StepTimer, *, failed: bool) -> StepReport:
        """Learn from a step's seconds, and say what ran."""
        if not failed:
            seconds = timer.seconds["run"] + timer.seconds["emit"]
            num_decode = plan.layout.num_decode
            self.stats.pacing.record(seconds, plan.num_prompt_tokens, num_decode)
            if not plan.layout.chunks:
                tuned = {name for name in plan.adapters if name in self.stacks.slots}
                read = self._bytes_read(plan, tuned)
                self.stats.times.record(len(plan.rows), seconds, read, tuned=bool(tuned))
        return StepReport(
            is_prefill=bool(plan.layout.chunks),
            failed=failed,
            num_rows=len(plan.rows),
            num_before=self._scheduler.num_before,
            num_joined=self._scheduler.num_joined,
            filter_seconds=timer.seconds["filter"],
            join_seconds=timer.seconds["plan"],
            forward_seconds=timer.seconds["run"],
            choose_seconds=timer.seconds["emit"],
        )

    def _bytes_read(self, plan: StepPlan, adapters: Set[str | None]) -> int:
        """Bytes that a step of rows that decode had to read: weights, adapters, keys and values."""
        stacked = sum(self.stacks.num_bytes(name) for name in adapters)
        cached = sum(plan.layout.decode_lengths) * self.pool.bytes_per_token
        return self.weight_bytes + stacked + cached


def not_finite(row: Row) -> NotFiniteFailure:
    """What a row is answered with whose scores are NaN or infinity."""
    return NotFiniteFailure(
        f"{row.request.model} gave scores that are not finite after {row.length} tokens; its "
        "weights are too large for this number format, or broken"
    )


def step_weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights that every step reads; an input embedding of its own is looked up."""
    total: int = sum(p.numel() * p.element_size() for p in model.parameters())
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is table
    return total if is_tied else total - int(table.numel()) * int(table.element_size())
