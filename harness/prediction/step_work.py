"""Arithmetic and memory traffic of training on a GPU, counted from the operators of an encoder.

Nothing here is fitted. Traffic is what the operators of one layer read and write if nothing stays in a cache; what share of
a GPU's bandwidth that takes is a constant of `gpu_speed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.analysis.flops_formula import training_flops
from harness.prediction.activation_sizes import FP32_BYTES
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import num_trained_layers

_HALF_BYTES = 2
_NUM_LABELS = 2  # each further label adds a thousandth of a percent
# AdamW reads weight, gradient and two moments, and writes all but the gradient, in fp32; SGD leaves the moments out.
_UPDATE_BYTES = {"adamw": 7 * FP32_BYTES, "sgd": 3 * FP32_BYTES}


class Batches(Protocol):
    """What one rank's batches hold in all, padding included."""

    @property
    def num_batches(self) -> int: ...  # noqa: D102
    @property
    def num_tokens(self) -> int: ...  # noqa: D102
    @property
    def num_pairs(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Loop:
    """What differs between training loops that compute the same model.

    Attributes:
        fused_attention: Whether attention keeps its scores on the chip (sdpa), or writes them to memory several times.
        fp32_states: Whether hidden states stay in fp32 in 16-bit precisions, as under autocast, and are cast for products.
        waits_for_gpu: Whether the host waits for the GPU in each step, so that the seconds of both add up. Otherwise it
            queues the next operators while the GPU works.
        prepares_rows: Whether the host prepares each row by itself before the step, which takes as long as a small layer.
    """

    fused_attention: bool
    fp32_states: bool
    waits_for_gpu: bool
    prepares_rows: bool


HARNESS_LOOP = Loop(fused_attention=True, fp32_states=True, waits_for_gpu=False, prepares_rows=False)


@dataclass(frozen=True)
class GpuWork:
    """What one GPU and its host do.

    Attributes:
        flops: FLOPs of matrix products.
        num_bytes: Memory traffic.
        num_layers: Layers whose operators the host starts; one forward and backward pass counts 1, a forward pass a third.
        num_rows: Rows that the host prepares one by one.
    """

    flops: float
    num_bytes: float
    num_layers: float
    num_rows: float

    def __add__(self, other: GpuWork) -> GpuWork:
        return GpuWork(
            self.flops + other.flops,
            self.num_bytes + other.num_bytes,
            self.num_layers + other.num_layers,
            self.num_rows + other.num_rows,
        )


@dataclass(frozen=True)
class _LayerTraffic:
    """Bytes that one layer reads and writes, for each token, and for each pair of tokens in attention."""

    forward: float
    backward: float
    forward_pair: float
    backward_pair: float


def training_work(
    config: FineTuneConfig, shape: ModelShape, batches: Batches, num_rows: int, loop: Loop = HARNESS_LOOP
) -> GpuWork:
    """Count the work of one rank's training batches.

    Args:
        config: The cell's configuration.
        shape: Sizes of its model.
        batches: The rank's batches; `num_batches` are optimizer updates.
        num_rows: Rows in them.
        loop: The training loop.
    """
    training, traffic = config.training, _layer_traffic(shape, config.precision, loop)
    trained = num_trained_layers(config.trainable, shape.layers)
    forward = shape.layers + (trained if training.activation_checkpointing else 0)
    num_bytes = batches.num_tokens * (forward * traffic.forward + trained * traffic.backward)
    num_bytes += batches.num_pairs * (forward * traffic.forward_pair + trained * traffic.backward_pair)
    num_trained = shape.trained_parameters(config.trainable, _NUM_LABELS)
    update = num_trained * (_UPDATE_BYTES[training.optimizer] + FP32_BYTES)  # the gradient is also written
    read = training.grad_accum * _weight_bytes(shape, config.precision, num_trained)
    return GpuWork(
        flops=training_flops(
            shape, _NUM_LABELS, num_rows, batches.num_tokens,
            trainable=config.trainable, num_token_pairs=batches.num_pairs, recomputed=training.activation_checkpointing,
        ),
        num_bytes=num_bytes + batches.num_batches * (update + read),
        num_layers=batches.num_batches * training.grad_accum * (forward + 2 * trained) / 3,
        num_rows=num_rows if loop.prepares_rows else 0,
    )  # fmt: skip


def evaluation_work(config: FineTuneConfig, shape: ModelShape, batches: Batches) -> GpuWork:
    """Count the work of one rank's evaluation batches: forward passes alone, in the harness's own loop."""
    traffic = _layer_traffic(shape, config.precision, HARNESS_LOOP)
    weights = _weight_bytes(shape, config.precision, 0)
    return GpuWork(
        # With a frozen encoder the formula counts its forward pass, and the head's backward pass, which is negligible.
        flops=training_flops(
            shape, _NUM_LABELS, 0, batches.num_tokens, trainable="head", num_token_pairs=batches.num_pairs
        ),
        num_bytes=batches.num_tokens * shape.layers * traffic.forward + batches.num_batches * weights,
        num_layers=batches.num_batches * shape.layers / 3,
        num_rows=0,
    )


def _weight_bytes(shape: ModelShape, precision: str, num_trained: int) -> float:
    """Return what passes read of the weights in a micro-batch: once forward, twice backward, and autocast's copies."""
    size = _compute_bytes(precision)
    copies = FP32_BYTES + size if size != FP32_BYTES else 0
    return shape.parameters(_NUM_LABELS) * (size + copies) + 2 * size * num_trained


def _layer_traffic(shape: ModelShape, precision: str, loop: Loop) -> _LayerTraffic:
    """Count reads and writes of one layer in tensors of `(token, hidden)`, or `(token, intermediate)`.

    Forward, in the dtype of products: query, key and value (3 reads, 3 writes), attention (3, 1), its output (1, 1), the two
    feed-forward products (1 and 1 of hidden, 1 and 1 of intermediate size), GELU (1, 1 of intermediate size), two dropouts
    (2, 2). In the dtype of states: two residual sums (4, 2) and two LayerNorms (2, 2).

    Backward, in the dtype of products: each reads its output's gradient twice and its input once, and writes its input's
    gradient (20, and 4 of intermediate size); attention (5 reads, 3 writes); biases (5, and 1 of intermediate size); GELU (3
    of intermediate size); dropouts (2, 2). States: two LayerNorms (4, 2), two residual sums (4, 2), and the sum of the three
    gradients of the layer's input (4, 2).

    Unfused attention writes and reads its scores in 10 passes forward and 11 backward, and a byte of dropout's mask each way.
    """
    compute = _compute_bytes(precision)
    state = FP32_BYTES if loop.fp32_states else compute
    casts = 4 * (state + compute) if state != compute else 0
    wide = shape.intermediate / shape.hidden
    scores = 0 if loop.fused_attention else shape.heads
    return _LayerTraffic(
        forward=shape.hidden * (compute * (18 + 4 * wide) + state * 10 + casts),
        backward=shape.hidden * (compute * (37 + 8 * wide) + state * 18 + casts),
        forward_pair=scores * (10 * compute + 1),
        backward_pair=scores * (11 * compute + 1),
    )


def _compute_bytes(precision: str) -> int:
    return _HALF_BYTES if precision in ("bf16", "fp16") else FP32_BYTES
