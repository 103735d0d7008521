"""Makes a variant: `run_tuning` reads from top to bottom what `arena tune` does.

Knows how the parts fit together; each part (data, model, trainer, folder) knows its own job, and
the objective what rows, model and loss are.
"""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tuning.config import TuningConfig
from tuning.data.batching import PlannedRows
from tuning.errors import TuningError
from tuning.hardware import pick_precision
from tuning.methods.adapters import count_parameters
from tuning.methods.requirements import check_method, default_learning_rate
from tuning.models.tokenizers import WRITE_ERRORS
from tuning.quiet import known_warnings_hidden, quiet_libraries
from tuning.training.callbacks import Display, RunControl
from tuning.training.challengers import Challengers, check_challengers
from tuning.training.checkpoints import (
    DAY,
    Checkpoint,
    RunFolder,
    first_day,
    identity_of,
    locked_run,
)
from tuning.training.clock import Clock, schedule_factor
from tuning.training.distributed import is_main_process, is_sharded, num_processes, wait_for_all
from tuning.training.history import History
from tuning.training.inputs import Inputs, check_home, check_name
from tuning.training.live import LiveFile
from tuning.training.objective import Objective
from tuning.training.save import (
    Outcome,
    RunCheckpoints,
    describe_run,
    metrics_of,
    save_variant,
)
from tuning.training.setup import (
    arguments,
    let_zero3_gather,
    plan_of,
    refuse_non_finite,
    remove_printers,
    tied_names,
    whole_weights,
)
from tuning.training.trackers import check_trackers, tracker_callbacks
from tuning.training.trainer import NonFiniteLossError, RunTrainer
from tuning.variant.folder import HISTORY_FILE, Variant, read_variant

SAMPLE_TOKENS = 48


class InterruptedRunError(TuningError):
    """The user stopped the run; it was saved and goes on with the same command."""


def run_tuning(
    config: TuningConfig,
    objective: Objective,
    *,
    console: Console | None = None,
    replayed: Mapping[int, float] | None = None,
    day: date | None = None,
) -> Variant:
    """Make the variant that `config` describes, trained for `objective`, and return it.

    Its folder is whole or absent.

    The main process's progress goes to `console` (none by default). An unfinished run of the same
    name and settings is continued. Raises a TuningError for a mistake in the settings, the data or
    the base, for a loss that is no number, and when stopped by Ctrl-C. `replayed` gives the
    progress of each step of an earlier run, to repeat a run that was bounded by the clock. `day` is
    the day on which this is called, by default today; a chat template that writes the date writes
    that of the run's first day.
    """
    started = time.monotonic()
    quiet_libraries()
    out = console if console is not None and is_main_process() else Console(quiet=True)
    check_method(config.method)
    check_trackers(config)
    check_challengers(config)
    check_home(config)
    with locked_run(run_path(config), config.name) if is_main_process() else nullcontext():
        check_name(config)
        first = None if config.restart else first_day(run_path(config))
        prepared: Inputs = objective.prepare(config, first or day)
        folder = run_folder(config, prepared)
        if config.restart and is_main_process():
            folder.discard()
        wait_for_all()
        with known_warnings_hidden():
            run = _Run(config, objective, prepared, folder, started, out, replayed)
            outcome = run.train()
            if is_main_process():
                save_variant(config, prepared, outcome)
                run.challengers.end()
                folder.discard()
        wait_for_all()
    return read_variant(config.folder)


def run_path(config: TuningConfig) -> Path:
    """The folder of an unfinished run of this name."""
    return config.folder.with_name(f".{config.name}.run")


def run_folder(config: TuningConfig, prepared: Inputs) -> RunFolder:
    """Where the checkpoints of this run are."""
    identity = identity_of(
        config.to_json(),
        prepared.data_sha256,
        prepared.base.sha256,
        prepared.tokenizer.chat_template,
        num_processes(),
    )
    identity["heldout"] = prepared.heldout_sha256
    if prepared.parent.is_adapter:
        identity["adapter"] = prepared.parent.weights_sha256
    identity["tokens"] = prepared.tokens_sha256
    if prepared.day is not None:
        identity[DAY] = prepared.day.isoformat()
    return RunFolder(run_path(config), identity)


