"""What a person sees while cells run: a table that fills, or plain lines where there is no terminal."""

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

from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.execution.messages import Message, PhaseStarted, Progress, RankResult
from harness.schema.cells import Cell
from harness.schema.inputs_record import Example
from harness.schema.record import Record

_STYLES = {
    "ok": "green",
    "oom": "red",
    "crashed": "red",
    "diverged": "red",
    "timeout": "yellow",
    "unsupported": "dim",
}
_MIB = 2**20


class ProgressView(AbstractContextManager["ProgressView"]):
    """A `sweep.Watcher`. Draws only when it is told something, at most once a second, so that the parent stays idle."""

    def __init__(self, console: Console, cells: Sequence[Cell]) -> None:
        self._console, self._cells = console, list(cells)
        self._rows: dict[int, tuple[str, ...]] = {}  # of cells that ended
        self._running: tuple[int, float] | None = None
        self._phase, self._progress = "starting", Progress(num_steps=0, num_steps_planned=0)
        self._drawn: tuple[object, Segments] | None = None
        self._began = time.perf_counter()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> ProgressView:
        """Begin to draw."""
        if self._live:
            self._live.start()
            self._draw()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the finished table behind."""
        if self._live:
            self._live.stop()
            if self._rows:
                self._console.print(self._table(range(len(self._cells))))

    def cell_started(self, cell: Cell) -> None:
        """A cell was ordered."""
        self._running = self._index(cell), time.perf_counter()
        self._phase, self._progress = "starting", Progress(num_steps=0, num_steps_planned=0)
        if self._live:
            self._draw()
        else:
            self._say(f"[{self._running[0] + 1}/{len(self._cells)}] {cell.label} ...")

    def cell_progressed(self, cell: Cell, message: Message) -> None:
        """A cell sent a message."""
        if isinstance(message, Progress):
            self._progress = message
        elif isinstance(message, PhaseStarted):
            self._phase = message.name
        if self._live and not isinstance(message, RankResult):
            self._draw()

    def cell_ended(self, cell: Cell, record: Record, path: Path) -> None:
        """A record was saved."""
        self._running = None
        if self._live:
            style = _STYLES.get(record.outcome, "yellow")
            shown = _shown(summarize([record])[0])
            row = (*shown, f"{record.duration_s:.1f}", f"[{style}]{record.outcome}[/]")
            self._rows[self._index(cell)] = row
            self._draw()
        else:
            self._say(f"    {_in_words(record)}")

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """A budget ended the study."""
        names = ", ".join(cell.label for cell in cells)
        self._console.print(f"[yellow]{len(cells)} cells left out[/]: {escape(reason)}: {escape(names)}")

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _index(self, cell: Cell) -> int:
        return self._cells.index(cell)

    def _draw(self) -> None:
        if self._live:
            self._live.update(Group(self._drawn_table(), self._bars()), refresh=True)

    def _drawn_table(self) -> Segments:
        """Lay the table out only when a cell began or ended: each second, that alone would cost most of 1 % of a CPU."""
        state = (self._console.size, len(self._rows), self._running)
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = state, Segments(list(self._console.render(self._table(self._window()))))
        return self._drawn[1]

    def _window(self) -> range:
        """The rows that fit on the terminal, the running one among them."""
        room = max(3, self._console.height - 8)
        at = self._running[0] if self._running else len(self._rows)
        first = max(0, min(at - room // 2, len(self._cells) - room))
        return range(first, min(len(self._cells), first + room))

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
            words = [f"step {steps}/{planned}" if planned else self._phase]
            if progress.loss is not None:
                words.append(f"loss {progress.loss:.3f}")
            if progress.accuracy is not None:
                words.append(f"validation {progress.accuracy:.3f}")
            trained = steps - progress.num_steps_before  # by this process
            if planned and trained > 0:
                words.append(f"{_clock(elapsed * (planned - steps) / trained)} left")
            line.add_row("this cell ", ProgressBar(planned or 1, steps, width=30), "  ".join(words))
            lines.append(line)
        whole = Table.grid(padding=(0, 1))
        elapsed = time.perf_counter() - self._began
        left = f"  about {_clock(elapsed * (len(self._cells) - done) / done)} left" if done else ""
        whole.add_row(
            "all cells ",
            ProgressBar(len(self._cells), done, width=30),
            f"{done}/{len(self._cells)}  {_clock(elapsed)}{left}",
        )
        return Group(Text(), *lines, whole)


def describe_record(console: Console, record: Record, summary: Summary, path: Path) -> None:
    """Print one record for a person."""
    console.rule(f"[bold]{escape(record.cell)}[/]", align="left")
    style = _STYLES.get(record.outcome, "yellow")
    reason = f": {escape(record.reason)}" if record.reason else ""
    console.print(f"[{style}]{record.outcome}[/]{reason}", highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, value in _facts(record, summary, path).items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    console.print(table, highlight=False)
    if record.training:
        losses = [loss for loss in record.training.steps.loss if loss is not None]
        console.print(
            f"\n[bold]loss[/]  {_spark(losses)}  {losses[0]:.3f} to {losses[-1]:.3f}" if losses else "",
            highlight=False,
        )
        _describe_example(console, record.training.example)
    for rank, lines in enumerate(record.stderr_tail):
        if lines:
            console.print(f"\n[bold]last lines of rank {rank}[/]")
            console.print(Text("\n".join(lines), style="dim"))
    for warning in summary.warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)


def _facts(record: Record, summary: Summary, path: Path) -> dict[str, str]:
    throughput, peak, accuracy = _shown(summary)
    interval = summary.samples_per_s
    spread = (
        f"  ({interval.low:.1f} to {interval.high:.1f}, {interval.basis})"
        if interval and interval.low and interval.high
        else ""
    )
    phases = ", ".join(f"{name.removesuffix('_s')} {value:.2f}" for name, value in record.phases if value is not None)
    gpus = [gpu.name for gpu in record.machine.gpus]
    facts = {
        "record": str(path),
        "when": f"{record.started_at:%Y-%m-%d %H:%M} UTC, {record.duration_s:.1f} s",
        "machine": f"{record.machine.id} ({', '.join([record.machine.cpu.model, *gpus])})",
        "samples/s": throughput + spread,
        "peak memory": f"{peak} MiB ({summary.peak_memory_source})" if summary.peak_memory_source else "-",
        "accuracy": accuracy
        + (f"  (majority class {summary.majority_accuracy:.3f})" if summary.majority_accuracy else ""),
        "phases, s": phases or "-",
    }
    if record.model:
        facts["model"] = (
            f"{record.model.name} ({record.model.origin}), {record.model.num_parameters / 1e6:.1f} M parameters"
        )
    if record.training:
        training = record.training
        facts["updates"] = (
            f"{len(training.steps.loss)} of {training.num_updates_planned}, global batch {training.global_batch_size}, "
            f"peak learning rate {training.lr_peak:.2e}, {training.world_size} x {training.threads_per_rank} threads"
        )
        if training.kept:
            kept = training.kept
            facts["model kept"] = (
                f"after update {kept.num_updates}, {kept.num_bytes / _MIB:,.0f} MiB, {kept.keep_s:.1f} s in no other figure: "
                f"models/{record.study}/{record.cell}-{path.stem} beside the records"
            )
    return facts


def _describe_example(console: Console, example: Example) -> None:
    console.print("\n[bold]one example as the model sees it[/]")
    if example.text is None or example.tokens is None or example.input_ids is None:
        real = sum(example.attention_mask)
        console.print(
            f"not stored (data.store_texts = false); {real} tokens, {len(example.attention_mask) - real} of padding"
        )
        return
    console.print(Text(f"{example.label}: {example.text}"))
    pairs = "  ".join(f"{token}/{i}" for token, i in zip(example.tokens, example.input_ids, strict=True))
    padding = len(example.attention_mask) - sum(example.attention_mask)
    console.print(Text(pairs + (f"  + {padding} x [PAD]" if padding else ""), style="dim"))


def _spark(values: Sequence[float], width: int = 60) -> str:
    """A line of blocks, each the mean of its share of the values."""
    size = max(1, len(values) // width)
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) / span * 7)] for mean in means)


def _shown(summary: Summary) -> tuple[str, str, str]:
    """Throughput, peak memory and accuracy as a table shows them; a dash where not measured."""
    return (
        f"{summary.samples_per_s.value:.1f}" if summary.samples_per_s else "-",
        f"{summary.peak_memory_bytes / _MIB:,.0f}" if summary.peak_memory_bytes else "-",
        f"{summary.accuracy.value:.3f}" if summary.accuracy else "-",
    )


def _in_words(record: Record) -> str:
    throughput, peak, accuracy = _shown(summarize([record])[0])
    if record.outcome != "ok":
        return f"{record.outcome}: {record.reason}"
    return f"ok  {throughput} samples/s  {peak} MiB  accuracy {accuracy}  {record.duration_s:.1f} s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
