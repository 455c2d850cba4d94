"""Which `seq_len` a dataset needs: what each would cut off, what it would compute, and how fast that would be (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Literal, NamedTuple, get_args

import numpy as np

from harness.analysis.estimate import Estimate
from harness.analysis.flops_formula import training_flops
from harness.analysis.summary import Summary
from harness.dataset.batch_plan import plan_epochs, steps_per_epoch
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import Padding, Trainable

PADDINGS: tuple[Padding, ...] = get_args(Padding)
# Of the texts, as many as a recommended length leaves whole.
WHOLE_FRACTION = 0.95
_SHORTEST = 16
_PLANNED_ROWS = 20_000  # of more the plan is made of a random subset, whose shares are the whole's
_OF_DRAWING = ("num_train", "store_texts")  # of the data's settings, what leaves its texts and its test set as they are
# Of the recipe, what moves no step's seconds by much.
_OF_RECIPE = (
    "epochs", "max_steps", "lr", "schedule", "warmup_fraction", "weight_decay", "lr_scaling", "lr_base_batch_size", "eval_every",
    "target_accuracy", "stop_at_target",
)  # fmt: skip
_APART = 0.2  # two cells' work must differ by so much to tell a slope

Basis = Literal["measured", "by the line through two measured lengths", "in proportion to one measured length"]


class _Sizes(NamedTuple):
    hidden_size: int
    intermediate_size: int
    num_layers: int


@dataclass(frozen=True)
class Work:
    """What training computes at one length and padding, mean over an epoch.

    Attributes:
        flops_per_sample: Matrix products, padding included.
        padding_fraction: Share of them that goes into padding.
    """

    flops_per_sample: float
    padding_fraction: float


@dataclass(frozen=True)
class Speed:
    """Samples a second at one length and padding, and what that is known by."""

    samples_per_s: float
    basis: Basis


@dataclass(frozen=True)
class Length:
    """One `seq_len`.

    Attributes:
        cut_texts_fraction: Share of texts longer than it.
        cut_tokens_fraction: Share of all tokens that it leaves out.
        speeds: Of paddings of which a like cell was measured.
        accuracy: On the test set, of a cell of these very data; None where none was measured.
    """

    seq_len: int
    cut_texts_fraction: float
    cut_tokens_fraction: float
    work: Mapping[Padding, Work]
    speeds: Mapping[Padding, Speed]
    accuracy: Estimate | None


@dataclass(frozen=True)
class SeqLenAdvice:
    """All lengths, shortest first, and the one that is recommended.

    Attributes:
        longer: The next longer one, or None.
    """

    lengths: tuple[Length, ...]
    batch_size: int
    best: Length
    longer: Length | None


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
    """Tell of every usual length up to the longest text's, or the model's positions.

    Recommended is the shortest that leaves 95 % of the texts whole; else the longest there is.

    Args:
        lengths: Tokens of each text, uncut, special tokens included, `(num_rows,)`.
        measured: Cells of one machine that may tell of speed: alike but for length and data (see `like_cells`).
        same_data: Those of them that were trained on these data, which may tell of accuracy.
    """
    found = []
    for seq_len in candidates(lengths, shape.positions):
        work = {
            padding: work_of(lengths, seq_len, padding, shape, num_labels, batch_size=batch_size, trainable=trainable)
            for padding in PADDINGS
        }
        speeds = {padding: _speed(seq_len, padding, work[padding], measured) for padding in PADDINGS}
        found.append(
            Length(
                seq_len=seq_len,
                cut_texts_fraction=float(np.mean(lengths > seq_len)),
                cut_tokens_fraction=float(np.maximum(lengths - seq_len, 0).sum() / lengths.sum()),
                work=work,
                speeds={padding: speed for padding, speed in speeds.items() if speed is not None},
                accuracy=_accuracy(seq_len, same_data),
            )
        )
    whole = [one for one in found if one.cut_texts_fraction <= 1 - WHOLE_FRACTION]
    best = whole[0] if whole else found[-1]
    longer = next((one for one in found if one.seq_len > best.seq_len), None)
    return SeqLenAdvice(tuple(found), batch_size, best, longer)


def candidates(lengths: np.ndarray, positions: int) -> list[int]:
    """Powers of two from 16 to the first that cuts nothing, none beyond the model's positions."""
    found = [_SHORTEST]
    while found[-1] < min(int(lengths.max()), positions):
        found.append(min(2 * found[-1], positions))
    return found


