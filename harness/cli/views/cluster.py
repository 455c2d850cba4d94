"""Terminal view of a run on a cluster: a line a finished cell, and below them a line a node with its dollars."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from harness.analysis.summarize import summarize
from harness.cli.console import layout_width, print_table, print_text
from harness.cli.layout import columns, table_lines, wrap
from harness.cli.views.progress import OUTCOME_STYLES, summary_figures
from harness.cli.views.running_cell import bar, clock, dollars
from harness.cluster.cluster_options import NodeState
from harness.cluster.run_status import RunStatus
from harness.schema.cells import Cell
from harness.schema.record import Record

_DRAW_EVERY_S = 0.9
_COLUMNS = columns(["machine", "does", "cell"], ["done", "time", "so far"])


class ClusterView(AbstractContextManager["ClusterView"]):
    """A `ClusterListener` that shows the run; without a terminal it prints plain lines.

    Attributes:
        console: Where the run is shown.
        saved: The new records with their files.
    """

    def __init__(self, console: Console, *, budget_usd: float | None) -> None:
        """Prepare the view.

        Args:
            console: Where to show the run.
            budget_usd: Dollars that all nodes together may cost; None without a limit.
        """
        self.console, self._budget_usd = console, budget_usd
        self.saved: list[tuple[Record, Path]] = []
        self._num_planned = self._num_ended = 0
        self._held_usd = 0.0
        self._began, self._drawn_at = time.perf_counter(), 0.0
        self._shown: dict[str, str] = {}  # what each node does, as it was printed last
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> ClusterView:
        """Start drawing."""
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop drawing, and print what the run took."""
        if self._live:
            self._live.stop()
        if self.saved:
            elapsed = clock(time.perf_counter() - self._began)
            print_text(self.console, f"{len(self.saved)} records in {elapsed}{self._cost()}.")

    def noted(self, text: str) -> None:
        """Print a sentence that the user should read."""
        print_text(self.console, f"[yellow]{escape(text)}[/]", hang=2)

    def planned(self, kinds: Sequence[str], num_cells: int, num_done: int) -> None:
        """Print what will run where."""
        self._num_planned = num_cells - num_done
        done = f"; {num_done} of {num_cells} cells are done" if num_done else ""
        print_text(
            self.console, escape(f"{self._num_planned} cells to run on {len(kinds)} kinds of machines{done}:"), hang=2
        )
        for kind in kinds:
            print_text(self.console, escape(f"  {kind}"), hang=2)

    def cell_ended(self, kind: str, record: Record, path: Path) -> None:
        """Print the figures of a cell that ended."""
        self.saved.append((record, path))
        self._num_ended += 1
        style = OUTCOME_STYLES.get(record.outcome, "yellow")
        if record.outcome == "ok":
            throughput, peak, accuracy = summary_figures(summarize([record])[0])
            figures = f"{throughput} samples/s  {peak} MiB  accuracy {accuracy}  {record.duration_s:.1f} s"
        else:
            figures = escape(record.reason or "")
        print_text(self.console, f"[{style}]{record.outcome}[/]  {escape(f'{kind}: {record.cell}')}  {figures}", hang=4)

    def cells_left_out(self, cells: Sequence[Cell], reason: str) -> None:
        """Print the cells that were not run."""
        names = ", ".join(sorted({cell.label for cell in cells}))
        print_text(self.console, f"[yellow]{len(cells)} cells left out[/]: {escape(reason)}: {escape(names)}", hang=2)

    def ticked(self, nodes: Sequence[NodeState], held_usd: float) -> None:
        """Show what each node does."""
        self._held_usd = held_usd
        if self._live is None:
            self._print_changes(nodes)
        elif (now := time.perf_counter()) - self._drawn_at >= _DRAW_EVERY_S:
            self._drawn_at, width = now, layout_width(self.console)
            rows = [_row(node) for node in nodes]
            table = table_lines(_COLUMNS, rows, width) if rows else []
            self._live.update(Group(Text(), *table, *wrap(self._totals(now), width)), refresh=True)

    def _print_changes(self, nodes: Sequence[NodeState]) -> None:
        """Print which nodes got another cell."""
        for node in nodes:
            work = node.cell or ""
            if work and self._shown.get(node.node_id) != work:
                print_text(self.console, Text(f"{node.kind}: {work} ..."), hang=2)
            self._shown[node.node_id] = work

    def _totals(self, now: float) -> Text:
        planned = self._num_planned
        words = f"  {self._num_ended}/{planned} cells in {clock(now - self._began)}{self._cost()}"
        return Text.assemble(bar(min(1.0, self._num_ended / planned) if planned else 0.0), words)

    def _cost(self) -> str:
        budget = "" if self._budget_usd is None else f" of a budget of ${self._budget_usd:g}"
        return f", {dollars(self._held_usd)}{budget}" if self._held_usd or budget else ""


def _row(node: NodeState) -> tuple[str, ...]:
    return (
        escape(node.kind),
        escape(node.work),
        escape(node.cell or "-"),
        "-" if node.share is None else f"{node.share:.0%}",
        clock(node.seconds),
        "-" if node.usd is None else dollars(node.usd),
    )


def print_status(console: Console, status: RunStatus) -> None:
    """Print what a run does that another command began."""
    print_table(console, _COLUMNS, [_row(node) for node in status.nodes])
    budget = "" if status.budget_usd is None else f" of a budget of ${status.budget_usd:g}"
    print_text(
        console,
        f"{status.num_ended}/{status.num_cells} cells in {clock(status.seconds)}, {dollars(status.held_usd)}{budget}; "
        f"process {status.pid}, which Ctrl-C or kill -INT {status.pid} ends",
    )
