"""Where a step's time went, as a profiled cell tells it (no torch: the parent reads it)."""

from __future__ import annotations

from harness.schema.settings import Settings

PHASES = ("data", "forward", "backward", "optimiser")
NUM_SHOWN_OPERATORS = 15


class OperatorTime(Settings):
    """One operator's own time, without what it called: of the CPU's threads, or of the GPU's kernels.

    Attributes:
        num_calls: In all profiled steps.
        self_s: In all profiled steps.
    """

    name: str
    num_calls: int
    self_s: float


class StepProfile(Settings):
    """What torch.profiler saw of some steps; rank 0's, with its overhead.

    Attributes:
        device: What computed: `cpu` or `cuda`.
        step_s: Of each profiled step.
        phases_s: Of PHASES, summed over the steps.
        all_reduce_s: In which gradients were on their way, summed; it lies within the backward passes. None for one process.
        idle_s: Outside of data: in which no operator ran (CPU, this rank's thread), or no kernel (GPU); summed.
        operators: Those with most own time, most first.
    """

    device: str
    step_s: tuple[float, ...]
    phases_s: dict[str, float]
    all_reduce_s: float | None
    idle_s: float
    operators: tuple[OperatorTime, ...]

    @property
    def total_s(self) -> float:
        """Of all profiled steps."""
        return sum(self.step_s)
