"""From records on disk to priced cells: what every command that shows dollars does first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.decision.differences import Difference, differences
from harness.decision.ladder import set_ladder_target
from harness.pricing.checkpoint_cost import with_measured_checkpoints
from harness.pricing.cost import Priced, price
from harness.pricing.prices import Price, PriceTable, choices, gpu_peak_flops, load_prices, price_finder
from harness.pricing.rates import apply_plan
from harness.schema.assumptions import Assumptions, load_assumptions
from harness.schema.record import Record
from harness.store.archive import read_records


@dataclass(frozen=True)
class Priceable:
    """What was read, and what it comes to.

    Attributes:
        find_price: An hour's price before the reader's plan, or why there is none.
        choices: By machine id, the prices that a reader may choose from; the first is `find_price`'s.
        differences: In what records differ that are shown side by side.
        unreadable: What is no record, and why.
    """

    records: tuple[Record, ...]
    cells: tuple[Priced, ...]
    assumed: Assumptions
    table: PriceTable
    find_price: Callable[[Summary], Price | str]
    choices: Mapping[str, Sequence[Price | None]]
    differences: tuple[Difference, ...]
    unreadable: tuple[str, ...]


def load_priced(
    paths: Sequence[Path],
    *,
    prices: Path | None = None,
    value: Path | None = None,
    instances: Mapping[str, str] | None = None,
    usd_per_hour: float | None = None,
    config_hashes: frozenset[str] | None = None,
) -> Priceable:
    """Read records and the reader's files, summarise and price.

    Args:
        paths: Folders, files or archives of records.
        prices: prices.toml.
        value: value.toml.
        instances: Machine id to instance type, over what records state.
        usd_per_hour: Over every other price.
        config_hashes: Only records with these.

    Raises:
        UserError: For anything that the user can mend.
    """
    found = read_records(paths)
    records = tuple(one for one in found.records if config_hashes is None or one.config_hash in config_hashes)
    priced = price_records(records, prices=prices, value=value, instances=instances, usd_per_hour=usd_per_hour)
    return replace(priced, unreadable=found.unreadable)


def price_records(
    records: Sequence[Record],
    *,
    prices: Path | None = None,
    value: Path | None = None,
    instances: Mapping[str, str] | None = None,
    usd_per_hour: float | None = None,
) -> Priceable:
    """The same of records that are at hand.

    Raises:
        UserError: For anything that the user can mend.
    """
    assumed, table = with_measured_checkpoints(load_assumptions(prices, value), records), load_prices()
    summaries = with_mfu(
        summarize(set_ladder_target(records)), lambda gpu, precision: gpu_peak_flops(table, gpu, precision)
    )
    finder = price_finder(table, summaries, instances=instances, usd_per_hour=usd_per_hour, book=assumed.prices)
    machines = {summary.machine_id: summary for summary in summaries}
    return Priceable(
        records=tuple(records),
        cells=tuple(price(summaries, apply_plan(finder, assumed.prices), assumed)),
        assumed=assumed,
        table=table,
        find_price=finder,
        choices={key: choices(table, one.records[-1].machine, finder(one)) for key, one in machines.items()},
        differences=tuple(differences(summaries)),
        unreadable=(),
    )
