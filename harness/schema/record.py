"""The record of one run of one cell.

History of `SCHEMA_VERSION`; older records are upgraded on reading (tests/fixtures/records has some of each version):
    1: first version.
    2: memory breakdown, other memory users, memory growth; memory caps; GPU readings; exposed communication; compile
        and activation checkpointing; global batches that devices can't share evenly.
    3: the instance that the cloud's metadata service reports; energy counters.
    4: counted FLOPs and the calibrated peak; disturbances of the machine; ladders.
    5: the baseline `features`: its configuration, its model, and what it chose; environment variables; the CPUs of each rank;
        probes and predictions.
    6: runs on a cluster; cells that train on several machines: their nodes, and the network between them.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, Self

from pydantic import ValidationError, model_validator

from harness.schema.cells import Config, FineTuneConfig
from harness.schema.host_record import (
    ClusterRun,
    DetectedInstance,
    Energy,
    Git,
    GpuReading,
    Load,
    Machine,
    MemoryCapFacts,
    StatedInstance,
)
from harness.schema.inputs_record import DataFacts, ModelFacts
from harness.schema.nodes_record import Node
from harness.schema.probe_record import Predicted, Probe
from harness.schema.ranges import Index, Moment, Seconds, Tally
from harness.schema.settings import Many, Settings
from harness.schema.training_record import Baseline, Phases, ProgressMark, TestEvaluation, Training

SCHEMA_VERSION = 6

# Raise this version when a change of the measuring code could change a figure: records with an older version then count
# as stale. Version 2: DDP no longer broadcasts buffers; a process's resident set is read between steps.
MEASURING_VERSION = 2

Outcome = Literal["ok", "oom", "timeout", "crashed", "diverged", "unsupported", "skipped", "interrupted", "preempted"]

# Outcomes that a rerun would only repeat; cells with any other outcome are run again.
FINISHED: frozenset[str] = frozenset({"ok", "oom", "timeout", "diverged", "unsupported"})


class Record(Settings):
    """The self-contained record of one run of one cell.

    Attributes:
        measuring_version: Version of the measuring code.
        cell: The cell's name, without seed and repeat.
        repeat: Index of the run among the runs of the same seed.
        rung: The cell's index in a ladder study; None elsewhere.
        config_hash: Hash of the configuration, see `hash_config`.
        reason: Why the outcome is not `ok`; None otherwise.
        stderr_tail: Last lines of each rank's stderr, without personal data.
        started_at: When the parent submitted the cell.
        duration_s: Seconds from `started_at` to the end of the cell's processes.
        git: State of the harness's git checkout; None when the harness does not run from one.
        packages: Versions of all installed packages by lower-case name.
        stated: The instance that the user stated; None when the user stated none.
        detected: The instance that a metadata service reported; None when none was asked, or none answered.
        load: The machine's load; None when no process was started.
        start_method: How the cell's process was started; None when no process was started.
        model: The fine-tuned model, or the encoder of the baseline `features`; None for other baselines, and when the
            run ended early.
        data: The data; None when the run ended before the data was loaded.
        marks: Progress of the run, for failed runs too.
        cap: The memory cap; None without one.
        gpu_readings: Samples of the cell's GPUs; empty on a CPU.
        held_bytes: Rank 0's memory after each step in bytes, for failed runs only; for successful runs,
            `training.held_bytes` has the memory of every rank.
        energy: Measured energy; None when the machine has no readable energy counter.
        is_made_up: Whether the record is synthetic, for tests; reports of such records carry a notice.
        training: Measurements of a fine-tuning run; None for baselines and failed runs.
        baseline: Measurements of a baseline; None for fine-tuning and failed runs.
        probe: Measurements of a probe, which is no run of a cell; None for all others.
        predicted: What the run was predicted to take; None where nothing was known of cells that compute alike.
        cluster: Where a run on a cluster took place; None for all others.
        nodes: The machines of a cell that trains on several, in the order of their ranks; empty for all other cells.
            `machine`, `stated`, `detected` and `load` are those of the first; memory, energy and GPU readings are
            those of all.
    """

    schema_version: int = SCHEMA_VERSION
    measuring_version: Index = MEASURING_VERSION
    harness_version: str
    study: str
    cell: str
    repeat: Index
    rung: Index | None = None
    config: Config
    config_hash: str
    outcome: Outcome
    reason: str | None
    stderr_tail: Many[Many[str]] = ()
    started_at: Moment
    duration_s: Seconds
    phases: Phases
    git: Git | None
    packages: dict[str, str]
    machine: Machine
    stated: StatedInstance | None
    detected: DetectedInstance | None = None
    load: Load | None
    start_method: Literal["forkserver", "spawn", "fresh"] | None
    model: ModelFacts | None = None
    data: DataFacts | None = None
    marks: Many[ProgressMark] = ()
    cap: MemoryCapFacts | None = None
    gpu_readings: Many[GpuReading] = ()
    held_bytes: Many[Tally] = ()
    energy: Energy | None = None
    is_made_up: bool = False
    training: Training | None = None
    baseline: Baseline | None = None
    probe: Probe | None = None
    predicted: Predicted | None = None
    cluster: ClusterRun | None = None
    nodes: Many[Node] = ()

    @property
    def measured(self) -> Training | Baseline | None:
        """What a successful run measured, of a model or a baseline."""
        return self.training or self.baseline

    @property
    def test(self) -> TestEvaluation | None:
        """The final evaluation on the test set; None without one."""
        return self.measured.test if self.measured else None

    @property
    def seed(self) -> int:
        """The run's seed; 0 for baselines, which have none."""
        return self.config.seed if isinstance(self.config, FineTuneConfig) else 0

    @property
    def num_nodes(self) -> int:
        """The number of machines that the run occupied; `nodes` is empty if one of them was lost."""
        return self.config.num_nodes

    @property
    def machines(self) -> tuple[Machine, ...]:
        """The machines that the run occupied, in the order of their ranks."""
        return tuple(node.machine for node in self.nodes) or (self.machine,)

    @property
    def num_gpus(self) -> int:
        """The number of GPUs of all machines that the run occupied, which are of one kind."""
        return self.num_nodes * len(self.machine.gpus)

    @model_validator(mode="after")
    def _has_every_node(self) -> Self:
        if self.nodes and len(self.nodes) != self.config.num_nodes:
            raise ValueError(f"nodes of {self.config.num_nodes} machines")
        num_ranks = sum(node.num_ranks for node in self.nodes)
        if self.nodes and self.training is not None and self.training.world_size != num_ranks:
            raise ValueError(f"nodes of {self.training.world_size} ranks together")
        return self

    @model_validator(mode="after")
    def _labels_have_names(self) -> Self:
        tests = [part.test for part in (self.training, self.baseline) if part is not None and part.test is not None]
        mistakes = self.training.mistakes if self.training else ()
        used = {0, *(label for test in tests for label in (*test.labels, *test.predictions))}
        used |= {label for mistake in mistakes for label in (mistake.label, mistake.predicted)}
        if self.data is not None and max(used) >= len(self.data.labels):
            raise ValueError(f"label {max(used)}, of {len(self.data.labels)} in data.labels")
        return self


