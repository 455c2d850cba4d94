"""Terminal view of running cells: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from harness.analysis.label_warnings import label_warnings, one_label_warnings
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.execution.messages import CheckpointFailed, Message, PhaseStarted, Progress, RankResult
from harness.schema.cells import Cell
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


class ProgressView(AbstractContextManager["ProgressView"]):
    """A `ProgressListener` that shows a table of cells and progress bars.

    It redraws only when a message arrives, at most once a second, so that the parent stays idle during measurements.
    """

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self._console, self._cells = console, list(cells)
        self._rows: dict[int, tuple[str, ...]] = {}  # table rows of the finished cells, by the cell's index
        self._running: tuple[int, float] | None = None
        self._warnings: set[str] = set()
        self._phase, self._progress = "starting", Progress(num_steps=0, num_steps_planned=0)
        self._drawn: tuple[object, Segments] | None = None
        self._began = time.perf_counter()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> ProgressView:
        """Start drawing."""
        if self._live:
            self._live.start()
            self._draw()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop drawing and print the final table."""
        if self._live:
            self._live.stop()
            if self._rows:
                self._console.print(self._table(range(len(self._cells))))

    def data_prepared(self, data: DataFacts) -> None:
        """Print what may be wrong with the labels, once."""
        for warning in (*label_warnings(data), *one_label_warnings(data)):
            if warning not in self._warnings:
                self._warnings.add(warning)
                self._console.print(f"[yellow]warning:[/] {escape(data.source)}: {escape(warning)}", highlight=False)

    def cell_started(self, cell: Cell) -> None:
        """Show that a cell started."""
        self._running = self._index(cell), time.perf_counter()
        self._phase, self._progress = "starting", Progress(num_steps=0, num_steps_planned=0)
        if self._live:
            self._draw()
        else:
            self._print_line(f"[{self._running[0] + 1}/{len(self._cells)}] {cell.label} ...")

    def cell_progressed(self, cell: Cell, message: Message) -> None:
        """Show the progress that a message reports."""
        if isinstance(message, Progress):
            self._progress = message
        elif isinstance(message, PhaseStarted):
            self._phase = message.name
        elif isinstance(message, CheckpointFailed):
            self._console.print(
                f"[red]no checkpoint could be written:[/] {escape(message.reason)}. Training continues, but nothing is "
                "kept if it is stopped now; free some room, or stop it and name another folder with --checkpoints.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
        if self._live and not isinstance(message, RankResult):
            self._draw()

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """Show the figures of a finished cell."""
        self._running = None
        if self._live:
            style = OUTCOME_STYLES.get(record.outcome, "yellow")
            shown = summary_figures(summarize([record])[0])
            row = (*shown, f"{record.duration_s:.1f}", f"[{style}]{record.outcome}[/]")
            self._rows[self._index(cell)] = row
            self._draw()
        else:
            self._print_line(f"    {_result_line(record)}")

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Print the cells that a budget left out."""
        names = ", ".join(cell.label for cell in cells)
        self._console.print(f"[yellow]{len(cells)} cells left out[/]: {escape(reason)}: {escape(names)}")

    def _print_line(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _index(self, cell: Cell) -> int:
        return self._cells.index(cell)

    def _draw(self) -> None:
        if self._live:
            self._live.update(Group(self._drawn_table(), self._bars()), refresh=True)

    def _drawn_table(self) -> Segments:
        """Return the table, laid out anew only when a cell starts or ends: once a second would use almost 1 % of a CPU."""
        state = (self._console.size, len(self._rows), self._running)
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = state, Segments(list(self._console.render(self._table(self._window()))))
        return self._drawn[1]

    def _window(self) -> range:
        """Return the rows that fit on the terminal, around the running cell."""
        num_rows = max(3, self._console.height - 8)
        center = self._running[0] if self._running else len(self._rows)
        first = max(0, min(center - num_rows // 2, len(self._cells) - num_rows))
        return range(first, min(len(self._cells), first + num_rows))

    def _table(self, rows: range) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("cell", overflow="ellipsis", no_wrap=True, ratio=1)
        for name in ("samples/s", "peak MiB", "accuracy", "seconds"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        if rows.start:
            table.add_row(f"... {rows.start} above", style="dim")
        for index in rows:
            table.add_row(escape(self._cells[index].label), *self._figures(index))
        if rows.stop < len(self._cells):
            table.add_row(f"... {len(self._cells) - rows.stop} more", style="dim")
        return table

    def _figures(self, index: int) -> tuple[str, ...]:
        if index in self._rows:
            return self._rows[index]
        running = self._running is not None and self._running[0] == index
        return ("", "", "", "", "[cyan]running[/]" if running else "[dim]to do[/]")

    def _bars(self) -> Group:
        done, lines = len(self._rows), []
        if self._running:
            progress, elapsed = self._progress, time.perf_counter() - self._running[1]
            steps, planned = progress.num_steps, progress.num_steps_planned
            line = Table.grid(padding=(0, 1))
            parts = [f"step {steps}/{planned}" if planned else self._phase]
            if progress.loss is not None:
                parts.append(f"loss {progress.loss:.3f}")
            if progress.accuracy is not None:
                parts.append(f"validation {progress.accuracy:.3f}")
            # Only steps of this process, because the elapsed time is that of this process.
            trained = steps - progress.num_steps_before
            if planned and trained > 0:
                parts.append(f"{_clock(elapsed * (planned - steps) / trained)} left")
            line.add_row("this cell ", ProgressBar(planned or 1, steps, width=30), "  ".join(parts))
            lines.append(line)
        whole = Table.grid(padding=(0, 1))
        elapsed = time.perf_counter() - self._began
        remaining = f"  about {_clock(elapsed * (len(self._cells) - done) / done)} left" if done else ""
        whole.add_row(
            "all cells ",
            ProgressBar(len(self._cells), done, width=30),
            f"{done}/{len(self._cells)}  {_clock(elapsed)}{remaining}",
        )
        return Group(Text(), *lines, whole)


def summary_figures(summary: Summary) -> tuple[str, str, str]:
    """Format throughput, peak memory (MiB) and accuracy; a dash if not measured."""
    return (
        f"{summary.samples_per_s.value:.1f}" if summary.samples_per_s else "-",
        f"{summary.peak_memory_bytes / MIB:,.0f}" if summary.peak_memory_bytes else "-",
        f"{summary.accuracy.value:.3f}" if summary.accuracy else "-",
    )


def _result_line(record: Record) -> str:
    throughput, peak, accuracy = summary_figures(summarize([record])[0])
    if record.outcome != "ok":
        return f"{record.outcome}: {record.reason}"
    return f"ok  {throughput} samples/s  {peak} MiB  accuracy {accuracy}  {record.duration_s:.1f} s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
