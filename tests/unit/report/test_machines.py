"""The section on machines side by side: sentences, tables, chart and where it stands."""

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
)  # a ten-thousandth of a dollar a second
PRICES = {A.id: HOURLY, B.id: replace(HOURLY, instance="c7i.8xlarge", usd_per_hour=1.8, usd_per_hour_on_demand=1.8)}


def run(machine, step_s=1.0, **more):
    seconds = [step_s * (1 + 0.01 * (step % 3)) for step in range(40)]
    return make_record(machine=machine, training={"seconds": seconds}, phases={"train_s": 40 * step_s}, **more)


def cells_of(*records):
    return cost.price(summarize(records), lambda one: PRICES.get(one.machine_id, replace(HOURLY, basis="assumed")))


def section(*records, **more):
    return machines_section(cells_of(*records), Assumptions(), **more, money=USD)


def both(**axes):
    """A at 16 samples a second, B at 32 and five times the price."""
    return run(A, 1.0, axes=axes), run(B, 0.5, axes=axes)


def texts(rows):
    return [[field.text for field in row] for row in rows]


def test_one_machine_has_no_section(tmp_path):
    assert section(run(A)) is None
    text = write_report(cells_of(run(A)), tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert 'id="machines"' not in text and '"#machines"' not in text
    assert "side by side" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_verdicts_name_who_leads_in_what():
    found = section(*both(), *both(seq_len=32))
    assert found.verdicts[0].startswith(
        "Of the 2 cells that two machines or more measured, each machine at its best: c7i.8xlarge trains fastest ("
    )
    assert "m5.xlarge is cheapest per 1,000 samples ($0.00631)" in found.verdicts[0]
    assert found.verdicts[1] == ("Cell by cell, fastest is c7i.8xlarge in 2; cheapest per sample is m5.xlarge in 2.")


def test_what_cannot_be_told_apart_is_said_so():
    found = section(run(A), run(B, 1.0))
    assert "m5.xlarge and c7i.8xlarge can't be told apart in speed." in found.verdicts[0]
    row = next(row for row in found.types.rows if row[0].text == "m5.xlarge")
    assert row[1].extra.endswith("level with the best")
    field = found.shared.rows[0][1]
    assert field.text == "fastest: none clearly"
    assert "fastest: m5.xlarge and c7i.8xlarge can't be told apart" in field.title


def test_the_table_has_a_row_a_machine_with_price_and_best_cells():
    found = section(*both())
    assert found.types.heads == (
        "machine", "fastest, samples/s", "cheapest per 1,000 samples", "cheapest run", "cheapest to target",
        "an hour", "cells",
    )  # fmt: skip
    assert [[row[0], *row[-2:]] for row in texts(found.types.rows)] == [
        ["m5.xlarge", "$0.36", "1 of 1"],
        ["c7i.8xlarge", "$1.80", "1 of 1"],
    ]
    hour = found.types.rows[0][-2]
    assert hour.extra == "stated; m5.xlarge, us-east-1; 2026-07; 1 host, spread unknown"
    assert "best, and clear" in found.types.rows[1][1].extra
    assert "best, and clear" in found.types.rows[0][2].extra


def test_a_deadline_adds_a_column():
    # 180 + 4 + 40.4 (mean step 1.01) of training + 10 and so on; A is late, B is not.
    found = section(*both(), deadline_s=225.0)
    assert found.types.heads[-3] == "cheapest within 3.75 min, as billed"
    assert found.types.rows[0][-3].text == "none"
    assert found.types.rows[1][-3].text.startswith("$0.1")


def test_a_cell_that_could_not_run_says_how_it_ended_and_why():
    lost = make_record(machine=B, outcome="oom", reason="killed at 1.5 GiB", axes={"batch_size": 32})
    found = section(*both(), run(A, 2.0, axes={"batch_size": 32}), lost)
    (row,) = (row for row in found.shared.rows if row[0].text == "32×64")
    assert (row[3].text, row[3].extra, row[1].text) == (
        "out of memory", "killed at 1.5 GiB", "measured on one machine alone",
    )  # fmt: skip
    assert [row[-1].text for row in found.types.rows] == ["2 of 2", "1 of 2"]
    assert found.types.rows[1][-1].extra == "1 out of memory"


def test_a_line_is_named_by_its_work_and_not_by_the_kind_of_device():
    gpus = make_machine(machine_id="z10g-4c-00000e", gpus=["NVIDIA A10G"])
    records = [run(A), run(gpus, 0.1, axes={"device": "gpu"}), run(gpus, 0.1, axes={"device": "gpu", "seq_len": 32})]
    lost = make_record(machine=A, outcome="timeout", reason="late", axes={"seq_len": 32})
    ranks = [run(one, axes={"device": "cpu-ddp2"}) for one in (A, B)]
    found = section(*records, lost, *ranks)
    assert {row[0].text for row in found.shared.rows} == {"16×64", "16×32", "16×64 ddp2"}


def test_no_shared_cell_is_no_ranking():
    found = section(run(A), run(B, axes={"seq_len": 32}))
    assert found.verdicts == ("No cell was measured on two machines, so nothing can be ranked.",)
    assert found.charts == ()
    assert "2 more cells were tried on one machine alone." in found.cautions


def test_hosts_of_one_instance_stand_beside_the_price():
    twin = make_machine(machine_id=A.id, host="host-z")
    found = section(run(A), run(twin, 0.8), run(B, 0.5))
    # 16 / 1.01 and 20 / 1.01: a spread of 4 / 18
    assert found.types.rows[0][-2].extra.endswith("2 hosts, up to 22.2% apart")
    assert "2 hosts: 15.8 to 19.8" in found.shared.rows[0][2].extra
    assert any(line.startswith("One host of c7i.8xlarge was measured") for line in found.cautions)


def test_a_slice_is_labelled_and_its_price_explained():
    found = section(run(A), run(SLICE, 2.0))
    assert found.types.rows[1][0].text == "AMD EPYC 7763 (slice: 1 of 4 CPUs)"
    assert any("a slice is priced as the whole machine" in line for line in found.cautions)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "AMD EPYC 7763 (4 CPUs)"),
        ({"memory_limit_bytes": GIB * 3 // 2}, "AMD EPYC 7763 (4 CPUs, slice: 1.5 GiB)"),
        ({"gpus": (make_gpu(), make_gpu())}, "2 × NVIDIA A10G"),
        ({"gpus": (make_gpu(),), "memory_limit_bytes": 2 * GIB}, "NVIDIA A10G (slice: 2 GiB)"),
    ],
)
def test_what_hardware_is_called(changes, label):
    assert hardware(make_machine().model_copy(update=changes)) == label


