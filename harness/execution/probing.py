"""Probe cells that compute alike, and predict what each cell of a study will take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.analysis.estimate import Estimate
from harness.dataset.corpus import SPLITS
from harness.dataset.sources import read_model_shape
from harness.dataset.tokens import load_tokens
from harness.errors import UserError
from harness.execution.completed import fresh_records
from harness.execution.hidden_paths import hide_homes, hide_homes_of_config
from harness.execution.jobs import Environment, PreparedCell, TrainJob
from harness.execution.planned_work import Shape, plan_cell
from harness.execution.runner import Runner
from harness.machine.support import num_ranks, unsupported_reason
from harness.prediction.cell_memory import predict_peak_bytes
from harness.prediction.cell_time import CellTime, GroupTime, group_time, predict_cell
from harness.prediction.compute_group import compute_group
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.model_shapes import ModelShape, require_predicted_memory
from harness.schema.probe_record import CellWork, Predicted
from harness.schema.record import Record
from harness.schema.settings import ModelSettings
from harness.store.unsaved_records import save_or_keep

STUDY = "probes"
# Of the seconds that a study is predicted to take, what its probes may take, and bounds of that in seconds.
_SHARE, _MIN_S, _MAX_S = 0.05, 10.0, 40.0
_QUANTILES = (0.5, 0.9, 0.1)  # of tokens a batch, in the order of probing
_FLOP_PER_PARAMETER = 6  # of a token: 2 in the forward pass, 4 in the backward pass
_BERT_BASE_PARAMETERS = 85e6
_MIN_SHAPES = 3  # as many as a fit has coefficients

OnProbe = Callable[[Cell], None]


@dataclass(frozen=True)
class Planned:
    """A cell that this machine can run, with what it computes.

    Attributes:
        model: Sizes of its model; None where memory is not predicted.
        inputs: Its prepared inputs; None where it is known from an earlier probe, and can't be probed itself.
        shapes: The shapes of its micro-batches; empty without inputs.
    """

    cell: Cell
    config: FineTuneConfig
    work: CellWork
    num_ranks: int
    num_labels: int
    model: ModelShape | None
    inputs: PreparedCell | None = None
    shapes: frozenset[Shape] = frozenset()

    @property
    def group(self) -> str:
        """Hash that is equal for cells that compute alike."""
        return _group(self.config)


def plan_cells(cells: Sequence[Cell], prepared: Sequence[PreparedCell], machine: Machine) -> list[Planned]:
    """Plan the fine-tuning cells that this machine supports, alone or with others of its kind, each configuration once."""
    planned: dict[str, Planned] = {}
    lengths: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for cell, inputs in zip(cells, prepared, strict=True):
        config, job = cell.config, inputs.job
        is_known = cell.config_hash in planned
        if is_known or not isinstance(config, FineTuneConfig) or not isinstance(job, TrainJob):
            continue
        if unsupported_reason(config, machine, num_nodes=config.num_nodes) is not None:
            continue
        world_size = num_ranks(config, machine)
        if job.tokens_folder not in lengths:
            train, val, test = (load_tokens(job.tokens_folder, split).lengths for split in SPLITS)
            lengths[job.tokens_folder] = (train, val, test)
        work, shapes = plan_cell(config, *lengths[job.tokens_folder], world_size)
        model, num_labels = _model_shape(config.model), len(inputs.data.labels)
        planned[cell.config_hash] = Planned(
            cell, config, work, world_size, num_labels, model, inputs, frozenset(shapes)
        )
    return list(planned.values())


def recall_cells(cells: Sequence[Cell], probes: Iterable[Record], machine: Machine) -> list[Planned]:
    """Plan the cells that earlier probes of this machine planned, without reading any data."""
    works = {
        config_hash: (work, len(record.data.labels))
        for record in fresh_records(probes, machine)
        if record.probe is not None and record.data is not None
        for config_hash, work in record.probe.planned.items()
    }
    planned: dict[str, Planned] = {}
    models: dict[ModelSettings, ModelShape | None] = {}
    for cell in cells:
        config = cell.config
        if not isinstance(config, FineTuneConfig) or cell.config_hash not in works:
            continue
        work, num_labels = works[cell.config_hash]
        if config.model not in models:
            models[config.model] = _model_shape(config.model)
        ranks, model = num_ranks(config, machine), models[config.model]
        planned[cell.config_hash] = Planned(cell, config, work, ranks, num_labels, model)
    return list(planned.values())


@dataclass(frozen=True)
class CellPrediction:
    """What a cell will take.

    Attributes:
        time: Its seconds and speed.
        peak_bytes: Its peak memory over all ranks; None where memory is not predicted.
    """

    time: CellTime
    peak_bytes: Estimate | None

    def as_predicted(self) -> Predicted:
        """Return the figures that a record keeps."""
        fields: dict[str, float | int | None] = {}
        for name, estimate in (("seconds", self.time.seconds), ("samples_per_s", self.time.samples_per_s)):
            fields |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        if (peak := self.peak_bytes) is not None:
            ends = {"peak_bytes": peak.value, "peak_bytes_low": peak.low, "peak_bytes_high": peak.high}
            fields |= {name: None if end is None else round(end) for name, end in ends.items()}
        return Predicted.model_validate(fields | {"basis": self.time.basis})


class StudyPrediction:
    """What the cells of a study will take, from fresh probes and records of this machine."""

    def __init__(self, planned: Sequence[Planned], records: Iterable[Record], machine: Machine) -> None:
        """Sort what is known by compute group.

        Args:
            planned: The study's cells.
            records: This machine's probes and runs, oldest first.
            machine: This machine.
        """
        self._planned = {each.cell.config_hash: each for each in planned}
        self._known: dict[str, list[Record]] = defaultdict(list)
        self._times: dict[str, GroupTime | None] = {}
        for record in fresh_records(records, machine):
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take in a probe or run that just ended here."""
        if isinstance(record.config, FineTuneConfig) and record.outcome == "ok":
            group = _group(record.config)
            self._known[group].append(record)
            self._times.pop(group, None)

    def predict(self, config_hash: str) -> CellPrediction | None:
        """Predict a cell; None if nothing is known of its group, or if it is no fine-tuning cell."""
        each = self._planned.get(config_hash)
        time_ = None if each is None else self._time(each.group)
        if each is None or time_ is None:
            return None
        peak = None if each.model is None else predict_peak_bytes(
            each.config, each.model, each.num_labels, longest=each.work.longest, num_shapes=each.work.training.num_shapes,
            num_ranks=each.num_ranks, known=self._known[each.group],
        )  # fmt: skip
        has_diagnostics = each.config.measure == "all"
        return CellPrediction(predict_cell(each.work, time_, has_diagnostics=has_diagnostics), peak)

    def _time(self, group: str) -> GroupTime | None:
        if group not in self._times:
            self._times[group] = group_time(self._known.get(group, ()))
        return self._times[group]

    def probe(
        self,
        runner: Runner,
        results: Path,
        environment: Environment,
        on_probe: OnProbe = lambda _: None,
        *,
        limit_s: float | None = None,
    ) -> list[Record]:
        """Probe groups of which nothing is known, those that compute most first.

        Args:
            runner: Runs the probes.
            results: Folder for their records.
            environment: Facts about this machine and checkout.
            on_probe: Called before each probe.
            limit_s: Seconds after which no further probe begins; None: 5 % of the predicted time, from 10 to 40 s.

        Returns:
            The probes' records. Those that succeeded are saved below `results`; one that failed is no run of any cell.

        Raises:
            KeyboardInterrupt: Ctrl-C ended a probe.
        """
        began = time.perf_counter()
        records: list[Record] = []
        for members in self._unknown_groups():
            limit = min(_MAX_S, max(_MIN_S, _SHARE * self._predicted_s())) if limit_s is None else limit_s
            if records and time.perf_counter() - began > limit:
                break
            record = hide_homes(_probe_group(members, runner, environment, on_probe))
            records.append(record)
            if record.probe is not None:
                save_or_keep(record, results)
                self.learn(record)
            if record.outcome == "interrupted":
                raise KeyboardInterrupt
        return records

    @property
    def unknown_flop(self) -> float:
        """FLOPs of the training of cells that nothing is known of, roughly: to tell a long study from a short one."""
        unknown = [each for members in self._unknown_groups() for each in members]
        return sum(_FLOP_PER_PARAMETER * _encoder_parameters(each) * each.work.training.num_tokens for each in unknown)

    def _unknown_groups(self) -> list[list[Planned]]:
        groups: dict[str, list[Planned]] = defaultdict(list)
        for each in self._planned.values():
            # One machine can't probe what several compute.
            if each.inputs is not None and each.config.num_nodes == 1 and self._time(each.group) is None:
                groups[each.group].append(each)
        return sorted(groups.values(), key=_num_tokens, reverse=True)

    def _predicted_s(self) -> float:
        predictions = [self.predict(config_hash) for config_hash in self._planned]
        return sum(each.time.seconds.value for each in predictions if each is not None)


