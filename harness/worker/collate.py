"""Rows of a batch to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from harness.dataset.tokens import TokenArrays


def collate(
    tokens: TokenArrays, rows: Sequence[int] | np.ndarray, *, pad_to: int | None, pin: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Pad rows to `pad_to` tokens, or to their longest.

    Returns:
        ids and attention mask `(batch, seq)`, labels `(batch,)`, and the number of real tokens.
    """
    begins, ends = tokens.offsets[rows], tokens.offsets[np.asarray(rows) + 1]
    lengths = ends - begins
    width = pad_to or int(lengths.max())
    mask = np.arange(width) < lengths[:, None]
    ids = np.zeros((len(rows), width), dtype=np.int64)
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
    """Which segment each token of some padded rows is of, 0 or 1, `(batch, width)`; None where rows have one segment."""
    if tokens.first_segment_lengths is None:
        return None
    ends = tokens.offsets[np.asarray(rows) + 1] - tokens.offsets[rows]
    at = np.arange(width)
    seconds = (at >= tokens.first_segment_lengths[rows][:, None]) & (at < ends[:, None])
    return torch.from_numpy(seconds.astype(np.int64))


def attention_mask(mask: torch.Tensor, *, padded: bool) -> torch.Tensor | None:
    """Which tokens each token may look at, `(batch, 1, seq, seq)`; None where no batch's row is padded.

    transformers would make the same of `mask`, `(batch, seq)`, but would first look whether it is all ones: on a GPU that
    waits for the queue, once a forward pass. The host knows.
    """
    return mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1) if padded else None
