"""Turn rows of token ids into padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedConfig

from harness.dataset.tokens import TokenArrays
from harness.schema.cells import FineTuneConfig
from harness.schema.encoder_families import FAMILIES


def collate(
    tokens: TokenArrays, rows: Sequence[int] | np.ndarray, *, pad_to: int | None, pad_id: int = 0, pin: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Pad rows to one length and stack them.

    Args:
        tokens: The split's token ids.
        rows: Indices of the batch's rows.
        pad_to: Length to pad to; None pads to the batch's longest row.
        pad_id: The padding token: it is masked, but some architectures count positions by it.
        pin: Whether to pin the tensors, so that copying them to a GPU is asynchronous.

    Returns:
        ids and attention mask `(batch, seq)` int64, labels `(batch,)` int64, and the number of real tokens.
    """
    begins, ends = tokens.offsets[rows], tokens.offsets[np.asarray(rows) + 1]
    lengths = ends - begins
    width = pad_to or int(lengths.max())
    mask = np.arange(width) < lengths[:, None]
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        ids[row, : end - begin] = tokens.ids[begin:end]
    tensors = (
        torch.from_numpy(ids),
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(tokens.labels[rows]),
    )
    if pin:
        tensors = tuple(tensor.pin_memory() for tensor in tensors)  # type: ignore[assignment]
    return *tensors, int(lengths.sum())


def token_types(tokens: TokenArrays, rows: Sequence[int] | np.ndarray, width: int) -> torch.Tensor | None:
    """Return each token's segment, 0 or 1, `(batch, width)` int64; None if the rows have only one segment."""
    if tokens.first_segment_lengths is None:
        return None
    ends = tokens.offsets[np.asarray(rows) + 1] - tokens.offsets[rows]
    positions = np.arange(width)
    in_second = (positions >= tokens.first_segment_lengths[rows][:, None]) & (positions < ends[:, None])
    return torch.from_numpy(in_second.astype(np.int64))


def attention_mask(
    mask: torch.Tensor, config: PreTrainedConfig, *, padded: bool, dtype: torch.dtype = torch.float32
) -> torch.Tensor | None:
    """Return the attention mask that a model expects, made of a `(batch, seq)` mask; None if no row is padded.

    Where all layers attend alike by a fused kernel, it is `(batch, 1, seq, seq)` booleans. transformers would build the same
    mask, but would first check whether it is all ones. On a GPU, this check waits for the queued kernels in every forward pass.
    The host knows the answer without waiting: `padded`. Eager attention adds its mask to the scores: it is `(batch, 1, 1, seq)` in
    the scores' dtype, because transformers' own mask, in fp32, would turn 16-bit scores into fp32. Other families make what each
    layer needs of `(batch, seq)`. Untested architectures always get the mask, as from their own tokenizer.

    Args:
        mask: 1 for tokens, 0 for padding, `(batch, seq)`.
        config: The model's configuration.
        padded: Whether any row is padded.
        dtype: The dtype of matrix products, and so of eager attention's scores.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        return mask
    if not padded:
        return None
    if family.mask == "tokens":
        return mask
    if config._attn_implementation == "sdpa":
        return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    added = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask == 0, torch.finfo(dtype).min)
    return added[:, None, None, :]


def num_padded_tokens(tokens: TokenArrays, rows: np.ndarray, config: FineTuneConfig) -> int:
    """Return the number of tokens, padding included, that `collate` makes of the rows."""
    return len(rows) * config.padded_length(tokens.longest(rows))
