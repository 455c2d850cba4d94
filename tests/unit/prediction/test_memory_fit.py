"""Whether a cell fits, with the margins of the shipped records."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import pytest

from harness.analysis.summarize import peak_memory
from harness.dataset.sources import locate_model
from harness.prediction.cell_memory import predict_peak_bytes
from harness.prediction.memory_fit import GPU_MARGIN, largest_batch, largest_that, needed_bytes
from harness.prediction.peak_memory import predict_peak
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import load_model_shape
from harness.store.record_files import load_records
from tests.unit.prediction.gpu_cells import gpu_cell

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
GIB = 2**30


@pytest.mark.parametrize(("largest", "highest"), [(0, 10), (1, 10), (7, 10), (10, 10), (12, 10)])
def test_bisection(largest, highest):
    assert largest_that(lambda number: number <= largest, highest) == min(largest, highest)


def test_the_largest_batch_fits_and_the_next_does_not():
    cell = gpu_cell()

    def largest(num_bytes, max_batch=4096):
        return largest_batch(cell.config, cell.shape, 1, num_shapes=1, num_bytes=num_bytes, max_batch=max_batch)

    found = largest(15 * GIB)
    fits, beyond = (cell.config.model_copy(update={"batch_size": size}) for size in (found, found + 1))
    assert (
        needed_bytes(fits, cell.shape, 1, num_shapes=1) <= 15 * GIB < needed_bytes(beyond, cell.shape, 1, num_shapes=1)
    )
    assert largest(15 * GIB, max_batch=10) == 10
    assert largest(GIB) == 0


def test_a_gpu_needs_its_margin_and_a_cpu_the_upper_end_of_its_interval():
    cell = gpu_cell(batch_size=8)
    predicted = predict_peak(cell.config, cell.shape, 2).peak_bytes
    assert needed_bytes(cell.config, cell.shape, 1, num_shapes=1) == predicted * GPU_MARGIN
    on_cpu = cell.config.model_copy(update={"device": "cpu", "precision": "fp32"})
    peak = predict_peak_bytes(on_cpu, cell.shape, 2, longest=384, num_shapes=5, num_ranks=1)
    assert needed_bytes(on_cpu, cell.shape, 1, num_shapes=5) == peak.high > peak.value
    grouped = on_cpu.model_copy(update={"padding": "grouped"})
    assert needed_bytes(grouped, cell.shape, 1, num_shapes=5, longest=64) < peak.low


def test_what_a_cpu_needs_covers_the_shipped_records():
    covered = []
    for record in load_records(sorted(REFERENCE.glob("*/default")) + sorted(REFERENCE.glob("*/ladder"))).records:
        config, peak = record.config, peak_memory(record, "rss")
        if not isinstance(config, FineTuneConfig) or record.outcome != "ok" or config.on_gpu or peak is None:
            continue
        if config.training.allocator == "system" and not config.training.compile:
            shape = load_model_shape(config.model, locate_model(config.model.name, weights=False).folder)
            steps, num_ranks = record.training.steps, record.training.world_size
            num_shapes = len(set(zip(steps.num_samples, steps.num_padded_tokens, strict=True)))
            covered.append(peak <= needed_bytes(config, shape, num_ranks, num_shapes=num_shapes))
    assert len(covered) > 60
    assert fmean(covered) >= 0.95
