"""The times of profiled training steps by phase and operator, as the worker reports them."""

from __future__ import annotations

from harness.schema.settings import Settings

PHASES = ("data", "forward", "backward", "optimiser")
NUM_SHOWN_OPERATORS = 15


class OperatorTime(Settings):
    """One operator's self time, which excludes the operators that it calls.

    CPU operators count time on the CPU's threads, GPU kernels time on the GPU.

    Attributes:
        num_calls: Calls in all profiled steps.
        self_s: Seconds in all profiled steps.
    """

    name: str
    num_calls: int
    self_s: float


class StepProfile(Settings):
    """The times that torch.profiler recorded on rank 0; they include the profiler's own overhead.

    Attributes:
        device: Where the model ran: `cpu` or `cuda`.
        step_s: Seconds of each profiled step.
        phases_s: Seconds of each phase in PHASES, summed over the steps.
        all_reduce_s: Seconds in which an all-reduce of gradients was running, summed over the steps; they are part of
            the backward phase. None with a single process.
        idle_s: Seconds outside the data phase without a running operator (CPU: on this rank's thread) or kernel (GPU),
            summed over the steps.
        operators: The operators with the most self time, largest first.
    """

    device: str
    step_s: tuple[float, ...]
    phases_s: dict[str, float]
    all_reduce_s: float | None
    idle_s: float
    operators: tuple[OperatorTime, ...]

    @property
    def total_s(self) -> float:
        """Return the seconds of all profiled steps."""
        return sum(self.step_s)
