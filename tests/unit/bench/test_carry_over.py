"""Rank correlation of two models' cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bench_carry_over import AXES, clear_pairs, interval_over_cells, interval_over_noise, lines, pair_by_axes, tau
from harness.analysis.summarize import summarize
from harness.errors import UserError
from harness.schema.expansion import expand
from harness.schema.study_file import load_study
from tests.make_records import MIB, make_machine, make_record

SECONDS = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0}  # of a step, by batch size
BENCH = Path(__file__).parents[3] / "bench"
BASE = {"shape": "bert-base", "init": "random"}


def cells(model, scale, seconds=SECONDS, **fields):
    return [
        make_record(
            axes={"batch_size": batch}, sections={"model": model}, study=str(model),
            training={"seconds": [scale * step_s] * 40, "num_samples": [batch] * 40, "peaks": [(0, "rss", batch * scale * MIB)]},
            **fields,
        )
        for batch, step_s in seconds.items()
    ]  # fmt: skip


def paired(*records):
    return pair_by_axes(summarize(records))


def test_the_same_order_is_a_tau_of_one_and_the_table_says_so():
    pairs = paired(*cells({}, 1), *cells(BASE, 8))
    assert len(pairs) == 5
    text = "\n".join(lines(pairs))
    assert "5 cells, 10 pairs of cells" in text
    assert "| samples/s | 1.00 |" in text and "| peak memory | 1.00 |" in text
    assert "0 of them in opposite order" in text


def test_one_exchanged_pair_of_ten():
    exchanged = SECONDS | {16: 2.9}  # 5.5 samples/s instead of 16, below the 8 of batch 8
    pairs = paired(*cells({}, 1), *cells(BASE, 8, exchanged))
    speeds = [
        [side.samples_per_s.value for side in sides]
        for sides in zip(*[(p.packaged, p.base) for p in pairs], strict=True)
    ]
    assert tau(*speeds) == pytest.approx((9 - 1) / 10)
    ranked, opposite = clear_pairs(pairs)
    assert (ranked, opposite) == (10, 1)
    noise = interval_over_noise(pairs)
    assert noise is None or noise.low <= 0.8 <= noise.high


def test_the_interval_over_cells_against_figures_worked_out_otherwise():
    # All of 10 cells in one order: the interval is not a point, as a bootstrap's would be.
    low, high = interval_over_cells(1.0, 10)
    assert high == 1.0 and 0.75 < low < 0.95
    # No relation: symmetric about 0, and half as wide as 1.96 standard errors of tau under independence allow;
    # Var = 2 (2n + 5) / (9n (n - 1)) (Kendall 1938), n = 10: 0.248.
    low, high = interval_over_cells(1 / 45, 10)
    assert low == pytest.approx(-0.46, abs=0.07) and high == pytest.approx(0.50, abs=0.07)


def test_too_few_cells_and_several_machines_are_refused():
    with pytest.raises(UserError, match="0 cells were measured with both models"):
        paired(*cells({}, 1))
    there = make_machine(machine_id="xeon-2c-8g-000002", host="host-b")
    both = [*cells({}, 1), *cells(BASE, 8)], [*cells({}, 1, machine=there), *cells(BASE, 8, machine=there)]
    with pytest.raises(UserError, match="several machines"):
        paired(*both[0], *both[1])


def test_the_twin_has_the_cells_of_the_default_study_on_a_cpu():
    def cells_of(name, *overrides):
        cells = expand(load_study(BENCH / name, overrides))
        return {tuple(getattr(cell.config, axis) for axis in AXES) for cell in cells if cell.config.device != "gpu"}

    twin = cells_of("bert-base-random.toml")
    assert twin == cells_of("default.toml", "baselines=false") == cells_of("bert-base.toml", "baselines=false")
    assert len(twin) == 10
