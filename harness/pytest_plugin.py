"""A pytest plugin: the fixture `bert_cell` runs a cell, and your test asserts on its figures.

pytest loads this in every run of an environment that has the harness: only a test that uses the fixture imports more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from harness.workflows.measure_cell import MeasuredCell


class BertCell(Protocol):
    """Runs one cell; see `bert_cell`."""

    def __call__(self, *, check: bool = True, **keys: Any) -> MeasuredCell:  # noqa: ANN401 - checked as a study's keys
        """Run it."""


@pytest.fixture(scope="session")
def bert_cell(tmp_path_factory: pytest.TempPathFactory) -> BertCell:
    """Run a cell of the bert-cost-harness, and give its figures.

    Called as `cell = bert_cell(batch_size=16, seq_len=64, num_train=256, max_steps=40)`: with the keys of a study (`harness
    keys` lists them), those of its tables by their last part. It gives `cell.samples_per_s`, `cell.accuracy`, `cell.peak_memory_bytes`, ..., `cell.summary` with intervals and warnings, and
    `cell.record`. A cell that does not end well fails the test with its reason, unless `check=False`.
    """

    def run(*, check: bool = True, **keys: Any) -> MeasuredCell:  # noqa: ANN401
        from harness.workflows.measure_cell import measure_cell

        cell = measure_cell(keys, tmp_path_factory.mktemp("bert-cell"))
        if check and cell.outcome != "ok":
            pytest.fail(f"cell {cell.summary.cell} ended as {cell.outcome}: {cell.reason}", pytrace=False)
        return cell

    return run
