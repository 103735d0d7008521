"""One copy of base weights and the rows that run on it: requests join and leave at any step.

Each step is one forward over the new tokens of every row, whatever adapter a row uses. Token
ids in and out; knows no text, no names of models, no HTTP and no threads (`worker` has those), and
leaves it to the `scheduler` who runs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from serving.adapters.lora import PreparedStacks
from serving.adapters.manager import AdapterManager
from serving.adapters.peft_reader import Adapter
from serving.attention import packed
from serving.attention.pool import KVPool
from serving.attention.prefix_cache import PrefixCache
from serving.engine.batch import Row, StepPlan, plan_step
from serving.engine.compiled_runner import CompiledRunner, reason_against
from serving.engine.request import EngineRequest, FinishReason, PrefillEvent, TokenEvent
from serving.engine.sampling import ChosenToken, choose
from serving.engine.scheduler import Scheduler
from serving.engine.stats import EngineLimits, EngineStats, StepReport
from serving.errors import ModelLoadError


class Engine:
    """Continuous batching over one model. Not thread-safe: one thread calls everything here,
    except `submit` (append only) and `prepare_adapters`.
    """

    def __init__(self, model: PreTrainedModel, limits: EngineLimits) -> None:
        self.model = model.eval().requires_grad_(False)
        self.limits = limits
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.stats = EngineStats()
        self._state = packed.install(model)
        self.pool = self._learn_geometry()
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
        """Drop cancelled rows, admit waiting ones, run one forward, hand out its tokens.

        The report says what ran and how long each part took; None when nothing was to do.
        """
        begin = time.perf_counter()
        self._scheduler.drop_cancelled()
        dropped = time.perf_counter()
        num_before = len(self.rows)
        num_joined = self._scheduler.admit()
        self._scheduler.make_room()
        if not self.rows:
            return None
        self.stats.max_rows_together = max(self.stats.max_rows_together, len(self.rows))
        num_decoding = sum(row.is_decoding for row in self.rows)
        num_prefilling = len(self.rows) - num_decoding
        chunk = self.stats.pacing.budget(self.limits.prefill_chunk, num_prefilling, num_decoding)
        plan = plan_step(self.rows, self.pool, chunk, self.limits.prefill_chunk)
        tuned = {name for name in plan.adapters if name in self.stacks.slots}
        start = time.perf_counter()
        failed = False
        try:
            logits = self._forward(plan)
        except Exception as error:
            failed, ran = True, time.perf_counter()
            self._recover(plan, error)
        else:
            ran = time.perf_counter()
            self._advance(plan, logits)
        end = time.perf_counter()
        if not failed:
            num_prompt = sum(plan.counts) - plan.layout.num_decode
            self.stats.pacing.record(end - start, num_prompt, plan.layout.num_decode)
        if not (plan.layout.chunks or failed):
            moved = self.weight_bytes + sum(self.stacks.num_bytes(name) for name in tuned)
            moved += sum(plan.layout.decode_lengths) * self.pool.bytes_per_token
            self.stats.times.note(len(plan.rows), end - start, moved, tuned=bool(tuned))
        return StepReport(
            is_prefill=bool(plan.layout.chunks),
            failed=failed,
            num_rows=len(plan.rows),
            num_before=num_before,
            num_joined=num_joined,
            filter_seconds=dropped - begin,
            join_seconds=start - dropped,
            forward_seconds=ran - start,
            choose_seconds=end - ran,
        )

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

    def _learn_geometry(self) -> KVPool:
        """Run one token to learn the attention layers; refuses what does not fit the scheme."""
        one = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        with torch.inference_mode():
            self.model(input_ids=one, position_ids=one, use_cache=False)
        recorded = self._state.recorded
        if not recorded or sorted(recorded) != list(range(len(recorded))):
            raise ModelLoadError(
                f"{type(self.model).__name__}: its attention does not go through transformers' "
                "attention interface; this architecture cannot be served"
            )
        shapes = tuple(recorded[i] for i in range(len(recorded)))
        pool = KVPool(
            shapes, dtype=self.dtype, device=self.device, max_tokens=self.limits.kv_tokens
        )
        self._state.pool = pool
        return pool

    def _forward(self, plan: StepPlan) -> torch.Tensor:
        """Logits [wanted places, vocab] of the step's tokens; `on_compute` is told before."""
        self.on_compute()
        if self.compiled is not None and self.compiled.takes(plan):
            self.stats.compiled_steps += 1
            return self.compiled.run(plan)
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
        return output.logits[0]  # type: ignore[no-any-return]

    def _advance(self, plan: StepPlan, logits: torch.Tensor) -> None:
        self.stats.steps += 1
        self.stats.prefill_tokens += sum(plan.counts) - plan.layout.num_decode
        for row, count in zip(plan.rows, plan.counts, strict=True):
            row.length += count
            row.pending = row.pending[count:]
        with torch.inference_mode():
            ready = plan.collect(logits)
        if not ready.rows:
            return
        for row in ready.rows:
            if not row.has_begun:
                self._scheduler.remember(row)
                if row.request.prompt_logprobs:
                    row.request.sink(PrefillEvent(tuple(row.prompt_logprobs)))
        choices = self._choose(ready.rows, ready.logits)
        for row, choice in zip(ready.rows, choices, strict=True):
            if isinstance(choice, Exception):
                self._scheduler.fail(row, choice)
            else:
                self._emit(row, choice)

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

    def _emit(self, row: Row, choice: ChosenToken) -> None:
        request, token = row.request, choice.token
        self.stats.decode_tokens += 1
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
            self.stats.rows_finished += 1
            self._scheduler.remove(row)
        request.sink(TokenEvent(choice, finish))

    def _recover(self, plan: StepPlan, error: Exception) -> None:
        """A step failed: run its rows one by one, so that only those at fault are answered so.

        Safe to repeat: a forward writes the same keys and values to the same places.
        """
        if len(plan.rows) == 1:
            self._scheduler.fail(plan.rows[0], error)
            return
        for row in list(plan.rows):
            chunk = self.limits.prefill_chunk
            single = plan_step([row], self.pool, chunk, chunk)
            try:
                logits = self._forward(single)
            except Exception as row_error:
                self._scheduler.fail(row, row_error)
            else:
                self._advance(single, logits)


def step_weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of the weights that every step reads; an input embedding of its own is looked up."""
    total: int = sum(p.numel() * p.element_size() for p in model.parameters())
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is table
    return total if is_tied else total - int(table.numel()) * int(table.element_size())
