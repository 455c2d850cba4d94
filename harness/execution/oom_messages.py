"""Which words say that memory ran out, whoever says them (pure)."""

from __future__ import annotations

# Each is an allocation that failed; only some of them come as an exception of their own. Compared in lower case.
OOM_PATTERNS = (
    "out of memory",  # CUDA's driver and runtime, torch, NCCL ("Cuda failure 2 'out of memory'"), libgomp
    "cannot allocate memory",  # ENOMEM, as the C library words it
    "can't allocate memory",  # DefaultCPUAllocator
    "not enough memory",  # DefaultCPUAllocator, of a size that can't be
    "memoryerror",
    "bad_alloc",  # C++'s own, which torch passes on as a RuntimeError, and which ends a thread that nobody waits for
    "failed to map segment from shared object",  # the loader, of a library that did not fit
    "memory allocation still failed",  # OpenBLAS
    "memory allocation of",  # Rust: "memory allocation of 96 bytes failed"
    "cudaerrormemoryallocation",
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER
    "status_internal_error_device_allocation_failed",  # cuDNN 9
    "status_internal_error_host_allocation_failed",
    "failed to cuda calloc",  # NCCL
    "failed to cuda host alloc",
)
# The loader's complaint of a library loaded too late: no memory was short.
_NO_SIGN = "static tls block"


def find_oom_message(text: str) -> str | None:
    """The first line that says that memory ran out; None when none does."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if _is_sign(line.lower())), None)


def _is_sign(line: str) -> bool:
    return any(sign in line for sign in OOM_PATTERNS) and _NO_SIGN not in line
