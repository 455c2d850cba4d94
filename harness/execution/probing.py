"""Probe cells that compute alike, and predict what each cell of a study will take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.analysis.estimate import Estimate
from harness.dataset.sources import locate_model
from harness.dataset.tokens import load_tokens
from harness.errors import UserError
from harness.execution.completed import fresh_records
from harness.execution.jobs import Environment, PreparedCell, TrainJob
from harness.execution.planned_work import Shape, cell_work, step_shapes
from harness.execution.runner import Runner
from harness.machine.support import num_ranks, unsupported_reason
from harness.prediction.cell_memory import predict_peak_bytes
from harness.prediction.cell_time import CellTime, group_time, predict_cell
from harness.prediction.compute_group import compute_group
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.model_shapes import ModelShape, load_model_shape, require_predicted_memory
from harness.schema.probe_record import CellWork, Predicted
from harness.schema.record import Record
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
        return compute_group(self.config)


def plan_cells(cells: Sequence[Cell], prepared: Sequence[PreparedCell], machine: Machine) -> list[Planned]:
    """Plan the fine-tuning cells that this machine supports, each configuration once."""
    planned: dict[str, Planned] = {}
    for cell, inputs in zip(cells, prepared, strict=True):
        config, job = cell.config, inputs.job
        is_known = cell.config_hash in planned
        if is_known or not isinstance(config, FineTuneConfig) or not isinstance(job, TrainJob):
            continue
        if unsupported_reason(config, machine) is not None:
            continue
        world_size = num_ranks(config, machine)
        train, val, test = (load_tokens(job.tokens_folder, split).lengths for split in ("train", "val", "test"))
        work = cell_work(config, train, val, test, world_size)
        shapes = frozenset(step_shapes(config, train, world_size))
        model = _model_shape(config, job.model.folder)
        num_labels = len(inputs.data.labels)
        planned[cell.config_hash] = Planned(cell, config, work, world_size, num_labels, model, inputs, shapes)
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
    for cell in cells:
        config = cell.config
        if not isinstance(config, FineTuneConfig) or cell.config_hash not in works:
            continue
        work, num_labels = works[cell.config_hash]
        try:
            folder = locate_model(config.model.name, weights=False).folder if config.model.shape is None else None
            model = _model_shape(config, folder)
        except UserError:
            model = None
        planned[cell.config_hash] = Planned(cell, config, work, num_ranks(config, machine), num_labels, model)
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

    def __init__(self, planned: Sequence[Planned], records: Iterable[Record], environment: Environment) -> None:
        """Sort what is known by compute group.

        Args:
            planned: The study's cells.
            records: This machine's probes and runs, oldest first.
            environment: Facts about this machine and checkout.
        """
        self._planned = {each.cell.config_hash: each for each in planned}
        self._environment = environment
        self._known: dict[str, list[Record]] = defaultdict(list)
        for record in fresh_records(records, environment.machine):
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take in a probe or run that just ended here."""
        if isinstance(record.config, FineTuneConfig) and record.outcome == "ok":
            self._known[compute_group(record.config)].append(record)

    def predict(self, config_hash: str) -> CellPrediction | None:
        """Predict a cell; None if nothing is known of its group, or if it is no fine-tuning cell."""
        each = self._planned.get(config_hash)
        known = () if each is None else self._known.get(each.group, ())
        group = group_time(known)
        if each is None or group is None:
            return None
        peak = None if each.model is None else predict_peak_bytes(
            each.config, each.model, each.num_labels, longest=each.work.longest, num_shapes=each.work.training.num_shapes,
            num_ranks=each.num_ranks, known=known,
        )  # fmt: skip
        return CellPrediction(predict_cell(each.work, group), peak)

    def probe(
        self, runner: Runner, results: Path, on_probe: OnProbe = lambda _: None, *, limit_s: float | None = None
    ) -> list[Record]:
        """Probe groups of which nothing is known, those that compute most first.

        Args:
            runner: Runs the probes.
            results: Folder for their records.
            on_probe: Called before each probe.
            limit_s: Seconds after which no further probe begins; None: 5 % of the predicted time, from 10 to 40 s.

        Returns:
            The probes' records, which are saved below `results`.
        """
        began = time.perf_counter()
        records: list[Record] = []
        for members in self._unknown_groups():
            limit = min(_MAX_S, max(_MIN_S, _SHARE * self._predicted_s())) if limit_s is None else limit_s
            if records and time.perf_counter() - began > limit:
                break
            record = self._probe_group(members, runner, on_probe)
            save_or_keep(record, results)
            records.append(record)
            if record.outcome == "interrupted":
                break
            self.learn(record)
        return records

    @property
    def unknown_flop(self) -> float:
        """FLOPs of the training of cells that nothing is known of, roughly: to tell a long study from a short one."""
        unknown = [each for members in self._unknown_groups() for each in members]
        return sum(_FLOP_PER_PARAMETER * _encoder_parameters(each) * each.work.training.num_tokens for each in unknown)

    def _unknown_groups(self) -> list[list[Planned]]:
        groups: dict[str, list[Planned]] = defaultdict(list)
        for each in self._planned.values():
            if each.inputs is not None and group_time(self._known.get(each.group, ())) is None:
                groups[each.group].append(each)
        return sorted(groups.values(), key=_num_tokens, reverse=True)

    def _predicted_s(self) -> float:
        predictions = [self.predict(config_hash) for config_hash in self._planned]
        return sum(each.time.seconds.value for each in predictions if each is not None)

    def _probe_group(self, members: Sequence[Planned], runner: Runner, on_probe: OnProbe) -> Record:
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
        record = runner.run(cell, prepared, self._environment)
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


def _model_shape(config: FineTuneConfig, folder: Path | None) -> ModelShape | None:
    try:
        shape = load_model_shape(config.model, folder if config.model.shape is None else None)
        require_predicted_memory(shape)
    except UserError:
        return None
    return shape


def _encoder_parameters(each: Planned) -> float:
    return _BERT_BASE_PARAMETERS if each.model is None else each.model.layers * each.model.layer_parameters


def _num_tokens(members: Sequence[Planned]) -> int:
    return sum(each.work.training.num_tokens for each in members)
