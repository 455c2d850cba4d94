"""Throughputs of GPUs that others measured and published: bench/published_gpu_throughput.csv."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.prediction.step_work import GpuWork, Loop, training_work
from harness.pricing.price_rows import AsOf, Hardware, Positive, PositiveCount, Text
from harness.pricing.price_table import PriceTable, load_table
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import load_model_shape
from harness.schema.settings import Precision, Settings, Shape
from harness.shipped import tables_folder

Protocol = Literal["squad-apex"]

# How the published loops differ from this harness's. squad-apex: NVIDIA's run_squad.py with apex O2, which halves the model's
# states too, attention of separate operators, a loss scale that is read in every step, and a data loader of single rows.
LOOPS: dict[Protocol, Loop] = {
    "squad-apex": Loop(fused_attention=False, fp32_states=False, waits_for_gpu=True, prepares_rows=True)
}


class PublishedRow(Settings):
    """The throughput of one GPU in one run of full fine-tuning; every row of the batch is padded to `seq_len`.

    Attributes:
        hardware: The GPU's name in hardware.csv.
        protocol: The training loop.
        measured_on: Day of the measurement, or its year.
        as_of: Day of the source's state.
    """

    hardware: Hardware
    model: Shape
    precision: Precision
    seq_len: PositiveCount
    batch_size: PositiveCount
    samples_per_s: Positive
    protocol: Protocol
    measured_on: Annotated[Text, Field(pattern=r"^\d{4}(-\d\d-\d\d)?$")]
    as_of: AsOf
    source: Text

    @property
    def num_batches(self) -> int:
        """One batch."""
        return 1

    @property
    def num_tokens(self) -> int:
        """Tokens in the batch."""
        return self.batch_size * self.seq_len

    @property
    def num_pairs(self) -> int:
        """Token pairs in the batch."""
        return self.num_tokens * self.seq_len

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return self.batch_size / self.samples_per_s

    def work(self) -> GpuWork:
        """Count the work of one step."""
        config = FineTuneConfig.model_validate(
            {"batch_size": self.batch_size, "seq_len": self.seq_len, "precision": self.precision, "device": "gpu"}
            | {
                "padding": "max",
                "trainable": "all",
                "threads": None,
                "seed": 0,
                "data": {},
                "training": {},
                "limits": {},
            }
            | {"model": {"shape": self.model, "init": "random"}}
        )
        shape = load_model_shape(config.model, None)
        return training_work(config, shape, self, self.batch_size, LOOPS[self.protocol])


def load_published(table: PriceTable, path: Path | None = None) -> tuple[PublishedRow, ...]:
    """Read the published rows.

    Args:
        table: The price table, whose hardware the rows may name.
        path: The file; None for the shipped one.

    Raises:
        UserError: If the file has mistakes, or a GPU that hardware.csv lacks.
    """
    path = path or tables_folder() / "published_gpu_throughput.csv"
    context = {
        "hardware": frozenset(row.name for row in table.hardware),
        "today": table.today or datetime.now(UTC).date(),
    }
    key = ("hardware", "model", "precision", "seq_len", "batch_size", "protocol")
    return load_table(path, PublishedRow, key, context)
