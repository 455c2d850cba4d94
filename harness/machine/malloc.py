"""Set the mmap threshold of the C library's malloc. Imports no torch."""

from __future__ import annotations

import ctypes

# Name and number in malloc.h. Blocks of at least this size get a mapping of their own, which is returned to the system
# when they are freed. Setting the threshold also stops glibc from raising it to the size of the largest freed block
# (man 3 mallopt); otherwise most of BERT's tensors would be on the heap and fragment it.
_M_MMAP_THRESHOLD = -3
# Every mapping counts towards the system's limit (65,530 by default) and glibc's own (65,536).
MMAP_THRESHOLD_BYTES = 64 * 1024


def mmap_large_blocks() -> None:
    """Make this process's malloc map every block of 64 KiB or more separately, from now on.

    Raises:
        OSError: When the C library rejects the setting or has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) != 1:
        raise OSError("the C library rejected the mapping threshold (mallopt)")
