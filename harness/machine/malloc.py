"""Control the C library's malloc: its mmap threshold, and the memory that it keeps. Imports no torch."""

from __future__ import annotations

import ctypes

# mallopt's number for the mmap threshold, from malloc.h. malloc gives every block of at least this many bytes a mapping
# of its own, which goes back to the system when the block is freed. Setting the threshold also stops glibc from raising
# it to the size of the largest freed block (man 3 mallopt); otherwise most of BERT's tensors would be on the heap and
# fragment it.
_M_MMAP_THRESHOLD = -3
# Not smaller, because the number of mappings is limited by the system (65,530 by default) and by glibc (65,536).
MMAP_THRESHOLD_BYTES = 64 * 1024


def trim_heap() -> None:
    """Return the heap's free memory to the system; does nothing where the C library has no malloc_trim."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def mmap_large_blocks() -> None:
    """Make this process's malloc map every block of 64 KiB or more separately, from now on.

    Raises:
        OSError: When the C library rejects the setting or has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) != 1:
        raise OSError("the C library rejected the mapping threshold (mallopt)")
