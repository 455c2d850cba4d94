"""What a reader must know before trusting a summary's figures: one sentence each, with what to do (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from harness.matrix import FineTuneConfig
from harness.memory_use import held_bytes, memory_warnings
from harness.record import Record
from harness.steadiness import FEWEST_STEPS, FEWEST_STEPS_WITH_WARMUP
from harness.summary import Summary
from harness.throttle import throttle_warnings

MOST_OTHERS_FRACTION = 0.05
MOST_STEAL_FRACTION = 0.01


def warnings_of(summary: Summary) -> Iterator[str]:
    """Say all of it; what needs a GPU's peak is told where that is known."""
    yield from _speed_warnings(summary)
    yield from _learning_warnings(summary)
    yield from _load_warnings(summary)
    yield from memory_warnings(summary.records, [held_bytes(record) for record in summary.records])
    yield from throttle_warnings(summary.ok_records)


def _speed_warnings(summary: Summary) -> Iterator[str]:
    num_steps = summary.num_measured_steps
    if num_steps is not None and num_steps < FEWEST_STEPS_WITH_WARMUP and summary.num_warmup_steps == 0:
        yield (
            f"Only {num_steps} steps ran, too few to leave warm-up out, so that throughput is understated: "
            f"raise training.max_steps or data.num_train until {FEWEST_STEPS} or more are measured."
        )
    elif num_steps is not None and num_steps < FEWEST_STEPS:
        yield (
            f"Only {num_steps} steps were measured after warm-up: raise training.max_steps or data.num_train "
            f"until {FEWEST_STEPS} or more are."
        )


def _learning_warnings(summary: Summary) -> Iterator[str]:
    accuracy, majority, config = summary.accuracy, summary.majority_accuracy, summary.config
    if not isinstance(config, FineTuneConfig):
        return
    if accuracy is not None and majority is not None and accuracy.value <= majority:
        yield (
            f"Test accuracy {accuracy.value:.3f} is not above the {majority:.3f} of always answering the "
            "commonest label: train longer, or try another training.lr."
        )
    trainings = [record.training for record in summary.ok_records if record.training is not None]
    # Random weights are there to measure speed: nobody asks whether they learn.
    if config.model.init == "pretrained" and any(_loss_stays(training.steps.loss) for training in trainings):
        yield (
            "The training loss did not fall from its first quarter to its last: "
            "try another training.lr, or train longer."
        )
    stopped = next((training for training in trainings if training.stopped_early), None)
    if stopped is not None and not config.training.stop_at_target:
        yield (
            f"Training stopped after {len(stopped.steps.num_samples)} of {stopped.num_updates_planned} "
            f"updates ({stopped.stopped_early}): raise limits.max_train_s before comparing its accuracy."
        )
    if summary.target_lost:
        yield (
            f"Validation reached the target {summary.target_accuracy:g} and later fell below it: "
            "confirm its time with more training.seeds."
        )


def _loss_stays(losses: Sequence[float | None]) -> bool:
    known = [loss for loss in losses if loss is not None]
    quarter = len(known) // 4
    return quarter > 0 and fmean(known[-quarter:]) >= fmean(known[:quarter])


def _load_warnings(summary: Summary) -> Iterator[str]:
    others = max((_others_fraction(record) for record in summary.ok_records), default=0.0)
    if others > MOST_OTHERS_FRACTION:
        yield f"Other processes used {others:.0%} of the usable CPU time: stop them, and run it with --force."
    steal = max((_steal_fraction(record) for record in summary.ok_records), default=0.0)
    if steal > MOST_STEAL_FRACTION:
        yield f"The hypervisor took {steal:.1%} of the CPU time: measure at another time, or on another host."


def _others_fraction(record: Record) -> float:
    """Share of the usable CPUs' time that went to processes not the harness's; 0 where it is not known."""
    load = record.load
    if load is None or load.system_busy_s is None or load.cell_s is None:
        return 0.0
    others_s = load.system_busy_s - load.cell_s - load.parent_s
    return others_s / (record.duration_s * record.machine.cpu.num_usable)


def _steal_fraction(record: Record) -> float:
    """Share of all logical CPUs' time, over which the system sums it; 0 where it is not known."""
    if record.load is None or record.load.steal_s is None:
        return 0.0
    return record.load.steal_s / (record.duration_s * record.machine.cpu.num_logical)