def test_a_stated_slice_is_labelled_too():
    cells = cost.price(summarize([run(SLICE)]), lambda _one: HOURLY)
    assert list(machine_labels(cells).values()) == ["m5.xlarge (slice: 1 of 4 CPUs)"]


def test_differences_are_printed_with_the_machines_names(tmp_path):
    records = [run(A, packages={"torch": "2.12.0"}), run(B, 0.5, packages={"torch": "2.13.0"})]
    told = differences(summarize(records))
    cells = cells_of(*records)
    assert machines_section(cells, Assumptions(), USD, differences=told).differences == (
        "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge",
    )
    text = write_report(cells, tmp_path, generated_at=AT, differences=told).read_text(encoding="utf-8")
    assert "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge" in text
    assert "torch: 2.12.0 on m5.xlarge; 2.13.0 on c7i.8xlarge" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_charts_draw_a_bar_a_machine_and_cell():
    found = section(*both(), *both(seq_len=32))
    speed, dollars = (chart.figure for chart in found.charts)
    bars = [trace for trace in speed.data if trace.showlegend is not False]
    assert [trace.name for trace in bars] == ["m5.xlarge", "c7i.8xlarge"]
    assert [len(trace.x) for trace in bars] == [2, 2]
    assert list(bars[1].x) == pytest.approx([32 / 1.01] * 2, rel=0.01)
    # Rows from the top: two machines, a gap, two machines.
    assert [list(trace.y) for trace in bars] == [[0, 2.7], [1, 3.7]]
    assert list(speed.layout.yaxis.tickvals) == [0.5, 3.2]
    assert next(trace for trace in dollars.data).x[0] == pytest.approx(0.1 / (16 / 1.01), rel=0.01)


