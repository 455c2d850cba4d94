"""The table of attention and multiples of lengths, from made-up runs."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from bench.bench_attention import (
    VARIANTS,
    Case,
    Run,
    cases,
    cell_of,
    keep_run,
    ratios,
    read_runs,
    table,
    write_texts,
)

CASE = Case("bf16", False, 64)
BASE = Run(0, "bf16", False, 64, "sdpa", 1, "sdpa", 80.0, 1370.4, 40)


def variant(attention, multiple, number=0, **changes):
    run = replace(BASE, round=number, attention=attention, multiple=multiple, chosen=attention)
    return replace(run, **changes)


def test_ratios_are_taken_within_a_round():
    runs = [
        BASE, variant("eager", 8, samples_per_s=104.0),
        variant("sdpa", 1, 1, samples_per_s=40.0), variant("eager", 8, 1, samples_per_s=60.0),
        variant("eager", 8, 2, samples_per_s=999.0),
    ]  # fmt: skip
    assert ratios(runs, CASE, ("eager", 8)) == [1.3, 1.5]  # round 2 has no run to compare with
    assert ratios(runs, CASE, ("eager", 16)) == []


def test_the_table_has_speeds_peaks_and_choices():
    runs = [
        BASE, variant("eager", 1, samples_per_s=100.0), variant("sdpa", 8, peak_mib=1109.6, num_shapes=7),
        variant("auto", 1, samples_per_s=100.0, chosen="eager"), variant("sdpa", 1, 1), variant("auto", 1, 1, chosen="sdpa"),
    ]  # fmt: skip
    lines = table(runs).splitlines()
    assert (
        "| bf16 | none | 64 | 80.0 | 1.00 (1.00 to 1.00) | - | 1.25 (1.25 to 1.25) | - | - | "
        "1.12 (1.00 to 1.25), 1 of 2 |" in lines
    )
    assert "| bf16 | none | 64 | 1,370 (40) | 1,110 (7) | - | 1,370 (40) | - | - | 1,370 (40) |" in lines
    assert all(line.count("|") == 4 + len(VARIANTS) for line in lines if line.startswith("|"))


def test_a_stopped_run_goes_on(tmp_path):
    path = tmp_path / "attention.csv"
    assert read_runs(path) == []
    runs = [BASE, variant("auto", 1, 2, has_dropout=True, chosen="eager", samples_per_s=1.25)]
    for run in runs:
        keep_run(path, run)
    assert read_runs(path) == runs


@pytest.mark.parametrize("length", [16, 512])
def test_texts_vary_in_length_and_none_is_there_twice(tmp_path, length):
    write_texts(tmp_path / "texts.csv", length, 200)
    with (tmp_path / "texts.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    words = [len(text.split()) for text in texts]
    assert len(set(texts)) == 200
    assert min(words) == pytest.approx(max(2, length // 8), rel=0.2) and max(words) <= 3 * length // 4
    assert len(set(words)) >= 10


def test_every_case_is_a_cell(tmp_path):
    chosen = cases(quick=False)
    assert len(chosen) == len(set(chosen)) == 14
    assert set(cases(quick=True)) == {Case(p, False, length) for p in ("fp32", "bf16") for length in (16, 64)}
    (tmp_path / "64.csv").write_text("text,label\n")
    hashes = {cell_of(CASE, *of, tmp_path, quick=True).config_hash for of in VARIANTS}
    assert len(hashes) == len(VARIANTS) == 7
