"""Weights to a safetensors file and back, a piece at a time: neither holds a second copy of the model.

The library's own writer has no copy of them either, but leaves the whole file in the page cache, which a control group is
charged for; and its reader maps the file, whose pages count in the resident set. A peak that is measured would move by both.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import torch

# Source: https://github.com/huggingface/safetensors#format: 8 bytes of the header's length, the header, the tensors' bytes.
_LENGTH_BYTES = 8
_ALIGN_BYTES = 8
_PIECE_BYTES = 8 * 2**20
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_weights(
    model: torch.nn.Module,
    path: Path,
    told: Mapping[str, str],
    beat: Callable[[], None] = lambda: None,
    *,
    trained_only: bool = False,
) -> tuple[str, int]:
    """Write a model's parameters and buffers, whole or not at all, and nothing of it stays in the page cache.

    Args:
        model: On any device; its tensors are moved one by one.
        path: Its folder must be there.
        told: Kept in the file's header beside the format's own key.
        beat: Called after every piece.
        trained_only: Leave out what training does not change: touching it would bring pages of the checkpoint's mapped
            file into memory that no step needs.

    Returns:
        SHA-256 of the file, and its bytes.

    Raises:
        OSError: When it can't be written; what was there is left as it was.
    """
    tensors = _tensors(model, trained_only=trained_only)
    partial = path.with_name(f"{path.name}.partial")
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with partial.open("wb", buffering=0) as file:
            for piece in _pieces(tensors, told):
                digest.update(piece)
                _write(file, piece)
                num_bytes += len(piece)
                beat()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), num_bytes


def read_weights(
    model: torch.nn.Module, path: Path, beat: Callable[[], None] = lambda: None, *, trained_only: bool = False
) -> None:
    """Put what `write_weights` wrote of this very model back into its tensors.

    Raises:
        OSError: When it can't be read.
        ValueError: When it is of another model.
    """
    tensors = _tensors(model, trained_only=trained_only)
    with path.open("rb", buffering=0) as file:
        header = _read_header(file)
        begin = file.tell()
        for name, tensor in tensors.items():
            at = header.get(name, {})
            if (at.get("shape"), at.get("dtype")) != (list(tensor.shape), _DTYPES[tensor.dtype]):
                raise ValueError(f"{path.name}: {name} is not as in this model")
            file.seek(begin + at["data_offsets"][0])
            target = tensor.detach()
            in_place = target.device.type == "cpu" and target.is_contiguous()
            on_host = target if in_place else torch.empty(target.shape, dtype=target.dtype)
            _read_into(file, _bytes_of(on_host))
            if not in_place:
                target.copy_(on_host)
            beat()
        _forget(file)


def _tensors(model: torch.nn.Module, *, trained_only: bool) -> dict[str, torch.Tensor]:
    tensors = model.state_dict()
    if not trained_only:
        return tensors
    return {name: tensors[name] for name, parameter in model.named_parameters() if parameter.requires_grad}


def _pieces(tensors: Mapping[str, torch.Tensor], told: Mapping[str, str]) -> Iterator[memoryview]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **told}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN_BYTES)
    yield memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    for tensor in tensors.values():
        whole = _bytes_of(tensor.detach().cpu().contiguous())
        for at in range(0, len(whole), _PIECE_BYTES):
            yield whole[at : at + _PIECE_BYTES]


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's own memory."""
    # numpy has no bfloat16: bytes are asked for, of one dimension at least.
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_header(file: FileIO) -> dict[str, Any]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def _write(file: FileIO, piece: memoryview) -> None:
    while len(piece):
        piece = piece[file.write(piece) :]
    os.fsync(file.fileno())
    _forget(file)


def _read_into(file: FileIO, target: memoryview) -> None:
    while len(target):
        num_read = file.readinto(target[:_PIECE_BYTES])
        if not num_read:
            raise ValueError("the file of weights ends too soon")
        target = target[num_read:]
        _forget(file)


def _forget(file: FileIO) -> None:
    """Let go of the file's pages in the page cache; macOS has no such call."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
