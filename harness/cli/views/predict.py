"""Terminal view of `harness predict`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from harness.cli.console import print_facts, print_text
from harness.schema.predict_job import PredictMessage, PredictStarted, RowsPredicted
from harness.workflows.predict_file import Predicted

_MIB = 2**20


class PredictView(AbstractContextManager["PredictView"]):
    """A progress line that messages redraw, at most once a second; without a terminal, nothing is drawn."""

    def __init__(self, console: Console | None) -> None:
        is_drawn = console is not None and console.is_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_drawn else None
        self._num_before = 0

    def __enter__(self) -> PredictView:
        """Start drawing."""
        if self._live:
            self._live.start()
            self._live.update(Text("loading torch and the model"), refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop drawing and erase the line."""
        if self._live:
            self._live.stop()

    def on_message(self, message: PredictMessage) -> None:
        """Show the progress that a message reports."""
        if isinstance(message, PredictStarted):
            self._num_before = message.num_rows
        if self._live and isinstance(message, RowsPredicted):
            rate = (message.num_rows - self._num_before) / message.seconds
            self._live.update(Text(f"{message.num_rows:,} rows, {rate:,.0f} rows/s"), refresh=True)


def show_predicted(console: Console, predicted: Predicted) -> None:
    """Print rows, speed, memory and cost of a run."""
    print_text(console, f"[bold]{predicted.num_rows:,} rows[/]: {escape(predicted.out)}")
    print_facts(console, [(name, escape(value)) for name, value in _rows(predicted)])


def _rows(predicted: Predicted) -> list[tuple[str, str]]:
    gpu = f", {predicted.peak_cuda_bytes / _MIB:,.0f} MiB of the GPU" if predicted.peak_cuda_bytes is not None else ""
    rows = [
        (
            "rows/s",
            "not measured" if predicted.rows_per_s is None else f"{predicted.rows_per_s:,.1f}, loading left out",
        ),
        (
            "tokens/s",
            "not measured" if predicted.tokens_per_s is None else f"{predicted.tokens_per_s:,.0f}, without padding",
        ),
        ("seconds", f"{predicted.seconds:,.1f}, and {predicted.load_s:.1f} to load"),
        ("peak memory", f"{predicted.peak_bytes / _MIB:,.0f} MiB{gpu}"),
        (
            "USD per million rows",
            f"not known: {predicted.price}"
            if predicted.usd_per_million_rows is None
            else f"{predicted.usd_per_million_rows:.4g}, at {predicted.price}",
        ),
        (
            "how",
            f"{predicted.precision} on {predicted.device}, batches of {predicted.batch_size} by length, at most {predicted.seq_len} tokens, "
            f"{predicted.threads} threads",
        ),
    ]
    if predicted.num_rows_now < predicted.num_rows:
        rows.append(("of them now", f"{predicted.num_rows_now:,}; the rest by an earlier run"))
    if predicted.num_unlabelled:
        rows.append(("no label", f"{predicted.num_unlabelled:,} rows without a text"))
    if predicted.num_truncated_now:
        rows.append(("cut", f"{predicted.num_truncated_now:,} texts of more than {predicted.seq_len} tokens"))
    return rows
