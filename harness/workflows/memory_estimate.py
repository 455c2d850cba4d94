"""What a cell will need, from shapes alone, as a timeline over a step (pure, no torch).

Sizes of tensors are derived from the operators that BERT runs as in transformers 5.24 and torch 2.13 on a CPU; a test
holds them to what autograd saves there. Only the constants below are measured, and each says on what. Nothing here was
ever checked on a GPU: there dropout keeps a byte an element and attention never keeps its scores, by their source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.dataset.batch_plan import MIN_EVALUATION_BATCH
from harness.schema.cells import Device, FineTuneConfig
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import num_trained_layers

_MIB = 2**20


_FP32 = 4


# Measured: VmRSS of a fresh process with torch 2.13.0+cpu, transformers 5.24.0 and Python 3.11 before the model is
# loaded (a forked one maps fewer file pages; a search replaces it by what it sees).
BASE_BYTES = 438 * _MIB


# Measured, the same versions: pages of libraries, and small blocks, that the first step touches.
_RUNTIME_BYTES = 30 * _MIB


_RUNTIME_BF16_BYTES = 36 * _MIB


# Measured, the same versions: safetensors' file is mapped, so of a frozen checkpoint's word table only what was looked up
# is in memory, with 64 KiB around it (the kernel's fault-around). Of the packaged model's table 53 % were never read by
# 66 film reviews, 44 % by 96 and 28 % by 192; a row of them has 26 tokens.
_TOKENS_TO_READ_WORDS, _POWER_OF_TOKENS = 3_450, 0.65


_TOKENS_A_ROW = 26


# Measured, the same versions, at 8 x 128, 16 x 128 and 36 x 512: VmHWM less the peak of the control group that the process
# was started in, 131 to 149 MiB. Pages of libraries that the page cache holds are charged to whoever read them first.
UNCHARGED_BYTES = 140 * _MIB


# Assumed, never measured: a CUDA context with torch's kernels. Of the GPU's memory.
_CUDA_CONTEXT_BYTES = 500 * _MIB


@dataclass(frozen=True)
class MemoryState:
    """What a step's own tensors hold at one moment, in bytes."""

    name: str
    activations: int = 0
    gradients: int = 0
    workspace: int = 0

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.activations + self.gradients + self.workspace


@dataclass(frozen=True)
class MemoryPrediction:
    """A cell's peak, of all its ranks together; `parts` and `moments` are one rank's.

    Attributes:
        base_bytes: One rank's process before the model is loaded.
        parts: Above the base, by kind, at the fullest moment; they sum to `above_base_bytes`.
        moments: The timeline; the fullest of them is the peak.
        activations: All that is saved in a forward pass, by kind of layer.
    """

    base_bytes: int
    parts: dict[str, int]
    moments: tuple[MemoryState, ...]
    activations: dict[str, int]
    num_ranks: int
    device: str

    @property
    def above_base_bytes(self) -> int:
        """One rank's peak less its base."""
        return sum(self.parts.values())

    @property
    def peak_bytes(self) -> int:
        """Of all ranks; on GPUs of one of them, for each has its own."""
        ranks = self.num_ranks if self.device == "cpu" else 1
        return ranks * (self.base_bytes + self.above_base_bytes)

    @property
    def moment(self) -> MemoryState:
        """The fullest."""
        return max(self.moments, key=lambda moment: moment.num_bytes)


