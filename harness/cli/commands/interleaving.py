"""`harness run --interleave A B`: plan interleaved A/B runs of two settings, and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from harness.cli import console
from harness.cli.lookups import choose_cells, load_cells, read_fraction
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.schema.cells import Cell
    from harness.schema.interleaving import InterleavedRuns
    from harness.schema.record import Record
    from harness.workflows.priced_records import PriceOptions


@dataclass(frozen=True)
class InterleaveOptions:
    """The options `--interleave`, `--rounds`, `--fail-above` (a fraction) and `--markdown`."""

    settings: tuple[str, str] | None
    rounds: int | None
    fail_above: float | None
    markdown: Path | None

    @classmethod
    def parse(
        cls, settings: tuple[str, str] | None, rounds: int | None, fail_above: str | None, markdown: Path | None
    ) -> InterleaveOptions:
        """Check the options and return them.

        Raises:
            UserError: If `fail_above` is not a fraction, or an option lacks `--interleave`.
        """
        fraction = None
        if fail_above is not None:
            fraction = read_fraction(fail_above, "--fail-above")
        if settings is None and (rounds or fail_above or markdown):
            raise UserError("--rounds, --fail-above and --markdown of `harness run` need --interleave A B")
        return cls(settings, rounds, fraction, markdown)


def plan_cells(
    study: Path, overrides: list[str] | None, only: list[str] | None, options: InterleaveOptions
) -> tuple[InterleavedRuns | None, list[Cell]]:
    """List a study's runs in order; with two settings, the A/B runs of the cells that support both.

    Args:
        study: The study file.
        overrides: `--set` options.
        only: `--only` options.
        options: The interleaving options, of which settings and rounds are used.

    Returns:
        The interleaving plan (None without `--interleave`), and the runs.
    """
    from harness.schema.interleaving import DEFAULT_ROUNDS, plan_interleaved

    if options.settings is None:
        return None, choose_cells(load_cells(study, overrides), only)
    plan = plan_interleaved(study, overrides or (), options.settings)
    for reason in plan.left_out:
        console.print_note(escape(reason), label="left out")
    plan = plan.only(choose_cells([cell for pair in plan.pairs for cell in pair], only))
    return plan, plan.runs(options.rounds or DEFAULT_ROUNDS)


def show_interleaved(
    plan: InterleavedRuns | None,
    cells: Sequence[Cell],
    records: Sequence[Record],
    price_options: PriceOptions,
    options: InterleaveOptions,
) -> bool:
    """Compare A with B and print the comparison; without a plan, do nothing.

    Args:
        plan: The interleaving plan.
        cells: The planned runs.
        records: Records of this study; only those of `cells` are compared.
        price_options: How to price the records.
        options: The interleaving options, of which limit and Markdown file are used.

    Returns:
        True if `--fail-above` failed.
    """
    if plan is None:
        return False
    from harness.cli.views import compare as view
    from harness.files import atomic_write_text
    from harness.report.formatting import MoneyFormat
    from harness.workflows.priced_records import price_records

    planned = {(cell.config_hash, cell.repeat) for cell in cells}
    runs = [record for record in records if (record.config_hash, record.repeat) in planned]
    hashes = {record.config_hash for record in runs}
    if not all(hashes & side for side in plan.hashes) or all(record.outcome != "ok" for record in runs):
        console.print_text(console.out, "Nothing to compare: no cell ended well, or one setting was never tried.")
        return False
    priced = price_records(runs, price_options)
    comparison = view.compare_interleaved(plan, priced, options.fail_above)
    heading = f"A: {plan.settings[0]}; B: {plan.settings[1]}"
    money = MoneyFormat(priced.assumed.prices.currency)
    if options.markdown is not None:
        atomic_write_text(options.markdown, f"{heading}\n\n{view.to_markdown(comparison, money, every=True)}")
    console.print_text(console.out, f"\n{escape(heading)}")
    view.show_comparison(console.out, comparison, money, every=True)
    return comparison.failed
