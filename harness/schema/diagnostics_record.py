"""The parts of a record that come from the diagnostics after training: memory breakdown, FLOPs, peak, communication."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from harness.schema.ranges import BigTally, Positive, PositiveSeconds, Seconds, Tally
from harness.schema.settings import Many, Precision, Settings


class StepPeak(Settings):
    """The moment of a step at which tensors other than weights and optimizer state occupied most memory.

    Attributes:
        phase: Phase of that moment; `evaluation` when a validation batch needs more memory than a training step.
        activations_bytes: Bytes of tensors that are saved for the backward pass and not yet used by it.
        gradients_bytes: Bytes of gradients.
        workspace_bytes: Bytes of all other tensors, including recomputed activations.
    """

    phase: Literal["forward", "backward", "evaluation"]
    activations_bytes: Tally
    gradients_bytes: Tally
    workspace_bytes: Tally

    @property
    def num_bytes(self) -> int:
        """Return the total in bytes."""
        return self.activations_bytes + self.gradients_bytes + self.workspace_bytes


class MemoryParts(Settings):
    """A breakdown of rank 0's memory in bytes: GPU memory if the cell runs on a GPU, else main memory.

    It is measured in one extra step, which repeats the step with the most tokens and counts in no other figure.

    Attributes:
        base_bytes: Memory occupied before the model was loaded: interpreter, torch and libraries, data; on a GPU, the
            GPU's context. None when the memory could not be read.
        weights_bytes: Parameters and buffers.
        gradients_bytes: Gradients at the end of the backward pass, including DDP's second copy.
        optimizer_bytes: Optimizer state.
        activations_bytes: Tensors that autograd saved for the backward pass, by kind of layer.
        num_samples: Rows of the step's largest micro-batch.
        num_padded_tokens: Tokens of that micro-batch, padding included.
        libraries_bytes: Pages of shared libraries first touched after `base_bytes` was read; None on a GPU.
        unread_weights_bytes: The part of `weights_bytes` that is mapped from the checkpoint and was never read.
        at_peak: Memory of all tensors except weights and optimizer state, at the step's peak.
    """

    base_bytes: Tally | None
    weights_bytes: Tally
    gradients_bytes: Tally
    optimizer_bytes: Tally
    activations_bytes: dict[str, Tally]
    num_samples: Tally
    num_padded_tokens: Tally
    libraries_bytes: Tally | None
    unread_weights_bytes: Tally
    at_peak: StepPeak


class FlopCount(Settings):
    """Floating-point operations of one extra step, counted by operator, all ranks together; a multiply-add counts as 2.

    The step has the median number of padded tokens among full steps; its optimizer update is not counted.

    Attributes:
        by_operator: FLOPs by operator name, e.g. `mm`, `addmm`, `bmm`. The backward pass of fused attention counts as 4
            products, like that of unfused attention: its recomputation of scores is left out. Recomputation by
            activation checkpointing is included.
        num_samples: Rows of that step.
        num_padded_tokens: Tokens of that step, padding included.
        num_token_pairs: Sum of each row's padded length squared in that step.
    """

    by_operator: dict[str, BigTally]
    num_samples: Tally
    num_padded_tokens: Tally
    num_token_pairs: Tally

    @property
    def num_flops(self) -> int:
        """Return the FLOPs of all operators."""
        return sum(self.by_operator.values())


class CalibratedPeak(Settings):
    """The highest throughput of matrix products on the cell's own threads or GPUs.

    After training, the products run alternately with training steps, so that both meet the same conditions.

    Attributes:
        precision: The cell's own precision, which the products use too.
        flop_per_s: FLOP/s of the fastest product, summed over ranks, which multiply at the same time.
        shape: Rows, inner size and columns of the fastest product on rank 0.
        num_shapes: Number of shapes tried in the time limit.
        seconds: Seconds of all products.
        step_s: Seconds of each step between the products, which repeats `FlopCount`'s step at a learning rate of 0.
        copy_bytes_per_s: Bytes per second, read plus written, of the fastest copy of a large tensor, summed over ranks;
            None in short runs.
    """

    precision: Precision
    flop_per_s: Positive
    shape: tuple[Tally, Tally, Tally]
    num_shapes: Tally
    seconds: Seconds
    step_s: Many[PositiveSeconds]
    copy_bytes_per_s: Positive | None


class Communication(Settings):
    """Times of forward and backward passes on one batch, alternately with and without all-reduce, on rank 0.

    Attributes:
        sync_s: Seconds of each pass with all-reduce.
        no_sync_s: Seconds of each pass without all-reduce.
    """

    sync_s: Many[PositiveSeconds]
    no_sync_s: Many[PositiveSeconds]

    @model_validator(mode="after")
    def _has_passes(self) -> Self:
        if not self.sync_s or not self.no_sync_s:
            raise ValueError("at least one pass each")
        return self
