"""The C library's allocator: whether it can be told, and telling it (no torch)."""

from __future__ import annotations

import ctypes

# malloc.h's name and number. Blocks of this size and more come from a mapping of their own, which goes back to the
# system when they are freed. Setting it also ends glibc's habit of raising the threshold to the largest block that
# was freed so far (man 3 mallopt), after which most of BERT's tensors would lie in the heap and fragment it.
_M_MMAP_THRESHOLD = -3
MMAP_THRESHOLD_BYTES = 64 * 1024
# A block's own mapping counts against the system's limit of mappings (65,530 by default), and glibc's own (65,536).


def mmap_large_blocks() -> None:
    """Make this process's malloc map every block of 64 KiB and more by itself, from now on.

    Raises:
        OSError: When the C library refuses, or has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) != 1:
        raise OSError("the C library took no mapping threshold (mallopt)")
