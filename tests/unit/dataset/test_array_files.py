"""Arrays are written whole, and a full disk is told with its number and the file."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from harness.dataset.array_files import save_array
from tests.small_disk import fill, small_disk


@pytest.mark.parametrize(
    "values",
    [np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 2), np.int32), np.arange(9)[::2], np.array([True])],
    ids=["2-D", "Fortran order", "empty", "strided", "bool"],
)  # fmt: skip
def test_numpy_reads_what_is_written(tmp_path, values):
    save_array(tmp_path / "a.npy", values)
    read = np.load(tmp_path / "a.npy", mmap_mode="r" if values.size else None)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_a_full_disk_is_told_with_its_number_and_the_file(tmp_path):
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        fill(disk)
        with pytest.raises(OSError) as failed:  # np.save: "20000 requested and 0 written", without a number
            save_array(disk / "a.npy", np.zeros(20_000))
    assert (failed.value.errno, failed.value.filename) == (errno.ENOSPC, str(disk / "a.npy"))
