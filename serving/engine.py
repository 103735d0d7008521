"""One copy of base weights and the rows that run on it: requests join and leave at any step.

Each step is one forward over the new tokens of every row, whatever adapter a row uses. Token
ids in and out; knows no text, no names of models, no HTTP and no threads (`serving.worker`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from serving import attention
from serving.accounts import EngineLimits, EngineStats
from serving.adapters import Adapter
from serving.batch import Row, StepPlan, plan_step
from serving.errors import EngineFailure, ModelLoadError
from serving.kv import KVPool
from serving.lora import PreparedBank
from serving.prefix_cache import PrefixCache
from serving.request import (
    EngineRequest,
    FailureEvent,
    FinishReason,
    PrefillEvent,
    TokenEvent,
    as_failure,
)
from serving.sampling import Choice, Sampler, choose
from serving.shelf import AdapterShelf, LoadedAdapter


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
        self.rows: list[Row] = []
        self.waiting: deque[EngineRequest] = deque()
        self._state = attention.install(model)
        self.pool = self._learn_geometry()
        self.shelf = AdapterShelf(model, self._state, self.pool)
        self.bank = self.shelf.bank
        self.cache = PrefixCache(limits.prefix_cache_tokens)

    # --- requests -------------------------------------------------------------------------

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; its events go to its sink."""
        total = len(request.prompt) + request.max_new_tokens
        assert request.prompt, "a prompt has at least one token"
        assert total <= self.limits.max_total_tokens, "callers check the token limits"
        self.waiting.append(request)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.rows or self.waiting)

    def step(self) -> None:
        """Drop cancelled rows, admit waiting ones, run one forward, hand out its tokens."""
        self._drop_cancelled()
        self._admit()
        if not self.rows:
            return
        self.stats.max_rows_together = max(self.stats.max_rows_together, len(self.rows))
        plan = plan_step(self.rows, self.pool, self.limits.prefill_chunk)
        start = time.perf_counter()
        try:
            logits = self._forward(plan)
        except Exception as error:
            self._recover(plan, error)
            return
        tuned = any(name in self.bank.seats for name in plan.adapters)
        self._advance(plan, logits)
        if not plan.layout.chunks:
            seconds = time.perf_counter() - start
            self.stats.times.note(len(plan.rows), seconds, tuned=tuned)

    def fail_all(self, error: Exception) -> None:
        """End every request, running or waiting, with `error`."""
        for row in self.rows:
            self._release(row)
            row.request.sink(FailureEvent(error))
        self.rows.clear()
        while self.waiting:
            self.waiting.popleft().sink(FailureEvent(error))

    # --- adapters -------------------------------------------------------------------------

    def prepare_adapters(self, adapters: Sequence[Adapter]) -> PreparedBank:
        """Check and stack the adapters to be in use from now on; safe beside running steps."""
        return self.shelf.prepare(adapters)

    def install_adapters(self, adapters: Sequence[Adapter], prepared: PreparedBank) -> None:
        """Swap the set of adapters; ones that rows still run on must be among them."""
        self.shelf.install(adapters, prepared)
        self.cache.forget({None, *(adapter.name for adapter in adapters)})

    def running_adapters(self) -> set[str]:
        """Keys of the adapters that rows, running or waiting, use."""
        waiting = {request.adapter for request in self.waiting if request.adapter is not None}
        return {key for key in waiting if key in self.shelf} | self.shelf.running

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

    def _drop_cancelled(self) -> None:
        for row in [row for row in self.rows if row.request.cancelled.is_set()]:
            self.stats.rows_cancelled += 1
            self._remove(row)
        if any(request.cancelled.is_set() for request in self.waiting):
            kept = [r for r in self.waiting if not r.cancelled.is_set()]
            self.stats.rows_cancelled += len(self.waiting) - len(kept)
            self.waiting = deque(kept)

    def _admit(self) -> None:
        while self.waiting and len(self.rows) < self.limits.max_rows:
            request = self.waiting[0]
            if request.adapter not in self.shelf:
                self.waiting.popleft()
                request.sink(FailureEvent(EngineFailure("the adapter was unloaded meanwhile")))
                continue
            loaded = self.shelf.get(request.adapter)
            need = len(request.prompt) + request.max_new_tokens
            need += loaded.num_virtual if loaded is not None else 0
            capacity = max([need, *(row.capacity for row in self.rows)])
            if self.rows and not self.pool.fits(len(self.rows) + 1, capacity):
                return  # It waits for memory; rows that finish give it back.
            self.waiting.popleft()
            try:
                self.pool.reserve(len(self.rows) + 1, capacity)
                self._join(request, loaded, need)
            except (RuntimeError, MemoryError) as error:
                self.stats.rows_failed += 1
                request.sink(FailureEvent(as_failure(error)))

    def _join(self, request: EngineRequest, loaded: LoadedAdapter | None, need: int) -> None:
        """Make a row of a request: virtual tokens and a remembered beginning go in at once."""
        slot, known = len(self.rows), 0
        virtual = loaded.num_virtual if loaded is not None else 0
        if loaded is not None and loaded.prefix is not None:
            self.pool.write_prefix(slot, loaded.prefix.layers)
        if not request.prompt_logprobs:
            known, layers = self.cache.find(request.adapter, request.prompt)
            if known:
                self.pool.write_prefix(slot, layers, virtual)
        request.started_at = time.monotonic()
        sampler = Sampler(request.sampling, request.prompt, request.mask)
        pending = list(request.prompt[known:])
        self.rows.append(Row(request, sampler, slot, virtual + known, pending, need))
        if loaded is not None:
            loaded.num_running += 1

    def _remember(self, row: Row) -> None:
        """Keep the keys and values of a prompt that just ran for prompts that begin alike."""
        request = row.request
        if self.cache.wants(request.adapter, request.prompt):
            virtual = row.length - len(request.prompt)
            layers = self.pool.read(row.slot, row.length)
            self.cache.store(
                request.adapter, request.prompt, [(k[virtual:], v[virtual:]) for k, v in layers]
            )

    def _forward(self, plan: StepPlan) -> torch.Tensor:
        """Logits [wanted places, vocab] of the step's tokens."""
        self._state.layout = plan.layout
        self.bank.step = self.bank.mask(plan.adapters, plan.counts)
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
            self.bank.step = None
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
            if not row.is_decoding:
                self._remember(row)
                if row.request.prompt_logprobs:
                    row.request.sink(PrefillEvent(tuple(row.prompt_logprobs)))
        choices = self._choose(ready.rows, ready.logits)
        for row, choice in zip(ready.rows, choices, strict=True):
            if isinstance(choice, Exception):
                self._fail(row, choice)
            else:
                self._emit(row, choice)

    def _choose(self, rows: Sequence[Row], logits: torch.Tensor) -> Sequence[Choice | Exception]:
        tops = [row.request.num_top for row in rows]
        try:
            with torch.inference_mode():
                return choose(logits, [row.sampler for row in rows], tops)
        except Exception:
            # One row's parameters or grammar failed: find it, let the others go on.
            results: list[Choice | Exception] = []
            for i, row in enumerate(rows):
                try:
                    with torch.inference_mode():
                        results += choose(logits[i : i + 1], [row.sampler], tops[i : i + 1])
                except Exception as error:
                    results.append(error)
            return results

    def _emit(self, row: Row, choice: Choice) -> None:
        request, token = row.request, choice.token
        self.stats.decode_tokens += 1
        row.sampler.generated.append(token)
        if request.accept is not None:
            request.accept(token)
        finish = None
        if len(row.sampler.generated) >= request.max_new_tokens:
            finish = FinishReason.LENGTH
        elif token in request.eos_ids:
            finish = FinishReason.EOS_TOKEN
        if finish is None:
            row.pending = [token]
        else:
            self.stats.rows_finished += 1
            self._remove(row)
        request.sink(TokenEvent(choice, finish))

    def _recover(self, plan: StepPlan, error: Exception) -> None:
        """A step failed: run its rows one by one, so that only those at fault are answered so.

        Safe to repeat: a forward writes the same keys and values to the same places.
        """
        if len(plan.rows) == 1:
            self._fail(plan.rows[0], error)
            return
        for row in list(plan.rows):
            single = plan_step([row], self.pool, self.limits.prefill_chunk)
            try:
                logits = self._forward(single)
            except Exception as row_error:
                self._fail(row, row_error)
            else:
                self._advance(single, logits)

    def _fail(self, row: Row, error: Exception) -> None:
        self.stats.rows_failed += 1
        self._remove(row)
        row.request.sink(FailureEvent(as_failure(error)))

    def _remove(self, row: Row) -> None:
        """Take a row out and move the last slot into its place, so that slots stay compact."""
        self._release(row)
        last = self.rows[-1]
        if last is not row:
            self.pool.move(last.slot, row.slot, last.length)
            last.slot = row.slot
            self.rows[row.slot] = last
        self.rows.pop()

    def _release(self, row: Row) -> None:
        loaded = self.shelf.get(row.request.adapter)
        if loaded is not None:
            loaded.num_running -= 1
