"""Peak memory of a cell before it runs: from shapes, in proportion to what cells that compute alike really took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, t_quantile
from harness.prediction.peak_memory import MemoryPrediction, predict_peak
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.probe_record import Probe
from harness.schema.record import Record

# Standard deviation of the logarithm of measured over predicted bytes: from bench/bench_time_prediction.py.
SPREAD = 0.05
_UNKNOWN_SPREAD = 0.08  # without a measured peak
_MIB = 2**20
_FORKED_BASE_BYTES = 323 * _MIB  # measured: a cell's process, forked from the warm server, before the model is loaded


@dataclass(frozen=True)
class _Heap:
    """What glibc's own allocator and oneDNN add to the tensors: fragments of freed activations, and kernels a shape.

    Fitted by least squares of relative errors to 230 records of 56 cells in results/reference (torch 2.13, default
    allocator, each cell weighted alike); left out cell by cell, 90 % are within 13 % in fp32.
    """

    share: float
    per_shape: float
    activations: float
    fixed: float

    def above_base(self, prediction: MemoryPrediction, num_shapes: int) -> float:
        """Return the bytes of a rank above its base process."""
        return (
            self.share * prediction.above_base_bytes
            + self.per_shape * num_shapes
            + self.activations * sum(prediction.activations.values())
            + self.fixed
        )


_HEAPS = {
    False: _Heap(share=0.90, per_shape=1.4 * _MIB, activations=0.34, fixed=134 * _MIB),
    # In bf16 oneDNN keeps more for each shape.
    True: _Heap(share=1.10, per_shape=10.8 * _MIB, activations=0.27, fixed=-46 * _MIB),
}


def predict_peak_bytes(
    config: FineTuneConfig, shape: ModelShape, num_labels: int, *, longest: int, num_shapes: int, num_ranks: int,
    known: Sequence[Record] = (),
) -> Estimate:  # fmt: skip
    """Predict the peak memory of all ranks of a cell, in bytes.

    Args:
        config: The cell's configuration.
        shape: Sizes of its model.
        num_labels: Number of classes.
        longest: Padded tokens of the longest row.
        num_shapes: Number of different shapes of its batches.
        num_ranks: Number of ranks.
        known: Probes and runs of cells that compute alike, on this machine.
    """
    predicted = _peak(config, shape, num_labels, longest=longest, num_shapes=num_shapes, num_ranks=num_ranks)
    ratios = (_ratio(record, shape, num_labels) for record in reversed(known))
    newest = next((ratio for ratio in ratios if ratio is not None), None)
    ratio, spread = (1.0, _UNKNOWN_SPREAD) if newest is None else (newest, SPREAD)
    factor = math.exp(t_quantile(math.inf) * spread)
    value = predicted * ratio
    return Estimate(
        value, value / factor, value * factor, "predicted from shapes" + (" and a probe" if newest is not None else "")
    )


def _ratio(record: Record, shape: ModelShape, num_labels: int) -> float | None:
    """Return measured over predicted bytes of a probe or a run; None if no peak was measured."""
    config = record.config
    if not isinstance(config, FineTuneConfig):
        return None
    if record.probe is not None:
        return _ratio_of_probe(config, record.probe, shape, num_labels)
    training = record.training
    rss = [peak.num_bytes for peak in training.peak_memory if peak.source == "rss"] if training else []
    if training is None or not rss:
        return None
    steps = training.steps
    longest = max(
        -(-tokens // max(1, rows)) for tokens, rows in zip(steps.num_padded_tokens, steps.num_samples, strict=True)
    )
    num_shapes = len(set(zip(steps.num_samples, steps.num_padded_tokens, strict=True)))
    return sum(rss) / _peak(
        config, shape, num_labels, longest=longest, num_shapes=num_shapes, num_ranks=training.world_size
    )


def _ratio_of_probe(config: FineTuneConfig, probe: Probe, shape: ModelShape, num_labels: int) -> float:
    batch = {"global_batch_size": None, "padding": "longest", "pad_multiple": 1}
    # The first shape is in use when the second comes, and so on: the peak is that of the largest, with all kernels kept.
    predicted = [
        _peak(
            config.model_copy(update=batch | {"batch_size": each.num_rows}),
            shape, num_labels, longest=each.num_tokens, num_shapes=number, num_ranks=probe.world_size,
        )
        for number, each in enumerate(probe.shapes, start=1)
    ]  # fmt: skip
    return max(each.peak_bytes for each in probe.shapes) / max(predicted)


def _peak(
    config: FineTuneConfig, shape: ModelShape, num_labels: int, *, longest: int, num_shapes: int, num_ranks: int
) -> float:
    """Return the peak of all ranks in bytes; on GPUs, of one."""
    base_bytes = None if config.on_gpu else _FORKED_BASE_BYTES
    prediction = predict_peak(config, shape, num_labels, longest=longest, num_ranks=num_ranks, base_bytes=base_bytes)
    if config.on_gpu or config.training.allocator != "system":
        return prediction.peak_bytes
    heap = _HEAPS[config.precision == "bf16"]
    return num_ranks * (prediction.base_bytes + heap.above_base(prediction, num_shapes))
