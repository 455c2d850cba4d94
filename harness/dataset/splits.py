"""Draw training, validation and test rows so that no group, time or duplicate leaks between splits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from harness.dataset.loading import ANY, TEST, VAL
from harness.dataset.row_storage import Rows
from harness.errors import UserError
from harness.schema.settings import DataSettings


class DrawnSplits(NamedTuple):
    """The rows of each split.

    Attributes:
        rows: Row indices by split name, each of shape `(num_rows,)`.
        num_train_available: Rows that were available for the training split.
        num_leaks_dropped: Rows left out because another row of their group is in a validation or test file.
    """

    rows: dict[str, np.ndarray]
    num_train_available: int
    num_leaks_dropped: int


def draw_splits(rows: Rows, settings: DataSettings) -> DrawnSplits:
    """Draw test, then validation, then training rows; a smaller `num_train` gives a subset of a larger one.

    Rows of a large source are returned in file order; with `time_by`, training rows are returned in order of time.

    Raises:
        UserError: If there are fewer rows than requested.
    """
    rng = np.random.default_rng(settings.seed)
    order, group_ranks = _draw_order(rows, settings, rng)
    assigned = rows.assigned_split[order]
    free = order[assigned == ANY]
    num_leaks = 0
    if rows.groups is not None and assigned.any():
        leaks = np.isin(rows.groups[free], rows.groups[order[assigned != ANY]])
        free, num_leaks = free[~leaks], int(leaks.sum())
    drawn = {}
    for name, split, num_wanted, own_file in (
        ("test", TEST, settings.num_test, settings.test_source), ("val", VAL, settings.num_val, settings.val_source),
    ):  # fmt: skip
        given = order[assigned == split]
        pool = given if own_file else np.concatenate([given, free])
        if num_wanted > len(pool):
            raise _file_too_small(own_file, name, len(pool), num_wanted) if own_file else _too_few(settings, len(order))
        end = _end_of_group(None if group_ranks is None else group_ranks[pool], num_wanted)
        # Rows assigned to this split, and the rest of a group that this split has begun, can't go to another.
        free = free if own_file else pool[max(end, len(given)) :]
        drawn[name] = _choose(pool[:end], num_wanted, settings, rng)
    num_train = len(free) if settings.num_train == "all" else settings.num_train
    if num_train > len(free) or not len(free):
        raise _too_few(settings, len(order), len(free))
    drawn["train"] = _choose(free, num_train, settings, rng)
    if settings.time_by and rows.times is not None:
        train = np.sort(drawn["train"])
        drawn["train"] = train[np.argsort(rows.times[train], kind="stable")]
    if rows.cache_key is not None:  # because texts on disk are read sequentially, one batch at a time
        in_file_order = ("test", "val") if settings.time_by else ("test", "val", "train")
        drawn |= {name: np.sort(drawn[name]) for name in in_file_order}
    return DrawnSplits(drawn, len(free), num_leaks)


def _draw_order(rows: Rows, settings: DataSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Order the rows for drawing.

    Returns:
        Row indices in drawing order, and for each row the rank of its group in that order. Rows with equal rank stay
        together; the ranks are None if every row is its own group. Both arrays have shape `(num_rows,)`.
    """
    num_rows = len(rows.labels)
    if settings.time_by and rows.times is not None:
        shuffled = rng.permutation(num_rows)
        return shuffled[np.argsort(-rows.times[shuffled], kind="stable")], rows.times
    if settings.stratify:
        return _interleave_labels(rows, rng.permutation(num_rows)), None
    if rows.groups is None:
        order = rng.permutation(_sorted_as_strings(num_rows))
        rng.permutation(num_rows)  # unused; without this draw, later draws would differ from those of existing records
        return order, None
    group_numbers = np.unique(rows.groups, return_inverse=True)[1]
    group_order = rng.permutation(int(group_numbers.max(initial=-1)) + 1)
    rank_of_group = np.empty(len(group_order), dtype=np.int64)
    rank_of_group[group_order] = np.arange(len(group_order))
    ranks = rank_of_group[group_numbers]
    return np.lexsort((rng.permutation(num_rows), ranks)), ranks


def _sorted_as_strings(num_rows: int) -> np.ndarray:
    """Return 0 to num_rows - 1 sorted as strings ("10" before "2"), the order that existing records were drawn from."""
    numbers = np.arange(num_rows, dtype=np.int64)
    digits = np.searchsorted(10 ** np.arange(1, 18, dtype=np.int64), numbers, side="right") + 1
    # Compare numbers padded with zeros to equal length; of equal ones, the shorter number comes first.
    return np.argsort(numbers * 10 ** (digits.max(initial=1) - digits) * 32 + digits, kind="stable")


def _interleave_labels(rows: Rows, shuffled: np.ndarray) -> np.ndarray:
    """Order rows so that every prefix has about the label proportions of all rows.

    The k-th of a label's n rows is placed at (k + 1/2) / n.
    """
    # A label in a validation or test file counts as another label, so that each file's rows are spread evenly too.
    labels = rows.labels[shuffled] + len(rows.label_names) * rows.assigned_split[shuffled].astype(np.int64)
    by_label = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    index_in_label = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    position = np.empty(len(labels))
    position[by_label] = (index_in_label + 0.5) / np.repeat(counts, counts)
    return shuffled[np.argsort(position, kind="stable")]


def _choose(pool: np.ndarray, num_wanted: int, settings: DataSettings, rng: np.random.Generator) -> np.ndarray:
    if settings.stratify:
        return pool[:num_wanted]
    return rng.permutation(pool)[:num_wanted]


def _end_of_group(ranks: np.ndarray | None, end: int) -> int:
    """Move `end` to the next boundary between groups."""
    if ranks is None:
        return end
    while 0 < end < len(ranks) and ranks[end] == ranks[end - 1]:
        end += 1
    return end


def _file_too_small(source: str, split: str, num_rows: int, num_wanted: int) -> UserError:
    return UserError(
        f"data.{split}_source {source!r}: {num_rows} usable rows, but num_{split} = {num_wanted}; lower it"
    )


def _too_few(settings: DataSettings, num_rows: int, num_left: int | None = None) -> UserError:
    left = f", {num_left} of them left for training" if num_left is not None else ""
    return UserError(
        f"data {settings.source!r}: {num_rows} usable rows{left}; num_train = {settings.num_train}, num_val = "
        f'{settings.num_val} and num_test = {settings.num_test} need more; lower them, or num_train = "all"'
    )
