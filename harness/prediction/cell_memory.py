"""Peak memory of a cell before it runs: from shapes, in proportion to what cells that compute alike really took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.estimate import Estimate, t_quantile
from harness.prediction.peak_memory import MemoryPrediction, predict_peak
from harness.schema.cells import MIN_EVALUATION_BATCH, FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.probe_record import Probe
from harness.schema.record import Record

# Standard deviation of the logarithm of measured over predicted bytes: from bench/bench_time_prediction.py.
SPREAD = 0.06
_UNKNOWN_SPREAD = 0.08  # without a measured peak
# A probe's shapes differ from a cell's, so that its ratio of measured to predicted bytes counts half, as logarithms.
_WEIGHT = 0.5
_MIB = 2**20
_FORKED_BASE_BYTES = 323 * _MIB  # measured: a cell's process, forked from the warm server, before the model is loaded


@dataclass(frozen=True)
class _Heap:
    """What glibc's own allocator and oneDNN add to the tensors: fragments of freed activations, and kernels a shape.

    Fitted by least squares of relative errors to records of 111 cells (torch 2.13, default allocator, each cell weighted
    alike): those of results/reference, and 48 drawn ones. Left out cell by cell, 90 % are within 7 % in fp32 and 9 % in bf16.

    Attributes:
        share: Of the predicted bytes above the base process.
        activations: Share of the saved activations that stays in fragments.
        per_shape: Bytes for each shape of batches that layers are trained on.
        per_frozen_shape: The same if only the head is trained, without a backward pass through layers.
        per_token: Bytes for each token and hidden size of the largest batch, an evaluation's included.
        fixed: Bytes.
    """

    share: float
    activations: float
    per_shape: float
    per_frozen_shape: float
    per_token: float
    fixed: float

    def above_base(self, prediction: MemoryPrediction, num_shapes: int, *, is_trained: bool, tokens: int) -> float:
        """Return the bytes of a rank above its base process; `tokens` are those of the largest batch x hidden size."""
        return (
            self.share * prediction.above_base_bytes
            + self.activations * sum(prediction.activations.values())
            + (self.per_shape if is_trained else self.per_frozen_shape) * num_shapes
            + self.per_token * tokens
            + self.fixed
        )


_HEAPS = {
    False: _Heap(
        share=0.973, activations=0.440, per_shape=1.08 * _MIB, per_frozen_shape=2.80 * _MIB, per_token=0.0, fixed=74.9 * _MIB
    ),
    # In bf16 oneDNN keeps more for each shape, and for large batches.
    True: _Heap(
        share=1.115, activations=0.164, per_shape=8.10 * _MIB, per_frozen_shape=2.08 * _MIB, per_token=29.8, fixed=7.5 * _MIB
    ),
}  # fmt: skip


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
    ratio, spread = (1.0, _UNKNOWN_SPREAD) if newest is None else (newest**_WEIGHT, SPREAD)
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
    # A probe evaluates its own batches alone, never the larger ones of a validation.
    batch = {"global_batch_size": None, "padding": "longest", "pad_multiple": 1, "measure": "speed"}
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
    rows = max(config.device_batch(num_ranks), MIN_EVALUATION_BATCH if config.is_judged else 0)
    above_base = _HEAPS[config.precision == "bf16"].above_base(
        prediction, num_shapes, is_trained=config.trainable != "head", tokens=rows * longest * shape.hidden
    )
    return num_ranks * (prediction.base_bytes + above_base)
