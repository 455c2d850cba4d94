"""Check in the measured process that a cell's precision is what its products are computed in, and is fast there."""

from __future__ import annotations

import os
import time

import torch

from harness.machine.variables import read_variables
from harness.schema.variables import find_spoilers
from harness.worker.device import Unsupported

# Side of the multiplied squares: 0.3 ms in fp32 on one core, and 20 ms in bf16 without instructions for it.
_SIZE = 256
_ROUNDS = 5
# Most that a product in bf16 may take, as a multiple of one in fp32. With instructions for bf16 it took 0.5 times as long
# (EPYC with avx512_bf16); emulated by AVX512 2.7, by AVX2 27 to 75 times.
_MAX_SLOWDOWN = 1.5
# fp32 keeps this value, TF32 (10 bits after the point) and bf16 (7 bits) round it to 1.
_NEEDS_FP32 = 1 + 2**-12


def require_precision(precision: str, device: torch.device, *, allow_slow: bool) -> None:
    """Refuse a precision that torch does not accelerate, or replaces, in this process.

    Args:
        precision: The cell's precision.
        device: The cell's device.
        allow_slow: Whether a slow bf16 is wanted.

    Raises:
        Unsupported: If bf16 is slower than fp32 on the CPU, or products of fp32 are computed in fewer bits.
    """
    if precision == "fp32" and not computes_fp32(device):
        raise Unsupported(
            f"products of fp32 are computed in fewer bits here{_causes(device)}, so that the cell's figures would be those of "
            "another precision"
        )
    if precision != "bf16" or device.type != "cpu" or allow_slow:
        return
    slowdown = bf16_slowdown()
    if slowdown > _MAX_SLOWDOWN:
        raise Unsupported(
            f"bf16 is not accelerated in this process (a product takes {slowdown:.1f} times as long as in fp32){_causes(device)}; "
            "training.allow_slow_precision = true runs it all the same"
        )


def computes_fp32(device: torch.device) -> bool:
    """Return whether a product of fp32 matrices keeps all bits of fp32."""
    values = torch.full((_SIZE, _SIZE), _NEEDS_FP32, device=device)
    identity = torch.eye(_SIZE, device=device)
    with torch.inference_mode():
        return bool((torch.nn.functional.linear(values, identity) == values).all())


def bf16_slowdown() -> float:
    """Return the time of a bf16 product on the CPU, divided by that of the same product in fp32; both on one thread."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # other ranks may need the other cores
    fp32 = torch.ones(_SIZE, _SIZE)
    bf16 = fp32.bfloat16()
    try:
        with torch.inference_mode():
            for matrix in (fp32, bf16):
                _seconds(matrix)  # the first product also prepares its kernel
            times = [(_seconds(bf16), _seconds(fp32)) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(num_threads)
    slow, fast = (min(column) for column in zip(*times, strict=True))
    return float(slow / fast)


def _seconds(matrix: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - began


def _causes(device: torch.device) -> str:
    spoiled = find_spoilers(read_variables(os.environ), on_gpu=device.type == "cuda")
    names = [f"{one.name}={one.value}" for one in spoiled if not one.spoiler.is_removed]
    return f" under {', '.join(names)} (unset it)" if names else ""
