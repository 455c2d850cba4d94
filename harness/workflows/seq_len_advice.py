"""Recommend a `seq_len` for a dataset: texts truncated, FLOPs and expected speed at each candidate length (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Literal, get_args

import numpy as np

from harness.analysis.estimate import Estimate
from harness.analysis.flops_formula import training_flops
from harness.analysis.summary import Summary
from harness.dataset.batch_plan import plan_epochs, steps_per_epoch
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import Padding, Trainable

PADDINGS: tuple[Padding, ...] = get_args(Padding)
# A recommended length truncates at most 5 % of the texts.
WHOLE_FRACTION = 0.95
_MIN_SEQ_LEN = 16
_PLANNED_ROWS = 20_000  # larger datasets are planned on a random subset, whose fractions are close to the whole's
# Keys of [data] in which cells may differ whose accuracies are compared: none changes the source or the test set.
_DATA_KEYS = ("num_train", "store_texts")
# Keys of [training] that hardly change step times.
STEP_TIME_NEUTRAL_KEYS = (
    "epochs", "max_steps", "lr", "schedule", "warmup_fraction", "weight_decay", "lr_scaling", "lr_base_batch_size", "eval_every",
    "target_accuracy", "stop_at_target",
)  # fmt: skip
_MIN_WORK_RATIO = 0.2  # a line through two cells needs a larger relative difference in work than this

Basis = Literal["measured", "by the line through two measured lengths", "in proportion to one measured length"]


@dataclass(frozen=True)
class EpochWork:
    """Mean work of training over an epoch, at one `seq_len` and padding.

    Attributes:
        flops_per_sample: FLOPs of matrix products, padding included.
        padding_fraction: Fraction of these FLOPs spent on padding.
    """

    flops_per_sample: float
    padding_fraction: float


@dataclass(frozen=True)
class ExpectedSpeed:
    """Throughput at one `seq_len` and padding, in samples per second, and how it was derived."""

    samples_per_s: float
    basis: Basis


@dataclass(frozen=True)
class CandidateLength:
    """Effects of one `seq_len`.

    Attributes:
        cut_texts_fraction: Fraction of texts that are truncated.
        cut_tokens_fraction: Fraction of all tokens that truncation removes.
        speeds: Expected speed by padding, for paddings with a measured similar cell.
        accuracy: Best measured test accuracy on the same data; None if not measured.
    """

    seq_len: int
    cut_texts_fraction: float
    cut_tokens_fraction: float
    work: Mapping[Padding, EpochWork]
    speeds: Mapping[Padding, ExpectedSpeed]
    accuracy: Estimate | None


@dataclass(frozen=True)
class SeqLenAdvice:
    """Candidate lengths, shortest first, and the recommended one.

    Attributes:
        longer: The next longer candidate; None if `best` is the longest.
    """

    lengths: tuple[CandidateLength, ...]
    batch_size: int
    best: CandidateLength
    longer: CandidateLength | None


def advise_seq_len(
    lengths: np.ndarray,
    shape: ModelShape,
    num_labels: int,
    *,
    batch_size: int,
    trainable: Trainable = "all",
    measured: Sequence[Summary] = (),
    same_data: Sequence[Summary] = (),
) -> SeqLenAdvice:
    """Evaluate candidate lengths and recommend the shortest that truncates at most 5 % of the texts.

    If every candidate truncates more, the longest is recommended.

    Args:
        lengths: Tokens of each text before truncation, special tokens included, shape `(num_rows,)`.
        shape: Sizes of the model.
        num_labels: Number of classes.
        batch_size: Rows per batch.
        trainable: The part of the model that is trained.
        measured: Measured cells similar enough to derive speeds from (see `find_similar_cells`).
        same_data: The cells of `measured` that were trained on the same data, to take accuracies from.
    """
    evaluated = []
    for seq_len in candidate_lengths(lengths, shape.max_tokens):
        work = {
            padding: epoch_work(
                lengths, seq_len, padding, shape, num_labels, batch_size=batch_size, trainable=trainable
            )
            for padding in PADDINGS
        }
        speeds = {padding: _speed(seq_len, padding, work[padding], measured) for padding in PADDINGS}
        evaluated.append(
            CandidateLength(
                seq_len=seq_len,
                cut_texts_fraction=float(np.mean(lengths > seq_len)),
                cut_tokens_fraction=float(np.maximum(lengths - seq_len, 0).sum() / lengths.sum()),
                work=work,
                speeds={padding: speed for padding, speed in speeds.items() if speed is not None},
                accuracy=_accuracy(seq_len, same_data),
            )
        )
    sufficient = [length for length in evaluated if length.cut_texts_fraction <= 1 - WHOLE_FRACTION]
    best = sufficient[0] if sufficient else evaluated[-1]
    longer = next((length for length in evaluated if length.seq_len > best.seq_len), None)
    return SeqLenAdvice(tuple(evaluated), batch_size, best, longer)


def candidate_lengths(lengths: np.ndarray, positions: int) -> list[int]:
    """List powers of two from 16 to the first that truncates nothing, limited to the model's positions."""
    found = [_MIN_SEQ_LEN]
    while found[-1] < min(int(lengths.max()), positions):
        found.append(min(2 * found[-1], positions))
    return found


