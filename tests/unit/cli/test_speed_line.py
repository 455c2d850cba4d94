"""The line on speed: which cells are compared, by which interval, and what is said where they can't be ranked."""

from __future__ import annotations

import math

import pytest

from harness.analysis.estimate import Estimate
from harness.cli.views.speed_line import ratio_text, speed_line
from harness.decision.speed_ratio import differing_key, speed_ratios
from tests.make_priced import priced
from tests.make_records import make_record


def timed(step_s, *, runs=1, **axes):
    """Make runs of a cell with steps of this many seconds; each is 1 % slower than the one before."""
    return [
        make_record(
            axes=axes, repeat=repeat, minutes=60 * repeat + step_s, training={"seconds": [step_s * 1.01**repeat] * 40}
        )
        for repeat in range(runs)
    ]


def line(*cells):
    found = priced([record for cell in cells for record in cell])
    return speed_line(speed_ratios(found), found)


def test_the_fastest_cell_is_compared_with_those_that_differ_in_one_setting():
    text = line(
        timed(0.4, runs=3, precision="bf16"), timed(0.6, runs=3, precision="fp32"), timed(0.5, runs=3, seq_len=32)
    )
    assert text == "16×64 in bf16 is 1.50 ± 0.05 times as fast as in fp32."


def test_with_single_runs_the_assumed_spread_between_runs_makes_the_interval():
    text = line(timed(0.2, precision="bf16"), timed(0.6, precision="fp32"))
    # 10 % between runs on each side: 3 times exp(+-1.96 x 0.1 x sqrt 2).
    low, high = (3 * math.exp(sign * 1.96 * 0.1 * math.sqrt(2)) for sign in (-1, 1))
    assert text == (
        f"16×64 in bf16 is 3.0 ({low:.1f} to {high:.1f}) times as fast as in fp32 (fewer than 3 runs, with 10 % between "
        "runs assumed)."
    )


def test_speeds_that_cannot_be_ranked_are_said_to_be_so():
    assert line(timed(0.5, precision="bf16"), timed(0.6, precision="fp32")) == (
        "No ranking by speed: 16×64 in bf16 and in fp32 do not differ clearly (fewer than 3 runs, with 10 % between runs "
        "assumed)."
    )


def test_settings_other_than_sizes_come_first_and_all_values_of_one_are_named():
    cells = [
        timed(0.2, runs=3, padding="grouped"),
        timed(0.3, runs=3, padding="longest"),
        timed(0.6, runs=3, padding="max"),
    ]
    assert line(*cells, timed(0.9, runs=3, padding="grouped", batch_size=32)) == (
        "16×64 with grouped by length is 1.50 ± 0.05 times as fast as with padded to the longest and 3.0 ± 0.1 times as "
        "fast as with padded to the maximum."
    )


def test_sizes_are_named_by_the_labels():
    assert line(timed(0.2, runs=3), timed(0.9, runs=3, batch_size=32)) == "16×64 is 2.25 ± 0.08 times as fast as 32×64."


def test_without_a_cell_that_differs_in_one_setting_there_is_no_line():
    assert line(timed(0.2)) == ""
    assert line(timed(0.2), timed(0.3, seq_len=32, precision="bf16")) == ""


def test_runs_of_another_seed_are_the_same_cell():
    first, second = priced(timed(0.2)), priced(timed(0.2, precision="bf16"))
    assert differing_key(first[0], second[0]) == "precision"
    assert differing_key(first[0], first[0]) is None


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.5, 1.4, 1.6), "1.5 ± 0.1"),
        ((1.523, 1.488, 1.558), "1.52 ± 0.04"),
        ((1.5, 1.14, 1.97), "1.5 (1.1 to 2.0)"),
        ((12.0, 9.0, 15.0), "12 ± 3"),
        ((1.5, None, None), "1.5"),
        ((1.5, 1.5, 1.5), "1.5"),
    ],
)
def test_a_ratio_has_half_its_interval_or_both_ends(ends, text):
    assert ratio_text(Estimate(*ends, "")) == text
