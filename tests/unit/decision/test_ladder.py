"""A ladder's target and savings against hand-computed values, and its text."""

from __future__ import annotations

import pytest

from harness.decision.ladder import ladders, set_ladder_target
from harness.report.formatting import USD
from harness.report.sections.ladder import HEADS, best_step, step_charts, step_sentences, step_table
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study
from tests.make_priced import priced
from tests.make_records import make_record

SETUP_S = 0.5 + 1.5 + 2.0  # start, load, tokenise, as make_record has them


def run(rung, seed, looks, *, step_s=1.0, accuracy=0.8, **changed):
    """One run: `looks` are (training clock, validation accuracy), each of 1 s."""
    return make_record(
        rung=rung,
        study="ladder",
        seed=seed,
        minutes=rung + 10 * seed,
        axes={key: value for key, value in changed.items() if "." not in key},
        training={
            "seconds": [step_s] * 40,
            "evaluations": [(at, share, 1.0) for at, share in looks],
            "accuracy": accuracy,
        },
    )


FIRST = [
    run(0, 0, [(20.0, 0.70), (40.0, 0.768)], padding="max"),
    run(0, 1, [(20.0, 0.73), (40.0, 0.720)], padding="max"),
    run(0, 2, [(20.0, 0.55), (40.0, 0.741)], padding="max"),
]
GROUPED = [run(1, seed, [(5.0, 0.74), (10.0, 0.75)], step_s=0.25, padding="grouped") for seed in range(3)]
HALF = [run(2, seed, [(10.0, 0.74)], step_s=0.5, padding="grouped", precision="bf16") for seed in range(3)]


def climb(*records):
    cells = priced(set_ladder_target([record for rung in records for record in rung]))
    (found,) = ladders(cells)
    return found, cells


def test_the_target_is_the_highest_hundredth_that_the_first_rung_reaches_with_every_seed():
    aimed = set_ladder_target([*FIRST, *GROUPED])
    assert {record.config.training.target_accuracy for record in aimed} == {0.73}  # the least of 0.768, 0.73, 0.741
    assert {record.config.training.target_accuracy for record in [*FIRST, *GROUPED]} == {None}
    exact = [run(0, 0, [(1.0, 0.29)]), run(0, 1, [(1.0, 0.58)])]  # 0.29 / 0.01 is 28.999...
    assert set_ladder_target(exact)[0].config.training.target_accuracy == 0.29


def test_other_records_keep_their_target_and_so_do_rungs_without_a_first():
    alone = make_record(sections={"training": {"target_accuracy": 0.6}})
    assert set_ladder_target([alone, *GROUPED]) == [alone, *GROUPED]


def test_a_saving_is_the_ratio_of_the_seconds_of_a_success():
    found, _ = climb(FIRST, GROUPED)
    assert found.target == 0.73
    first, grouped = found.rungs
    # The first rung reaches 0.73 at its second look, its first, and its second; each look took 1 s. Before, the geometric
    # mean over seeds: 3.75.
    spent = [SETUP_S + 40 + 2, SETUP_S + 20 + 1, SETUP_S + 40 + 2]
    assert first.cell.summary.time_to_target_s.value == pytest.approx(sum(spent) / 3)
    assert grouped.saving.value == pytest.approx(sum(spent) / 3 / (SETUP_S + 5 + 1))
    assert grouped.saving.low < 1 < grouped.saving.value < grouped.saving.high
    assert grouped.speed_up.value == pytest.approx(4.0)
    assert (first.saving.value, first.base, grouped.base) == (1.0, None, first)


def test_a_run_that_missed_the_target_counts_with_its_whole_length():
    # Two reach it after 10 s, and the third trains for 40 s in vain. Before, the rung had no saving.
    lost = [*GROUPED[:2], run(1, 2, [(10.0, 0.72)], padding="grouped")]
    found, cells = climb(FIRST, lost)
    rung = found.rungs[1]
    assert (rung.num_reached, rung.num_runs) == (2, 3)
    assert rung.saving.value == pytest.approx((46 + 25 + 46) / 3 / ((10 + 10 + SETUP_S + 40 + 1) / 2))
    row = dict(zip(HEADS, step_table(found, cells, USD).rows[1], strict=True))
    assert row["to the target"].extra.endswith("; 1 of 3 runs missed it")
    assert row["cost to target"].extra.endswith("; 1 of 3 runs missed it")
    said = step_sentences(found, cells)
    assert said[0].startswith("1.20 times cheaper (")
    assert said[0].endswith("More seeds would show whether it saves: the interval reaches below 1.")


