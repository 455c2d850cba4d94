"""What a person sees while a file is labelled, and at its end."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.schema.predict_job import PredictMessage, PredictStarted, RowsPredicted
from harness.workflows.predict_file import Predicted

_MIB = 2**20


class PredictView(AbstractContextManager["PredictView"]):
    """One line that is written over, where there is a terminal; drawn only when a message comes, at most once a second."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._num_before = 0

    def __enter__(self) -> PredictView:
        """Begin to draw."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave nothing behind."""
        if self._live:
            self._live.stop()

    def hear(self, message: PredictMessage) -> None:
        """Show a message of the labelling process."""
        if isinstance(message, PredictStarted):
            self._num_before = message.num_rows
        if self._live and isinstance(message, RowsPredicted):
            rate = (message.num_rows - self._num_before) / message.seconds
            self._live.update(Text(f"{message.num_rows:,} rows, {rate:,.0f} rows/s"), refresh=True)


def show_predicted(console: Console, found: Predicted) -> None:
    """Print what a run labelled, how fast and for what."""
    console.print(f"[bold]{found.num_rows:,} rows[/]: {escape(found.out)}", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, escape(value))
    console.print(table, highlight=False)


def _rows(found: Predicted) -> list[tuple[str, str]]:
    gpu = f", {found.peak_cuda_bytes / _MIB:,.0f} MiB of the GPU" if found.peak_cuda_bytes is not None else ""
    rows = [
        ("rows/s", "not measured" if found.rows_per_s is None else f"{found.rows_per_s:,.1f}, loading left out"),
        ("tokens/s", "not measured" if found.tokens_per_s is None else f"{found.tokens_per_s:,.0f}, without padding"),
        ("seconds", f"{found.seconds:,.1f}, and {found.load_s:.1f} to load"),
        ("peak memory", f"{found.peak_bytes / _MIB:,.0f} MiB{gpu}"),
        (
            "USD per million rows",
            f"not known: {found.price}"
            if found.usd_per_million_rows is None
            else f"{found.usd_per_million_rows:.4g}, at {found.price}",
        ),
        (
            "how",
            f"{found.precision} on {found.device}, batches of {found.batch_size} by length, at most {found.seq_len} tokens, "
            f"{found.threads} threads",
        ),
    ]
    if found.num_rows_now < found.num_rows:
        rows.append(("of them now", f"{found.num_rows_now:,}; the rest by an earlier run"))
    if found.num_unlabelled:
        rows.append(("no label", f"{found.num_unlabelled:,} rows without a text"))
    if found.num_truncated_now:
        rows.append(("cut", f"{found.num_truncated_now:,} texts of more than {found.seq_len} tokens"))
    return rows
