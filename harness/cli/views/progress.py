"""Terminal view of a run: a line a finished cell, and below them the running cell; without a terminal, plain lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from harness.analysis.earlier_runs import runs_of, slowdown, speed_of
from harness.analysis.estimate import Estimate
from harness.analysis.label_warnings import label_warnings, one_label_warnings
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.cli.console import layout_width, print_detail, print_lines, print_text
from harness.cli.layout import Layout, columns, wrap
from harness.cli.views.running_cell import RunningCell, bar, clock, dollars
from harness.execution.messages import CheckpointFailed, Message, ModelUnsaved, PhaseStarted, RankResult
from harness.machine.cpu_usage import CpuUsage
from harness.machine.support import num_ranks
from harness.schema.cells import Cell
from harness.schema.host_record import Machine
from harness.schema.inputs_record import DataFacts
from harness.schema.record import Record

OUTCOME_STYLES = {
    "ok": "green",
    "oom": "red",
    "crashed": "red",
    "diverged": "red",
    "timeout": "yellow",
    "unsupported": "dim",
}
MIB = 2**20
_DRAW_EVERY_S = 0.9
_SETUP_DRAW_EVERY_S = 0.5
_COLUMNS = columns(["cell"], ["samples/s", "peak MiB", "accuracy", "seconds"], ["outcome"])
_WIDEST = ("9,999.9", "99,999", "0.999", "9,999.9", "unsteady")


class ProgressView(AbstractContextManager["ProgressView"]):
    """A `ProgressListener` that shows the run.

    While a cell is measured it redraws only when a message or a reading arrives, at most once a second, so that the parent
    stays idle. Before the first cell, a thread of its own keeps a clock moving.

    Attributes:
        saved: The records of this run with their files.
    """

    def __init__(
        self,
        console: Console,
        cells: Sequence[Cell],
        *,
        machine: Machine | None = None,
        usd_per_hour: float | None = None,
        earlier: Sequence[Record] = (),
    ) -> None:
        """Prepare the view.

        Args:
            console: Where to show the run.
            cells: The cells to run.
            machine: This machine, for the number of ranks.
            usd_per_hour: The machine's price; None if unknown.
            earlier: Records of earlier runs, to compare speeds with.
        """
        self._console, self._cells, self._machine = console, list(cells), machine
        self._usd_per_hour, self._records = usd_per_hour, list(earlier)
        self.saved: list[tuple[Record, Path | None]] = []
        self._running: RunningCell | None = None
        self._warnings: set[str] = set()
        self._expected_s: list[float] = []
        self._cell_began = 0.0
        self._began, self._drawn_at = time.perf_counter(), 0.0
        self._setup = ""
        self._setup_ended = threading.Event()
        self._clock: threading.Thread | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        rows = [(escape(cell.label), *_WIDEST) for cell in cells]
        self._layout = Layout(_COLUMNS, rows, layout_width(console))

    def __enter__(self) -> ProgressView:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop drawing, and print what the run took."""
        self.setup_ended()
        if self._live:
            self._live.stop()
        if self.saved:
            elapsed = time.perf_counter() - self._began
            print_text(
                self._console, f"{len(self.saved)} of {len(self._cells)} cells in {clock(elapsed)}{self._cost()}."
            )

    def setup_started(self, work: str) -> None:
        """Name work that comes before the first cell."""
        self._setup = work
        if not self._live:
            self._print_line(f"{work} ...")
        elif self._clock is None:
            self._clock = threading.Thread(target=self._draw_setup, daemon=True, name="setup clock")
            self._clock.start()

    def setup_ended(self) -> None:
        """Stop the clock of the setup."""
        self._setup_ended.set()
        if self._clock is not None:
            self._clock.join()
            self._clock = None

    def _draw_setup(self) -> None:
        while self._live:
            self._live.update(Text(f"{self._setup}, {clock(time.perf_counter() - self._began)}"), refresh=True)
            if self._setup_ended.wait(_SETUP_DRAW_EVERY_S):
                return

    def data_prepared(self, data: DataFacts) -> None:
        """Print what may be wrong with the labels, once."""
        for warning in (*label_warnings(data), *one_label_warnings(data)):
            if warning not in self._warnings:
                self._warnings.add(warning)
                print_text(self._console, f"[yellow]warning:[/] {escape(data.source)}: {escape(warning)}")

    def times_expected(self, seconds: Sequence[float | None]) -> None:
        """Tell the time left by what is expected; a cell of which nothing is known counts as the mean of the others."""
        known = [expected for expected in seconds if expected is not None]
        self._expected_s = [fmean(known) if expected is None else expected for expected in seconds] if known else []

    def cell_started(self, cell: Cell) -> None:
        """Show that a cell started."""
        self._cell_began = time.perf_counter()
        self._running = RunningCell(
            cell,
            self._cell_began,
            num_ranks=num_ranks(cell.config, self._machine) if self._machine else 1,
            usd_per_hour=self._usd_per_hour,
            earlier=speed_of(runs_of(self._records, cell.config)),
        )
        if self._live:
            self._draw()
        else:
            self._print_line(f"[{self._number(cell)}] {cell.label} ...")

    def waiting_for_quiet(self, cell: Cell, usage: CpuUsage, waited_s: float) -> None:
        """Show why the cell does not begin yet."""
        if self._running:
            self._running.on_wait(usage)
            self._draw()

    def speed_predicted(self, cell: Cell, samples_per_s: Estimate) -> None:
        """Compare the cell with its prediction, if it has no earlier run."""
        if self._running:
            self._running.on_prediction(samples_per_s)

    def cell_progressed(self, cell: Cell, message: Message) -> None:
        """Show the progress that a message reports."""
        if isinstance(message, CheckpointFailed):
            print_text(
                self._console,
                f"[red]no checkpoint could be written:[/] {escape(message.reason)}. Training continues, but nothing is "
                "kept if it is stopped now; free some room, or stop it and name another folder with --checkpoints.",
            )
        elif isinstance(message, ModelUnsaved):
            print_text(
                self._console,
                f"[red]the model can't be saved:[/] {escape(message.reason)}. Training continues, and its record will be "
                "saved, but no model.",
            )
        if self._running:
            self._running.on_message(message, time.perf_counter())
        if not isinstance(message, RankResult):
            self._draw(at_once=isinstance(message, PhaseStarted))

    def load_read(self, cell: Cell, others_fraction: float | None) -> None:
        """Show the share of the CPU that other processes took lately."""
        if self._running:
            self._running.on_load(others_fraction)
            self._draw(at_once=False)

    def cell_ended(self, cell: Cell, record: Record, path: Path | None) -> None:
        """Show the figures of a finished cell, and what disturbed it."""
        summary = summarize([record])[0]
        reference = self._running.reference if self._running else None
        notes = [*_slower(summary, reference), *summary.noise]
        self._running = None
        self.saved.append((record, path))
        self._records.append(record)
        if not self._live:
            self._print_line(f"    {_result_line(record, summary, is_unsteady=bool(notes))}")
        else:
            if len(self.saved) == 1:
                print_lines(self._console, self._layout.header())
            figures = summary_figures(summary)
            row = (
                escape(cell.label),
                *figures,
                f"{record.duration_s:,.1f}",
                _outcome(record, is_unsteady=bool(notes)),
            )
            print_lines(self._console, self._layout.row(row))
        for note in notes:
            print_text(self._console, f"    [yellow]! {escape(note)}[/]", hang=2)
        print_detail(escape(f"    {path}"))
        if self._live:
            self._draw()

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Print the cells that a budget left out."""
        names = ", ".join(cell.label for cell in cells)
        print_text(self._console, f"[yellow]{len(cells)} cells left out[/]: {escape(reason)}: {escape(names)}")

    def _print_line(self, line: str) -> None:
        print_text(self._console, Text(line), hang=2)

    def _number(self, cell: Cell) -> str:
        return f"{self._cells.index(cell) + 1}/{len(self._cells)}"

    def _draw(self, *, at_once: bool = True) -> None:
        now = time.perf_counter()
        if self._live is None or (not at_once and now - self._drawn_at < _DRAW_EVERY_S):
            return
        self._drawn_at, width = now, layout_width(self._console)
        running = self._running
        lines = [Text(), *running.lines(self._number(running.cell), now, width)] if running else []
        self._live.update(Group(*lines, *wrap(self._totals(now), width)), refresh=True)

    def _totals(self, now: float) -> Text:
        done, planned, elapsed, left_s = len(self.saved), len(self._cells), now - self._began, self._seconds_left(now)
        left = "" if left_s is None else f", about {clock(left_s)} left"
        words = f"  {done}/{planned} cells in {clock(elapsed)}{left}{self._cost()}"
        return Text.assemble(bar(done / planned if planned else 0.0), words)

    def _seconds_left(self, now: float) -> float | None:
        """Return the expected seconds of the cells that are not done, at the pace of those that are."""
        done, planned = len(self.saved), len(self._cells)
        done_s = sum(record.duration_s for record, _ in self.saved)
        if not self._expected_s:
            return (now - self._began) * (planned - done) / done if done else None
        pace = done_s / sum(self._expected_s[:done]) if done else 1.0
        running_s = now - self._cell_began if self._running else 0.0
        return max(0.0, pace * sum(self._expected_s[done:]) - running_s)

    def _cost(self) -> str:
        if self._usd_per_hour is None:
            return ""
        usd = self._usd_per_hour * (time.perf_counter() - self._began) / 3600
        return f", {dollars(usd)} at ${self._usd_per_hour:.4g} an hour"


def summary_figures(summary: Summary) -> tuple[str, str, str]:
    """Format throughput, peak memory (MiB) and accuracy; a dash if not measured."""
    return (
        f"{summary.samples_per_s.value:,.1f}" if summary.samples_per_s else "-",
        f"{summary.peak_memory_bytes / MIB:,.0f}" if summary.peak_memory_bytes else "-",
        f"{summary.accuracy.value:.3f}" if summary.accuracy else "-",
    )


def _slower(summary: Summary, reference: tuple[str, Estimate] | None) -> list[str]:
    if reference is None or summary.samples_per_s is None:
        return []
    name, expected = reference
    ratio = slowdown(summary.samples_per_s, expected)
    if ratio is None:
        return []
    source = "of its earlier run" if name == "earlier run" else "that were predicted"
    return [f"{summary.samples_per_s.value:.1f} samples/s, {ratio:.2g} times the {expected.value:.1f} {source}."]


def _outcome(record: Record, *, is_unsteady: bool) -> str:
    if record.outcome == "ok" and is_unsteady:
        return "[yellow]unsteady[/]"
    return f"[{OUTCOME_STYLES.get(record.outcome, 'yellow')}]{record.outcome}[/]"


def _result_line(record: Record, summary: Summary, *, is_unsteady: bool) -> str:
    throughput, peak, accuracy = summary_figures(summary)
    if record.outcome != "ok":
        return f"{record.outcome}: {record.reason}"
    unsteady = ", unsteady" if is_unsteady else ""
    return f"ok{unsteady}  {throughput} samples/s  {peak} MiB  accuracy {accuracy}  {record.duration_s:.1f} s"
