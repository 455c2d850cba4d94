"""Whether a cell fits the memory of a machine that nobody rented, and its largest batch that does."""

from __future__ import annotations

from collections.abc import Callable

from harness.prediction.cell_memory import predict_peak_bytes
from harness.prediction.peak_memory import predict_peak
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape

_NUM_LABELS = 2
# Assumed: by how much a GPU's memory must exceed the predicted peak. The prediction was never checked on a GPU, whose
# allocator keeps fragments too.
GPU_MARGIN = 1.2


def needed_bytes(
    config: FineTuneConfig, shape: ModelShape, num_ranks: int, *, num_shapes: int, longest: int | None = None
) -> float:
    """Return the memory that a cell needs: of one GPU, or of all ranks on a CPU, the upper end of its interval there.

    Args:
        config: The cell's configuration.
        shape: Sizes of its model.
        num_ranks: Number of ranks.
        num_shapes: Number of different shapes of its batches.
        longest: Padded tokens of the longest row; None for `seq_len`.
    """
    longest = longest or config.seq_len
    if config.on_gpu:
        return GPU_MARGIN * predict_peak(config, shape, _NUM_LABELS, longest=longest, num_ranks=num_ranks).peak_bytes
    peak = predict_peak_bytes(
        config, shape, _NUM_LABELS, longest=longest, num_shapes=num_shapes, num_ranks=num_ranks
    )  # fmt: skip
    return peak.high or peak.value


def largest_batch(
    config: FineTuneConfig, shape: ModelShape, num_ranks: int, *, num_shapes: int, num_bytes: float, max_batch: int
) -> int:
    """Return the largest batch size per device with which a cell fits, rows padded to `seq_len`; 0 if none does.

    Args:
        config: The cell's configuration.
        shape: Sizes of its model.
        num_ranks: Number of ranks.
        num_shapes: Number of different shapes of its batches.
        num_bytes: Memory of one GPU, or of the machine.
        max_batch: Rows that a batch can have.
    """

    def fits(batch_size: int) -> bool:
        resized = config.model_copy(update={"batch_size": batch_size, "global_batch_size": None, "padding": "max"})
        return needed_bytes(resized, shape, num_ranks, num_shapes=num_shapes) <= num_bytes

    return largest_that(fits, max_batch)


def largest_that(fits: Callable[[int], bool], highest: int) -> int:
    """Return the largest number up to `highest` for which `fits` is true, by bisection; 0 if there is none."""
    low, high = 0, highest + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
