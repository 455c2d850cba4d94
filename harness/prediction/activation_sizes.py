"""Sizes of the tensors of one training step, derived from BERT's operators (pure, no torch).

Input: a model's shape and a micro-batch. Output: bytes saved for the backward pass and memory states over the step. The
operators are those of transformers 5.24 with torch 2.13 on a CPU; tests compare the sizes with what autograd saves there.
The GPU rules (1-byte dropout masks, attention that never stores its scores) come from the source code and were never
checked on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.schema.model_shapes import ModelShape

FP32_BYTES = 4


@dataclass(frozen=True)
class MemoryState:
    """Bytes held by a step's own tensors at one point of the step."""

    name: str
    activations: int = 0
    gradients: int = 0
    workspace: int = 0

    @property
    def num_bytes(self) -> int:
        """Sum of activations, gradients and workspace."""
        return self.activations + self.gradients + self.workspace


@dataclass(frozen=True)
class MicroBatch:
    """Tensor sizes of one micro-batch, in bytes.

    Attributes:
        half: Whether the step runs under bf16 or fp16 autocast.
        trained_layers: Number of encoder layers that are trained, counted from the top.
        whole: Whether the embeddings are trained too.
        checkpointing: Whether activation checkpointing is on: layers keep only their input and recompute the rest.
        accumulated: Whether gradients are accumulated over several micro-batches.
        eager: Whether attention is transformers' own (`eager`) instead of torch's (`sdpa`).
    """

    shape: ModelShape
    batch_size: int
    seq_len: int
    half: bool
    gpu: bool
    trained_layers: int
    whole: bool
    checkpointing: bool = False
    accumulated: bool = False
    eager: bool = False

    @property
    def hidden_bytes(self) -> int:
        """Size of the hidden states `(batch, seq, hidden)`, in fp32 unless they have 16 bits."""
        return self.fp32_bytes // 2 if self.has_half_states else self.fp32_bytes

    @property
    def fp32_bytes(self) -> int:
        """Size of a `(batch, seq, hidden)` tensor in fp32."""
        return self.batch_size * self.seq_len * self.shape.hidden * FP32_BYTES

    @property
    def has_half_states(self) -> bool:
        """Whether hidden states have 16 bits: autocast projects ELECTRA's embeddings so, and LayerNorm on a CPU leaves them."""
        return self.half and self.shape.is_projected and not self.gpu

    @property
    def keeps_last_hidden(self) -> bool:
        """Whether the head's first product reads one token through a view, which keeps the whole last hidden state alive.

        Autocast copies the token, and so does dropout before the product (RoBERTa, ELECTRA).
        """
        is_copied = self.half and not self.has_half_states
        return not is_copied and not (self.shape.drops_first_token and self.shape.hidden_dropout > 0)

    @property
    def compute_bytes(self) -> int:
        """Size of a `(batch, seq, hidden)` tensor in the dtype of matrix products."""
        return self.hidden_bytes // 2 if self.half and not self.has_half_states else self.hidden_bytes

    @property
    def ffn_bytes(self) -> int:
        """Size of a `(batch, seq, intermediate)` tensor in the dtype of matrix products."""
        return self.compute_bytes * self.shape.intermediate // self.shape.hidden

    @property
    def mask_bytes(self) -> int:
        """Size of sdpa's attention mask `(batch, 1, seq, seq)` in the dtype of matrix products."""
        return self.batch_size * self.seq_len**2 * self._product_item_bytes

    @property
    def created_mask_bytes(self) -> int:
        """Size of the attention mask as created, `(batch, seq)`: booleans, or what eager attention adds to its scores."""
        return self.batch_size * self.seq_len * (self._product_item_bytes if self.eager else 1)

    @property
    def attention_score_bytes(self) -> int:
        """Size of the attention scores `(batch, heads, seq, seq)` in fp32, the dtype of the math attention path."""
        return self.batch_size * self.shape.heads * self.seq_len**2 * FP32_BYTES

    @property
    def eager_score_bytes(self) -> int:
        """Size of eager attention's softmax `(batch, heads, seq, seq)`: autocast computes it in fp32 on a GPU alone."""
        return self.attention_score_bytes if self.gpu else self._product_score_bytes

    @property
    def _product_score_bytes(self) -> int:
        """Size of the attention scores in the dtype of matrix products."""
        return self.attention_score_bytes * self._product_item_bytes // FP32_BYTES

    @property
    def _product_item_bytes(self) -> int:
        """Size of one element in the dtype of matrix products."""
        return FP32_BYTES // 2 if self.half else FP32_BYTES

    @property
    def uses_math_attention(self) -> bool:
        """Whether attention takes torch's math path, which stores its scores: on a CPU with dropout."""
        return self.shape.attention_dropout > 0 and not self.gpu and not self.eager

    @property
    def layer_norm_bytes(self) -> int:
        """Size of what LayerNorm saves: its input (fp32 under autocast too), and mean and deviation of each token."""
        return self.hidden_bytes + 2 * self.batch_size * self.seq_len * FP32_BYTES

    def dropout_mask_bytes(self, output_bytes: int) -> int:
        """Return the size of a dropout mask: as large as the output on a CPU, one byte per element on a GPU."""
        if not self.shape.hidden_dropout:
            return 0
        return self.batch_size * self.seq_len * self.shape.hidden if self.gpu else output_bytes

    def saved_by_layer(self) -> dict[str, int]:
        """Return the bytes that one layer saves for its backward pass, by kind, without autocast's copies of weights."""
        if self.eager:
            # Saved: query, key, value and the output, which the next product shares; the weights.
            attention = self._attention_input_bytes + 4 * self.compute_bytes + self._eager_weight_bytes
        elif self.uses_math_attention:
            # Saved: scaled query, scaled key and value in fp32; softmax's output, dropout's mask, and their product.
            scores = 3 * self.attention_score_bytes
            attention = self._attention_input_bytes + 3 * self.fp32_bytes + self.compute_bytes + scores
        else:
            # Saved: query, key, value; the output, which the next product shares; log-sum-exp of each row of scores.
            log_sum_exp = self.batch_size * self.shape.heads * self.seq_len * FP32_BYTES
            attention = self._attention_input_bytes + 4 * self.compute_bytes + self.mask_bytes + log_sum_exp
        num_dropouts = 1 if self.shape.distil else 2
        return {
            "attention": attention,
            "feed-forward": self.compute_bytes + 2 * self.ffn_bytes,
            "layer norm": 2 * self.layer_norm_bytes,
            "dropout": num_dropouts * self.dropout_mask_bytes(self.compute_bytes),
        }

    @property
    def _attention_input_bytes(self) -> int:
        """Size of the layer's input as saved: under autocast query, key and value each cast it; in fp32 they share it."""
        return 3 * self.compute_bytes if self.half and not self.has_half_states else self.hidden_bytes

    @property
    def _eager_weight_bytes(self) -> int:
        """Size of what eager attention saves of its weights: softmax's output, dropout's mask, and the product's input."""
        scores = self.eager_score_bytes
        if not self.shape.attention_dropout:
            is_cast = self.gpu and self.half
            return scores + (self._product_score_bytes if is_cast else 0)
        mask = scores // FP32_BYTES if self.gpu else scores
        return scores + mask + self._product_score_bytes

    def weight_copy_bytes(self) -> int:
        """Return the size of autocast's half-precision copies of one layer's matrices."""
        return self.shape.layer_products * 2 if self.half else 0

    def saved(self) -> dict[str, int]:
        """Return the bytes that a forward pass saves, by kind."""
        pooled = self.batch_size * self.shape.hidden * FP32_BYTES
        last_hidden = self.hidden_bytes if self.keeps_last_hidden else 0
        saved = {"head": (4 if self.shape.drops_first_token else 2) * pooled + last_hidden}
        if not self.trained_layers:
            return saved  # nothing below the pooler needs a gradient
        if self.half:
            saved["weight copies"] = 2 * self.shape.hidden**2
        if self.whole:
            saved |= self._saved_by_embeddings()
        if self.checkpointing:
            saved["layer inputs"] = self.trained_layers * self.hidden_bytes + self.created_mask_bytes
            return saved
        for kind, size in self.saved_by_layer().items():
            saved[kind] = saved.get(kind, 0) + self.trained_layers * size
        if self.half:
            saved["weight copies"] += self.trained_layers * self.weight_copy_bytes()
        return saved

    def _saved_by_embeddings(self) -> dict[str, int]:
        """Return the bytes that the embeddings save: LayerNorm and dropout at their own width, and the projection's input."""
        shape = replace(self, shape=replace(self.shape, hidden=self.shape.embedding_size, embedding=None))
        ids, projected = self.batch_size * self.seq_len * 8, shape.compute_bytes if self.shape.is_projected else 0
        norm, dropout = shape.layer_norm_bytes, shape.dropout_mask_bytes(shape.hidden_bytes)
        return {"layer norm": norm, "dropout": dropout, "embeddings": ids + projected}

    def memory_states(self, *, head_gradients: int, gradients: int) -> Iterable[MemoryState]:
        """Yield the memory states of the forward and backward pass that can be the step's peak.

        Args:
            head_gradients: Bytes of the classification head's gradients.
            gradients: Bytes of all gradients.
        """
        before = gradients if self.accumulated else 0
        saved = sum(self.saved().values())
        if not self.trained_layers:
            yield MemoryState("forward", gradients=before, workspace=self._layer_workspace(training=True))
            yield MemoryState("backward", saved, gradients)
            return
        if self.checkpointing:
            yield from self._checkpointed_states(saved, before, head_gradients)
        else:
            yield from self._plain_states(saved, before, head_gradients)
        if self.whole:
            # The word embeddings' gradient is dense: as large as their table. With accumulation, a fresh gradient
            # exists beside the accumulated one.
            fresh = self.shape.vocab * self.shape.embedding_size * FP32_BYTES if self.accumulated else 0
            yield MemoryState("backward, embeddings", 0, gradients, self.hidden_bytes + fresh)

    def evaluation(self) -> MemoryState:
        """Return the memory state of an evaluation batch, which has no gradients and no dropout."""
        no_dropout = replace(self, shape=replace(self.shape, attention_dropout=0.0, hidden_dropout=0.0))
        return MemoryState("evaluation", workspace=no_dropout._layer_workspace(training=False))

    def _backward_workspace(self) -> tuple[int, int]:
        """Return the workspace at a layer's first backward product, and the saved bytes that are freed by then.

        The workspace holds the gradients of LayerNorm's input and of the product's output, input and weight. The freed
        bytes are LayerNorm's saved input and the dropout mask.
        """
        weight_gradient = self.shape.hidden * self.shape.intermediate * (FP32_BYTES + 2 if self.half else FP32_BYTES)
        workspace = self.hidden_bytes + self.compute_bytes + self.ffn_bytes + weight_gradient
        return workspace, self.hidden_bytes + self.dropout_mask_bytes(self.compute_bytes)

    def _eager_backward(self) -> tuple[int, int]:
        """Return a layer's saved bytes that are alive at the largest point of eager attention's backward pass, and the workspace.

        With dropout, this point is the product that makes the weights' gradient: the gradients of the layer's input, of the output
        and of the value are alive too. Without, it is softmax, when the output's gradient and the value are gone.
        """
        kept = self._attention_input_bytes + 2 * self.compute_bytes + self._eager_weight_bytes
        kept += 3 * self.shape.hidden**2 * 2 if self.half else 0
        has_input_gradient = self.whole or self.trained_layers > 1
        workspace = self.compute_bytes + (self.hidden_bytes if has_input_gradient else 0)
        if self.shape.attention_dropout:
            return kept + self.compute_bytes, workspace + self.compute_bytes + self.eager_score_bytes
        return kept, workspace + 2 * self.eager_score_bytes

    @property
    def _gradients_above_attention(self) -> int:
        """Size of a layer's gradients that exist when the backward pass reaches attention: all but query's, key's and value's."""
        return FP32_BYTES * (self.shape.layer_parameters - 3 * (self.shape.hidden**2 + self.shape.hidden))

    def _plain_states(self, saved: int, before: int, head_gradients: int) -> Iterable[MemoryState]:
        workspace, freed = self._backward_workspace()
        # Workspace at the end of the forward pass, in the last LayerNorm. Under autocast, the callers hold the inputs of
        # embeddings and layers besides autograd's copies, and the outputs of LayerNorm and dropout are alive.
        end = self.created_mask_bytes + (4 * self.hidden_bytes + self.compute_bytes if self.half else self.hidden_bytes)
        if not (self.whole or self.half):
            end += self.hidden_bytes  # the embeddings' output: held by its caller, not by autograd
        yield MemoryState("forward", saved, before, end)
        last_hidden = self.hidden_bytes if self.keeps_last_hidden else 0
        yield MemoryState("backward, last layer", saved - last_hidden - freed, before or head_gradients, workspace)
        if self.eager:
            kept, workspace = self._eager_backward()
            freed = sum(self.saved_by_layer().values()) + self.weight_copy_bytes() - kept
            gradients = before or head_gradients + self._gradients_above_attention
            yield MemoryState("backward, last attention", saved - last_hidden - freed, gradients, workspace)

    def _checkpointed_states(self, saved: int, before: int, head_gradients: int) -> Iterable[MemoryState]:
        workspace, freed = self._backward_workspace()
        shared_input = 0 if self.half else self.hidden_bytes
        recomputed = sum(self.saved_by_layer().values()) - shared_input + self.weight_copy_bytes()
        # Also alive at the end of the recomputed forward: LayerNorm's output, dropout's output, the incoming gradient.
        at_end = recomputed + 3 * self.hidden_bytes + self.compute_bytes
        at_begin = recomputed + workspace - freed
        largest = max(at_end, at_begin) if self.half else at_begin
        yield MemoryState("forward", saved, before, self._layer_workspace(training=True))
        yield MemoryState("backward, last layer", saved, before or head_gradients, largest)
        first_saved = saved - (self.trained_layers - 1) * self.hidden_bytes - shared_input
        layer_gradients = FP32_BYTES * self.shape.layer_parameters
        above = head_gradients + (self.trained_layers - 1) * layer_gradients
        yield MemoryState("backward, first layer", first_saved, before or above, largest)
        if self.eager:
            kept, attention = self._eager_backward()
            attention += kept - shared_input
            last_hidden = self.hidden_bytes if self.keeps_last_hidden else 0
            own = self._gradients_above_attention
            yield MemoryState(
                "backward, last attention", saved - last_hidden, before or head_gradients + own, attention
            )
            yield MemoryState("backward, first attention", first_saved, before or above + own, attention)

    def _layer_workspace(self, *, training: bool) -> int:
        """Return the most bytes alive at once in a layer that saves nothing, including what its callers hold.

        The callers hold the embeddings' output, the layer's input and attention's output. The feed-forward part peaks at
        one of three points: the product beside GELU's output; dropout's output with its mask and copy; LayerNorm's output
        beside the residual sum.
        """
        hidden, compute, ffn = self.hidden_bytes, self.compute_bytes, self.ffn_bytes
        dropout = self.dropout_mask_bytes(compute) + compute if training else 0
        gelu = 0 if self.shape.distil else ffn  # DistilBERT's feed-forward part frees GELU's output early
        feed_forward = gelu + max(3 * hidden + 2 * ffn - gelu, 3 * hidden + compute + dropout, 5 * hidden + compute)
        if self.eager:
            # The layer's caller holds the weights that attention returns until the layer's end.
            feed_forward += self.eager_score_bytes
            num_scores = 3 if training and self.shape.attention_dropout else 2
            attention = 2 * hidden + 3 * compute + num_scores * self.eager_score_bytes
        elif self.uses_math_attention and training:
            copies = 4 * self.fp32_bytes if self.half else hidden
            attention = 2 * hidden + 3 * compute + copies + self.mask_bytes + 3 * self.attention_score_bytes
        else:
            attention = 2 * hidden + 4 * compute + self.mask_bytes
        return self.created_mask_bytes + max(feed_forward, attention)
