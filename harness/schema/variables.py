"""Environment variables that change how fast, or in which precision, a cell computes (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

# Beginnings of the names that go into a record: OpenMP's runtimes, MKL, oneDNN, torch, CUDA's libraries and malloc.
_PREFIXES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_"),
    *("ATEN_", "TORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "PYTORCH_", "CUBLAS_", "CUBLASLT_", "CUDNN_", "NCCL_"),
    *("NVIDIA_TF32_OVERRIDE", "CUDA_LAUNCH_BLOCKING", "CUDA_DEVICE_MAX_CONNECTIONS"),
    *("MALLOC_", "GLIBC_TUNABLES"),
)  # fmt: skip
# Folders, versions, addresses and what only prints once: these change no figure.
_NEUTRAL_ENDINGS = ("_HOME", "_DIR", "_PATH", "_ROOT", "_VERSION", "_ARCH_LIST", "_IFNAME", "_COMM_ID", "_HOSTID")


@dataclass(frozen=True)
class Spoiler:
    """Variables that spoil figures in the same way.

    Attributes:
        names: Names of the variables.
        effect: What the variable does, as the rest of a sentence that begins with its name.
        harmless: Values that change nothing, in lower case.
        device: Device whose cells are spoiled.
        is_removed: Whether ranks are started without the variable, because it contradicts the study or the harness.
        changes_precision: Whether it replaces the precision that the study names.
    """

    names: tuple[str, ...]
    effect: str
    harmless: tuple[str, ...] = ()
    device: Literal["cpu", "gpu", "any"] = "any"
    is_removed: bool = False
    changes_precision: bool = False


@dataclass(frozen=True)
class Spoiled:
    """A variable that is set and spoils figures."""

    name: str
    value: str
    spoiler: Spoiler


_SPOILERS = (
    # Each rank's OpenMP runtime binds its threads to the first CPUs of the same list.
    Spoiler(
        ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET"),
        "binds the threads of all ranks to the same first CPUs",
        harmless=("false", "disabled", "none"),
        is_removed=True,
    ),
    Spoiler(
        ("OMP_THREAD_LIMIT", "KMP_DEVICE_THREAD_LIMIT"),
        "lets fewer threads work than the cell's `threads`",
        is_removed=True,
    ),
    Spoiler(
        ("OMP_DYNAMIC",),
        "lets fewer threads work than the cell's `threads` while others use the CPUs",
        harmless=("false", "0"),
        is_removed=True,
    ),
    Spoiler(
        ("OMP_MAX_ACTIVE_LEVELS",),
        "lets one thread work, whatever the cell's `threads`",
        harmless=tuple(map(str, range(1, 256))),
        is_removed=True,
    ),
    Spoiler(
        ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
        "keeps oneDNN from instructions that the CPU may have, without which bf16 takes many times as long",
        harmless=("all", "default"),
        device="cpu",
    ),
    Spoiler(
        ("ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"),
        "keeps torch from instructions that the CPU may have",
        device="cpu",
    ),
    Spoiler(
        ("MKL_CBWR",),
        "keeps MKL from its fastest products",
        harmless=("auto", "branch_off"),
        device="cpu",
    ),
    Spoiler(
        ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
        "lets oneDNN compute products of fp32 in fewer bits",
        harmless=("strict",),
        device="cpu",
        changes_precision=True,
    ),
    Spoiler(
        ("NVIDIA_TF32_OVERRIDE",),
        "replaces the study's choice between fp32 and tf32",
        device="gpu",
        changes_precision=True,
    ),
    Spoiler(
        ("ONEDNN_VERBOSE", "DNNL_VERBOSE", "MKL_VERBOSE"),
        "prints a line for each product, inside timed steps",
        harmless=("0", "none", "error", "check"),
        device="cpu",
    ),
    Spoiler(("CUDA_LAUNCH_BLOCKING",), "waits for each kernel", harmless=("0",), device="gpu"),
    Spoiler(("PYTORCH_NO_CUDA_MEMORY_CACHING",), "asks the driver for each tensor's memory", device="gpu"),
    Spoiler(
        ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"),
        "runs cells of `training.compile` without torch.compile",
        harmless=("0", "false"),
    ),
    Spoiler(
        ("TORCH_DISTRIBUTED_DEBUG",),
        "adds checks to each exchange between ranks, inside timed steps",
        harmless=("off", "info"),
    ),
)  # fmt: skip

# Variables that ranks are started without.
REMOVED = tuple(name for spoiler in _SPOILERS if spoiler.is_removed for name in spoiler.names)


def is_recorded(name: str) -> bool:
    """Return whether a variable belongs in a record."""
    return name.startswith(_PREFIXES) and not name.endswith(_NEUTRAL_ENDINGS)


def find_spoilers(environment: Mapping[str, str] | None, *, on_gpu: bool) -> Iterator[Spoiled]:
    """Yield the variables that spoil figures.

    Args:
        environment: Variables by name; None when they were not recorded.
        on_gpu: Whether the figures are those of a GPU.
    """
    for spoiler in _SPOILERS:
        if spoiler.device == ("cpu" if on_gpu else "gpu"):
            continue
        for name in spoiler.names:
            value = (environment or {}).get(name, "")
            if value.strip() and value.strip().lower() not in spoiler.harmless:
                yield Spoiled(name, value, spoiler)


def obeyed_spoilers(environment: Mapping[str, str] | None, *, on_gpu: bool) -> frozenset[tuple[str, str]]:
    """Return name and value of each variable that spoils figures and is not taken from the ranks."""
    return frozenset(
        (spoiled.name, spoiled.value)
        for spoiled in find_spoilers(environment, on_gpu=on_gpu)
        if not spoiled.spoiler.is_removed
    )
