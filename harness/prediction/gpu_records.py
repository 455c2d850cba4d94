"""Steps of GPUs that this harness measured, for the fit beside the published ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from harness.analysis.mfu import num_token_pairs
from harness.analysis.throughput import measure_windows
from harness.prediction.gpu_cell import datasheet
from harness.prediction.gpu_speed import MeasuredStep
from harness.prediction.published_rows import LOOPS, PublishedRow
from harness.prediction.step_work import HARNESS_LOOP, training_work
from harness.pricing.price_search import find_hardware, hardware_named
from harness.pricing.price_table import PriceTable
from harness.schema.cells import FineTuneConfig
from harness.schema.inputs_record import ModelFacts
from harness.schema.model_shapes import ModelShape
from harness.schema.record import Record


class _Window(NamedTuple):
    """The batches of a run's measured steps."""

    num_batches: int
    num_tokens: int
    num_pairs: int


def measured_steps(
    published: Iterable[PublishedRow], records: Iterable[Record], table: PriceTable
) -> list[MeasuredStep]:
    """Return the published steps, and those of the records' runs on one whole GPU that hardware.csv has."""
    steps = []
    for row in published:
        hardware = hardware_named(table, row.hardware)
        sheet = None if hardware is None else datasheet(hardware, row.precision)
        if sheet is not None:
            steps.append(MeasuredStep(sheet, row.work(), LOOPS[row.protocol], row.seconds))
    return steps + [step for record in records if (step := _step(record, table)) is not None]


def _step(record: Record, table: PriceTable) -> MeasuredStep | None:
    config, training, model = record.config, record.training, record.model
    if not isinstance(config, FineTuneConfig) or not config.on_gpu or record.outcome != "ok":
        return None
    if training is None or model is None or training.world_size > 1 or not record.machine.gpus:
        return None
    name = record.machine.gpus[0].name
    hardware = None if " MIG " in name else find_hardware(table, name)
    sheet = None if hardware is None else datasheet(hardware, config.precision)
    window = next(iter(measure_windows([training])), None)
    if sheet is None or window is None:
        return None
    batches = _Window(len(window.seconds), sum(window.num_padded_tokens), round(num_token_pairs(training, window)))
    work = training_work(config, _shape(model), batches, sum(window.num_samples))
    return MeasuredStep(sheet, work, HARNESS_LOOP, sum(window.seconds))


def _shape(model: ModelFacts) -> ModelShape:
    return ModelShape(
        model.hidden_size, model.num_layers, model.num_heads, model.intermediate_size, vocab=model.vocab_size
    )
