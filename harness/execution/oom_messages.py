"""Recognize messages of libraries that failed to allocate memory. Pure functions."""

from __future__ import annotations

# Parts of such messages, in lower case. Messages are searched because only some failures raise an exception type of
# their own.
OOM_PATTERNS = (
    "out of memory",  # CUDA's driver and runtime, torch, NCCL ("Cuda failure 2 'out of memory'"), libgomp
    "cannot allocate memory",  # ENOMEM in the C library
    "can't allocate memory",  # torch's DefaultCPUAllocator
    "not enough memory",  # torch's DefaultCPUAllocator, for an impossible size
    "memoryerror",
    "bad_alloc",  # C++; torch turns it into a RuntimeError, and in a detached thread it aborts the process
    "failed to map segment from shared object",  # the dynamic loader
    "memory allocation still failed",  # OpenBLAS
    "memory allocation of",  # Rust: "memory allocation of 96 bytes failed"
    "cudaerrormemoryallocation",
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSPARSE, cuSOLVER
    "status_internal_error_device_allocation_failed",  # cuDNN 9
    "status_internal_error_host_allocation_failed",
    "failed to cuda calloc",  # NCCL
    "failed to cuda host alloc",
)
# The dynamic loader's error for a library loaded too late: it contains a pattern above, but memory was not exhausted.
_NOT_OOM = "static tls block"


def find_oom_message(text: str) -> str | None:
    """Return the first line that reports a failed allocation; None if no line does."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if _is_oom(line.lower())), None)


def _is_oom(line: str) -> bool:
    return any(pattern in line for pattern in OOM_PATTERNS) and _NOT_OOM not in line
