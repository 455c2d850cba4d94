"""Sentences, charts and table rows on scaling over devices: each verdict matches the figures."""

from __future__ import annotations

import csv
import io

import pytest

from harness.decision.choice import choose
from harness.decision.scaling import scaling_series
from harness.report import write_report
from harness.report.charts.scaling import scaling_charts
from harness.report.csv_export import csv_text
from harness.report.formatting import USD
from harness.report.sections.answer import answer
from harness.report.sections.scaling import (
    NEVER_RUN,
    communication_text,
    scaling_answer,
    scaling_sentences,
    scaling_table,
    verdict,
)
from tests.make_priced import AT
from tests.make_records import make_machine, make_network, make_record
from tests.unit.decision.test_scaling import FOUR_GPUS, RATES, cell, priced

THREE = [cell("cpu", 32), cell("cpu-ddp2", 16), cell("cpu-ddp4", 8)]


def three(one, two, four):
    rates = {("cpu", 32): one, ("cpu-ddp2", 16): two, ("cpu-ddp4", 8): four}
    (series,) = scaling_series(priced(THREE, rates))
    return series


NETWORK = make_network({2**16: [0.0004, 0.0006, 0.0005], 2**28: [0.25, 0.25]})


def over_machines(one, two, four, network=None):
    four_ranks = cell("cpu-ddp2x2", 8, training={"network": network})
    rates = {("cpu", 32): one, ("cpu-ddp2", 16): two, ("cpu-ddp2x2", 8): four}
    cells = priced([cell("cpu", 32), cell("cpu-ddp2", 16), four_ranks], rates)
    (series,) = scaling_series(cells)
    return series, cells


def test_a_second_machine_that_does_not_pay_is_told_with_the_number_of_machines():
    series, cells = over_machines((40.0, 39.0, 41.0), (72.0, 70.0, 74.0), (108.0, 106.0, 110.0))
    text = "the money goes down from 1 process to 2, every machine paid for and up again at 4 on 2 machines"
    assert verdict(series) == text
    (sentence, *_) = scaling_sentences([series], cells)
    assert "4 on 2 machines at 2.70 times the speed" in sentence and "all-reduce" not in sentence
    assert "4 processes on 2 machines" in [row[1].text for row in scaling_table([series], cells, USD).rows]


def test_the_network_between_the_machines_is_told_with_its_speed():
    series, cells = over_machines((40.0, 39.0, 41.0), (72.0, 70.0, 74.0), (108.0, 106.0, 110.0), NETWORK)
    (sentence, *_) = scaling_sentences([series], cells)
    # 2**28 bytes in 0.25 s are 1.07 GB/s; 4 ranks move 2 x 3 / 4 of that on each link.
    assert sentence.endswith(
        " Between the machines (eth0, gloo), an all-reduce of 64 KiB takes 0.500 ms, and one of 256 MiB runs at "
        "1.07 GB/s (1.61 GB/s on each rank's link)."
    )


@pytest.mark.parametrize(
    ("one", "two", "four", "expected"),
    [
        ((80.0, 76.0, 84.0), (72.0, 70.0, 74.0), (60.0, 58.0, 62.0),
         "more processes do not pay: the money goes up from 1 process to 2"),
        ((80.0, 76.0, 84.0), (79.0, 75.0, 83.0), (81.0, 77.0, 85.0),
         "2 and 4 processes and 1 do not differ significantly in cost"),
        ((80.0, 76.0, 84.0), (79.0, 75.0, 83.0), (60.0, 58.0, 62.0),
         "2 processes and 1 do not differ significantly in cost, and 4 cost more: "
         "more processes are not shown to pay"),
        ((80.0, 76.0, 84.0), (120.0, 115.0, 125.0), (160.0, 155.0, 165.0),
         "the money goes down from 1 process to 4"),
        ((80.0, 76.0, 84.0), (120.0, 115.0, 125.0), (100.0, 95.0, 105.0),
         "the money goes down from 1 process to 2 and up again at 4"),
        ((80.0, 76.0, 84.0), (120.0, 115.0, 125.0), (118.0, 113.0, 123.0),
         "the money goes down from 1 process to 2; no significant difference between 4 and 2"),
        ((80.0, None, None), (40.0, None, None), (30.0, None, None),
         "2 and 4 processes and 1 do not differ significantly in cost (an interval is not known)"),
    ],
)  # fmt: skip
def test_each_verdict_matches_the_speeds(one, two, four, expected):
    assert verdict(three(one, two, four)) == expected


