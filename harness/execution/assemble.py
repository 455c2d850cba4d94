"""Assemble a cell's record from the messages of its ranks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from harness import __version__
from harness.execution.jobs import Environment, PreparedCell, ReadTexts
from harness.execution.memory_cap import GIB
from harness.execution.messages import RankResult, TrainResult
from harness.execution.rank_process import RankProcess
from harness.machine.scrub import scrub
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.diagnostics_record import CalibratedPeak, FlopCount
from harness.schema.host_record import MemoryCapFacts
from harness.schema.inputs_record import Example, ModelFacts
from harness.schema.probe_record import Probe, ProbedShape
from harness.schema.record import Outcome, Record
from harness.schema.training_record import (
    LONGEST_TEXT,
    Baseline,
    Mistake,
    PeakMemory,
    Phases,
    PlannedStep,
    ProgressMark,
    Steps,
    TestEvaluation,
    Training,
)

_MAX_MISTAKES = 10


def blank_record(cell: Cell, environment: Environment, outcome: Outcome, reason: str | None) -> Record:
    """Build a record of a cell that contains no measurements."""
    return Record(
        harness_version=__version__,
        study=cell.study,
        cell=cell.name,
        repeat=cell.repeat,
        rung=cell.rung,
        config=cell.config,
        config_hash=cell.config_hash,
        outcome=outcome,
        reason=scrub(reason) if reason else None,
        started_at=datetime.now(UTC),
        duration_s=0.0,
        phases=Phases(),
        git=environment.git,
        packages=environment.packages,
        machine=environment.machine,
        stated=environment.stated,
        detected=environment.detected,
        load=None,
        start_method=None,
    )


def cuda_memory_cap(cell: Cell) -> MemoryCapFacts | None:
    """Describe the cap that a GPU cell's worker sets in torch's allocator; it excludes the CUDA context."""
    limit = cell.config.limits.memory_limit_gib
    if limit is None:
        return None
    return MemoryCapFacts(
        limit_bytes=int(limit * GIB), method="cuda_fraction", exact=False, peak_bytes=None, num_oom_kills=None
    )


def phase_times(ranks: Sequence[RankProcess], prepared: PreparedCell) -> Phases:
    """Collect the seconds of each phase that rank 0 reported."""
    phases = ranks[0].phases if ranks else []
    result = ranks[0].result if ranks else None
    training = result.training if result else None
    # The seconds of baselines without a model are only in `Record.baseline`.
    encoded = result.baseline if result and result.encoder else None
    measured = training or encoded
    return Phases(
        start_s=next((phase.start_s for phase in phases if phase.start_s is not None), None),
        load_s=next((phase.load_s for phase in phases if phase.load_s is not None), None),
        first_step_s=training.first_step_s if training else None,
        train_s=encoded.train_s if encoded else training.history.train_s if training else None,
        evaluate_s=training.history.evaluate_s if training else None,
        test_s=measured.test.evaluate_s if measured and measured.test else None,
        tokenise_s=prepared.tokenise_s,
    )


def progress_marks(ranks: Sequence[RankProcess]) -> tuple[ProgressMark, ...]:
    """Return rank 0's progress messages as marks on the parent's clock."""
    return tuple(
        ProgressMark(
            at_s=at_s,
            num_steps=progress.num_steps,
            num_samples=progress.num_samples,
            evaluate_s=progress.evaluate_s,
            loss=_finite(progress.loss),
        )
        for at_s, progress in (ranks[0].progress if ranks else [])
    )


def held_bytes_by_step(ranks: Sequence[RankProcess]) -> tuple[int, ...]:
    """Return rank 0's memory after each step that its progress messages cover."""
    return tuple(num_bytes for _, progress in (ranks[0].progress if ranks else []) for num_bytes in progress.held_bytes)


def model_facts(result: RankResult | None) -> ModelFacts | None:
    """Return the model that a rank fine-tuned, or whose features it used; None if it didn't come so far."""
    if result is None:
        return None
    return result.training.model if result.training else result.encoder


def baseline_with_peaks(result: RankResult | None, peaks: tuple[PeakMemory, ...]) -> Baseline | None:
    """Add the peak memory that the parent sampled to a baseline's result."""
    if result is None or result.baseline is None:
        return None
    return result.baseline.model_copy(update={"peak_memory": result.baseline.peak_memory + peaks})


def merge_ranks(
    results: Sequence[RankResult | None], prepared: PreparedCell, cell: Cell, sampled_peaks: tuple[PeakMemory, ...]
) -> Training | None:
    """Merge the results of all ranks: sum their counts and losses, and keep the seconds of each rank.

    Args:
        results: The result of each rank; None for a rank that sent none.
        prepared: The cell's inputs.
        cell: The cell that was run.
        sampled_peaks: Peak memory of all ranks together, sampled by the parent.

    Returns:
        The merged training; None unless every rank reported one.
    """
    ranks = [result.training for result in results if result is not None and result.training is not None]
    if not isinstance(cell.config, FineTuneConfig) or not ranks or len(ranks) < len(results):
        return None
    first = ranks[0]
    return Training(
        world_size=len(ranks),
        threads_per_rank=first.num_threads,
        cpus=tuple(rank.cpus for rank in ranks),
        global_batch_size=cell.config.global_batch(len(ranks)),
        lr_peak=first.lr_peak,
        num_updates_planned=first.num_updates_planned,
        stopped_early=first.history.stopped_early,
        steps=_merge_steps(ranks),
        evaluations=tuple(first.history.evaluations),
        test=first.test,
        peak_memory=(*(peak for rank in ranks for peak in rank.peaks), *sampled_peaks),
        example=prepared.example or Example(label=None, text=None, tokens=None, input_ids=None, attention_mask=()),
        torch_build=first.torch_build,
        held_bytes=tuple(tuple(rank.history.held_bytes) for rank in ranks),
        communication=first.diagnostics.communication,
        compile_s=first.compile_s,
        memory_parts=first.diagnostics.memory_parts,
        attention_kernels=first.diagnostics.attention_kernels,
        flops=_sum_flops([rank.diagnostics.flops for rank in ranks]),
        peak=_sum_calibrated_peaks([rank.diagnostics.peak for rank in ranks]),
        pieces=first.segments,
        mistakes=most_confident_mistakes(first.test, prepared.read_texts),
        kept=first.saved,
        attention_choice=first.attention_choice,
        planned_step=_planned_step(first.mean_step),
        network=first.network,
    )