class _Run:
    """One training: everything between the prepared rows and the finished model."""

    def __init__(
        self,
        config: TuningConfig,
        objective: Objective,
        prepared: Inputs,
        folder: RunFolder,
        started: float,
        out: Console,
        replayed: Mapping[int, float] | None,
    ) -> None:
        from transformers import set_seed

        self.config, self.prepared, self.folder, self.out = config, prepared, folder, out
        self.objective = objective
        options = config.training
        self.precision = pick_precision(options.precision)
        set_seed(config.seed)
        self.model, self.saved_dtype = objective.build(config, prepared, self.precision)
        self.trained, self.total = count_parameters(self.model)
        self.plan = plan_of(config, prepared.rows, prepared.order, prepared.max_length)
        say = partial(out.print, highlight=False)
        self.steps = objective.steps(config, prepared, self.model, self.plan, self.precision, say)
        self.rate = options.learning_rate or default_learning_rate(
            config.method, self.model.get_input_embeddings().embedding_dim, config.objective
        )
        seconds = options.max_minutes * 60 if options.max_minutes else None
        self.clock = Clock(self.plan.num_steps, seconds, started, replayed)
        self.history = History(None)
        self.display = Display(out, self.clock, self.history)
        self.trackers = tracker_callbacks(config, say)
        self.live = LiveFile(folder.folder, say)
        self.challengers = Challengers(config, prepared, say)
        self.control = RunControl(
            self.clock,
            config.checks,
            self.history,
            has_heldout=bool(prepared.heldout),
            after_evaluation=self._after_evaluation,
        )

    def train(self) -> Outcome:
        """Train from the start or from the newest whole checkpoint."""
        checkpoint = self._resume()
        if checkpoint is None and is_main_process():
            self.challengers.remove()  # of an earlier run of the name
        self._announce(checkpoint)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="arena-trainer-") as scratch:
            trainer, checkpoints = self._trainer(Path(scratch))
            try:
                with _signals_stop(self.control):
                    self._begin_live()  # from here on a run that is told to stop saves
                    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint.folder))
            except WRITE_ERRORS as error:
                raise checkpoints.failure(error) from error
            except NonFiniteLossError as error:
                raise NonFiniteLossError(f"{error}; of checkpoints {checkpoints.kept}") from error
            finally:
                self.display.close()
        step = trainer.state.global_step
        if self.control.interrupted:
            raise InterruptedRunError(
                f"{self.config.name}: stopped at step {step} of {self.plan.num_steps} and saved in "
                f"{self.folder.folder}; repeat the command to go on"
            )
        seconds = time.monotonic() - began
        taken = self._take_best(trainer, step)
        weights = whole_weights(trainer)
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        if self.config.method == "full" and weights is not None:
            tied = tied_names(model)
            weights = {
                name: part.to(self.saved_dtype)
                for name, part in weights.items()
                if name not in tied
            }
        elif self.config.method == "full":
            model.to(self.saved_dtype)
        refuse_non_finite(model, weights, taken)
        run = describe_run(self.config, self.prepared, self.precision, self.rate)
        run["steps"] = step
        run["stopped_early"] = self.control.stopped_early
        run["weights_of_step"] = taken
        run["resumed_at"] = checkpoint.step if checkpoint else None
        run["parameters"] = {"trained": self.trained, "all": self.total}
        run["tokens_per_second"] = round(trainer.num_tokens_seen / max(1e-9, seconds), 1)
        run["seconds"] = round(self.clock.elapsed, 2)
        run["remarks"] = self.objective.remarks(self.history.records)
        for remark in run["remarks"]:
            self.out.print(remark, highlight=False)
        metrics = metrics_of(self.history, taken)
        return Outcome(model, weights, self.history, run, metrics, self.steps.finish)

    def _take_best(self, trainer: RunTrainer, step: int) -> int:
        """With early stopping go back to the weights of the best evaluation; of which step."""
        best = self.history.best_step
        if self.config.checks.patience is None or best is None or best == step:
            return step
        folder = self.folder.at(best)
        if is_sharded() or folder is None:
            reason = "is not whole" if folder is None else "is spread over the processes"
            self.out.print(
                f"the checkpoint of step {best}, the best, {reason}: the weights are the last "
                f"step's, {step}",
                highlight=False,
            )
            return step
        trainer._load_from_checkpoint(str(folder))
        self.out.print(f"the weights are those of step {best}, the best", highlight=False)
        return best

    def _resume(self) -> Checkpoint | None:
        """Take history and clock from the newest whole checkpoint, if there is one."""
        checkpoint = self.folder.newest()
        for skipped in self.folder.skipped:
            self.out.print(f"skipped a checkpoint that is not whole: {skipped}", highlight=False)
        if checkpoint is not None:
            self.history.load(checkpoint.folder / HISTORY_FILE)
            self.clock.resume(checkpoint.seconds, self.history.progress)
        return checkpoint

    def _announce(self, checkpoint: Checkpoint | None) -> None:
        options = self.config.training
        for line in self.prepared.ledger.lines():
            self.out.print(line, highlight=False)
        limit = f" or {options.max_minutes:g} minutes" if options.max_minutes else ""
        self.out.print(
            f"{self.config.method}: {self.trained:,} of {self.total:,} parameters, "
            f"{self.precision}, learning rate {self.rate:g}, {self.plan.num_steps:,} steps of "
            f"{self.plan.batch} sequences{limit}",
            highlight=False,
        )
        if checkpoint is not None:
            self.out.print(f"going on after step {checkpoint.step}", highlight=False)
            if self.prepared.day is not None:
                self.out.print(
                    f"the chat template writes the date of the first day, {self.prepared.day}",
                    highlight=False,
                )

    def _trainer(self, scratch: Path) -> tuple[RunTrainer, RunCheckpoints]:
        config, options = self.config, self.config.training
        keeps_best = config.checks.patience is not None
        checkpoints = RunCheckpoints(self.folder, self.clock, self.history, keeps_best=keeps_best)
        trainer = RunTrainer(
            model=self.model,
            args=arguments(config, self.precision, self.rate, self.plan.num_steps, scratch),
            train_dataset=PlannedRows(self.prepared.rows, self.plan),
            callbacks=[self.control, self.display, *self.trackers],
            steps=self.steps,
            factor=lambda step: schedule_factor(
                self.clock.progress(step), options.schedule, options.warmup
            ),
            name_rows=self._name_rows,
            on_log=self._keep,
            on_batch=self.display.count,
            checkpoints=checkpoints,
        )
        remove_printers(trainer)
        let_zero3_gather(trainer)
        return trainer, checkpoints

    def _keep(self, record: dict[str, Any], measures: dict[str, float]) -> None:
        """One history record of what the Trainer logs; its summary at the end is not kept."""
        known = ("step", "loss", "grad_norm", "learning_rate", "eval_loss")
        kept = {key: record[key] for key in known if key in record}
        if len(kept) > 1:
            if "loss" in kept:
                kept["progress"] = self.clock.progress(record["step"])
            rounded = {name: round(value, 6) for name, value in measures.items()}
            self._record({**kept, **rounded, "seconds": round(self.clock.elapsed, 2)})

    def _begin_live(self) -> None:
        """Say to who watches what is run, and how it went so far."""
        config = self.config
        run = {
            "name": config.name,
            "base": config.base,
            "method": config.method,
            "objective": config.objective,
            "steps": self.plan.num_steps,
            "max_seconds": self.clock.max_seconds,
        }
        if is_main_process():
            self.live.begin(run, self.history.records)

    def _record(self, record: dict[str, Any]) -> None:
        """Keep one record of the history, and show it to who watches."""
        self.history.add(record)
        if is_main_process():
            self.live.add({**record, "tokens_per_second": round(self.display.rate, 1)})

    def _after_evaluation(self, step: int) -> None:
        """Show what the model answers now, and let others ask it."""
        # Sharded weights can answer on all processes together only; the others do not come here.
        if not is_main_process() or is_sharded():
            return
        self._sample(step)
        if self.challengers.are_wanted:
            run = describe_run(self.config, self.prepared, self.precision, self.rate)
            self.challengers.publish(self.model, step, self.history, {**run, "steps": step})

    def _sample(self, step: int) -> None:
        """Answer a few held-out prompts with the model as it is now."""
        samples = self.objective.sample(self.config, self.prepared, self.model)
        if not samples:
            return
        self._record({"step": step, "samples": samples})
        for sample in samples:
            self.out.print(
                f"  {sample['prompt']!r} -> {sample['answer']!r}", highlight=False, markup=False
            )

    def _name_rows(self, examples: list[int]) -> str:
        places = [self.prepared.place(example) for example in examples]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return ", ".join(places[:3]) + more


@contextmanager
def _signals_stop(control: RunControl) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the run after its step; a second Ctrl-C kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: Any) -> None:
        control.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