def test_the_sentence_on_two_processes_has_hand_computed_ratios():
    # Speed-up: 72 / 80 = 0.9, interval 0.849 to 0.951; cost: 80 / 72 = 1.11.
    series = scaling_series(priced([cell("cpu", 32), cell("cpu-ddp2", 16)], RATES))
    assert scaling_sentences(series, []) == [
        "Strong scaling (global batch 32): 2 processes on this CPU train at 0.90 times the speed of 1 (0.85 to 0.95) "
        "and cost 1.11 times as much a sample. More processes do not pay: the money goes up from 1 process to 2.",
        NEVER_RUN,
    ]


def gpus(*, several=True):
    single = cell("gpu", 32, machine=FOUR_GPUS)
    rates = {
        ("gpu", 32): (100.0, 98.0, 102.0),
        ("gpu-ddp2", 16): (160.0, 157.0, 163.0),
        ("gpu-ddp4", 8): (200.0, 196.0, 204.0),
    }
    multiple = [cell("gpu-ddp2", 16, machine=FOUR_GPUS), cell("gpu-ddp4", 8, machine=FOUR_GPUS)]
    return priced([single, *(multiple if several else [])], rates)


def test_the_gpu_sentence_states_costs_of_the_whole_machine_and_of_the_gpus_in_use():
    cells = gpus()
    (sentence,) = scaling_sentences(scaling_series(cells), cells)
    # Cost of the whole machine: 1 / 1.6 = 0.625 and 1 / 2; of the GPUs in use: 2 / 1.6 = 1.25 and 4 / 2.
    assert "2 GPUs of this machine train at 1.60 times the speed of 1" in sentence
    assert "cost 0.62 times as much a sample where the whole machine is paid for" in sentence
    assert "1.25 times at the price of the GPUs in use alone" in sentence
    assert "4 at 2.00 times the speed (1.94 to 2.06) cost 0.50 and 2.00 times." in sentence
    assert sentence.endswith("The money goes down from 1 GPU to 4, the whole machine paid for.")


def test_the_row_of_one_gpu_of_four_states_both_costs():
    cells = gpus()
    table = scaling_table(scaling_series(cells), cells, USD)
    rows = table.rows
    fields = dict(zip(table.heads, rows[0], strict=True))
    # 0.001 USD per second at 100 samples/s is 0.01 USD per 1,000 samples; one GPU of four costs a quarter of that.
    assert fields["cost per 1,000 samples"].text == "$0.0100"
    assert "$0.00250 for 1 of 4 GPUs" in fields["cost per 1,000 samples"].extra
    assert "GPUs" not in dict(zip(table.heads, rows[2], strict=True))["cost per 1,000 samples"].extra


def test_multi_gpu_is_reported_as_never_run_until_several_gpus_ran():
    cpu = [cell("cpu", 32), cell("cpu-ddp2", 16)]
    assert NEVER_RUN in scaling_sentences(scaling_series(priced(cpu)), priced(cpu))
    crashed = make_record(
        axes={"device": "gpu-ddp2", "batch_size": 16}, machine=FOUR_GPUS, outcome="crashed", reason="x"
    )
    single = make_machine(machine_id="a10g-000001", gpus=["NVIDIA A10G"])
    single_rank = make_record(axes={"device": "gpu-ddp", "batch_size": 16}, machine=single, training={"world_size": 1})
    cells = priced([*cpu, crashed, single_rank])
    assert NEVER_RUN in scaling_sentences(scaling_series(cells), cells)
    cells = priced([*cpu, cell("gpu-ddp2", 16, machine=FOUR_GPUS)])
    assert NEVER_RUN not in scaling_sentences(scaling_series(cells), cells)


def test_the_answer_summarises_scaling_once():
    cells = priced([cell("cpu", 32), cell("cpu", 16), cell("cpu-ddp2", 16)], RATES)
    text = " ".join(answer(cells, choose(cells), USD))
    assert "Devices at their best" not in text
    assert text.count("Over devices") == 1
    assert scaling_answer(cells) == [
        "Over devices, more processes do not pay: the money goes up from 1 process to 2, by strong scaling (global batch 32)."
    ]


