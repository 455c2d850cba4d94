"""Does the packaged model's ranking of cells by speed and by memory carry over to bert-base?

Run: .venv/bin/python bench/bench_carry_over.py [FOLDER ...]
(default: results/reference/*/packaged and results/reference/*/bert-base-random)
Cells of both models that agree in batch, length, precision, device, padding, trained part and threads are ranked by samples per
second and by peak memory. Prints Kendall's tau with two 95 % intervals, the pairs of cells that both models rank clearly, and
each cell's figures, as Markdown. Dollars per sample rank as speed does, since both models ran on one machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from harness.analysis.ranking import rank_all
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.errors import UserError
from harness.schema.cells import FineTuneConfig
from harness.store.record_files import load_records

AXES = ("batch_size", "seq_len", "precision", "device", "padding", "trainable", "threads")
_MIN_CELLS = 4
_MIB = 2**20
_Z95 = 1.96
_DRAWS = 4000
_TAIL = 0.025


@dataclass(frozen=True)
class Pair:
    """One cell, measured with both models."""

    packaged: Summary
    base: Summary


class Interval(NamedTuple):
    """A 95 % interval of Kendall's tau."""

    low: float
    high: float

    def __str__(self) -> str:
        """Return the ends with two decimal places."""
        return f"{self.low:.2f} to {self.high:.2f}"


def pair_by_axes(summaries: Sequence[Summary]) -> list[Pair]:
    """Pair the packaged model's cells with the same cells of bert-base, on each machine.

    Raises:
        UserError: If there are too few pairs for a rank correlation.
    """
    sides: dict[bool, dict[tuple[object, ...], Summary]] = {False: {}, True: {}}
    for summary in summaries:
        config = summary.config
        if isinstance(config, FineTuneConfig) and summary.samples_per_s is not None and summary.peak_memory_bytes:
            is_base = config.model.shape == "bert-base" or "bert-base" in config.model.name
            key = (summary.machine_id, *(getattr(config, axis) for axis in AXES))
            sides[is_base][key] = summary
    pairs = [Pair(sides[False][key], sides[True][key]) for key in sides[False] if key in sides[True]]
    if len(pairs) < _MIN_CELLS:
        raise UserError(f"{len(pairs)} cells were measured with both models; {_MIN_CELLS} or more are needed")
    if len({pair.base.machine_id for pair in pairs}) > 1:
        raise UserError("the cells come from several machines: name the folders of one")
    return pairs


def tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's tau-b of two figures of the same cells."""
    return float(kendalltau(first, second).statistic)


def interval_over_noise(pairs: Sequence[Pair], seed: int = 0) -> Interval | None:
    """Return how far noise of the measured speeds moves tau: the cells are these, their speeds are drawn again.

    Each speed is drawn log-normally from its own 95 % interval; None if a speed has none.
    """
    sides = [[pair.packaged.samples_per_s for pair in pairs], [pair.base.samples_per_s for pair in pairs]]
    draws = []
    rng = np.random.default_rng(seed)
    for side in sides:
        if any(speed is None or speed.low is None or speed.high is None for speed in side):
            return None
        values = np.log([[speed.low, speed.value, speed.high] for speed in side])
        draws.append(rng.normal(values[:, 1], (values[:, 2] - values[:, 0]) / (2 * _Z95), (_DRAWS, len(pairs))))
    low, high = np.quantile(_taus(*draws), (_TAIL, 1 - _TAIL))
    return Interval(float(low), float(high))


