"""The memory section: the breakdown chart, other memory users, memory savings, and fixes for OOM cells."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from harness.decision.memory_savings import memory_savings, oom_fixes
from harness.report import write_report
from harness.report.charts.memory import memory_chart
from harness.report.csv_export import csv_text
from harness.report.formatting import USD
from harness.report.sections.memory import SAVING_HEADS, memory_users, memory_warnings, oom_fix_sentences, savings_table
from tests.make_priced import AT
from tests.make_records import GIB, MIB, make_load, make_record
from tests.unit.decision.test_memory_savings import cell, priced

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"


def test_bars_stack_to_the_peak_with_the_largest_cell_first():
    small = make_record(training={"memory_parts": {}})
    large = make_record(
        axes={"batch_size": 32}, training={"memory_parts": {}, "peaks": [(0, "rss", 900 * MIB)], "world_size": 1}
    )
    chart, more = memory_chart(priced(small, large))
    assert more == 0
    bars = {trace.name: list(trace.x) for trace in chart.figure.data if trace.type == "bar"}
    assert bars["weights"] == [100 * MIB, 100 * MIB]
    assert bars["not explained"] == [320 * MIB, 20 * MIB]
    assert [sum(parts) for parts in zip(*bars.values(), strict=True)] == [900 * MIB, 600 * MIB]
    totals, names = chart.figure.data[-2:]
    assert totals.text == (" 900 MiB", " 600 MiB")
    assert names.text == ("32×64", "16×64")
    assert chart.title == "The largest part of the highest peak, 32×64: not explained, 35.6%"


def test_hover_text_lists_kinds_of_activations_and_a_sum_above_the_peak():
    parts = {"activations": {"attention": 300 * MIB, "feed-forward": 100 * MIB}}
    chart, _ = memory_chart(priced(make_record(training={"memory_parts": parts})))
    bars = {trace.name: trace for trace in chart.figure.data if trace.type == "bar"}
    assert "not explained" not in bars
    hover_text = bars["activations"].hovertext[0]
    assert "attention: 300 MiB" in hover_text
    assert "the parts come to 950 MiB, more than the measured peak" in hover_text


def test_sixteen_cells_are_drawn_and_the_rest_are_counted():
    records = [make_record(axes={"batch_size": size}, training={"memory_parts": {}}) for size in range(1, 21)]
    chart, more = memory_chart(priced(*records))
    assert (len(chart.figure.data[0].x), more) == (16, 4)


def test_without_a_memory_breakdown_there_is_no_chart():
    assert memory_chart(priced(make_record())) == (None, 0)


def test_the_largest_other_memory_user_is_named_and_listed_first():
    users = memory_users(
        priced(
            make_record(load=make_load([("small", 100 * MIB, None)])),
            make_record(
                axes={"batch_size": 32},
                load=make_load([("chrome", GIB, None), ("python3", int(6.1 * GIB), 0)], available=4 * GIB, swap=None),
            ),
            make_record(axes={"batch_size": 8}, load=make_load([])),
            make_record(axes={"batch_size": 4}, load=make_load(None)),
            make_record(axes={"batch_size": 2}),
        )
    )
    assert users.sentence == "Another process (python3) held 6.10 GiB of GPU 0 when 32×64 began: the most of any."
    assert [[field.text for field in row] for row in users.table.rows] == [
        ["32×64", "python3 6.10 GiB of GPU 0; chrome 1.00 GiB of main memory", "4.00 GiB", "not measured"],
        ["16×64", "small 100 MiB of main memory", "12.00 GiB", "0 MiB"],
    ]
    assert users.notes == (
        "No other process held 256 MiB or more when 1 cell began.",
        "It was not recorded for 2 cells.",
    )


def test_three_memory_users_are_named_and_the_rest_are_counted():
    many = [(f"p{size}", size * MIB, None) for size in range(1, 6)]
    users = memory_users(priced(make_record(load=make_load(many))))
    assert users.table.rows[0][1].text.startswith("p5 5 MiB")
    assert users.table.rows[0][1].text.endswith("; 2 more")


def test_without_listed_memory_users_the_section_is_empty():
    users = memory_users(priced(make_record(), make_record(axes={"batch_size": 8}, load=make_load(None))))
    assert (users.sentence, users.table.rows, users.notes) == ("", (), ())


def test_memory_warnings_are_repeated_in_the_section():
    (measured,) = priced(make_record())
    warned = replace(
        measured, summary=replace(measured.summary, warnings=("Memory grew by 3 MiB a step: a leak.", "Other."))
    )
    assert memory_warnings([warned]) == [("Memory grew by 3 MiB a step: a leak.", "16×64")]


def test_a_row_of_the_savings_table_matches_hand_computed_figures():
    slow = cell(peak=450, step_s=1.3, training={"activation_checkpointing": True})
    cells = priced(cell(peak=600), slow)
    ((row),) = savings_table(memory_savings(cells), cells, USD).rows
    fields = dict(zip(SAVING_HEADS, row, strict=True))
    assert fields["what changed"].text == "activation checkpointing: off → on"
    assert fields["peak memory"].text == "600 MiB → 450 MiB"
    assert (fields["saved"].text, fields["saved"].extra) == ("150 MiB", "25.0%")
    # Equal steps give intervals of zero width, which don't overlap.
    assert (fields["time and dollars a sample"].text, fields["time and dollars a sample"].extra) == (
        "1.30 times",
        "0.99 to 1.72; no significant difference",  # one run each: 1.3 x exp(-+1.96 x 10 % x sqrt(2))
    )
    # At 0.001 USD per second: 1000 / 16 x 0.001, and 1.3 times that.
    assert fields["cost per 1,000 samples"].text == "$0.0625 → $0.0812"
    assert fields["test accuracy"].text == "80.0% → 80.0%"


def test_a_change_that_takes_more_memory_says_so_and_overlapping_times_are_not_ranked():
    noisy = [1.0, 2.0] * 20
    larger = make_record(
        axes={"precision": "bf16"},
        training={"seconds": noisy[::-1], "peaks": [(0, "rss", 700 * MIB)], "accuracy": None},
    )
    cells = priced(make_record(training={"seconds": noisy}), larger)
    table = savings_table(memory_savings(cells), cells, USD)
    fields = dict(zip(table.heads, table.rows[0], strict=True))
    assert fields["saved"].text == "100 MiB more"
    assert "no significant difference" in fields["time and dollars a sample"].extra
    assert "test accuracy" not in fields  # measured of neither


def test_an_oom_cell_gets_a_measured_fix():
    on = {"training": {"activation_checkpointing": True}}
    oom = cell(axes={"batch_size": 64}, outcome="oom")
    cells = priced(
        oom,
        cell(peak=3174, axes={"batch_size": 64}, step_s=8.0, **on),
        cell(step_s=4.0),
        cell(step_s=5.2, **on),
    )
    assert oom_fix_sentences(oom_fixes(cells), cells, USD) == [
        "b64-s64-fp32-cpu-longest-all ran out of memory; the same with activation checkpointing on ran in 3.10 GiB at "
        "8.00 samples/s and $0.125 per 1,000 samples (stated price). Where both ran (b16-s64-fp32-cpu-longest-all), that "
        "took 1.30 times (0.99 to 1.72) the time and dollars a sample."
    ]


@pytest.mark.parametrize(
    ("axes", "sections", "phrase"),
    [
        ({"batch_size": 32}, {}, "the same with batch size 32 ran"),
        ({"batch_size": 32}, {"training": {"grad_accum": 2}}, "the same with 2 micro-batches an update ran"),
        ({"batch_size": 64, "trainable": "head"}, {}, "the same with the head alone trained ran"),
        ({"batch_size": 64}, {"model": {"attention_dropout": 0.0}}, "the same with attention dropout 0 ran"),
        ({"batch_size": 64, "seq_len": 32}, {}, "no cell that differs from it in one way alone was measured to fit"),
    ],
)
def test_each_kind_of_oom_fix_has_its_sentence(axes, sections, phrase):
    cells = priced(cell(axes={"batch_size": 64}, outcome="oom"), cell(axes=axes, **sections))
    assert phrase in oom_fix_sentences(oom_fixes(cells), cells, USD)[0]


def test_page_summary_and_csv_contain_the_memory_figures(tmp_path):
    records = [
        make_record(training={"memory_parts": {}}, load=make_load([(HOSTILE, GIB, None)])),
        cell(axes={"batch_size": 64}, outcome="oom"),
    ]
    cells = priced(*records)
    text = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert '<section id="memory"' in text
    assert "<img src=x" not in text
    assert "the same with batch size 16 ran" in (tmp_path / "summary.md").read_text(encoding="utf-8")
    row = next(csv.DictReader(io.StringIO(csv_text(cells))))
    assert {key: int(row[key]) // MIB for key in row if key.startswith("rank0_")} == {
        "rank0_peak_bytes": 600, "rank0_base_bytes": 200, "rank0_weights_bytes": 100, "rank0_gradients_bytes": 100,
        "rank0_optimizer_bytes": 150, "rank0_activations_bytes": 30,
        "rank0_workspace_bytes": 0, "rank0_unexplained_bytes": 20,
    }  # fmt: skip
    assert (int(row["largest_holder_bytes"]), int(row["available_memory_before_bytes"])) == (GIB, 12 * GIB)


def test_unmeasured_memory_figures_are_empty_in_the_csv():
    row = next(csv.DictReader(io.StringIO(csv_text(priced(make_record())))))
    assert {row[key] for key in row if key.startswith("rank0_")} == {""}
    assert (row["largest_holder_bytes"], row["available_memory_before_bytes"]) == ("", "")
