"""Predict a cell's peak memory from its configuration and model shape (pure, no torch).

Tensor sizes are derived in `activation_sizes`. Only the constants below are measured or assumed; their comments say how.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from harness.prediction.activation_sizes import FP32_BYTES, MemoryState, MicroBatch
from harness.schema.cells import MIN_EVALUATION_BATCH, Device, FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import AttentionKind, num_trained_layers

_MIB = 2**20
# All "measured" constants: torch 2.13.0+cpu, transformers 5.24.0, Python 3.11.
# Measured: VmRSS of a fresh process before the model is loaded. A forked process maps fewer file pages; `harness fit`
# replaces this constant by its own measurements.
BASE_BYTES = 438 * _MIB
# Measured: library pages and small blocks that the first step touches.
_RUNTIME_BYTES = 30 * _MIB
_RUNTIME_HALF_BYTES = 36 * _MIB
# Measured: the safetensors file is memory-mapped, so only looked-up rows of a frozen word table are resident, with 64 KiB
# around each (the kernel's fault-around). Of the packaged model's table 66 film reviews left 53 % unread, 96 reviews 44 %
# and 192 reviews 28 %; a review has 26 tokens on average. Fitted: unread = exp(-(tokens / 3450) ** 0.65).
_UNREAD_SCALE_TOKENS, _UNREAD_EXPONENT = 3_450, 0.65
_TOKENS_PER_ROW = 26
# Measured at 8 x 128, 16 x 128 and 36 x 512: VmHWM exceeds the peak of the process's own control group by 131 to 149 MiB,
# because library pages in the page cache are charged to the process that read them first.
UNCHARGED_BYTES = 140 * _MIB
# Assumed, never measured: GPU memory of a CUDA context with torch's kernels.
_CUDA_CONTEXT_BYTES = 500 * _MIB


@dataclass(frozen=True)
class MemoryPrediction:
    """A cell's predicted memory.

    Attributes:
        base_bytes: Size of one rank's process before the model is loaded.
        parts: One rank's peak above the base, by kind; they sum to `above_base_bytes`.
        states: One rank's memory states over a step; the fullest is the peak.
        activations: Bytes saved in a forward pass, by kind of layer.
    """

    base_bytes: int
    parts: dict[str, int]
    states: tuple[MemoryState, ...]
    activations: dict[str, int]
    num_ranks: int
    device: str

    @property
    def above_base_bytes(self) -> int:
        """One rank's peak minus its base."""
        return sum(self.parts.values())

    @property
    def peak_bytes(self) -> int:
        """Peak of all ranks together on a CPU; of one rank on GPUs, because each rank has its own GPU."""
        ranks = self.num_ranks if self.device == "cpu" else 1
        return ranks * (self.base_bytes + self.above_base_bytes)

    @property
    def peak_state(self) -> MemoryState:
        """The memory state with the most bytes."""
        return max(self.states, key=lambda state: state.num_bytes)


def predict_peak(
    config: FineTuneConfig,
    shape: ModelShape,
    num_labels: int,
    *,
    longest: int | None = None,
    num_ranks: int | None = None,
    base_bytes: int | None = None,
) -> MemoryPrediction:
    """Predict a cell's peak memory; where the cell chooses its attention, the higher of both peaks.

    Args:
        config: The cell's configuration.
        shape: Sizes of the cell's model.
        num_labels: Number of classes.
        longest: Number of tokens of the longest row, for rows not padded to `seq_len`; by default `seq_len`.
        num_ranks: Number of ranks; by default what `config.device` says, else 1.
        base_bytes: Size of a rank's process before the model is loaded; by default `BASE_BYTES`, or on a GPU the size
            of a CUDA context.

    Returns:
        Peak, its parts and the memory states, in bytes.
    """
    if config.model.attention == "auto":
        # Its timed steps take as much as either.
        return max(
            (
                predict_peak(
                    _with_attention(config, kind), shape, num_labels,
                    longest=longest, num_ranks=num_ranks, base_bytes=base_bytes,
                )
                for kind in get_args(AttentionKind)
            ),
            key=lambda prediction: prediction.peak_bytes,
        )  # fmt: skip
    device = Device.parse(config.device)
    ranks = num_ranks or device.num_ranks or 1
    training = config.training
    trained_layers, whole = num_trained_layers(config.trainable, shape.layers), config.trainable == "all"
    batch = MicroBatch(
        shape,
        config.device_batch(ranks),
        config.padded_length(config.seq_len if longest is None else longest),
        half=config.precision in ("bf16", "fp16"),
        gpu=device.on_gpu,
        trained_layers=trained_layers,
        whole=whole,
        checkpointing=training.activation_checkpointing,
        accumulated=training.grad_accum > 1,
        eager=config.model.attention == "eager",
    )
    gradients = FP32_BYTES * shape.trained_parameters(config.trainable, num_labels)
    states = _memory_states(config, batch, ranks, gradients, FP32_BYTES * shape.head_parameters(num_labels))
    peak = max(states, key=lambda state: state.num_bytes)
    unread = 0
    if not whole and config.model.init == "pretrained" and not device.on_gpu:
        unread = round(FP32_BYTES * shape.vocab * shape.embedding_size * _unread_fraction(config, ranks))
    runtime = _RUNTIME_HALF_BYTES if batch.half else _RUNTIME_BYTES
    parts = {
        "weights": FP32_BYTES * shape.parameters(num_labels) - unread,
        "optimizer": 2 * gradients if training.optimizer == "adamw" else 0,
        "activations": peak.activations,
        "gradients": peak.gradients,
        "workspace": peak.workspace,
        "runtime": 0 if device.on_gpu else runtime,
    }
    default_base = _CUDA_CONTEXT_BYTES if device.on_gpu else BASE_BYTES
    return MemoryPrediction(base_bytes or default_base, parts, tuple(states), batch.saved(), ranks, device.kind)


def _with_attention(config: FineTuneConfig, kind: AttentionKind) -> FineTuneConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"attention": kind})})


def _memory_states(
    config: FineTuneConfig, batch: MicroBatch, ranks: int, gradients: int, head_gradients: int
) -> list[MemoryState]:
    """List the memory states of a step, and of an evaluation if the model is judged, since only then one runs."""
    states = [
        *batch.memory_states(head_gradients=head_gradients, gradients=gradients),
        MemoryState("update", gradients=gradients),
    ]
    if config.is_judged:
        rows = max(config.data.num_val, config.data.num_test)
        batch_size = min(max(config.device_batch(ranks), MIN_EVALUATION_BATCH), -(-rows // ranks))
        states.append(replace(batch, batch_size=batch_size).evaluation())
    buckets = gradients if ranks > 1 else 0  # DDP's flat copies of all gradients, allocated at the start
    return [replace(state, gradients=state.gradients + buckets) for state in states]


def _unread_fraction(config: FineTuneConfig, ranks: int) -> float:
    """Estimate the fraction of the word table that no row of any split looks up."""
    data, max_steps = config.data, config.training.max_steps
    num_trained = math.inf if data.num_train == "all" else data.num_train
    if max_steps is not None:
        num_trained = min(num_trained, max_steps * config.global_batch(ranks))
    num_tokens = (num_trained + data.num_val + data.num_test) * min(config.seq_len, _TOKENS_PER_ROW)
    return math.exp(-((num_tokens / _UNREAD_SCALE_TOKENS) ** _UNREAD_EXPONENT))
