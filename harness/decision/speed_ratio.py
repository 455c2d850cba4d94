"""How many times as fast the fastest cell is as the cells that differ from it in one setting (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, ratio_estimate
from harness.analysis.ranking import rank
from harness.decision.cells import fastest, measured
from harness.pricing.cost import Priced
from harness.schema.cells import flat_config, hash_config

# Compared only where no cell differs in another setting alone; labels of cells always name them.
SIZES = ("batch_size", "global_batch_size", "seq_len")


@dataclass(frozen=True)
class SpeedRatio:
    """A cell's speed divided by another's.

    Attributes:
        key: The setting in which the cells differ, an axis or `section.key`.
        ratio: The ratio with its 95 % confidence interval; both cells' intervals hold the spread between runs.
        is_clear: Whether the two can be ranked, among all that are compared here.
    """

    cell: Priced
    other: Priced
    key: str
    ratio: Estimate
    is_clear: bool


def speed_ratios(cells: Sequence[Priced], cell: Priced | None = None) -> list[SpeedRatio]:
    """Compare a cell with those of its machine that differ from it in one setting, which is the same for all of them.

    Args:
        cells: Every cell.
        cell: The cell to compare; None for the fastest.

    Returns:
        One ratio per other cell, slowest other last; empty if no cell differs in one setting alone.
    """
    timed = [each for each in measured(cells) if each.summary.samples_per_s is not None]
    lead = cell or fastest(cells)
    if lead is None or lead.summary.samples_per_s is None:
        return []
    others = [
        (key, each)
        for each in timed
        if each.summary.machine_id == lead.summary.machine_id and (key := differing_key(lead, each)) is not None
    ]
    if not others:
        return []
    order = list(flat_config(lead.summary.config))
    chosen = min((key for key, _ in others), key=lambda key: (key in SIZES, order.index(key)))
    compared = sorted((each for key, each in others if key == chosen), key=_speed, reverse=True)
    ranking = rank([lead.summary.samples_per_s, *(each.summary.samples_per_s for each in compared)], most=True)
    return [
        SpeedRatio(
            lead,
            each,
            chosen,
            ratio_estimate(lead.summary.samples_per_s, each.summary.samples_per_s),
            bool({(0, index), (index, 0)} & ranking.clear),
        )
        for index, each in enumerate(compared, 1)
        if each.summary.samples_per_s is not None
    ]


def differing_key(cell: Priced, other: Priced) -> str | None:
    """Return the only setting, besides the seed, that differs between two cells and affects what is measured."""
    configs = cell.summary.config, other.summary.config
    flat, flat_other = map(flat_config, configs)
    for key in flat:
        if key != "seed" and flat[key] != flat_other.get(key):
            first, second = (hash_config(config, ignore=("seed", key)) for config in configs)
            if first == second and hash_config(configs[0], ignore=("seed",)) != hash_config(
                configs[1], ignore=("seed",)
            ):
                return key
    return None


def _speed(cell: Priced) -> float:
    return cell.summary.samples_per_s.value if cell.summary.samples_per_s else 0.0
