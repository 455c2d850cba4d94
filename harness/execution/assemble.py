"""TODO: say in one line what this module is for."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from harness import __version__
from harness.execution.jobs import Environment, PreparedCell, ReadTexts
from harness.execution.rank_process import RankProcess
from harness.machine.scrub import scrub
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.host_record import MemoryCapFacts
from harness.schema.record import Record
from harness.schema.training_record import (
    LONGEST_TEXT,
    Baseline,
    CalibratedPeak,
    Example,
    FlopCount,
    Mistake,
    PeakMemory,
    Phases,
    ProgressMark,
    Steps,
    TestEvaluation,
    Training,
)

_MAX_MISTAKES = 10


def most_confident(test: TestEvaluation | None, read_texts: ReadTexts | None) -> tuple[Mistake, ...]:
    """The wrong predictions of which the model was surest, with their texts cut; none where no text may be kept."""
    if test is None or read_texts is None or not test.probabilities:
        return ()
    wrong = [row for row, (true, given) in enumerate(zip(test.labels, test.predictions, strict=True)) if true != given]
    rows = sorted(wrong, key=lambda row: (-test.probabilities[row], row))[:_MAX_MISTAKES]
    return tuple(
        Mistake(
            row=row,
            label=test.labels[row],
            predicted=test.predictions[row],
            probability=test.probabilities[row],
            text=_truncate(text),
        )
        for row, text in zip(rows, read_texts(rows), strict=True)
    )


def _truncate(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


GIB = 2**30


def cuda_memory_cap(cell: Cell) -> MemoryCapFacts | None:
    """The cap that a GPU cell's worker sets: torch's allocator holds to it, the CUDA context comes on top."""
    limit = cell.config.limits.memory_limit_gib
    if limit is None:
        return None
    return MemoryCapFacts(
        limit_bytes=int(limit * GIB), method="cuda_fraction", exact=False, peak_bytes=None, num_oom_kills=None
    )


def blank_record(cell: Cell, around: Environment, outcome: str, reason: str | None) -> Record:
    """A record of a cell for which no process was started."""
    return Record.model_validate(
        {
            "harness_version": __version__,
            "study": cell.study,
            "cell": cell.name,
            "repeat": cell.repeat,
            "rung": cell.rung,
            "config": cell.config,
            "config_hash": cell.config_hash,
            "outcome": outcome,
            "reason": scrub(reason) if reason else None,
            "started_at": datetime.now(UTC),
            "duration_s": 0.0,
            "phases": Phases(),
            "git": around.git,
            "packages": around.packages,
            "machine": around.machine,
            "stated": around.stated,
            "detected": around.detected,
            "load": None,
            "start_method": None,
        }
    )


def phase_times(ranks: list[RankProcess], prepared: PreparedCell) -> Phases:
    """Seconds of each phase of a cell, as rank 0 reported them."""
    told: dict[str, Any] = {}
    for message in ranks[0].messages if ranks else []:
        told |= message
    trace, test = told.get("trace") or {}, told.get("test")
    return Phases(
        start_s=told.get("start_s"),
        load_s=told.get("load_s"),
        first_step_s=told.get("first_step_s"),
        train_s=trace.get("train_s"),
        evaluate_s=trace.get("evaluate_s"),
        test_s=test.evaluate_s if test else None,
        tokenise_s=prepared.tokenise_s,
    )


def progress_marks(ranks: list[RankProcess]) -> tuple[ProgressMark, ...]:
    """Rank 0's progress marks."""
    told = [message for message in ranks[0].messages if message["kind"] == "mark"] if ranks else []
    return tuple(
        ProgressMark(**{key: message[key] for key in ProgressMark.model_fields} | {"loss": _finite(message["loss"])})
        for message in told
    )


def held_bytes_by_step(ranks: list[RankProcess]) -> tuple[int, ...]:
    """Rank 0's resident bytes after each step, as far as it reported them."""
    told = [message for message in ranks[0].messages if message["kind"] == "mark"] if ranks else []
    return tuple(num_bytes for message in told for num_bytes in message["held_bytes"])


def baseline_result(end: dict[str, Any], peaks: tuple[PeakMemory, ...]) -> Baseline | None:
    """The baseline's result with the peak memory that the parent sampled."""
    found: Baseline | None = end.get("baseline")
    return found.model_copy(update={"peak_memory": found.peak_memory + peaks}) if found else None


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