def _planned_step(mean: tuple[float, float] | None) -> PlannedStep | None:
    return None if mean is None else PlannedStep(num_samples=mean[0], num_padded_tokens=mean[1])


def merge_probes(results: Sequence[RankResult | None], num_threads: int) -> Probe | None:
    """Merge the shapes that all ranks probed: the seconds of the slowest rank, the memory of all; None unless all probed."""
    ranks = [result.probe for result in results if result is not None and result.probe]
    if not ranks or len(ranks) < len(results):
        return None
    shapes = tuple(
        ProbedShape(
            num_rows=parts[0].num_rows,
            num_tokens=parts[0].num_tokens,
            first_step_s=max(part.first_step_s for part in parts),
            step_s=tuple(map(max, zip(*(part.step_s for part in parts), strict=True))),
            evaluate_s=tuple(map(max, zip(*(part.evaluate_s for part in parts), strict=True))),
            peak_bytes=sum(part.peak_bytes for part in parts),
        )
        for parts in zip(*ranks, strict=True)
    )
    return Probe(world_size=len(ranks), threads_per_rank=num_threads, shapes=shapes)


def _merge_steps(ranks: Sequence[TrainResult]) -> Steps:
    histories = [rank.history for rank in ranks]
    num_samples = _sum_by_step(history.num_samples for history in histories)
    loss_sums = [sum(losses) for losses in zip(*(history.loss_sums for history in histories), strict=True)]
    return Steps(
        seconds=tuple(rank.step_s for rank in ranks),
        num_samples=num_samples,
        num_real_tokens=_sum_by_step(history.num_real_tokens for history in histories),
        num_padded_tokens=_sum_by_step(history.num_padded_tokens for history in histories),
        loss=tuple(_finite(total / count) for total, count in zip(loss_sums, num_samples, strict=True)),
        clock=ranks[0].clock,
        num_skipped=histories[0].num_skipped,
        num_token_pairs=_sum_by_step(history.num_token_pairs for history in histories),
    )


def _sum_by_step(counts_by_rank: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip(*counts_by_rank, strict=True))


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def _sum_flops(counts: Sequence[FlopCount | None]) -> FlopCount | None:
    """Sum the counts of all ranks; None unless every rank counted."""
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    by_operator: Counter[str] = Counter()
    for count in known:
        by_operator.update(count.by_operator)
    return FlopCount(
        by_operator=dict(by_operator),
        num_samples=sum(count.num_samples for count in known),
        num_padded_tokens=sum(count.num_padded_tokens for count in known),
        num_token_pairs=sum(count.num_token_pairs for count in known),
    )


def _sum_calibrated_peaks(peaks: Sequence[CalibratedPeak | None]) -> CalibratedPeak | None:
    """Sum the calibrated peaks of all ranks, measured at the same time; None unless every rank has a peak."""
    known = [peak for peak in peaks if peak is not None]
    if len(known) < len(peaks):
        return None
    copy_rates = [peak.copy_bytes_per_s for peak in known if peak.copy_bytes_per_s is not None]
    return known[0].model_copy(
        update={
            "flop_per_s": sum(peak.flop_per_s for peak in known),
            "copy_bytes_per_s": sum(copy_rates) if len(copy_rates) == len(known) else None,
        }
    )


def most_confident_mistakes(test: TestEvaluation | None, read_texts: ReadTexts | None) -> tuple[Mistake, ...]:
    """Return the wrong predictions with the highest probability and their shortened texts.

    Returns none if the record must not contain texts.
    """
    if test is None or read_texts is None or not test.probabilities:
        return ()
    pairs = zip(test.labels, test.predictions, strict=True)
    wrong = [row for row, (label, predicted) in enumerate(pairs) if label != predicted]
    rows = sorted(wrong, key=lambda row: (-test.probabilities[row], row))[:_MAX_MISTAKES]
    return tuple(
        Mistake(
            row=row,
            label=test.labels[row],
            predicted=test.predictions[row],
            probability=test.probabilities[row],
            text=text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…",
        )
        for row, text in zip(rows, read_texts(rows), strict=True)
    )


def total_cpu_s(results: Sequence[RankResult | None]) -> float | None:
    """Sum the CPU seconds of all ranks; None if a rank failed."""
    seconds = [result.cpu_s for result in results if result is not None and result.cpu_s is not None]
    return sum(seconds) if seconds and len(seconds) == len(results) else None


def checksum_mismatch(results: Sequence[RankResult | None]) -> str | None:
    """Return an error message if the ranks' final parameters differ; None if they agree."""
    checksums = {result.training.checksum for result in results if result is not None and result.training is not None}
    if len(checksums) <= 1:
        return None
    return f"the ranks' parameters differ at the end: checksums {sorted(checksums)}"
