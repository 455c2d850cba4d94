"""Mapping from gpuhunt's GPU families to the boards in hardware.csv (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from harness.pricing.price_rows import HardwareRow

# Patterns of "GPU provider instance", and the board; the first match counts. gpuhunt names only the GPU's family, so
# provider and instance are needed to identify the board.
_BOARDS: tuple[tuple[str, str], ...] = (
    (r"T4 .*", "NVIDIA Tesla T4"),
    (r"V100 aws p3\..*|V100 gcp .*", "NVIDIA Tesla V100-SXM2-16GB"),
    (r"V100 aws p3dn\..*", "NVIDIA Tesla V100-SXM2-32GB"),
    (r"V100 azure Standard_ND.*", "NVIDIA Tesla V100-SXM2-32GB"),
    (r"V100 azure Standard_NC.*", "NVIDIA Tesla V100-PCIE"),
    (r"P100 gcp .*", "NVIDIA Tesla P100-PCIE-16GB"),
    (r"A100 azure Standard_NC.*", "NVIDIA A100 80GB PCIe"),
    (r"A100 lambda gpu_1x_a100", "NVIDIA A100-PCIE-40GB"),
    (r"A100 (aws p4d\.|gcp a2-highgpu|gcp a2-megagpu|azure Standard_ND96asr|lambda gpu_\d+x_a100$).*", "NVIDIA A100-SXM4-40GB"),
    (r"A100 (aws p4de\.|gcp a2-ultragpu|azure Standard_ND96amsr|lambda .*sxm4).*", "NVIDIA A100-SXM4-80GB"),
    (r"H100 lambda .*pcie.*", "NVIDIA H100 PCIe"),
    (r"H100 (aws|gcp|azure Standard_ND|lambda .*sxm5).*", "NVIDIA H100 80GB HBM3"),
    (r"H100NVL .*", "NVIDIA H100 NVL"),
    (r"H200 .*", "NVIDIA H200"),
    (r"B200 .*", "NVIDIA B200"),
    (r"A10 .*", "NVIDIA A10"),
    (r"A10G .*", "NVIDIA A10G"),
    (r"A30 .*", "NVIDIA A30"),
    (r"A40 .*", "NVIDIA A40"),
    (r"A6000 .*", "NVIDIA RTX A6000"),
    (r"L4 .*", "NVIDIA L4"),
    (r"L40 .*", "NVIDIA L40"),
    (r"L40S .*", "NVIDIA L40S"),
    (r"RTX3090 .*", "NVIDIA GeForce RTX 3090"),
    (r"RTX4090 .*", "NVIDIA GeForce RTX 4090"),
    (r"RTX6000Ada .*", "NVIDIA RTX 6000 Ada Generation"),
)  # fmt: skip
# Largest relative difference in memory. A larger one shows a fraction of a card, which is sold under the card's name.
# Smaller ones are rounding: providers state 24 GB where the driver reports 22.5.
_MEMORY_TOLERANCE = 0.15


class Offer(Protocol):
    """A gpuhunt catalog item: one instance type in one location, on demand or spot."""

    provider: str
    instance_name: str | None
    location: str | None
    price: float | None
    cpu: int | None
    memory: float | None
    gpu_count: int
    gpu_name: str | None
    gpu_memory: float | None
    spot: bool


def find_board(offer: Offer, provider: str, hardware: Sequence[HardwareRow]) -> str | None:
    """Return the name in hardware.csv of an offer's GPU; None if no board matches, or the board's memory differs."""
    description = f"{offer.gpu_name} {provider} {offer.instance_name}"
    name = next((name for pattern, name in _BOARDS if re.fullmatch(pattern, description)), None)
    if provider == "runpod":  # its instances have NVML's names of their boards
        instance = offer.instance_name or ""
        name = next((row.name for row in hardware if re.search(row.match, instance, re.IGNORECASE)), None)
    board = next((row for row in hardware if row.name == name), None)
    if board is None or offer.gpu_memory is None:
        return None
    return board.name if abs(offer.gpu_memory / board.memory_gib - 1) <= _MEMORY_TOLERANCE else None
