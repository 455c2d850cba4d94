"""A pytest plugin with the fixture `bert_cell`, which runs one cell so that a test can assert on its figures.

pytest loads this module in every environment that has the harness installed, so it imports the rest of the harness only
when a test uses the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from harness.workflows.measure_cell import MeasuredCell


class BertCell(Protocol):
    """The callable that the fixture `bert_cell` returns."""

    def __call__(self, *, check: bool = True, **keys: Any) -> MeasuredCell:  # noqa: ANN401 - checked as a study's keys
        """Run one cell.

        Args:
            check: Fail the test unless the cell's outcome is `ok`.
            keys: Study keys; a key in a table is given by its last part, e.g. `num_train=256` for `data.num_train`.
        """


@pytest.fixture(scope="session")
def bert_cell(tmp_path_factory: pytest.TempPathFactory) -> BertCell:
    """Return a function that runs one cell and returns its figures.

    Call the function with study keys (`harness keys` lists them); a key in a table is given by its last part:
    `cell = bert_cell(batch_size=16, seq_len=64, num_train=256, max_steps=40)`. The result has figures such as
    `cell.samples_per_s`, `cell.accuracy` and `cell.peak_memory_bytes`, `cell.summary` with intervals and warnings, and
    `cell.record`.
    A cell with an outcome other than `ok` fails the test with its reason, unless `check=False`.
    """
    from harness.machine.private_folders import remove_abandoned_folders

    remove_abandoned_folders()

    def run(*, check: bool = True, **keys: Any) -> MeasuredCell:  # noqa: ANN401
        from harness.workflows.measure_cell import measure_cell

        cell = measure_cell(keys, tmp_path_factory.mktemp("bert-cell"))
        if check and cell.outcome != "ok":
            pytest.fail(f"cell {cell.summary.cell} ended as {cell.outcome}: {cell.reason}", pytrace=False)
        return cell

    return run
