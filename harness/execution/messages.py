"""Messages that a rank's process sends to the parent over its pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from harness.execution.stop_flag import StopReason
from harness.schema.diagnostics_record import CalibratedPeak, Communication, FlopCount, MemoryParts
from harness.schema.inputs_record import ModelFacts
from harness.schema.nodes_record import Network
from harness.schema.probe_record import ProbedShape
from harness.schema.record import Outcome
from harness.schema.training_record import (
    AttentionChoice,
    Baseline,
    Evaluation,
    PeakMemory,
    SavedWeights,
    Segment,
    TestEvaluation,
)


@dataclass(frozen=True)
class PhaseStarted:
    """A rank began a phase.

    Attributes:
        name: `load`: loading; `train`: training; `test`: the test evaluation; `after`: work after the measurement.
        start_s: Seconds from submission of the cell to the start of the process; sent with `load` only.
        load_s: Seconds that loading took; sent with `train` only.
    """

    name: Literal["load", "train", "test", "after"]
    start_s: float | None = None
    load_s: float | None = None


@dataclass(frozen=True)
class Progress:
    """Training progress of one rank; sent at most once a second and never inside a timed step.

    Attributes:
        num_steps_before: Steps that earlier segments of a resumable training did.
        loss: Loss of the last step over this rank's examples.
        accuracy: Accuracy of the last validation.
        held_bytes: Bytes of memory in use after each step since the last message. Sent during training, because a
            killed process can't report them later.
    """

    num_steps: int
    num_steps_planned: int
    num_steps_before: int = 0
    num_samples: int = 0
    evaluate_s: float = 0.0
    loss: float | None = None
    accuracy: float | None = None
    held_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class CheckpointFailed:
    """The first checkpoint of a segment that could not be written; training continues without it."""

    reason: str


@dataclass(frozen=True)
class ModelUnsaved:
    """The model of the best validation could not be saved; training continues, and no model will be kept."""

    reason: str


@dataclass(frozen=True)
class StopRequest:
    """A resumable training stopped before its end, after writing a checkpoint if that was possible.

    Attributes:
        failure: Why no checkpoint could be written; None if the checkpoint was written.
    """

    reason: StopReason
    num_updates: int
    num_updates_planned: int
    failure: str | None = None


@dataclass
class TrainHistory:
    """One rank's log of its training; the parent merges the logs of all ranks.

    Attributes:
        loss_sums: Sum of the losses of this rank's examples in each step, before the update.
        num_token_pairs: Sum, over the rows of each step, of the padded length squared.
        diverged: Why training diverged; None if it did not.
        stopped: How a resumable training stopped before its end; None if it did not stop.
    """

    loss_sums: list[float] = field(default_factory=list)
    num_samples: list[int] = field(default_factory=list)
    num_real_tokens: list[int] = field(default_factory=list)
    num_padded_tokens: list[int] = field(default_factory=list)
    num_token_pairs: list[int] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    train_s: float = 0.0
    evaluate_s: float = 0.0
    held_bytes: list[int] = field(default_factory=list)
    num_skipped: int = 0
    stopped_early: str | None = None
    diverged: str | None = None
    stopped: StopRequest | None = None

    @property
    def outcome(self) -> Outcome:
        """The outcome that the training leads to."""
        if self.diverged is not None:
            return "diverged"
        return "ok" if self.stopped is None else self.stopped.reason.outcome


@dataclass(frozen=True)
class Diagnostics:
    """Results of the extra steps after a successful training; a result that was not measured is None or empty."""

    communication: Communication | None = None
    memory_parts: MemoryParts | None = None
    attention_kernels: tuple[str, ...] = ()
    flops: FlopCount | None = None
    peak: CalibratedPeak | None = None


@dataclass(frozen=True)
class TrainResult:
    """One rank's measurement of a training.

    Attributes:
        step_s: Seconds of each step, earlier segments included.
        first_step_s: Seconds from submission of the cell to the end of the first step.
        torch_build: torch's version as a plain string: to unpickle torch's own type, the parent would import torch.
        checksum: Sum of all parameters in fp64, equal on every rank.
        cpus: CPUs that the computing threads could use; empty where the system does not tell.
        mean_step: Rows and padded tokens of a planned update, of a run that ended once its speed was known.
        attention_choice: The attention that was chosen, the same on every rank; None where there was nothing to choose.
        network: All-reduces over all ranks, timed before training; None on one machine.
    """

    history: TrainHistory
    step_s: tuple[float, ...]
    clock: Literal["cuda_events", "perf_counter"]
    first_step_s: float | None
    test: TestEvaluation | None
    peaks: tuple[PeakMemory, ...]
    model: ModelFacts
    lr_peak: float
    num_updates_planned: int
    num_threads: int
    torch_build: str
    checksum: float
    compile_s: float | None = None
    mean_step: tuple[float, float] | None = None
    segments: tuple[Segment, ...] = ()
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    saved: SavedWeights | None = None
    cpus: tuple[int, ...] = ()
    attention_choice: AttentionChoice | None = None
    network: Network | None = None


@dataclass(frozen=True)
class RankResult:
    """A rank's last message.

    Attributes:
        reason: Why the outcome is not `ok`; None for `ok`. Also None for a training that stopped on request, whose
            reason is in `training.history.stopped`.
        encoder: The model of the baseline `features`; the model of a training is in `training`.
        cpu_s: CPU seconds of the process; None if the process failed.
        probe: What a probe measured; empty if the job was none.
        lost_peer: Whether it failed because the connection to another rank broke, which must have failed before.
    """

    outcome: Outcome
    reason: str | None = None
    training: TrainResult | None = None
    baseline: Baseline | None = None
    encoder: ModelFacts | None = None
    cpu_s: float | None = None
    probe: tuple[ProbedShape, ...] = ()
    lost_peer: bool = False


@dataclass(frozen=True)
class FilePages:
    """Bytes of mapped files in a process at its end; only `harness.worker.instrumented` sends this message."""

    num_bytes: int


Message = PhaseStarted | Progress | CheckpointFailed | ModelUnsaved | RankResult
OnMessage = Callable[[Message], None]