def test_the_answer_compares_cpu_with_gpu_but_not_the_scaled_devices():
    records = [
        cell("cpu", 32, machine=FOUR_GPUS),
        cell("cpu-ddp2", 16, machine=FOUR_GPUS),
        cell("gpu", 32, machine=FOUR_GPUS),
    ]
    cells = priced(records, RATES | {("gpu", 32): (900.0, 890.0, 910.0)})
    text = " ".join(answer(cells, choose(cells), USD))
    assert "Devices at their best. cpu: 80.0 samples/s" in text
    assert "cpu-ddp2" not in text


def test_series_are_labelled_by_the_axis_that_differs():
    long = {"seq_len": 128}
    records = [
        *(cell("cpu", 32), cell("cpu-ddp2", 16)),
        *(
            make_record(axes={"device": name, "batch_size": size} | long)
            for name, size in (("cpu", 32), ("cpu-ddp2", 16))
        ),
    ]
    sentences = scaling_sentences(scaling_series(priced(records)), priced(records))
    assert [sentence.split(":")[0] for sentence in sentences[:2]] == [
        "Strong scaling (global batch 32, 64 tokens)",
        "Strong scaling (global batch 32, 128 tokens)",
    ]


def test_charts_plot_speed_with_intervals_efficiency_and_cost():
    cells = priced([cell("cpu", 32), cell("cpu", 16), cell("cpu-ddp2", 16)], RATES)
    ((name, charts),) = scaling_charts(scaling_series(cells), cells, USD).items()
    assert name == "CPU processes"
    speed, efficiency, dollars = (chart.figure for chart in charts)
    assert [list(trace.y) for trace in speed.data] == [[80.0, 72.0], [60.0, 72.0]]
    assert list(speed.data[0].error_y.array) == [4.0, 2.0]
    assert [trace.line.dash for trace in speed.data] == ["solid", "dash"]
    assert list(efficiency.data[0].y) == [1, 1]
    assert list(efficiency.data[1].y) == pytest.approx([1.0, 0.45])
    assert list(dollars.data[0].y) == pytest.approx([1 / 80, 1 / 72])
    assert "stated price" in charts[2].title


def test_the_cost_of_the_gpus_in_use_equals_the_whole_machines_with_all_gpus():
    cells = gpus()
    (charts,) = scaling_charts(scaling_series(cells), cells, USD).values()
    whole, share = charts[2].figure.data
    assert list(whole.y) == pytest.approx([0.01, 0.00625, 0.005])
    assert list(share.y) == pytest.approx([0.0025, 0.003125, 0.005])
    assert "GPUs in use alone" in share.name


def test_summary_and_csv_have_the_same_figures(tmp_path):
    comm = {"communication": ([1.0], [0.8])}
    cells = priced([cell("cpu", 32), cell("cpu", 16), cell("cpu-ddp2", 16, training=comm)], RATES)
    write_report(cells, tmp_path, generated_at=AT)
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "2 processes on this CPU train at 0.90 times the speed of 1" in text
    assert (
        "| strong scaling (global batch 32) | 2 | 16 | 32 | 72.0 (70.0 to 74.0) | 0.90 (0.85 to 0.95) | 45.0%" in text
    )
    rows = {row["cell"]: row for row in csv.DictReader(io.StringIO(csv_text(cells)))}
    shared = rows["b16-s64-fp32-cpu-ddp2-longest-all"]
    assert float(shared["strong_speed_up"]) == pytest.approx(0.9)
    assert float(shared["weak_speed_up"]) == pytest.approx(1.2)
    assert float(shared["weak_efficiency_fraction"]) == pytest.approx(0.6)
    assert float(shared["communication_fraction"]) == pytest.approx(0.2)
    single = rows["b32-s64-fp32-cpu-longest-all"]
    assert (single["strong_speed_up"], single["weak_speed_up"], single["communication_fraction"]) == ("1.0", "", "")


def test_without_a_scaling_series_there_is_no_section(tmp_path):
    text = write_report(priced([cell("cpu", 32)]), tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert 'id="scaling"' not in text
    assert "Scaling over devices" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("communication", "expected"),
    [(None, "not measured"), (([1.0], [1.1]), "none found"), (([1.0], [0.877]), "12.3%")],
)
def test_exposed_communication_as_text(communication, expected):
    (series,) = scaling_series(
        priced([cell("cpu", 32), cell("cpu-ddp2", 16, training={"communication": communication})])
    )
    assert [communication_text(point) for point in series.points] == ["does not apply", expected]
