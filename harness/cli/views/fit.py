"""Terminal view of `harness fit`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from harness.cli.console import print_table, print_text
from harness.cli.layout import columns
from harness.workflows.fit import Attempt, BatchSizeSearch, Fit
from harness.workflows.memory_budget import MemoryBudget

_MIB = 2**20
_MAX_INSTANCES = 12


class FitView:
    """A view that prints each attempt as it ends; without a console it prints nothing."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def begin(self, search: BatchSizeSearch, budget: MemoryBudget) -> None:
        """Print the cell and the memory budget."""
        config = search.config(1)
        recipe = {"head": "head alone", "all": "whole model"}.get(config.trainable, f"{config.trainable} layers")
        self._print(
            f"[bold]{escape(config.model.shape or config.model.name)}[/], {recipe}, {config.seq_len} tokens a row (all "
            f"padded), {config.precision}, {config.device}; to fit {escape(budget.description)}"
        )

    def on_attempt(self, attempt: Attempt) -> None:
        """Print one attempt."""
        measured = "no peak" if attempt.measured_bytes is None else f"measured {_mib(attempt.measured_bytes)}"
        verdict = "[green]fits[/]" if attempt.fits else "[red]does not fit[/]"
        outcome = f" ({attempt.outcome})" if attempt.outcome != "ok" else ""
        steps = f" over {attempt.num_steps} of the study's own batches" if attempt.margin else ""
        spare = f" with {attempt.margin:.0%} to spare" if attempt.margin else ""
        self._print(
            f"  batch {attempt.batch_size:>5}  predicted {_mib(attempt.predicted_bytes)}, {measured}{steps}: "
            f"{verdict}{spare}{outcome}"
        )

    def end(self, fit: Fit) -> None:
        """Print the result and the instance types with enough memory."""
        if fit.predicted_batch:
            self._print(f"predicted: batch size {fit.predicted_batch}, peak {_mib(fit.predicted_bytes)}")
        else:
            self._print(f"predicted: not even batch size 1 fits: it needs {_mib(fit.predicted_bytes)}")
        if fit.batch is not None:
            too_large = fit.smallest_too_large
            beyond = f"; {too_large} does not" if too_large else "; a larger batch has no more rows"
            self._print(
                f"[bold]measured: batch size {fit.batch} fits{beyond}[/]" if fit.batch else "[bold]none fits[/]"
            )
        if fit.note:
            self._print(f"[yellow]{escape(fit.note)}[/]")
        if fit.instances:
            self._print_instances(fit)

    def _print_instances(self, fit: Fit) -> None:
        if self._console is None:
            return
        rows = []
        for instance in fit.instances[:_MAX_INSTANCES]:
            gpu = f" ({instance.gpu}; never checked on a GPU)" if instance.gpu else ""
            rows.append(
                (
                    escape(f"{instance.provider} {instance.instance}{gpu}"),
                    escape(instance.region),
                    f"{instance.usd_per_hour:.4f}",
                    f"{instance.memory_gib:g} GiB",
                    _mib(instance.predicted_bytes),
                )
            )
        print_table(self._console, columns(["it would fit on", "region"], ["USD an hour", "memory", "needs"]), rows)
        if len(fit.instances) > _MAX_INSTANCES:
            self._print(f"and {len(fit.instances) - _MAX_INSTANCES} more expensive ones (--json lists all)")

    def _print(self, line: str) -> None:
        if self._console is not None:
            print_text(self._console, line, hang=2)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / _MIB:,.0f} MiB"
