"""Two settings of a study in turns: which runs that asks for, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from harness.cli import console
from harness.cli.lookups import choose_cells, load_cells

if TYPE_CHECKING:
    from harness.schema.cells import Cell
    from harness.schema.interleaving import InterleavedRuns
    from harness.schema.record import Record


def cells_to_run(
    study: Path,
    overrides: list[str] | None,
    only: list[str] | None,
    settings: tuple[str, str] | None,
    rounds: int | None,
) -> tuple[InterleavedRuns | None, list[Cell]]:
    """A study's runs in order; with two settings, those of the pairs that have both."""
    from harness.schema.interleaving import DEFAULT_ROUNDS, plan_interleaved

    if settings is None:
        return None, choose_cells(load_cells(study, overrides), only)
    found = plan_interleaved(study, overrides or (), settings)
    for reason in found.left_out:
        console.err.print(f"[yellow]left out:[/] {escape(reason)}", soft_wrap=True, highlight=False)
    found = found.only(choose_cells([cell for pair in found.pairs for cell in pair], only))
    return found, found.runs(rounds or DEFAULT_ROUNDS)


def read_limit(fail_above: str | None) -> float | None:
    """The fraction of `--fail-above`."""
    if fail_above is None:
        return None  # what compares brings plotly, which the parent of a cell does without
    from harness.cli.views.compare import read_fraction

    return read_fraction(fail_above, "--fail-above")


def compare_turns(
    turns: InterleavedRuns | None,
    cells: Sequence[Cell],
    records: Sequence[Record],
    prices: Path | None,
    usd_per_hour: float | None,
    fail_above: float | None,
    markdown: Path | None,
) -> bool:
    """Print A against B by the runs of these cells, where there are two settings; tell whether `fail_above` failed."""
    if turns is None:
        return False
    from harness.cli.views import compare as screen
    from harness.report.formatting import MoneyFormat
    from harness.workflows.priced_records import price_records

    asked = {(cell.config_hash, cell.repeat) for cell in cells}
    runs = [record for record in records if (record.config_hash, record.repeat) in asked]
    tried = {record.config_hash for record in runs}
    if not all(tried & side for side in turns.hashes) or all(record.outcome != "ok" for record in runs):
        console.out.print("Nothing to compare: no cell ended well, or one setting was never tried.", highlight=False)
        return False
    priced = price_records(runs, prices=prices, usd_per_hour=usd_per_hour)
    found = screen.compare_interleaved(turns, priced, fail_above)
    said = f"A: {turns.settings[0]}; B: {turns.settings[1]}"
    money = MoneyFormat(priced.assumed.prices.currency)
    if markdown is not None:
        markdown.write_text(f"{said}\n\n{screen.to_markdown(found, money)}", encoding="utf-8")
    console.out.print(f"\n{escape(said)}", highlight=False, soft_wrap=True)
    screen.show_comparison(console.out, found, money)
    return found.failed