def test_a_failed_cell_stands_as_a_word_in_the_chart():
    third = make_machine(machine_id="arm-4c-16g-00000d")
    lost = make_record(machine=third, outcome="oom", reason="killed")
    (speed, _) = section(*both(), lost).charts
    assert any("out of memory" in text for trace in speed.figure.data for text in (trace.text or ()))


def test_more_cells_than_a_chart_holds_stand_in_the_table():
    records = [one for size in range(1, 12) for one in both(batch_size=size)]
    found = section(*records)
    assert (found.num_more_bars, len(found.shared.rows)) == (3, 11)


def test_the_cost_chart_tells_machines_apart_by_symbol():
    records, prices = two_machines()
    cells = priced(records, prices=prices)
    chart = cost_and_accuracy(cells, choose(cells), USD).figure
    names = list(machine_labels(cells).values())
    legend = {trace.name: trace.marker.symbol for trace in chart.data if trace.name in names}
    assert len(set(legend.values())) == len(names) == 2
    drawn = {symbol.removesuffix("-open") for trace in chart.data if trace.name not in names and trace.marker.symbol
             for symbol in trace.marker.symbol}  # fmt: skip
    assert drawn == set(legend.values())
    alone = cost_and_accuracy(priced(study_records()), choose(priced(study_records())), USD).figure
    assert not [trace for trace in alone.data if trace.x == (None,)]


def moved(measured):
    there = replace(HOURLY, instance="g5.2xlarge", usd_per_hour=1.2)
    (cell,) = cost.price([measured.summary], lambda _one: there)
    return OtherPrice(measured, cell)


def test_seconds_elsewhere_are_marked_as_not_measured_there(tmp_path):
    (cell,) = cells_of(run(A))
    answer = OtherPrices((moved(cell),), ("m6i.large has no GPU: a CPU machine must be measured",))
    assert texts(other_prices_section(answer, [cell], USD).table.rows)[0][:2] == ["g5.2xlarge", "$1.20"]
    assert other_prices_section(OtherPrices((), ()), [cell], USD) is None
    text = write_report([cell], tmp_path, generated_at=AT, elsewhere=answer).read_text(encoding="utf-8")
    assert "Nothing in this table was measured on the machine that it names" in text
    assert "Not shown: m6i.large has no GPU: a CPU machine must be measured." in text


def test_hostile_names_stay_text(tmp_path):
    evil = "</script><b onclick='x'>"
    records = [
        run(A),
        make_record(machine=B, outcome="oom", reason=evil, axes={"seq_len": 32}),
        run(A, axes={"seq_len": 32}),
    ]
    prices = {A.id: replace(HOURLY, instance=evil), B.id: HOURLY}
    cells = cost.price(summarize([*records, run(B)]), lambda one: prices[one.machine_id])
    text = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert not re.search(r"<b onclick", text)


def test_the_summary_has_a_row_a_machine(tmp_path):
    write_report(cells_of(*both()), tmp_path, generated_at=AT)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "## Machines side by side" in text
    assert re.search(r"^\| m5\.xlarge \| 15\.8 .*\| \$0\.36 \(stated, m5\.xlarge, us-east-1, 2026-07", text, re.M)


def test_a_chart_of_pooled_machines_is_not_recomputed():
    twin = make_machine(machine_id="m5-4c-00000f")
    stated = replace(HOURLY, basis="stated", instance="m5.xlarge")
    prices = PRICES | {A.id: stated, twin.id: stated}
    summaries = summarize([run(A), run(twin), run(B)])
    found = machines_section(cost.price(summaries, lambda one: prices[one.machine_id]), Assumptions(), USD)
    assert found.recompute is None
    assert len(found.charts) == 2