def merge_ranks(
    ranks: list[RankProcess], prepared: PreparedCell, cell: Cell, together: tuple[PeakMemory, ...]
) -> Training | None:
    """Put the ranks' traces together: counts and losses summed, seconds kept by rank."""
    ends = [rank.end for rank in ranks]
    if not isinstance(cell.config, FineTuneConfig) or not ends or not all(end and "trace" in end for end in ends):
        return None
    config, told = cell.config, [end for end in ends if end]
    traces, first = [end["trace"] for end in told], told[0]
    num_samples = [sum(counts) for counts in zip(*(trace["num_samples"] for trace in traces), strict=True)]
    sums = [sum(parts) for parts in zip(*(trace["loss_sums"] for trace in traces), strict=True)]
    losses = [total / count for total, count in zip(sums, num_samples, strict=True)]
    return Training(
        world_size=len(ranks),
        threads_per_rank=first["num_threads"],
        global_batch_size=config.global_batch(len(ranks)),
        lr_peak=first["lr_peak"],
        num_updates_planned=first["num_updates_planned"],
        stopped_early=traces[0]["stopped_early"],
        steps=Steps(
            seconds=tuple(end["seconds"] for end in told),
            num_samples=tuple(num_samples),
            num_real_tokens=_sum_or_none(traces, "num_real_tokens"),
            num_padded_tokens=_sum_or_none(traces, "num_padded_tokens"),
            loss=tuple(_finite(loss) for loss in losses),
            clock=first["clock"],
            num_skipped=traces[0]["num_skipped"],
            num_token_pairs=_sum_or_none(traces, "num_token_pairs"),
        ),
        evaluations=tuple(traces[0]["evaluations"]),
        test=first["test"],
        peak_memory=(*(peak for end in told for peak in end["peaks"]), *together),
        example=prepared.example or Example(label=None, text=None, tokens=None, input_ids=None, attention_mask=()),
        torch_build=first["torch_build"],
        held_bytes=tuple(tuple(trace["held_bytes"]) for trace in traces),
        communication=first["communication"],
        compile_s=first["compile_s"],
        memory_parts=first.get("memory_parts"),
        attention_kernels=first.get("attention_kernels", ()),
        flops=_all_flops([end.get("flops") for end in told]),
        peak=_all_peaks([end.get("peak") for end in told]),
        pieces=first["pieces"],
        mistakes=most_confident(first["test"], prepared.read_texts),
        kept=first.get("kept"),
    )


def _all_flops(counts: list[FlopCount | None]) -> FlopCount | None:
    """Of all ranks together; None where one did not count."""
    known = [one for one in counts if one is not None]
    if len(known) < len(counts):
        return None
    by_operator: Counter[str] = Counter()
    for one in known:
        by_operator.update(one.by_operator)
    return FlopCount(
        by_operator=dict(by_operator),
        num_samples=sum(one.num_samples for one in known),
        num_padded_tokens=sum(one.num_padded_tokens for one in known),
        num_token_pairs=sum(one.num_token_pairs for one in known),
    )


def _all_peaks(peaks: list[CalibratedPeak | None]) -> CalibratedPeak | None:
    """Of all ranks, which multiplied at once; None where one did not."""
    known = [one for one in peaks if one is not None]
    if len(known) < len(peaks):
        return None
    copied = [one.copy_bytes_per_s for one in known if one.copy_bytes_per_s is not None]
    return known[0].model_copy(
        update={
            "flop_per_s": sum(one.flop_per_s for one in known),
            "copy_bytes_per_s": sum(copied) if len(copied) == len(known) else None,
        }
    )


def _sum_or_none(traces: list[dict[str, Any]], key: str) -> tuple[int, ...]:
    return tuple(sum(counts) for counts in zip(*(trace[key] for trace in traces), strict=True))


def total_cpu_s(ends: list[dict[str, Any]]) -> float | None:
    """CPU seconds of all ranks; None when one did not live to tell."""
    told = [end["cpu_s"] for end in ends if "cpu_s" in end]
    return sum(told) if told and len(told) == len(ends) else None


def checksum_mismatch(ends: list[dict[str, Any]]) -> str | None:
    """Why the ranks' final parameters differ; None if they agree."""
    sums = {end["checksum"] for end in ends if "checksum" in end}
    return f"the ranks' parameters differ at the end: checksums {sorted(sums)}" if len(sums) > 1 else None
