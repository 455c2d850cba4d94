"""Jobs that the parent passes to a rank's process, and the inputs of a cell's run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.dataset.sources import ModelFiles
from harness.execution.stop_flag import StopReason
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.host_record import DetectedInstance, Git, Machine, StatedInstance
from harness.schema.inputs_record import DataFacts, Example
from harness.store.checkpoint_files import TrainingIdentity

# Function that returns the texts of the given row numbers of the test split.
ReadTexts = Callable[[Sequence[int]], Sequence[str]]


@dataclass(frozen=True)
class ResumePlan:
    """Instructions for the ranks of a resumable training: where its checkpoints are, and when to save or stop.

    Attributes:
        folder: Folder of the checkpoints.
        identity: Facts that identify the training, stored in its checkpoints.
        resume_from: Checkpoint to resume from; None: train from the beginning.
        stop_flag: File of the `StopFlag` by which the parent requests a stop.
        save_interval_s: Seconds between two checkpoints.
        timeout_s: Seconds after which the parent ends a segment that has not stopped by itself.
        machine: `Machine.id`, for the record's segment.
        host: `Machine.host`, for the record's segment.
        max_s: Seconds since submission after which training stops at the next step; None: no limit.
        max_rows: Rows of this segment after which training stops at the next step; None: no limit.
    """

    folder: Path
    identity: TrainingIdentity
    resume_from: Path | None
    stop_flag: Path
    save_interval_s: float
    timeout_s: float
    machine: str
    host: str | None
    max_s: float | None = None
    max_rows: int | None = None


@dataclass(frozen=True)
class TrainJob:
    """One rank's part of a fine-tuning.

    Attributes:
        tokens_folder: Folder of the tokenized splits.
        labels: Names of the data's labels, in the order of the tokens' label numbers.
        rank: This rank's number among the ranks of all machines.
        world_size: Number of ranks on all machines.
        local_rank: This rank's number on its machine, which is also that of its GPU.
        local_world_size: Number of ranks on this machine.
        rendezvous: Where torch.distributed connects the ranks: `file://` with the path of a file that is unique to the cell
            and does not exist yet; `tcp://` with the address and port on which rank 0 will listen.
        interface: Network interface that joins the machines; empty: there is one machine.
        heartbeat: File of the counters that the parent's hang detector reads; empty: no counters.
        submitted_at: When the parent submitted the cell, on perf_counter's clock.
        share_first_gpu: Run all ranks on the first GPU with the gloo backend. For checks only: the losses are correct,
            but the speed means nothing.
        run_diagnostics: Break down memory and FLOPs after the measurement. This can take more memory than training.
        resume: Plan of a resumable training; None: train in one run.
        profile_prefix: Path prefix of the profiler's files; empty: don't profile. The profiler repeats steps after the
            measurement.
        profile_first: The first step that the profiler repeats.
        check_texts: The first training rows, each a text and its second text or None: an architecture of no tested family is
            compared with its own forward pass of these; empty for tested families.
        save_model_to: Folder for the weights of the best validation; empty: don't save weights.
        probe: Batch shapes to time a few steps of, each as rows of a rank's micro-batch and tokens a row; nothing else is
            done then. Empty: train.
    """

    config: FineTuneConfig
    model: ModelFiles
    tokens_folder: Path
    labels: tuple[str, ...]
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    num_threads: int = 1
    rendezvous: str = ""
    interface: str = ""
    heartbeat: str = ""
    submitted_at: float = 0.0
    share_first_gpu: bool = False
    run_diagnostics: bool = True
    resume: ResumePlan | None = None
    profile_prefix: str = ""
    profile_first: int = 0
    check_texts: tuple[tuple[str, str | None], ...] = ()
    save_model_to: str = ""
    probe: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class BaselineJob:
    """The fit and evaluation of a baseline that reads texts."""

    config: BaselineConfig
    texts_folder: Path
    submitted_at: float = 0.0


@dataclass(frozen=True)
class FeaturesJob:
    """The fit and evaluation of the baseline `features`, whose classifier gets the hidden states of a frozen encoder."""

    config: BaselineConfig
    model: ModelFiles
    tokens_folder: Path
    num_threads: int = 1
    submitted_at: float = 0.0


Job = TrainJob | BaselineJob | FeaturesJob


@dataclass(frozen=True)
class NodePart:
    """One machine's part of a cell that trains on several.

    Attributes:
        node_index: This machine's number, from 0; rank 0 and the port of `master_address` are on number 0.
        num_nodes: Number of machines.
        master_address: Address of node 0 in the network that joins the machines.
        master_port: Port of node 0 that is free, on which its parent waits for the others.
        token: Secret of this run of the cell, the same on all of its nodes, which keeps others out.
        interface: This machine's network interface for gradients; None: the one that reaches `master_address`.
        join_timeout_s: Seconds to wait for the other nodes.
    """

    node_index: int
    num_nodes: int
    master_address: str
    master_port: int
    token: str = field(repr=False)
    interface: str | None = None
    join_timeout_s: float = 120.0


@dataclass(frozen=True)
class PreparedCell:
    """A cell's job, and facts about the data that was prepared for the cell.

    Attributes:
        tokenise_s: Seconds that tokenization took; None for a baseline that reads texts.
        read_texts: Function that reads texts of the test split; None if records must not contain texts.
        limit_texts: The limits of a resumable training in the user's words, for the record's reason.
    """

    job: Job
    data: DataFacts
    example: Example | None
    tokenise_s: float | None
    read_texts: ReadTexts | None = None
    limit_texts: Mapping[StopReason, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Environment:
    """Facts that are the same for all cells of a run."""

    machine: Machine
    stated: StatedInstance | None
    git: Git | None
    packages: dict[str, str]
    detected: DetectedInstance | None = None
