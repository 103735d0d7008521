"""Shows a run while it goes on, keeps its history, and says when to evaluate, save and stop.

Knows steps, losses and the terminal; changes no weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from transformers import TrainerCallback

from tuning.config import CheckOptions
from tuning.training.clock import Clock
from tuning.training.distributed import largest
from tuning.training.history import History

EVALUATIONS = 5
LINE_SECONDS = 10.0
GO_ON, SAVE, SAVE_AND_STOP = 0, 1, 2


class RunControl(TrainerCallback):  # type: ignore[misc]
    """Ends the run by clock or patience and asks for evaluations and checkpoints."""

    def __init__(
        self,
        clock: Clock,
        checks: CheckOptions,
        history: History,
        *,
        has_heldout: bool,
        after_evaluation: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self._checks = checks
        self._history = history
        self._has_heldout = has_heldout
        self._after_evaluation = after_evaluation
        self._evaluated = 0
        self._saved_at = time.monotonic()
        self.stopped_early = False
        self.interrupted = False
        """Set by a signal: save after this step and stop."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run does not repeat the evaluations it has behind it."""
        self._evaluated = int(self._clock.progress(state.global_step) * EVALUATIONS)
        self._saved_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each optimizer step: is it over, is an evaluation or a checkpoint due?"""
        step, progress = state.global_step, self._clock.progress(state.global_step)
        control.should_log = True
        control.should_training_stop = control.should_training_stop or progress >= 1
        due = int(progress * EVALUATIONS) > self._evaluated
        if self._checks.eval_every is not None:
            due = step % self._checks.eval_every == 0 or progress >= 1
        self._evaluated = int(progress * EVALUATIONS)
        control.should_evaluate = due and self._has_heldout
        over = control.should_training_stop
        wish = self._wish(step)
        self.interrupted = wish == SAVE_AND_STOP and not over
        control.should_training_stop = over or self.interrupted
        control.should_save = wish != GO_ON and not over

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the model, then early stopping by the held-out loss; the best weights are saved."""
        self._after_evaluation(state.global_step)
        patience, best = self._checks.patience, self._history.best_step
        if patience is None:
            return
        steps = [step for step, _ in self._history.eval_losses]
        if best == state.global_step:
            control.should_save = not control.should_training_stop or control.should_save
        elif best is not None and len(steps) - 1 - steps.index(best) >= patience:
            self.stopped_early = True
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the seconds to the next checkpoint from the end of this one."""
        self._saved_at = time.monotonic()

    def _wish(self, step: int) -> int:
        """What to do after this step; all processes do what any one wants.

        Each has its own clock and its own signals: one that saves alone would wait for ever.
        """
        wish = SAVE_AND_STOP if self.interrupted else SAVE if self._save_due(step) else GO_ON
        return int(largest(wish))

    def _save_due(self, step: int) -> bool:
        if self._checks.save_steps is not None:
            return step % self._checks.save_steps == 0
        every = self._checks.save_every
        return every > 0 and time.monotonic() - self._saved_at >= every


class Display(TrainerCallback):  # type: ignore[misc]
    """A progress bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, console: Console, clock: Clock, history: History) -> None:
        self._console = console
        self._clock = clock
        self._history = history
        self._tokens = 0
        self._first = self._printed = time.monotonic()
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, and the count of tokens per second."""
        self._first = self._printed = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("training", total=1.0, text="")
            self._bar.start()

    def count(self, num_tokens: int) -> None:
        """Add the tokens of one batch."""
        self._tokens += num_tokens

    @property
    def rate(self) -> float:
        """Tokens a second since training began here."""
        return self._tokens / max(1e-9, time.monotonic() - self._first)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar; off a terminal print now and then."""
        progress = self._clock.progress(state.global_step)
        text = self._text(state.global_step, progress)
        if self._bar is not None:
            self._bar.update(self._task, completed=progress, text=text)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self._console.print(f"{progress:4.0%} {text}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Stop the bar; also when the run failed."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _text(self, step: int, progress: float) -> str:
        parts = [f"step {step}"]
        if self._history.losses:
            recent = [loss for _, loss in self._history.losses[-20:]]
            parts.append(f"loss {sum(recent) / len(recent):.3f}")
        if self._history.eval_losses:
            parts.append(f"held-out {self._history.eval_losses[-1][1]:.3f}")
        parts.append(f"{self.rate:,.0f} tokens/s")
        if progress > 0.01:
            parts.append(f"{self._clock.elapsed * (1 / progress - 1):.0f} s left")
        return ", ".join(parts)
