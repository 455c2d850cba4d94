"""The compute section: its table, and the positions of cells and roofs in its charts."""

from __future__ import annotations

import pytest

from harness.report.formatting import percent
from harness.report.sections.compute import HEADS, compute_rows, rooflines
from tests.make_priced import baseline, fine_tune, priced, study_records, two_machines, with_arithmetic


def test_the_table_lists_trained_cells_by_decreasing_share_of_calibrated_peak():
    cells = priced(with_arithmetic(study_records()))
    rows = [dict(zip(HEADS, row, strict=True)) for row in compute_rows(cells)]
    assert len(rows) == 12  # without baselines and failed cells
    shares = [row["of calibrated peak"].sort for row in rows]
    assert shares == sorted(shares, reverse=True)
    best = max(cells, key=lambda cell: cell.summary.mfu or 0.0).summary
    assert rows[0]["of calibrated peak"].text == percent(best.mfu)
    assert rows[0]["of datasheet peak"].text == "not measured"
    assert rows[0]["calibrated peak, GFLOP/s"].text == "180"
    assert rows[0]["FLOPs in padding"].sort == pytest.approx(best.compute.padding_fraction)


def test_gpu_cells_show_shares_of_both_datasheet_and_calibrated_peak():
    records, prices = two_machines()
    cells = priced(with_arithmetic(records), prices=prices)
    rows = [dict(zip(HEADS, row, strict=True)) for row in compute_rows(cells)]
    both = [row for row in rows if row["of datasheet peak"].sort is not None]
    assert len(both) == 5
    assert all(row["of calibrated peak"].sort is not None for row in both)


def test_a_roofline_chart_has_a_roof_per_precision_with_all_cells_below_it():
    records, prices = two_machines()
    charts = rooflines(priced(with_arithmetic(records), prices=prices))
    assert [chart.key for chart in charts] == ["chart-roofline-1", "chart-roofline-2"]
    cpu, gpu = (list(chart.figure.data) for chart in charts)
    assert [trace.mode for trace in cpu] == ["lines", "markers"]
    assert [trace.mode for trace in gpu] == ["lines", "markers"] * 2
    roof, points = cpu
    # 20 GB/s reaches 180 GFLOP/s at 9 FLOPs per byte; below that, bandwidth limits the roof.
    assert max(roof.y) == pytest.approx(180.0)
    left = min(roof.x)
    assert roof.y[0] == pytest.approx(min(180.0, 20.0 * left))
    assert len(points.x) == 12
    assert all(y <= min(180.0, 20.0 * x) for x, y in zip(points.x, points.y, strict=True))
    for chart in charts:
        assert (chart.figure.layout.xaxis.type, chart.figure.layout.yaxis.type) == ("log", "log")
        assert "GFLOP/s against FLOPs a byte" in chart.label


def test_without_a_calibrated_peak_there_is_no_roofline_chart():
    assert rooflines(priced([baseline()])) == []
    cells = priced([fine_tune()])
    assert rooflines(cells) == []
    assert compute_rows(cells)[0][2].text == "not measured"
