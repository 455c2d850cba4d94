"""Report training progress to the parent."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.execution.messages import Message, Progress, TrainHistory

Send = Callable[[Message], None]

_MESSAGE_INTERVAL_S = 1.0


class ProgressReporter:
    """Reports progress at most once a second, between steps; the parent timestamps each message by its own clock.

    Attributes:
        first_step_s: Seconds from submission to the end of the first step; None before that.
    """

    def __init__(self, send: Send, submitted_at: float, num_updates: int, num_steps_before: int) -> None:
        """Start reporting.

        Args:
            send: Sends a message to the parent.
            submitted_at: When the job was submitted, on the clock of `time.perf_counter`.
            num_updates: Planned updates of the whole training.
            num_steps_before: Steps that the training's earlier segments did.
        """
        self._send, self._submitted_at, self._num_updates = send, submitted_at, num_updates
        self._num_steps_before, self._num_memory_sent = num_steps_before, num_steps_before
        self._history, self._sent_at = TrainHistory(), -_MESSAGE_INTERVAL_S
        self.first_step_s: float | None = None

    def on_step(self, history: TrainHistory) -> None:
        """Report the step if the last message is at least a second old."""
        now, self._history = time.perf_counter(), history
        if self.first_step_s is None:
            self.first_step_s = now - self._submitted_at
        if now - self._sent_at >= _MESSAGE_INTERVAL_S:
            self._report(now)

    def finish(self) -> None:
        """Report the last step, however training ended."""
        if self._history.num_samples:
            self._report(time.perf_counter())

    def _report(self, now: float) -> None:
        history, self._sent_at = self._history, now
        held_bytes, self._num_memory_sent = history.held_bytes[self._num_memory_sent :], len(history.held_bytes)
        loss = None
        if history.loss_sums:
            loss = history.loss_sums[-1] / max(1, history.num_samples[len(history.loss_sums) - 1])
        self._send(
            Progress(
                num_steps=len(history.num_samples),
                num_steps_planned=self._num_updates,
                num_steps_before=self._num_steps_before,
                num_samples=sum(history.num_samples),
                evaluate_s=history.evaluate_s,
                loss=loss,
                accuracy=history.evaluations[-1].accuracy if history.evaluations else None,
                held_bytes=held_bytes,
            )
        )
