"""Write arrays in numpy's format, with the errors of the file system as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.files import naming


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an array that `np.load` reads.

    Not by `np.save`: on a full disk it raises "4096 requested and 1024 written", without the error's number and the file.

    Raises:
        OSError: The file can't be written.
    """
    rows = np.ascontiguousarray(values)
    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(rows))
        file.write(rows.data)
