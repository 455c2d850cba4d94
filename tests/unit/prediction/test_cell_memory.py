"""Predicted peaks under glibc's own allocator, against the shipped records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.prediction.cell_memory import predict_peak_bytes
from harness.schema.model_shapes import ModelShape, load_model_shape
from harness.schema.settings import ModelSettings
from harness.store.record_files import load_records

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
MINILM = ModelShape(hidden=384, layers=6, heads=12, intermediate=1536)


def shape_of(settings: ModelSettings) -> ModelShape:
    return load_model_shape(settings, None) if settings.shape else MINILM


@pytest.fixture(scope="module")
def cells():
    """One record of each cell of the default study and of bert-base's, with its measured peak."""
    folders = [path for path in REFERENCE.glob("*/*") if path.name in ("default", "bert-base-random")]
    newest = {}
    for record in load_records(folders).records:
        training = record.training
        if training is not None and record.cap is None:
            newest[record.machine.id, record.study, record.cell] = record
    return list(newest.values())


def predict(record, **changes):
    steps = record.training.steps
    sizes = {
        "longest": max(
            -(-tokens // rows) for tokens, rows in zip(steps.num_padded_tokens, steps.num_samples, strict=True)
        ),
        "num_shapes": len(set(zip(steps.num_samples, steps.num_padded_tokens, strict=True))),
        "num_ranks": record.training.world_size,
    }
    config = record.config
    return predict_peak_bytes(config, shape_of(config.model), 2, **(sizes | changes))


def measured(record):
    return sum(peak.num_bytes for peak in record.training.peak_memory if peak.source == "rss")


def test_the_default_allocator_is_predicted_without_a_probe(cells):
    """From tensors alone, the prediction was too low in every one of 116 records: by 55 % in bf16, 24 to 30 % in fp32."""
    errors = np.array([predict(record).value / measured(record) - 1 for record in cells])
    assert len(errors) == 38
    assert np.quantile(np.abs(errors), 0.9) < 0.10
    assert abs(np.median(errors)) < 0.06


def test_intervals_hold_most_measured_peaks(cells):
    inside = [low.low <= measured(record) <= low.high for record in cells for low in [predict(record)]]
    assert np.mean(inside) >= 0.85


def test_a_run_of_the_same_group_counts_half(cells):
    (record,) = [
        each for each in cells if each.cell == "b16-s64-bf16-cpu-grouped-all" and each.study == "bert-base-random"
    ]
    half_way = (predict(record).value * measured(record)) ** 0.5
    assert predict(record, known=[record]).value == pytest.approx(half_way)


def test_more_shapes_take_more_memory_in_bf16_than_in_fp32(cells):
    def growth(name):
        (record,) = [each for each in cells if each.cell == name and each.study == "bert-base-random"]
        return predict(record, num_shapes=46).value - predict(record, num_shapes=2).value

    assert growth("b16-s64-bf16-cpu-grouped-all") == pytest.approx(44 * 8.1 * 2**20)
    assert growth("b16-s64-fp32-cpu-grouped-all") == pytest.approx(44 * 1.08 * 2**20)


def test_shapes_of_a_frozen_encoder_take_less_and_large_evaluations_count_in_bf16(cells):
    (record,) = [each for each in cells if each.cell == "b16-s64-bf16-cpu-grouped-all" and each.study == "default"][:1]

    def of(longest=64, num_shapes=2, **changes):
        changed = record.model_copy(update={"config": record.config.model_copy(update=changes)})
        return predict(changed, longest=longest, num_shapes=num_shapes).value

    assert of(trainable="head", num_shapes=46) - of(trainable="head") == pytest.approx(44 * 2.08 * 2**20)
    judged, unjudged = (of(longest=512, batch_size=1, measure=measure) for measure in ("all", "speed"))
    assert judged - unjudged > 29.8 * 31 * 512 * 384
