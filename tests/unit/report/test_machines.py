"""The section that compares machines: its sentences, tables and charts, and when it is shown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.choice import choose
from harness.decision.differences import differences
from harness.decision.elsewhere import OtherPrice, OtherPrices
from harness.pricing import cost
from harness.pricing.prices import Price
from harness.report import write_report
from harness.report.charts.cost_accuracy import cost_and_accuracy
from harness.report.formatting import USD
from harness.report.labels import hardware, machine_labels
from harness.report.sections.machines import machines_section
from harness.report.sections.other_prices import other_prices_section
from harness.schema.assumptions import Assumptions
from tests.make_priced import AT, priced, study_records, two_machines
from tests.make_records import GIB, make_gpu, make_machine, make_record

A = make_machine(machine_id="epyc-4c-16g-00000a", host="host-a")
B = make_machine(machine_id="xeon-4c-16g-00000b", host="host-b")
SLICE = make_machine(machine_id="xyz-1c-16g-00000c", host="host-a", num_usable=1)
HOURLY = Price(
    0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36
)  # 0.0001 USD per second
PRICES = {A.id: HOURLY, B.id: replace(HOURLY, instance="c7i.8xlarge", usd_per_hour=1.8, usd_per_hour_on_demand=1.8)}


def run(machine, step_s=1.0, **more):
    seconds = [step_s * (1 + 0.01 * (step % 3)) for step in range(40)]
    return make_record(machine=machine, training={"seconds": seconds}, phases={"train_s": 40 * step_s}, **more)


def cells_of(*records):
    return cost.price(
        summarize(records), lambda summary: PRICES.get(summary.machine_id, replace(HOURLY, basis="assumed"))
    )


def section(*records, **more):
    return machines_section(cells_of(*records), Assumptions(), **more, money=USD)


def both(**axes):
    """Make a run on A at 16 samples/s, and one on B at 32 samples/s and five times the price."""
    return run(A, 1.0, axes=axes), run(B, 0.5, axes=axes)


def texts(rows):
    return [[field.text for field in row] for row in rows]


def test_a_single_machine_has_no_section(tmp_path):
    assert section(run(A)) is None
    text = write_report(cells_of(run(A)), tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert "The same cells, side by side" not in text
    assert "side by side" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_verdicts_name_the_fastest_and_the_cheapest_machine():
    comparison = section(*both(), *both(seq_len=32))
    assert comparison.verdicts[0].startswith(
        "Of the 2 cells that two machines or more measured, each machine at its best: c7i.8xlarge trains fastest ("
    )
    assert "m5.xlarge is cheapest per 1,000 samples ($0.00631)" in comparison.verdicts[0]
    assert comparison.verdicts[1] == (
        "Cell by cell, fastest is c7i.8xlarge in 2; cheapest per sample is m5.xlarge in 2."
    )


def test_machines_of_equal_speed_are_reported_as_indistinguishable():
    comparison = section(run(A), run(B, 1.0))
    assert "m5.xlarge and c7i.8xlarge do not differ significantly in speed." in comparison.verdicts[0]
    row = next(row for row in comparison.types.rows if row[0].text == "m5.xlarge")
    assert row[1].extra.endswith("level with the best")
    field = comparison.shared.rows[0][1]
    assert field.text == "fastest: none clearly"
    assert "fastest: m5.xlarge and c7i.8xlarge do not differ significantly" in field.title


def test_the_table_has_a_row_per_machine_with_price_and_best_cells():
    comparison = section(*both())
    assert comparison.types.heads == (
        "machine", "fastest, samples/s", "cheapest per 1,000 samples", "cheapest run", "cheapest to target",
        "an hour", "cells",
    )  # fmt: skip
    assert [[row[0], *row[-2:]] for row in texts(comparison.types.rows)] == [
        ["m5.xlarge", "$0.36", "1 of 1"],
        ["c7i.8xlarge", "$1.80", "1 of 1"],
    ]
    hour = comparison.types.rows[0][-2]
    assert hour.extra == "stated; m5.xlarge, us-east-1; 2026-07; 1 host, spread unknown"
    assert "best, and clear" in comparison.types.rows[1][1].extra
    assert "best, and clear" in comparison.types.rows[0][2].extra


def test_a_deadline_adds_a_column():
    # A takes 180 + 4 + 40.4 s of training (mean step 1.01 s) + 10 s and more, past the deadline; B meets it.
    comparison = section(*both(), deadline_s=225.0)
    assert comparison.types.heads[-3] == "cheapest within 3.75 min, as billed"
    assert comparison.types.rows[0][-3].text == "none"
    assert comparison.types.rows[1][-3].text.startswith("$0.1")


def test_a_failed_cell_shows_its_outcome_and_reason():
    failed = make_record(machine=B, outcome="oom", reason="killed at 1.5 GiB", axes={"batch_size": 32})
    comparison = section(*both(), run(A, 2.0, axes={"batch_size": 32}), failed)
    (row,) = (row for row in comparison.shared.rows if row[0].text == "32×64")
    assert (row[3].text, row[3].extra, row[1].text) == (
        "out of memory", "killed at 1.5 GiB", "measured on one machine alone",
    )  # fmt: skip
    assert [row[-1].text for row in comparison.types.rows] == ["2 of 2", "1 of 2"]
    assert comparison.types.rows[1][-1].extra == "1 out of memory"


def test_rows_are_named_by_configuration_without_the_device_type():
    gpus = make_machine(machine_id="z10g-4c-00000e", gpus=["NVIDIA A10G"])
    records = [run(A), run(gpus, 0.1, axes={"device": "gpu"}), run(gpus, 0.1, axes={"device": "gpu", "seq_len": 32})]
    failed = make_record(machine=A, outcome="timeout", reason="late", axes={"seq_len": 32})
    ranks = [run(machine, axes={"device": "cpu-ddp2"}) for machine in (A, B)]
    comparison = section(*records, failed, *ranks)
    assert {row[0].text for row in comparison.shared.rows} == {"16×64", "16×32", "16×64 ddp2"}


def test_machines_without_shared_cells_are_not_ranked():
    comparison = section(run(A), run(B, axes={"seq_len": 32}))
    assert comparison.verdicts == ("No cell was measured on two machines, so nothing can be ranked.",)
    assert comparison.charts == ()
    assert "2 more cells were tried on one machine alone." in comparison.cautions


def test_the_spread_between_hosts_of_an_instance_type_is_shown():
    twin = make_machine(machine_id=A.id, host="host-z")
    comparison = section(run(A), run(twin, 0.8), run(B, 0.5))
    # 16 / 1.01 and 20 / 1.01: a spread of 4 / 18
    assert comparison.types.rows[0][-2].extra.endswith("2 hosts, up to 22.2% apart")
    assert "2 hosts: 15.8 to 19.8" in comparison.shared.rows[0][2].extra
    assert any(line.startswith("One host of c7i.8xlarge was measured") for line in comparison.cautions)


def test_a_slice_of_a_machine_is_labelled_and_its_price_explained():
    comparison = section(run(A), run(SLICE, 2.0))
    assert comparison.types.rows[1][0].text == "AMD EPYC 7763 (slice: 1 of 4 CPUs)"
    assert any("a slice is priced as the whole machine" in line for line in comparison.cautions)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "AMD EPYC 7763 (4 CPUs)"),
        ({"memory_limit_bytes": GIB * 3 // 2}, "AMD EPYC 7763 (4 CPUs, slice: 1.5 GiB)"),
        ({"gpus": (make_gpu(), make_gpu())}, "2 × NVIDIA A10G"),
        ({"gpus": (make_gpu(),), "memory_limit_bytes": 2 * GIB}, "NVIDIA A10G (slice: 2 GiB)"),
    ],
)
def test_hardware_labels(changes, label):
    assert hardware(make_machine().model_copy(update=changes)) == label


def test_a_slice_of_a_stated_instance_is_labelled():
    cells = cost.price(summarize([run(SLICE)]), lambda _one: HOURLY)
    assert list(machine_labels(cells).values()) == ["m5.xlarge (slice: 1 of 4 CPUs)"]


def test_differences_are_printed_with_instance_names(tmp_path):
    records = [run(A, packages={"torch": "2.12.0"}), run(B, 0.5, packages={"torch": "2.13.0"})]
    package_differences = differences(summarize(records))
    cells = cells_of(*records)
    assert machines_section(cells, Assumptions(), USD, differences=package_differences).differences == (
        "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge",
    )
    text = write_report(cells, tmp_path, generated_at=AT, differences=package_differences).read_text(encoding="utf-8")
    assert "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge" in text
    assert "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_charts_draw_one_bar_per_machine_and_cell():
    comparison = section(*both(), *both(seq_len=32))
    speed, dollars = (chart.figure for chart in comparison.charts)
    bars = {trace.meta["colour"]: trace for trace in speed.data if trace.type == "bar" and trace.meta}
    assert list(bars) == ["machine-1", "machine-2"]
    assert list(bars["machine-2"].x) == pytest.approx([32 / 1.01] * 2, rel=0.01)
    assert list(speed.data[-1].text) == [
        "16×64, m5.xlarge", "16×64, c7i.8xlarge", "16×32, m5.xlarge", "16×32, c7i.8xlarge",
    ]  # fmt: skip
    assert next(trace for trace in dollars.data).x[0] == pytest.approx(0.1 / (16 / 1.01), rel=0.01)


def test_example_prices_rank_no_machines():
    cells = cost.price(summarize([*both(), *both(seq_len=32)]), lambda _one: replace(HOURLY, basis="assumed"))
    comparison = machines_section(cells, Assumptions(), USD)
    assert "cheapest" not in " ".join(comparison.verdicts)
    assert any("is an example, so machines are not ranked by cost" in line for line in comparison.cautions)
    assert comparison.charts[1].title == "USD per 1,000 samples, example price"
    assert not choose(cells).in_dollars
    assert choose(cells).way.cell.summary.machine_id == B.id  # the faster one
    assert choose(cells_of(*both(), *both(seq_len=32))).way.cell.summary.machine_id == A.id  # the cheaper one


def test_a_failed_cell_is_labelled_in_the_chart():
    third = make_machine(machine_id="arm-4c-16g-00000d")
    failed = make_record(machine=third, outcome="oom", reason="killed")
    (speed, _) = section(*both(), failed).charts
    assert any("out of memory" in text for trace in speed.figure.data for text in (trace.text or ()))


def test_cells_that_do_not_fit_the_chart_are_counted_and_listed_in_the_table():
    records = [record for size in range(1, 12) for record in both(batch_size=size)]
    comparison = section(*records)
    assert (comparison.num_more_bars, len(comparison.shared.rows)) == (3, 11)


def test_the_cost_chart_marks_each_machine_with_its_own_symbol():
    records, prices = two_machines()
    cells = priced(records, prices=prices)
    chart = cost_and_accuracy(cells, choose(cells), USD).figure
    names = list(machine_labels(cells).values())
    legend = {trace.name: trace.marker.symbol for trace in chart.data if trace.name in names}
    assert len(set(legend.values())) == len(names) == 2
    drawn = {symbol.removesuffix("-open") for trace in chart.data if trace.name not in names and trace.marker.symbol
             for symbol in trace.marker.symbol}  # fmt: skip
    assert drawn == set(legend.values())
    of_one_machine = cost_and_accuracy(priced(study_records()), choose(priced(study_records())), USD).figure
    assert not [trace for trace in of_one_machine.data if trace.x == (None,)]


def repriced(measured):
    there = replace(HOURLY, instance="g5.2xlarge", usd_per_hour=1.2)
    (cell,) = cost.price([measured.summary], lambda _one: there)
    return OtherPrice(measured, cell)


def test_costs_at_other_machines_prices_are_marked_as_not_measured_there(tmp_path):
    (cell,) = cells_of(run(A))
    other_prices = OtherPrices((repriced(cell),), ("m6i.large has no GPU: a CPU machine must be measured",))
    assert texts(other_prices_section(other_prices, [cell], USD).table.rows)[0][:2] == ["g5.2xlarge", "$1.20"]
    assert other_prices_section(OtherPrices((), ()), [cell], USD) is None
    text = write_report([cell], tmp_path, generated_at=AT, elsewhere=other_prices).read_text(encoding="utf-8")
    assert "Nothing in this table was measured on the machine that it names" in text
    assert "Not shown: m6i.large has no GPU: a CPU machine must be measured." in text


def test_hostile_names_are_escaped(tmp_path):
    hostile = "</script><b onclick='x'>"
    records = [
        run(A),
        make_record(machine=B, outcome="oom", reason=hostile, axes={"seq_len": 32}),
        run(A, axes={"seq_len": 32}),
    ]
    prices = {A.id: replace(HOURLY, instance=hostile), B.id: HOURLY}
    cells = cost.price(summarize([*records, run(B)]), lambda summary: prices[summary.machine_id])
    text = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert not re.search(r"<b onclick", text)


def test_the_summary_has_a_row_per_machine(tmp_path):
    write_report(cells_of(*both()), tmp_path, generated_at=AT)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Machines side by side" in text
    assert re.search(r"^\| m5\.xlarge \| 15\.8 .*\| \$0\.36 \(stated, m5\.xlarge, us-east-1, 2026-07", text, re.M)


def test_charts_of_pooled_machines_are_not_recomputed_by_the_page():
    twin = make_machine(machine_id="m5-4c-00000f")
    stated = replace(HOURLY, basis="stated", instance="m5.xlarge")
    prices = PRICES | {A.id: stated, twin.id: stated}
    summaries = summarize([run(A), run(twin), run(B)])
    comparison = machines_section(cost.price(summaries, lambda summary: prices[summary.machine_id]), Assumptions(), USD)
    assert comparison.recompute is None
    assert len(comparison.charts) == 2
