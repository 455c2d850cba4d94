"""Out-of-memory messages that this machine can't produce, as recorded by others."""

from __future__ import annotations

import pytest

from harness.execution.oom_messages import find_oom_message

# Each with the place where it was recorded, or the source that defines it.
RECORDED = {
    # https://github.com/murong-xu/CADS/issues/4
    "torch": (
        "CUDA out of memory. Tried to allocate 22.78 GiB. GPU 0 has a total capacity of 31.47 GiB of which 12.73 GiB is "
        "free. Including non-PyTorch memory, this process has 18.73 GiB memory in use."
    ),
    # The CUDA runtime's text for error 2, cudaErrorMemoryAllocation (CUDA Runtime API, "Data types")
    "driver": "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    # https://github.com/QwenLM/Qwen3/issues/873
    "cuBLAS": "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    # https://github.com/pytorch/pytorch/issues/20123
    "cuDNN": "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    # Written from cuDNN 9's list of cudnnStatus_t, not recorded
    "cuDNN 9": "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    # https://github.com/NVIDIA/nccl/issues/1235 (NCCL's log) and /issues/1410 (torch's message around it)
    "NCCL": (
        "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:275, unhandled cuda error (run with "
        "NCCL_DEBUG=INFO for details), NCCL version 2.20.5\nncclUnhandledCudaError: Call to CUDA function failed.\n"
        "Last error:\nCuda failure 2 'out of memory'"
    ),
    "NCCL's log": "node2:24881:25568 [2] include/alloc.h:185 NCCL WARN Failed to CUDA calloc 10485760 bytes",
    # C++'s standard library, when an exception leaves a thread
    "C++": "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc",
    # OpenBLAS's memory.c
    "OpenBLAS": "OpenBLAS error: Memory allocation still failed after 10 attempts, giving up.",
    # Rust's alloc::handle_alloc_error, under safetensors and tokenizers
    "Rust": "memory allocation of 4096 bytes failed",
}


@pytest.mark.parametrize("message", RECORDED.values(), ids=RECORDED.keys())
def test_a_recorded_message_is_recognized(message):
    assert find_oom_message(message) in message.splitlines()


def test_the_line_about_memory_is_returned():
    assert find_oom_message(RECORDED["NCCL"]) == "Cuda failure 2 'out of memory'"


@pytest.mark.parametrize(
    "message",
    [
        # https://github.com/NVIDIA/nccl/issues/1410: another error of NCCL
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 1 'invalid argument'",
        "CUDA error: an illegal memory access was encountered",
        "libgomp.so.1: cannot allocate memory in static TLS block",
        "Connection reset by peer",
        "",
    ],
)
def test_other_errors_are_not_out_of_memory(message):
    assert find_oom_message(message) is None
