"""The goals of predictions from datasheets, held on the shipped rows; the shipped table is what the benchmark prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.bench_gpu_prediction import cases, chip, left_out, lines, nearest, over_peak

REFERENCE = Path(__file__).parents[3] / "results" / "reference" / "gpu-prediction.md"


def test_gpus_that_are_left_out_are_predicted_as_well_as_promised():
    logs, halves = left_out(cases(), lambda case: case.row.hardware)
    errors = np.abs(np.expm1(logs))
    assert np.median(errors) <= 0.10
    assert np.quantile(errors, 0.9) <= 0.25
    assert np.mean(np.abs(logs) <= halves) >= 0.9
    assert np.median(np.sinh(halves)) <= 0.30


def test_the_rivals_are_worse():
    found = cases()
    ours = np.abs(left_out(found, lambda case: case.row.hardware)[0])
    for rival in (nearest(found), over_peak(found)):
        assert np.median(np.abs(rival)) > 2 * np.median(ours)


def test_chips():
    names = {case.row.hardware: chip(case) for case in cases()}
    assert names["NVIDIA A10"] == names["NVIDIA RTX A6000"] == names["NVIDIA GeForce RTX 3090"] == "GA102"
    assert names["NVIDIA A100 80GB PCIe"] == names["NVIDIA A100-PCIE-40GB"] == "GA100"
    assert names["NVIDIA GH200 480GB"] == names["NVIDIA H100 PCIe"] == "GH100"
    assert names["NVIDIA RTX 6000 Ada Generation"] == "AD102"
    assert names["NVIDIA B200"] == "NVIDIA B200"


def test_the_shipped_table_is_current():
    assert "\n".join(lines()) + "\n" == REFERENCE.read_text(encoding="utf-8")