def epoch_work(
    lengths: np.ndarray,
    seq_len: int,
    padding: Padding,
    shape: ModelShape,
    num_labels: int,
    *,
    batch_size: int,
    trainable: Trainable = "all",
) -> EpochWork:
    """Compute the mean work of an epoch from the batch plan that training would follow with seed 0.

    Args:
        lengths: Tokens of each text before truncation, shape `(num_rows,)`.
        seq_len: Length at which texts are truncated.
        padding: Padding strategy.
        shape: Sizes of the model.
        num_labels: Number of classes.
        batch_size: Rows per batch.
        trainable: The part of the model that is trained.
    """
    kept = np.minimum(lengths, seq_len)
    if len(kept) > _PLANNED_ROWS:
        kept = np.random.default_rng(0).choice(kept, _PLANNED_ROWS, replace=False)
    plan = plan_epochs(kept, global_batch=batch_size, grad_accum=1, world_size=1, padding=padding, seed=0)
    num_tokens = num_token_pairs = 0.0
    for ((rows,),) in islice(plan, steps_per_epoch(len(kept), batch_size)):
        width = seq_len if padding == "max" else int(kept[rows].max())
        num_tokens += len(rows) * width
        num_token_pairs += len(rows) * width**2
    flops = _flops(shape, num_labels, len(kept), num_tokens, num_token_pairs, trainable)
    useful = _flops(shape, num_labels, len(kept), kept.sum(), (kept.astype(np.float64) ** 2).sum(), trainable)
    return EpochWork(flops / len(kept), 1 - useful / flops)


def find_similar_cells(
    config: FineTuneConfig, summaries: Sequence[Summary], machine_id: str
) -> tuple[list[Summary], list[Summary]]:
    """Find measured cells of a machine from which speed and accuracy of `config` can be derived.

    Args:
        config: The planned configuration.
        summaries: Measured cells.
        machine_id: Id of the machine.

    Returns:
        First the cells that differ only in `seq_len`, padding, data and keys that hardly change step times (for speed);
        then the cells among these with the same texts and test set (for accuracy).
    """
    ignored = (
        "seed",
        "seq_len",
        "padding",
        "limits",
        "measure",
        *(f"training.{key}" for key in STEP_TIME_NEUTRAL_KEYS),
    )
    ignored_for_speed = ("data", *ignored)
    ignored_for_accuracy = (*ignored, *(f"data.{key}" for key in _DATA_KEYS))

    def same(summary: Summary, ignore: Sequence[str]) -> bool:
        return hash_config(summary.config, ignore=ignore) == hash_config(config, ignore=ignore)

    similar = [
        summary
        for summary in summaries
        if summary.machine_id == machine_id
        and isinstance(summary.config, FineTuneConfig)
        and summary.num_ok
        and same(summary, ignored_for_speed)
    ]
    return similar, [summary for summary in similar if same(summary, ignored_for_accuracy)]


def _flops(
    shape: ModelShape, num_labels: int, num_samples: int, tokens: float, pairs: float, trainable: Trainable
) -> float:
    return training_flops(shape, num_labels, num_samples, tokens, trainable=trainable, num_token_pairs=pairs)


def _speed(seq_len: int, padding: Padding, work: EpochWork, measured: Sequence[Summary]) -> ExpectedSpeed | None:
    """Derive the speed at `seq_len` from measured cells of the same padding; None if there are none.

    If cells of this length were measured, their mean is used. Else a line through two cells gives the speed: seconds per
    sample = fixed cost + FLOPs x seconds per FLOP, since short texts use a machine less well. Else the speed of one cell is
    scaled in proportion to FLOPs.
    """
    points = [
        (cell.config.seq_len, cell.compute.flop_per_s / cell.samples_per_s.value, 1 / cell.samples_per_s.value)
        for cell in measured
        if isinstance(cell.config, FineTuneConfig)
        and cell.config.padding == padding
        and cell.samples_per_s
        and cell.compute
    ]
    same_length = [seconds for length, _, seconds in points if length == seq_len]
    if same_length:
        return ExpectedSpeed(1 / fmean(same_length), "measured")
    if not points:
        return None
    flops = work.flops_per_sample
    (_, near_flops, near_s), *others = sorted(points, key=lambda point: abs(point[1] - flops))
    other = next((point for point in others if abs(point[1] / near_flops - 1) > _MIN_WORK_RATIO), None)
    if other is not None:
        slope = (other[2] - near_s) / (other[1] - near_flops)
        seconds = near_s + slope * (flops - near_flops)
        if slope > 0 and seconds > 0:
            return ExpectedSpeed(1 / seconds, "by the line through two measured lengths")
    return ExpectedSpeed(near_flops / (near_s * flops), "in proportion to one measured length")


def _accuracy(seq_len: int, same_data: Sequence[Summary]) -> Estimate | None:
    measured = [
        cell.accuracy
        for cell in same_data
        if isinstance(cell.config, FineTuneConfig) and cell.config.seq_len == seq_len and cell.accuracy is not None
    ]
    return max(measured, key=lambda accuracy: accuracy.value, default=None)
