"""Recommendations against hand-computed values: requirements, misses and figures."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from harness.analysis.summarize import summarize
from harness.cli.views.recommend import recommendation_fields, show_recommendation
from harness.decision.recommend import balanced, recommend
from harness.decision.requirements import Requirements, parse_duration
from harness.errors import Unavailable, UserError
from harness.pricing import cost
from harness.pricing.prices import Price
from harness.report.formatting import USD
from harness.schema.assumptions import Assumptions
from tests.make_records import GIB, make_baseline, make_machine, make_record

CHEAP = make_machine(machine_id="epyc-4c-16g-00000a")
DEAR = make_machine(machine_id="xeon-4c-16g-00000b", host="host-b")
GPUS = make_machine(machine_id="a10g-4c-16g-00000c", host="host-c", gpus=["NVIDIA A10G"])
HOURLY = Price(0.36, "m5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=0.36)
PRICES = {
    CHEAP.id: HOURLY,
    DEAR.id: replace(HOURLY, usd_per_hour=3.6, usd_per_hour_on_demand=3.6, instance="c7i.8xlarge"),
    GPUS.id: replace(HOURLY, usd_per_hour=0.9, usd_per_hour_on_demand=0.9, instance="g5.xlarge"),
}


def run(machine, train_s, accuracy=0.8, **more):
    training = {"seconds": [train_s / 40] * 40, "accuracy": accuracy} | more.pop("training", {})
    return make_record(machine=machine, training=training, phases={"train_s": float(train_s)}, **more)


def price_all(records, prices=None):
    return cost.price(summarize(records), lambda one: PRICES.get(one.machine_id) if prices is None else prices)


def advise(records, **asked):
    return recommend(price_all(records), Requirements(**asked), Assumptions())


def roles(advice):
    return {one.role: one.candidate.cell.summary.machine_id for one in advice.choices}


# From order to end: 180 s of start-up and set-up, 4 of loading, training, 10 of evaluation. The same seconds are billed.
def test_the_cheapest_the_fastest_and_the_balanced_one():
    slow, quick = run(CHEAP, 3600), run(DEAR, 600)
    middle = run(GPUS, 900, axes={"device": "gpu"})
    advice = advise([slow, quick, middle])
    figures = {
        one.candidate.cell.summary.machine_id: (one.candidate.usd.value, one.candidate.waited_s.value)
        for one in advice.choices
    }
    # 3,794 s at 0.36; 794 s at 3.6; 1,094 s at 0.9
    assert roles(advice) == {"cheapest": GPUS.id, "fastest": DEAR.id, "balanced": GPUS.id}
    assert figures[GPUS.id] == (pytest.approx(0.2735), pytest.approx(1094))
    assert figures[DEAR.id] == (pytest.approx(0.794), pytest.approx(794))
    assert (advice.num_qualifying, advice.num_measured, advice.ruled_out) == (3, 3, ())


def test_balanced_is_nearest_to_the_ideal_by_logarithms():
    # Ideal (1, 10). ln 4 = 1.386 from the cheap and the fast one, hypot(ln 2, ln 1.5) = 0.804 from the middle.
    assert balanced([(1.0, 40.0), (2.0, 15.0), (4.0, 10.0)]) == 1
    assert math.hypot(math.log(2), math.log(1.5)) < math.log(4)
    assert balanced([(4.0, 10.0), (1.0, 40.0)]) == 1  # as near: the cheaper
    assert balanced([(0.0, 10.0), (1.0, 5.0)]) == 0  # what costs nothing is infinitely nearer


@pytest.mark.parametrize(
    ("asked", "machine_ids"),
    [
        ({"target_accuracy": 0.8}, {CHEAP.id, DEAR.id}),
        ({"target_accuracy": 0.81}, {DEAR.id}),
        ({"deadline_s": 1094.0}, {DEAR.id, GPUS.id}),
        ({"deadline_s": 1093.0}, {DEAR.id}),
        ({"budget_usd": 0.28}, {GPUS.id}),
        ({"gpu_memory_bytes": 16 * GIB}, {CHEAP.id, DEAR.id, GPUS.id}),
        ({"gpu_memory_bytes": 15 * GIB}, {CHEAP.id, DEAR.id}),
        ({"target_accuracy": 0.81, "budget_usd": 0.5}, set()),
    ],
)
def test_each_requirement_is_judged_by_the_value(asked, machine_ids):
    peaks = [(0, "cuda_allocated", 20 * GIB), (0, "cuda_reserved", 16 * GIB)]
    records = [
        run(CHEAP, 3600, 0.8),
        run(DEAR, 600, 0.82),
        run(GPUS, 900, 0.78, axes={"device": "gpu"}, training={"peaks": peaks}),
    ]
    advice = advise(records, **asked)
    assert advice.num_qualifying == len(machine_ids)
    assert set(roles(advice).values()) <= machine_ids
    assert bool(advice.choices) == bool(machine_ids)


def test_the_highest_gpu_peak_counts():
    peaks = [(0, "cuda_reserved", 9 * GIB), (1, "cuda_reserved", 10 * GIB)]
    two = make_machine(machine_id=GPUS.id, gpus=["NVIDIA A10G"] * 2)
    record = run(two, 900, axes={"device": "gpu-ddp2"}, training={"peaks": peaks})
    assert advise([record], gpu_memory_bytes=10 * GIB).num_qualifying == 1
    assert advise([record], gpu_memory_bytes=9.9 * GIB).num_qualifying == 0


def test_unmeasured_gpu_memory_does_not_qualify():
    record = run(GPUS, 900, axes={"device": "gpu"}, training={"peaks": [(0, "cuda_allocated", GIB)]})
    (miss,) = advise([record], gpu_memory_bytes=80 * GIB).ruled_out
    assert (miss.num_cells, miss.nearest) == (1, None)


def test_ruled_out_cells_are_counted_with_the_nearest_miss():
    records = [
        run(CHEAP, 3600, 0.77), run(CHEAP, 3600, 0.79, axes={"seq_len": 32}), run(DEAR, 600, 0.795),
        run(DEAR, 600, 0.9, axes={"seq_len": 32}),
    ]  # fmt: skip
    advice = advise(records, target_accuracy=0.8, budget_usd=0.5)
    assert advice.choices == ()
    target, budget = advice.ruled_out
    # Those of CHEAP miss the target alone; DEAR's 0.795 is nearer, and too dear.
    assert (target.num_cells, target.nearest_value, target.unit) == (3, 0.79, "accuracy")
    assert (budget.num_cells, budget.nearest_value) == (2, pytest.approx(0.794))
    assert budget.nearest.cell.summary.accuracy.value == 0.9


def test_a_value_that_reaches_it_and_an_interval_that_does_not():
    (choice, *_) = advise([run(CHEAP, 3600, 0.8)], target_accuracy=0.79).choices
    assert choice.candidate.unsure == ("the interval of its accuracy reaches below the target accuracy of 0.79",)
    (sure, *_) = advise([run(CHEAP, 3600, 0.8)], target_accuracy=0.7).choices
    assert sure.candidate.unsure == ()


def test_choices_without_a_significant_difference_are_counted():
    noisy = [0.8 if step % 4 < 2 else 1.2 for step in range(40)]
    records = [
        make_record(machine=CHEAP, axes={"seq_len": length}, training={"seconds": [s * scale for s in noisy]},
                    phases={"train_s": 40.0 * scale})
        for length, scale in ((32, 1.0), (64, 1.01), (128, 9.0))
    ]  # fmt: skip
    cheapest = advise(records).choices[0]
    assert cheapest.candidate.cell.summary.config.seq_len == 32
    assert [one.cell.summary.config.seq_len for one in cheapest.level] == [64]


def test_cells_without_a_price_have_a_fastest_alone():
    advice = recommend(price_all([run(CHEAP, 10)], Unavailable("no row")), Requirements(), Assumptions())
    assert [one.role for one in advice.choices] == ["fastest"]
    assert (
        recommend(price_all([run(CHEAP, 10)], Unavailable("no row")), Requirements(budget_usd=9), Assumptions()).choices
        == ()
    )


def test_another_test_set_and_failed_cells_are_left_out_and_counted():
    elsewhere = make_record(machine=DEAR, axes={"seq_len": 32})
    data = elsewhere.data
    elsewhere = elsewhere.model_copy(
        update={"data": data.model_copy(update={"test": data.test.model_copy(update={"sha256": "f" * 64})})}
    )
    lost = make_record(machine=DEAR, outcome="oom", reason="killed", axes={"seq_len": 512})
    advice = advise([run(CHEAP, 10), run(CHEAP, 10, axes={"seq_len": 128}), elsewhere, lost])
    assert (advice.num_measured, advice.num_elsewhere, advice.not_measured) == (2, 1, {"oom": 1})


def test_a_qualifying_baseline_is_named():
    records = [run(CHEAP, 3600, 0.8), make_baseline(accuracy=0.7, machine=CHEAP)]
    assert [one.cell.summary.cell for one in advise(records, target_accuracy=0.69).baselines] == ["baseline-tfidf"]
    assert advise(records, target_accuracy=0.71).baselines == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90min", 5400), ("90 m", 5400), ("45s", 45), ("1h30m", 5400), ("1h 30 min", 5400), ("0.5d", 43200)],
)
def test_durations_are_parsed(text, seconds):
    assert parse_duration(text, "--deadline") == seconds


@pytest.mark.parametrize("text", ["", "2", "0h", "h", "2 weeks", "-2h", "2h or so", "1e3s", "nan s"])
def test_invalid_durations_are_refused(text):
    with pytest.raises(UserError, match="--deadline"):
        parse_duration(text, "--deadline")


def printed(records, **asked):
    cells = price_all(records)
    out = StringIO()
    show_recommendation(
        Console(file=out, width=2000), recommend(cells, Requirements(**asked), Assumptions()), cells, USD
    )
    return out.getvalue()


def test_the_terminal_shows_figures_machine_and_misses():
    text = printed([run(CHEAP, 3600, 0.8), run(DEAR, 600, 0.77)], target_accuracy=0.79, budget_usd=5)
    assert text.startswith("Cheapest, fastest and balanced\n")
    assert "batch 16, 64 tokens, fp32, cpu, on m5.xlarge" in text
    assert "$0.379 (±0%) a run as billed ($0.361 of measured seconds alone); 63.2 min from order to end" in text
    assert "accuracy 80.0% (77.4 to 82.4%)" in text
    assert "note: the interval of its accuracy reaches below the target accuracy of 0.79" in text
    assert "priced at $0.36 an hour, stated: m5.xlarge, aws, us-east-1 (2026-07; list)" in text
    assert "1 of 2 measured configurations fulfils all that was asked." in text
    assert (
        "1 configuration misses the target accuracy of 0.79; nearest: b16-s64-fp32-cpu-longest-all of study study, on c7i.8xlarge, with 77.0%."
        in text
    )


def test_the_terminal_says_that_nothing_qualifies():
    assert "Nothing that was measured fulfils all that was asked." in printed([run(CHEAP, 10)], budget_usd=0.001)
    assert "No fine-tuning cell was measured." in printed([make_baseline(machine=CHEAP)])


def test_json_names_have_units():
    cells = price_all([run(CHEAP, 3600, 0.8), run(DEAR, 600, 0.77)])
    told = recommendation_fields(recommend(cells, Requirements(target_accuracy=0.79), Assumptions()), cells)
    assert told["choices"]["cheapest"]["usd_billed"] == pytest.approx(0.3794)
    assert told["choices"]["fastest"]["waited_s"] == pytest.approx(3794)
    assert told["choices"]["balanced"]["price_basis"] == "stated"
    assert told["ruled_out"] == [
        {
            "demand": "the target accuracy of 0.79", "num_cells": 1, "nearest_accuracy": 0.77,
            "nearest_cell": "b16-s64-fp32-cpu-longest-all", "nearest_machine": DEAR.id,
        }
    ]  # fmt: skip