def _probe_group(members: Sequence[Planned], runner: Runner, environment: Environment, on_probe: OnProbe) -> Record:
    # The longest rows have token ids for every shape.
    longest = max(members, key=lambda each: each.config.seq_len)
    config = longest.config
    name = f"{config.precision}-{config.device}-{config.trainable}-{longest.group}"
    cell = Cell(study=STUDY, name=name, repeat=0, config=config)
    on_probe(cell)
    inputs = longest.inputs
    assert inputs is not None and isinstance(inputs.job, TrainJob)  # noqa: S101 - as _unknown_groups takes no other
    shapes = choose_shapes(frozenset().union(*(each.shapes for each in members)))
    prepared = replace(inputs, job=replace(inputs.job, probe=shapes))
    record = runner.run(cell, prepared, environment)
    if record.probe is None:
        return record
    planned = {each.cell.config_hash: each.work for each in members}
    return record.model_copy(update={"probe": record.probe.model_copy(update={"planned": planned})})


def choose_shapes(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """Choose batches that tell apart what a batch, a token and a pair of tokens cost.

    Takes quantiles by tokens and the longest rows; where the cells have too few shapes, halves of them.
    """
    ordered = sorted(set(shapes), key=lambda shape: shape[0] * shape[1])
    chosen = [ordered[round(quantile * (len(ordered) - 1))] for quantile in _QUANTILES]
    chosen.append(max(ordered, key=lambda shape: (shape[1], shape[0])))
    largest = chosen[1]
    halves = [(max(1, largest[0] // 2), largest[1]), (largest[0], max(4, largest[1] // 2))]
    distinct = list(dict.fromkeys(chosen))
    return tuple(dict.fromkeys(distinct + halves[: max(0, _MIN_SHAPES - len(distinct))]))


def _model_shape(model: ModelSettings) -> ModelShape | None:
    try:
        shape = read_model_shape(model)
        require_predicted_memory(shape)
    except UserError:
        return None
    return shape


def _group(config: FineTuneConfig) -> str:
    """Return the compute group, by the paths that a record keeps of the model."""
    return compute_group(hide_homes_of_config(config))


def _encoder_parameters(each: Planned) -> float:
    return _BERT_BASE_PARAMETERS if each.model is None else each.model.layers * each.model.layer_parameters


def _num_tokens(members: Sequence[Planned]) -> int:
    return sum(each.work.training.num_tokens for each in members)
