"""The cell that is measured now: its share done, speed, time left, dollars so far, and what disturbs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rich.text import Text

from harness.analysis.estimate import Estimate
from harness.analysis.noise import MAX_OTHERS_FRACTION
from harness.cli.layout import wrap
from harness.execution.messages import Message, PhaseStarted, Progress
from harness.machine.cpu_usage import CpuUsage
from harness.schema.cells import Cell

_PHASES = {
    "load": "loading the model",
    "train": "training",
    "test": "testing",
    "after": "counting memory and FLOPs",
}
_SPEED_WINDOW_S = 10.0
_BAR = 24
_INDENT = 2


def bar(share: float) -> Text:
    """Draw a share, 0 to 1."""
    done = round(_BAR * share)
    return Text.assemble(("█" * done, "cyan"), ("░" * (_BAR - done), "dim"))


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, or as hours, minutes and seconds from an hour on."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def dollars(usd: float) -> str:
    """Format the dollars of a run so far, which are few."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


class RunningCell:
    """What is known of the running cell. All times are in seconds, on one clock of the caller's."""

    def __init__(
        self,
        cell: Cell,
        began: float,
        *,
        num_ranks: int = 1,
        usd_per_hour: float | None = None,
        earlier: Estimate | None = None,
    ) -> None:
        """Begin with a cell that has just started.

        Args:
            cell: The cell.
            began: When it started.
            num_ranks: Its ranks; rank 0, whose messages arrive, does its share of the samples.
            usd_per_hour: The machine's price; None if unknown.
            earlier: Samples per second of its earlier runs; None without any.
        """
        self.cell, self._began = cell, began
        self._num_ranks, self._usd_per_hour, self._earlier = num_ranks, usd_per_hour, earlier
        self._phase, self._others_fraction = "starting", 0.0
        self._predicted: Estimate | None = None
        self._train_began: float | None = None
        self._progress = Progress(num_steps=0, num_steps_planned=0)
        self._window: deque[tuple[float, Progress]] = deque()
        self._fastest = 0.0

    def on_message(self, message: Message, now: float) -> None:
        """Take in a message of rank 0."""
        if isinstance(message, PhaseStarted):
            self._phase = _PHASES[message.name]
            if message.name == "train":
                self._train_began = now
        elif isinstance(message, Progress):
            self._progress = message
            self._window.append((now, message))
            while len(self._window) > 2 and now - self._window[0][0] > _SPEED_WINDOW_S:  # noqa: PLR2004 - a speed needs two
                self._window.popleft()
            self._fastest = max(self._fastest, self.samples_per_s or 0.0)

    def on_prediction(self, samples_per_s: Estimate) -> None:
        """Take in the predicted speed, which counts where there is no earlier run."""
        self._predicted = samples_per_s

    @property
    def reference(self) -> tuple[str, Estimate] | None:
        """The speed to compare with, and what it is; None if nothing is known."""
        if self._earlier is not None:
            return "earlier run", self._earlier
        return None if self._predicted is None else ("predicted", self._predicted)

    def on_load(self, others_fraction: float | None) -> None:
        """Take in the share of the CPU that other processes took lately; None if it is not known."""
        self._others_fraction = others_fraction or 0.0

    def on_wait(self, usage: CpuUsage) -> None:
        """Take in that the cell waits for other processes to leave the CPU."""
        longest = self.cell.config.limits.wait_for_quiet_s
        busiest = ", ".join(f"{user.name} (pid {user.pid}) {user.cores:.1f} cores" for user in usage.others[:2])
        users = busiest or f"others use {usage.others_cores:.1f} cores"
        self._phase = f"waiting for a quiet machine ({users}), at most {clock(longest)}"

    @property
    def samples_per_s(self) -> float | None:
        """Samples per second of all ranks over the last seconds of training, without evaluations; None at first."""
        if len(self._window) < 2:  # noqa: PLR2004 - a speed needs two
            return None
        (began, first), (ended, last) = self._window[0], self._window[-1]
        seconds = (ended - began) - (last.evaluate_s - first.evaluate_s)
        return self._num_ranks * (last.num_samples - first.num_samples) / seconds if seconds > 0 else None

    def lines(self, number: str, now: float, width: int | None) -> list[Text]:
        """Describe the cell in a few lines.

        Args:
            number: Which of the cells it is, as in `3/13`.
            now: The time.
            width: Columns of a line.
        """
        parts = Text("  ").join([*self._work(now), *self._cost(now)])
        lines = [Text(f"[{number}] {self.cell.label}", style="bold")]
        lines += wrap(Text.assemble(" " * _INDENT, parts), width)
        if disturbance := self._disturbance():
            lines += wrap(Text.assemble(" " * _INDENT, (f"! {disturbance}", "yellow")), width, hang=2)
        return lines

    def _work(self, now: float) -> Iterator[Text]:
        steps, planned = self._progress.num_steps, self._progress.num_steps_planned
        if not planned or self._phase != _PHASES["train"]:
            yield Text(f"{self._phase}, {clock(now - self._began)}")
            return
        yield bar(steps / planned)
        yield Text(f"{steps / planned:.0%}")
        yield Text(f"step {steps}/{planned}")
        if (speed := self.samples_per_s) is not None:
            reference = "" if self.reference is None else f" ({self.reference[0]} {self.reference[1].value:.1f})"
            yield Text(f"{speed:.1f} samples/s{reference}")
        # Only steps of this process, because the time is that of this process.
        trained = steps - self._progress.num_steps_before
        if self._train_began is not None and trained > 0:
            yield Text(f"{clock((now - self._train_began) * (planned - steps) / trained)} left")
        if self._progress.loss is not None:
            yield Text(f"loss {self._progress.loss:.3f}")
        if self._progress.accuracy is not None:
            yield Text(f"validation {self._progress.accuracy:.3f}")

    def _cost(self, now: float) -> Iterator[Text]:
        if self._usd_per_hour is not None:
            yield Text(f"{dollars(self._usd_per_hour * (now - self._began) / 3600)} so far")

    def _disturbance(self) -> str:
        """Name other load above the limit from which the report warns of it."""
        if self._others_fraction <= MAX_OTHERS_FRACTION:
            return ""
        speed = self.samples_per_s
        reference = ""
        is_training = self._phase == _PHASES["train"]
        if is_training and self.reference is None and speed is not None and speed < self._fastest:
            reference = f"; it ran at {self._fastest:.1f} samples/s before"
        return f"other processes take {self._others_fraction:.0%} of the CPU{reference}"
