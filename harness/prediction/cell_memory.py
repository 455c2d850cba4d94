"""Peak memory of a cell before it runs: from shapes, in proportion to what cells that compute alike really took."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.analysis.estimate import Estimate, t_quantile
from harness.prediction.peak_memory import predict_peak
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.probe_record import Probe
from harness.schema.record import Record

# Standard deviation of the logarithm of measured over predicted bytes: from bench/bench_time_prediction.py.
SPREAD = 0.05
_UNKNOWN_SPREAD = 0.15  # without a measured peak, mostly from fragments of glibc's heap


def predict_peak_bytes(
    config: FineTuneConfig, shape: ModelShape, num_labels: int, *, longest: int, num_ranks: int,
    known: Sequence[Record] = (),
) -> Estimate:  # fmt: skip
    """Predict the peak memory of all ranks of a cell, in bytes.

    Args:
        config: The cell's configuration.
        shape: Sizes of its model.
        num_labels: Number of classes.
        longest: Padded tokens of the longest row.
        num_ranks: Number of ranks.
        known: Probes and runs of cells that compute alike, on this machine.
    """
    predicted = predict_peak(config, shape, num_labels, longest=longest, num_ranks=num_ranks).peak_bytes
    ratios = [ratio for record in known if (ratio := _ratio(record, shape, num_labels)) is not None]
    ratio, spread = (ratios[-1], SPREAD) if ratios else (1.0, _UNKNOWN_SPREAD)
    factor = math.exp(t_quantile(math.inf) * spread)
    value = predicted * ratio
    return Estimate(value, value / factor, value * factor, "predicted from shapes" + (" and a probe" if ratios else ""))


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
    predicted = predict_peak(config, shape, num_labels, longest=longest, num_ranks=training.world_size).peak_bytes
    return sum(rss) / predicted


def _ratio_of_probe(config: FineTuneConfig, probe: Probe, shape: ModelShape, num_labels: int) -> float:
    predicted = [
        predict_peak(
            config.model_copy(update={"batch_size": each.num_rows, "global_batch_size": None, "padding": "longest"}),
            shape, num_labels, longest=each.num_tokens, num_ranks=probe.world_size,
        ).peak_bytes
        for each in probe.shapes
    ]  # fmt: skip
    return max(each.peak_bytes for each in probe.shapes) / max(predicted)
