"""What a person sees of a search for the largest batch that fits."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.workflows.fit import Attempt, BatchSizeSearch, Fit, MemoryBudget

_MIB = 2**20
_SHOWN_ROOMS = 12


class FitView:
    """Prints each try as it ends; prints nothing without a console."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def begin(self, question: BatchSizeSearch, limit: MemoryBudget) -> None:
        """Say what is asked."""
        config = question.config(1)
        recipe = {"head": "head alone", "all": "whole model"}.get(config.trainable, f"{config.trainable} layers")
        self._print(
            f"[bold]{escape(config.model.shape or config.model.name)}[/], {recipe}, {config.seq_len} tokens a row (all "
            f"padded), {config.precision}, {config.device}; to fit {escape(limit.words)}"
        )

    def tried(self, one: Attempt) -> None:
        """A batch size was run."""
        measured = "no peak" if one.measured_bytes is None else f"measured {_mib(one.measured_bytes)}"
        verdict = "[green]fits[/]" if one.fits else "[red]does not fit[/]"
        outcome = f" ({one.outcome})" if one.outcome != "ok" else ""
        self._print(
            f"  batch {one.batch_size:>5}  predicted {_mib(one.predicted_bytes)}, {measured}: {verdict}{outcome}"
        )

    def end(self, found: Fit) -> None:
        """Say what was found, and where else it fits."""
        if found.predicted_batch:
            self._print(f"predicted: batch size {found.predicted_batch}, peak {_mib(found.predicted_bytes)}")
        else:
            self._print(f"predicted: not even batch size 1 fits: it needs {_mib(found.predicted_bytes)}")
        if found.batch is not None:
            above = found.smallest_that_did_not
            beyond = f"; {above} does not" if above else "; a larger batch has no more rows"
            self._print(
                f"[bold]measured: batch size {found.batch} fits{beyond}[/]" if found.batch else "[bold]none fits[/]"
            )
        if found.note:
            self._print(f"[yellow]{escape(found.note)}[/]")
        if found.rooms:
            self._print_rooms(found)

    def _print_rooms(self, found: Fit) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("it would fit on", "region", "USD an hour", "memory", "needs"):
            words = name in ("it would fit on", "region")
            table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
        for room in found.rooms[:_SHOWN_ROOMS]:
            gpu = f" ({room.gpu}; never checked on a GPU)" if room.gpu else ""
            table.add_row(
                escape(f"{room.provider} {room.instance}{gpu}"),
                escape(room.region),
                f"{room.usd_per_hour:.4f}",
                f"{room.memory_gib:g} GiB",
                _mib(room.predicted_bytes),
            )
        if self._console is not None:
            self._console.print(table, highlight=False)
        if len(found.rooms) > _SHOWN_ROOMS:
            self._print(f"and {len(found.rooms) - _SHOWN_ROOMS} dearer ones (--json lists all)")

    def _print(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, highlight=False, soft_wrap=True)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.0f} MiB"
