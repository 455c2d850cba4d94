"""Reading, summarizing and pricing of records: the first step of every command that shows dollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.analysis.mfu import with_mfu
from harness.analysis.run_spread import stated_spread
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.decision.differences import Difference, differences
from harness.decision.ladder import set_ladder_target
from harness.errors import Unavailable
from harness.pricing.cost import Priced, price
from harness.pricing.durations import with_measured_checkpoints
from harness.pricing.price_search import gpu_peak_flops
from harness.pricing.price_table import PriceTable, load_prices
from harness.pricing.prices import Price, choices, price_finder
from harness.pricing.rates import apply_plan
from harness.schema.assumptions import Assumptions, load_assumptions
from harness.schema.record import Record
from harness.store.archive import read_records


@dataclass(frozen=True)
class Priceable:
    """Records, their priced cells, and everything needed to price them again.

    Attributes:
        find_price: Function that returns a summary's hourly price, before the user's price plan is applied.
        choices: Prices that the report offers, by machine id; the price of `find_price` comes first.
        differences: Keys in which the records differ although they should not.
        unreadable: Files that are not records, and why.
    """

    records: tuple[Record, ...]
    cells: tuple[Priced, ...]
    assumed: Assumptions
    table: PriceTable
    find_price: Callable[[Summary], Price | Unavailable]
    choices: Mapping[str, Sequence[Price | None]]
    differences: tuple[Difference, ...]
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class PriceOptions:
    """How the user wants records to be priced.

    Attributes:
        prices: The user's prices.toml.
        value: The user's value.toml.
        usd_per_hour: Hourly price of every machine; overrides all other prices.
        instances: Instance type by machine id; overrides the type in the records.
        run_spread: Relative standard deviation between runs of one cell, as a fraction; None if the user states none.
    """

    prices: Path | None = None
    value: Path | None = None
    usd_per_hour: float | None = None
    instances: Mapping[str, str] = field(default_factory=dict)
    run_spread: float | None = None


_NO_OPTIONS = PriceOptions()


def load_priced(
    paths: Sequence[Path], options: PriceOptions = _NO_OPTIONS, *, config_hashes: frozenset[str] | None = None
) -> Priceable:
    """Read records and the user's files, then summarize and price the records.

    Args:
        paths: Folders, files or archives of records.
        options: How to price the records.
        config_hashes: Configuration hashes of the records to keep; None keeps all.

    Raises:
        UserError: If a file or an option is wrong.
    """
    loaded = read_records(paths)
    records = tuple(record for record in loaded.records if config_hashes is None or record.config_hash in config_hashes)
    return replace(price_records(records, options), unreadable=loaded.unreadable)


def price_records(records: Sequence[Record], options: PriceOptions = _NO_OPTIONS) -> Priceable:
    """Summarize and price records already in memory.

    Raises:
        UserError: If a file or an option is wrong.
    """
    assumed, table = with_measured_checkpoints(load_assumptions(options.prices, options.value), records), load_prices()
    spread = None if options.run_spread is None else stated_spread(options.run_spread)
    summaries = with_mfu(
        summarize(set_ladder_target(records), spread), lambda gpu, precision: gpu_peak_flops(table, gpu, precision)
    )
    finder = price_finder(
        table, summaries, instances=options.instances, usd_per_hour=options.usd_per_hour, book=assumed.prices
    )
    machines = {summary.machine_id: summary for summary in summaries}
    return Priceable(
        records=tuple(records),
        cells=tuple(price(summaries, apply_plan(finder, assumed.prices), assumed)),
        assumed=assumed,
        table=table,
        find_price=finder,
        choices={
            machine_id: choices(table, summary.records[-1].machine, finder(summary))
            for machine_id, summary in machines.items()
        },
        differences=tuple(differences(summaries)),
        unreadable=(),
    )
