"""The chart of a cell's runs over time."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.pricing.cost import price
from harness.report import write_report
from harness.report.charts.runs import runs_charts
from tests.make_priced import ASSUMED, AT
from tests.make_records import make_machine, make_record


def nightly(num, *, size=16, step_s=1.0, **fields):
    """Make one run per night; all other charts show only the last of them."""
    return [
        make_record(minutes=1440 * night, axes={"batch_size": size},
                    training={"seconds": [step_s * (1 + 0.01 * (night % 3))] * 40}, **fields)
        for night in range(num)
    ]  # fmt: skip


def cells(records):
    return price(summarize(records), lambda _: ASSUMED)


def test_cells_with_more_than_five_runs_are_charted_with_every_run():
    records = [*nightly(8), *nightly(5, size=32), make_record(axes={"batch_size": 8}, outcome="oom", reason="killed")]
    charts, num_more = runs_charts(cells(records), records[::-1])
    assert len(charts) == 1 and num_more == 0
    line, middle = charts[0].figure.data
    assert [round(rate, 2) for rate in line.y] == [16.0, 15.84, 15.69] * 2 + [16.0, 15.84]
    assert list(line.x) == sorted(line.x) and len(set(line.x)) == 8
    assert list(middle.y) == pytest.approx([16 / 1.01] * 2)
    assert charts[0].title == "16×64: 8 runs, median 15.8"


def test_a_run_read_twice_counts_once_and_each_host_has_a_line():
    records = nightly(4)
    assert runs_charts(cells(records), [*records, *records]) == ([], 0)
    more = [*records, *nightly(4, machine=make_machine(host="host-b"))]
    (chart,), _ = runs_charts(cells(more), more)
    assert [trace.name for trace in chart.figure.data] == ["host 1", "host 2", "median 15.9"]


def test_the_six_cells_with_the_most_runs_are_charted():
    records = [run for size in range(1, 9) for run in nightly(5 + size, size=size)]
    charts, num_more = runs_charts(cells(records), records)
    assert [chart.title.partition(":")[0] for chart in charts] == [f"{size}×64" for size in range(8, 2, -1)]
    assert num_more == 2


def test_the_page_has_the_section_only_with_enough_runs(tmp_path):
    records = nightly(7)
    page = write_report(cells(records), tmp_path, generated_at=AT, records=records).read_text(encoding="utf-8")
    assert 'id="chart-runs-0"' in page and "Runs over dates" in page
    page = write_report(cells(records), tmp_path, generated_at=AT, records=records[:5]).read_text(encoding="utf-8")
    assert "Runs over dates" not in page
