"""Write and read a model's weights as safetensors, piece by piece, without a second copy of the model in memory.

The safetensors library would change the measured peak memory. Its writer makes no copy either, but leaves the whole file in
the page cache, which is charged to the control group. Its reader maps the file, and the mapped pages count as resident.
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

from harness.files import naming

# A file holds 8 bytes for the header's length, then the header, then the tensors.
# Source: https://github.com/huggingface/safetensors#format
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
    metadata: Mapping[str, str],
    on_progress: Callable[[], None] = lambda: None,
    *,
    trained_only: bool = False,
) -> tuple[str, int]:
    """Write a model's parameters and buffers atomically, leaving nothing in the page cache.

    Args:
        model: The model, on any device; its tensors are moved to the host one by one.
        path: The file to write; its folder must exist.
        metadata: Entries to add to the metadata in the file's header.
        on_progress: Called after every piece.
        trained_only: Whether to skip frozen parameters. They are mapped from the pretrained model's file, and reading them
            would bring pages into memory that no training step needs.

    Returns:
        SHA-256 of the file, and its size in bytes.

    Raises:
        OSError: If the file can't be written; an existing file then stays unchanged.
    """
    tensors = _tensors(model, trained_only=trained_only)
    partial = path.with_name(f"{path.name}.partial")
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with naming(path), partial.open("wb", buffering=0) as file:
            for piece in _pieces(tensors, metadata):
                digest.update(piece)
                _write(file, piece)
                num_bytes += len(piece)
                on_progress()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest.hexdigest(), num_bytes


def read_weights(
    model: torch.nn.Module, path: Path, on_progress: Callable[[], None] = lambda: None, *, trained_only: bool = False
) -> None:
    """Read weights that `write_weights` wrote back into the same model.

    Args:
        model: The model; its tensors are overwritten.
        path: The file to read.
        on_progress: Called after every tensor.
        trained_only: Whether the file holds only the trainable parameters.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the file belongs to another model.
    """
    tensors = _tensors(model, trained_only=trained_only)
    with path.open("rb", buffering=0) as file:
        header = _read_header(file)
        begin = file.tell()
        for name, tensor in tensors.items():
            entry = header.get(name, {})
            if (entry.get("shape"), entry.get("dtype")) != (list(tensor.shape), _DTYPES[tensor.dtype]):
                raise ValueError(f"{path.name}: {name} doesn't match this model")
            file.seek(begin + entry["data_offsets"][0])
            target = tensor.detach()
            in_place = target.device.type == "cpu" and target.is_contiguous()
            on_host = target if in_place else torch.empty(target.shape, dtype=target.dtype)
            _read_into(file, _bytes_of(on_host))
            if not in_place:
                target.copy_(on_host)
            on_progress()
        _drop_from_page_cache(file)


def _tensors(model: torch.nn.Module, *, trained_only: bool) -> dict[str, torch.Tensor]:
    tensors = model.state_dict()
    if not trained_only:
        return tensors
    return {name: tensors[name] for name, parameter in model.named_parameters() if parameter.requires_grad}


def _pieces(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGN_BYTES)
    yield memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    for tensor in tensors.values():
        content = _bytes_of(tensor.detach().cpu().contiguous())
        for position in range(0, len(content), _PIECE_BYTES):
            yield content[position : position + _PIECE_BYTES]


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return a view of a tensor's own memory."""
    # numpy has no bfloat16, so view the tensor as bytes; the view needs at least one dimension.
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _read_header(file: FileIO) -> dict[str, Any]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    header: dict[str, Any] = json.loads(file.read(length))
    return header


def _write(file: FileIO, piece: memoryview) -> None:
    while len(piece):
        piece = piece[file.write(piece) :]
    os.fsync(file.fileno())
    _drop_from_page_cache(file)


def _read_into(file: FileIO, target: memoryview) -> None:
    while len(target):
        num_read = file.readinto(target[:_PIECE_BYTES])
        if not num_read:
            raise ValueError("the weights file is truncated")
        target = target[num_read:]
        _drop_from_page_cache(file)


def _drop_from_page_cache(file: FileIO) -> None:
    """Drop the file's pages from the page cache; no-op on macOS, which has no such call."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