def was_fitted_on_part(record: Record) -> bool:
    """Return whether a baseline used only a part of its training rows."""
    num_fitted = record.baseline.num_fitted if record.baseline else None
    return num_fitted is not None and record.data is not None and num_fitted < record.data.train.num_rows


def to_json(record: Record) -> str:
    """Render a record as indented JSON with sorted keys and each array of numbers on one line."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # JSON strings contain no raw line breaks, so the pattern can't match inside a string.
    return re.sub(r"\[\n([-\d.eE+,\s]+?)\n\s*\]", _on_one_line, text) + "\n"


def _on_one_line(array: re.Match[str]) -> str:
    return "[" + " ".join(array[1].split()) + "]"


def upgrade_record(fields: dict[str, Any]) -> Record:
    """Build a record from JSON fields of any schema version; fields that a version lacks count as not measured.

    Raises:
        pydantic.ValidationError: When the fields are not those of a record.
    """
    return Record.model_validate(fields | {"schema_version": SCHEMA_VERSION})


def parse_record(text: str | bytes) -> Record | None:
    """Parse a record of the current schema version; return None for anything else.

    This function is faster than `upgrade_record`, which handles older versions and reports errors.
    """
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return None
    is_versioned = "schema_version" in record.model_fields_set
    return record if is_versioned and record.schema_version == SCHEMA_VERSION else None