def predict_peak(
    config: FineTuneConfig,
    shape: ModelShape,
    num_labels: int,
    *,
    longest: int | None = None,
    num_ranks: int | None = None,
    base_bytes: int | None = None,
) -> MemoryPrediction:
    """Predict a cell's peak memory.

    Args:
        longest: Tokens of the longest row, where rows are not padded to `seq_len`; None: as long as allowed.
        num_ranks: What `gpu-ddp` comes to; None: as the device says, or one.
        base_bytes: Of a rank's process; None: the measured constant.
    """
    device = Device.parse(config.device)
    ranks = num_ranks or device.num_ranks or 1
    length = config.seq_len if config.padding == "max" or longest is None else min(longest, config.seq_len)
    training = config.training
    step = _Step(shape, config.device_batch(ranks), length, config.precision in ("bf16", "fp16"), device.on_gpu)
    weights = _FP32 * shape.parameters(num_labels)
    trained_layers, whole = num_trained_layers(config.trainable, shape.layers), config.trainable == "all"
    trained = trained_layers * shape.layer_parameters + shape.head_parameters(num_labels)
    trained += shape.embedding_parameters if whole else 0
    gradients = _FP32 * trained
    buckets = gradients if ranks > 1 else 0  # DDP's second copy, made at the start
    moments = [
        *step.moments(
            head_gradients=_FP32 * shape.head_parameters(num_labels),
            gradients=gradients,
            trained_layers=trained_layers,
            whole=whole,
            checkpointing=training.activation_checkpointing,
            accumulated=training.grad_accum > 1,
        ),
        MemoryState("update", gradients=gradients),
    ]
    if config.model.init == "pretrained":
        rows = max(config.data.num_val, config.data.num_test)
        batch = min(max(config.device_batch(ranks), MIN_EVALUATION_BATCH), -(-rows // ranks))
        moments.append(replace(step, batch=batch).evaluation())
    moments = [replace(moment, gradients=moment.gradients + buckets) for moment in moments]
    fullest = max(moments, key=lambda moment: moment.num_bytes)
    runtime = _RUNTIME_BF16_BYTES if step.half else _RUNTIME_BYTES
    unread = 0
    if not whole and config.model.init == "pretrained" and not device.on_gpu:
        unread = round(_FP32 * shape.vocab * shape.hidden * _unread_fraction(config, ranks))
    parts = {
        "weights": weights - unread,
        "optimizer": 2 * gradients if training.optimizer == "adamw" else 0,
        "activations": fullest.activations,
        "gradients": fullest.gradients,
        "workspace": fullest.workspace,
        "runtime": 0 if device.on_gpu else runtime,
    }
    default = _CUDA_CONTEXT_BYTES if device.on_gpu else BASE_BYTES
    saved = step.saved(trained_layers, whole=whole, checkpointing=training.activation_checkpointing)
    return MemoryPrediction(base_bytes or default, parts, tuple(moments), saved, ranks, device.kind)


def _unread_fraction(config: FineTuneConfig, ranks: int) -> float:
    """About how much of the word table a run never looks up, of all splits together."""
    data, steps = config.data, config.training.max_steps
    trained = math.inf if data.num_train == "all" else data.num_train
    if steps is not None:
        trained = min(trained, steps * config.global_batch(ranks))
    num_tokens = (trained + data.num_val + data.num_test) * min(config.seq_len, _TOKENS_A_ROW)
    return math.exp(-((num_tokens / _TOKENS_TO_READ_WORDS) ** _POWER_OF_TOKENS))


@dataclass(frozen=True)
class _Step:
    """Tensors of one micro-batch, in bytes; `unit` is `(batch, seq, hidden)` in fp32, in which most are counted.

    Attributes:
        half: bf16 or fp16 autocast.
    """

    shape: ModelShape
    batch: int
    length: int
    half: bool
    gpu: bool

    @property
    def unit(self) -> int:
        return self.batch * self.length * self.shape.hidden * _FP32

    @property
    def cast(self) -> int:
        """A unit in the type that products are computed in."""
        return self.unit // 2 if self.half else self.unit

    @property
    def wide(self) -> int:
        """`(batch, seq, intermediate)` in the type that products are computed in."""
        return self.cast * self.shape.intermediate // self.shape.hidden

    @property
    def mask(self) -> int:
        """The attention mask `(batch, 1, seq, seq)` as numbers; as booleans it takes a quarter of fp32's."""
        return self.batch * self.length**2 * (_FP32 // 2 if self.half else _FP32)

    @property
    def bool_mask(self) -> int:
        """The mask as it is made: `(batch, seq)` booleans, shown as `(batch, 1, seq, seq)`."""
        return self.batch * self.length

    @property
    def scores(self) -> int:
        """`(batch, heads, seq, seq)`; the plain path computes in fp32."""
        return self.batch * self.shape.heads * self.length**2 * _FP32

    @property
    def plain(self) -> bool:
        """Whether attention takes the path that keeps its scores: on a CPU with dropout."""
        return self.shape.attention_dropout > 0 and not self.gpu

    def dropout_mask(self, output: int) -> int:
        """On a CPU the mask is a tensor like the output, on a GPU of booleans."""
        if not self.shape.hidden_dropout:
            return 0
        return self.batch * self.length * self.shape.hidden if self.gpu else output

    @property
    def norm(self) -> int:
        """LayerNorm's saved input, fp32 under autocast too, with mean and deviation of every token."""
        return self.unit + 2 * self.batch * self.length * _FP32

    def layer(self) -> dict[str, int]:
        """What one layer saves for its backward pass, its weights' copies apart."""
        # Under autocast query, key and value each cast the layer's input anew; in fp32 they share it.
        inputs = 3 * self.cast if self.half else self.unit
        if self.plain:
            # Scaled query and key, and value, in fp32; softmax's output, dropout's mask, and their product.
            attention = inputs + 3 * self.unit + self.cast + 3 * self.scores
        else:
            # Query, key, value; the output, which the next product shares; log-sum-exp of every row of scores.
            sums = self.batch * self.shape.heads * self.length * _FP32
            attention = inputs + 4 * self.cast + self.mask + sums
        num_dropouts = 1 if self.shape.distil else 2
        return {
            "attention": attention,
            "feed-forward": self.cast + 2 * self.wide,
            "layer norm": 2 * self.norm,
            "dropout": num_dropouts * self.dropout_mask(self.cast),
        }

    def weight_copies(self) -> int:
        """Autocast's copies of one layer's matrices."""
        return self.shape.layer_products * 2 if self.half else 0

    def saved(self, trained_layers: int, *, whole: bool, checkpointing: bool) -> dict[str, int]:
        """All that a forward pass saves, by kind of layer; `whole`: the embeddings are trained too."""
        hidden = self.batch * self.shape.hidden * _FP32
        # The pooler reads one token, but as a view: in fp32 it keeps the whole last hidden state.
        last = 0 if self.half else self.unit
        found = {"head": 2 * hidden + last}
        if not trained_layers:
            # Nothing below the pooler needs a gradient.
            return found
        if self.half:
            found["weight copies"] = 2 * self.shape.hidden**2
        if whole:
            found |= {"layer norm": self.norm, "dropout": self.dropout_mask(self.unit)}
            found["embeddings"] = self.batch * self.length * 8
        if checkpointing:
            found["layer inputs"] = trained_layers * self.unit + self.bool_mask
        else:
            for kind, size in self.layer().items():
                found[kind] = found.get(kind, 0) + trained_layers * size
            if self.half:
                found["weight copies"] += trained_layers * self.weight_copies()
        return found

    def moments(
        self,
        *,
        head_gradients: int,
        gradients: int,
        trained_layers: int,
        whole: bool,
        checkpointing: bool,
        accumulated: bool,
    ) -> Iterable[MemoryState]:
        """The moments of forward and backward pass that can be the fullest."""
        before = gradients if accumulated else 0
        saved = sum(self.saved(trained_layers, whole=whole, checkpointing=checkpointing).values())
        if not trained_layers:
            yield MemoryState("forward", gradients=before, workspace=self._through_a_layer(training=True))
            yield MemoryState("backward", saved, gradients)
            return
        shape, unit = self.shape, self.unit
        # Backward through the last product of a layer: the gradient of the LayerNorm's input, that of the product's
        # output, that of its input, and the weight's own. LayerNorm's input and dropout's mask are gone by then.
        product = shape.hidden * shape.intermediate * (_FP32 + 2 if self.half else _FP32)
        begin = unit + self.cast + self.wide + product
        gone = unit + self.dropout_mask(self.cast)
        layer = sum(self.layer().values())
        each = _FP32 * shape.layer_parameters
        # Forward, at the last LayerNorm: embeddings' and layers' inputs are held by their callers where autograd holds
        # another copy of them (under autocast), with what LayerNorm makes and what dropout left.
        end = 4 * unit + self.cast + self.bool_mask if self.half else unit + self.bool_mask
        if not (whole or self.half):
            end += unit  # the embeddings' output: their caller holds it, autograd does not
        if checkpointing:
            again = layer - (0 if self.half else unit) + self.weight_copies()
            first = saved - (trained_layers - 1) * unit - (0 if self.half else unit)
            # The recomputed forward ends with its LayerNorm's output, dropout's, and the gradient that came in.
            at_end = again + 3 * unit + self.cast
            at_begin = again + begin - gone
            most = max(at_end, at_begin) if self.half else at_begin
            yield MemoryState("forward", saved, before, self._through_a_layer(training=True))
            yield MemoryState("backward, last layer", saved, before or head_gradients, most)
            done = before or head_gradients + (trained_layers - 1) * each
            yield MemoryState("backward, first layer", first, done, most)
        else:
            yield MemoryState("forward", saved, before, end)
            last = 0 if self.half else unit
            yield MemoryState("backward, last layer", saved - last - gone, before or head_gradients, begin)
        if not whole:
            return
        # Words' gradient is dense: as large as their table. Accumulating, a fresh one is added to the old.
        fresh = shape.vocab * shape.hidden * _FP32 if accumulated else 0
        yield MemoryState("backward, embeddings", 0, gradients, unit + fresh)

    def evaluation(self) -> MemoryState:
        """A batch without gradients or dropout."""
        quiet = replace(self, shape=replace(self.shape, attention_dropout=0.0, hidden_dropout=0.0))
        return MemoryState("evaluation", workspace=quiet._through_a_layer(training=False))

    def _through_a_layer(self, *, training: bool) -> int:
        """Most that is alive at once where nothing is saved: the embeddings' output and the layer's input with it."""
        unit, cast = self.unit, self.cast
        # The embeddings' output, the layer's input and attention's output are held by their callers. At GELU the product
        # and what it makes; at dropout its output with mask and copy; at LayerNorm the sum and the norm beside the copy.
        noise = self.dropout_mask(cast) + cast if training else 0
        kept = 0 if self.shape.distil else self.wide  # DistilBERT's feed-forward part lets go of GELU's
        feed_forward = kept + max(3 * unit + 2 * self.wide - kept, 3 * unit + cast + noise, 5 * unit + cast)
        if self.plain and training:
            copies = 3 * unit + unit if self.half else unit
            attention = 2 * unit + 3 * cast + copies + self.mask + 3 * self.scores
        else:
            attention = 2 * unit + 4 * cast + self.mask
        return self.bool_mask + max(feed_forward, attention)