def work_of(
    lengths: np.ndarray,
    seq_len: int,
    padding: Padding,
    shape: ModelShape,
    num_labels: int,
    *,
    batch_size: int,
    trainable: Trainable = "all",
) -> Work:
    """What one epoch would compute, by the very batch plan that training would follow (seed 0)."""
    kept = np.minimum(lengths, seq_len)
    if len(kept) > _PLANNED_ROWS:
        kept = np.random.default_rng(0).choice(kept, _PLANNED_ROWS, replace=False)
    plan = plan_epochs(kept, global_batch=batch_size, grad_accum=1, world_size=1, padding=padding, seed=0)
    padded = pairs = 0.0
    for ((rows,),) in islice(plan, steps_per_epoch(len(kept), batch_size)):
        width = seq_len if padding == "max" else int(kept[rows].max())
        padded += len(rows) * width
        pairs += len(rows) * width**2
    flops = _flops(shape, num_labels, len(kept), padded, pairs, trainable)
    needed = _flops(shape, num_labels, len(kept), kept.sum(), (kept.astype(np.float64) ** 2).sum(), trainable)
    return Work(flops / len(kept), 1 - needed / flops)


def like_cells(
    config: FineTuneConfig, summaries: Sequence[Summary], machine_id: str
) -> tuple[list[Summary], list[Summary]]:
    """Cells of a machine that differ from `config` in length, padding, recipe and data alone; those of them on the same data.

    Speed is told by either, accuracy by the latter alone.
    """
    of_recipe = ("seed", "seq_len", "padding", "limits", *(f"training.{key}" for key in _OF_RECIPE))
    of_speed = ("data", *of_recipe)
    of_data = (*of_recipe, *(f"data.{key}" for key in _OF_DRAWING))
    here = [
        one
        for one in summaries
        if one.machine_id == machine_id and isinstance(one.config, FineTuneConfig) and one.num_ok
    ]
    alike = [one for one in here if hash_config(one.config, ignore=of_speed) == hash_config(config, ignore=of_speed)]
    same = [one for one in alike if hash_config(one.config, ignore=of_data) == hash_config(config, ignore=of_data)]
    return alike, same


def _flops(
    shape: ModelShape, num_labels: int, num_samples: int, tokens: float, pairs: float, trainable: Trainable
) -> float:
    sizes = _Sizes(shape.hidden, shape.intermediate, shape.layers)
    return training_flops(sizes, num_labels, num_samples, tokens, trainable=trainable, num_token_pairs=pairs)


def _speed(seq_len: int, padding: Padding, work: Work, measured: Sequence[Summary]) -> Speed | None:
    """By a cell of this length; else by the line through two cells' seconds a sample; else in proportion to one cell's.

    What a sample takes is taken as a start and so much for each FLOP: short texts do not load a machine as long ones do.
    """
    points = [
        (one.config.seq_len, one.compute.flop_per_s / one.samples_per_s.value, 1 / one.samples_per_s.value)
        for one in measured
        if isinstance(one.config, FineTuneConfig)
        and one.config.padding == padding
        and one.samples_per_s
        and one.compute
    ]
    same = [seconds for length, _, seconds in points if length == seq_len]
    if same:
        return Speed(1 / fmean(same), "measured")
    if not points:
        return None
    flops = work.flops_per_sample
    (_, near, near_s), *others = sorted(points, key=lambda point: abs(point[1] - flops))
    other = next((point for point in others if abs(point[1] / near - 1) > _APART), None)
    if other is not None:
        slope = (other[2] - near_s) / (other[1] - near)
        seconds = near_s + slope * (flops - near)
        if slope > 0 and seconds > 0:
            return Speed(1 / seconds, "by the line through two measured lengths")
    return Speed(near / (near_s * flops), "in proportion to one measured length")


def _accuracy(seq_len: int, same_data: Sequence[Summary]) -> Estimate | None:
    known = [
        one.accuracy
        for one in same_data
        if isinstance(one.config, FineTuneConfig) and one.config.seq_len == seq_len and one.accuracy is not None
    ]
    return max(known, key=lambda accuracy: accuracy.value, default=None)
