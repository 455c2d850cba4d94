"""TODO: say in one line what this module is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.dataset.sources import ModelFiles
from harness.schema.cells import BaselineConfig, FineTuneConfig
from harness.schema.host_record import DetectedInstance, Git, Machine, StatedInstance
from harness.schema.training_record import DataFacts, Example
from harness.store.checkpoint_files import ResumePlan

# Texts of the test split by their rows.
ReadTexts = Callable[[Sequence[int]], Sequence[str]]


Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainJob:
    """What one rank is told.

    Attributes:
        rendezvous: A file that no other cell uses, and that is not there yet.
        pulse: A file of counters that the parent watches; empty: nobody does.
        ordered_at: On perf_counter's clock.
        shares_gpu: All ranks compute on the first GPU, by gloo: right losses and no speed, for a check alone.
        looks_closer: Whether memory and arithmetic are taken apart when all is measured, which can take more memory than training did.
        pieces: Of a training that may stop and go on later; None: it is done at one go.
        keep_to: A folder for the weights of the best validation; empty: none are kept.
        profile_to: Files' beginning, where all steps from the plan's `profile_first` on are trained again under the profiler
            when all is measured; empty: they are not.
    """

    config: FineTuneConfig
    model: ModelFiles
    tokens_folder: Path
    num_labels: int
    rank: int = 0
    world_size: int = 1
    num_threads: int = 1
    rendezvous: str = ""
    pulse: str = ""
    submitted_at: float = 0.0
    share_first_gpu: bool = False
    run_diagnostics: bool = True
    pieces: ResumePlan | None = None
    profile_prefix: str = ""
    profile_first: int = 0
    save_model_to: str = ""


@dataclass(frozen=True)
class BaselineJob:
    """What a baseline's process is told."""

    config: BaselineConfig
    texts_folder: Path
    submitted_at: float = 0.0


Job = TrainJob | BaselineJob


@dataclass(frozen=True)
class PreparedCell:
    """What a cell needs that was made before the first one; tokenise_s is None for a baseline.

    Attributes:
        read_texts: Gives texts of the test split by their rows; None where a record may hold none.
    """

    job: Job
    data: DataFacts
    example: Example | None
    tokenise_s: float | None
    read_texts: ReadTexts | None = None


@dataclass(frozen=True)
class Environment:
    """What is the same for all cells of a run."""

    machine: Machine
    stated: StatedInstance | None
    git: Git | None
    packages: dict[str, str]
    detected: DetectedInstance | None = None