def test_a_rung_that_no_run_reached_has_no_saving():
    lost = [run(1, seed, [(10.0, 0.6)], padding="grouped") for seed in range(3)]
    found, cells = climb(FIRST, lost)
    assert (found.rungs[1].saving, found.rungs[1].num_reached) == (None, 0)
    row = dict(zip(HEADS, step_table(found, cells, USD).rows[1], strict=True))
    assert row["to the target"].extra == "3 of 3 runs missed it"
    assert row["times cheaper"].text == "not measured"
    assert step_sentences(found, cells)[0].startswith("No rung reaches a validation accuracy of 0.73 for less")


def test_the_base_is_the_step_with_the_fewest_changes():
    side = [run(3, seed, [(12.0, 0.74)], padding="grouped") for seed in range(3)]
    found, cells = climb(FIRST, GROUPED, HALF, [r.model_copy(update={"rung": 3}) for r in _with_allocator(side)])
    assert [rung.base.number if rung.base else None for rung in found.rungs] == [None, 0, 1, 1]
    rows = [dict(zip(HEADS, row, strict=True)) for row in step_table(found, cells, USD).rows]
    assert [row["rung"].text for row in rows[1:]] == [
        "1: padded to the longest, grouped by length",
        "2: bf16",
        "3: allocator mmap",
    ]
    assert [row["rung"].extra for row in rows] == ["", "", "", "on rung 1"]


def test_the_sentence_names_the_best_rung_and_those_that_did_not_help():
    found, cells = climb(FIRST, GROUPED, HALF)
    assert best_step(found).number == 1
    said = step_sentences(found, cells)
    assert said[0].startswith("3.90 times cheaper (")
    assert "to a validation accuracy of 0.73: rung 1 against rung 0, at 4.00 times the samples a second." in said[0]
    assert said[1] == "Did not help the rung below: rung 2 (bf16)."


def test_a_step_that_costs_accuracy_is_not_the_best():
    worse = [
        run(1, seed, [(5.0, 0.74)], step_s=0.25, padding="grouped", accuracy=share)
        for seed, share in enumerate((0.70, 0.71, 0.69))
    ]
    better = [one.model_copy(update={"rung": 0}) for one in _tests(FIRST, (0.80, 0.81, 0.79))]
    found, cells = climb(better, worse)
    assert best_step(found) is None
    row = dict(zip(HEADS, step_table(found, cells, USD).rows[1], strict=True))["test accuracy"]
    assert row.doubtful and row.extra.endswith("below rung 0")


def test_charts_have_a_bar_or_text_for_each_step():
    lost = [run(2, seed, [(10.0, 0.6)], step_s=0.5, padding="grouped", precision="bf16") for seed in range(3)]
    found, _ = climb(FIRST, GROUPED, lost)
    speed, cost = step_charts(found, 0)
    assert [round(value, 6) for value in speed.figure.data[0].x] == [1.0, 4.0, 2.0]
    assert list(cost.figure.data[0].x)[2] is None
    assert cost.figure.data[1].text[2].strip() == "no run"
    assert cost.figure.data[-1].text[2] == "2: bf16"
    assert speed.title == "Rung 1 trains 4.00 times as fast as rung 0"


def test_a_study_that_is_a_ladder_numbers_its_cells():
    raw = {"baselines": False, "ladder": True, "include": [{"padding": "grouped"}], "training": {"seeds": [0, 1]}}
    assert [(cell.config.seed, cell.rung) for cell in expand(parse_study(raw, "x"))] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {cell.rung for cell in expand(parse_study(raw | {"ladder": False}, "x"))} == {None}


def _with_allocator(records):
    for record in records:
        training = record.config.training.model_copy(update={"allocator": "mmap"})
        yield record.model_copy(update={"config": record.config.model_copy(update={"training": training})})


def _tests(records, shares):
    for record, share in zip(records, shares, strict=True):
        yield run(0, record.config.seed, [(20.0, 0.75)], padding="max", accuracy=share)