def interval_over_cells(observed: float, num_cells: int, seed: int = 0) -> Interval:
    """Return the interval of tau as if the cells were a random sample of many: other cells might rank otherwise.

    Found by inverting a test: a true tau belongs to the interval if samples of `num_cells` from a bivariate normal
    distribution with this tau (correlation sin(pi tau / 2)) have a tau as low, and one as high, as observed in over 2.5 %
    each. Unlike the bootstrap and Fieller's z (Biometrika 44 (1957), 470-481), it has a width at tau = 1 too.

    Args:
        observed: Tau of the measured cells.
        num_cells: Number of measured cells.
        seed: Seed of the simulation.
    """
    rng = np.random.default_rng(seed)
    first, own = rng.normal(size=(2, _DRAWS, num_cells))
    plausible = []
    for true_tau in np.linspace(-1, 1, 201):
        correlation = np.sin(np.pi / 2 * true_tau)
        simulated = _taus(first, correlation * first + np.sqrt(max(0.0, 1 - correlation**2)) * own)
        # The margin keeps equal taus equal in floating point.
        if np.mean(simulated <= observed + 1e-9) > _TAIL and np.mean(simulated >= observed - 1e-9) > _TAIL:
            plausible.append(float(true_tau))
    return Interval(min(plausible), max(plausible))


def _taus(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Kendall's tau of each row of two arrays without ties, both `(draws, cells)`."""
    rows, columns = np.triu_indices(first.shape[1], k=1)
    signs = [np.sign(values[:, rows] - values[:, columns]) for values in (first, second)]
    return (signs[0] * signs[1]).mean(axis=1)


def clear_pairs(pairs: Sequence[Pair]) -> tuple[int, int]:
    """Return how many pairs of cells both models rank clearly by speed, and how many of them in opposite order."""
    packaged, base = rank_all(
        [[pair.packaged.samples_per_s for pair in pairs], [pair.base.samples_per_s for pair in pairs]], most=True
    )
    reversed_pairs = {(worse, better) for better, worse in base.clear}
    same, opposite = packaged.clear & base.clear, packaged.clear & reversed_pairs
    return len(same) + len(opposite), len(opposite)


def lines(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield the lines of the two tables."""
    num = len(pairs)
    figures = {
        "samples/s": [[one.samples_per_s.value for one in side] for side in _sides(pairs)],
        "peak memory": [[float(one.peak_memory_bytes or 0) for one in side] for side in _sides(pairs)],
    }
    ranked, opposite = clear_pairs(pairs)
    yield f"{num} cells, {num * (num - 1) // 2} pairs of cells, machine {pairs[0].base.machine_id}."
    yield f"By speed, both models rank {ranked} pairs clearly, {opposite} of them in opposite order."
    yield ""
    yield "| ranking by | Kendall's tau | noise of these cells | other cells |"
    yield "|---|---:|---:|---:|"
    for name, (first, second) in figures.items():
        noise = interval_over_noise(pairs) if name == "samples/s" else None
        observed = tau(first, second)
        yield f"| {name} | {observed:.2f} | {noise or '-'} | {interval_over_cells(observed, num)} |"
    yield ""
    yield "| cell | packaged samples/s | rank | bert-base samples/s | rank | ratio | packaged MiB | rank | bert-base MiB | rank |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    ranks = {name: [_ranks(values, most=name == "samples/s") for values in sides] for name, sides in figures.items()}
    for index, pair in enumerate(pairs):
        speeds, peaks = ([side[index] for side in figures[name]] for name in figures)
        ranks_of_speed, ranks_of_peak = ([side[index] for side in ranks[name]] for name in figures)
        yield (
            f"| {pair.packaged.cell} | {speeds[0]:.1f} | {ranks_of_speed[0]} | {speeds[1]:.2f} | {ranks_of_speed[1]} "
            f"| {speeds[0] / speeds[1]:.1f} | {peaks[0] / _MIB:,.0f} | {ranks_of_peak[0]} | {peaks[1] / _MIB:,.0f} | {ranks_of_peak[1]} |"
        )


def _sides(pairs: Sequence[Pair]) -> tuple[list[Summary], list[Summary]]:
    return [pair.packaged for pair in pairs], [pair.base for pair in pairs]


def _ranks(values: Sequence[float], *, most: bool) -> list[int]:
    """Return each value's rank from 1; the first is the highest if `most`, else the lowest."""
    order = sorted(values, reverse=most)
    return [order.index(value) + 1 for value in values]


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    reference = Path("results/reference")
    defaults = [*reference.glob("*/packaged"), *reference.glob("*/bert-base-random")]
    try:
        records = load_records([Path(name) for name in arguments] or defaults).records
        print("\n".join(lines(pair_by_axes(summarize(records)))))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
