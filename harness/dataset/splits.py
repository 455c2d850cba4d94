"""Which rows train, validate and test: drawn so that nothing leaks from one split into another."""

from __future__ import annotations

import numpy as np

from harness.dataset.loading import ANY, TEST, VAL
from harness.dataset.rows import Rows
from harness.errors import UserError
from harness.schema.settings import DataSettings


def draw_splits(rows: Rows, settings: DataSettings) -> tuple[dict[str, np.ndarray], int, int]:
    """Draw test, then validation, then training rows; subsets of different `num_train` are nested.

    Rows of a large source come in its order, and those that train under `time_by` in the order of time.

    Returns:
        Each split's rows, how many the training split could have had, and how many were left out of it because a row
        of their group stands in a validation or test file.

    Raises:
        UserError: When there are fewer rows than are asked for.
    """
    rng = np.random.default_rng(settings.seed)
    order, ranks = _order(rows, settings, rng)
    served = rows.assigned_split[order]
    free = order[served == ANY]
    num_leaks = 0
    if rows.groups is not None and served.any():
        leaks = np.isin(rows.groups[free], rows.groups[order[served != ANY]])
        free, num_leaks = free[~leaks], int(leaks.sum())
    drawn = {}
    for name, code, wanted, own in (
        ("test", TEST, settings.num_test, settings.test_source), ("val", VAL, settings.num_val, settings.val_source),
    ):  # fmt: skip
        given = order[served == code]
        pool = given if own else np.concatenate([given, free])
        if wanted > len(pool):
            raise _too_few_given(own, name, len(pool), wanted) if own else _too_few(settings, len(order))
        end = _end_of_group(None if ranks is None else ranks[pool], wanted)
        # Rows that the source set aside serve nothing else, and nor do the others of a group that was begun.
        free = free if own else pool[max(end, len(given)) :]
        drawn[name] = _chosen(pool[:end], wanted, settings, rng)
    num_train = len(free) if settings.num_train == "all" else settings.num_train
    if num_train > len(free) or not len(free):
        raise _too_few(settings, len(order), len(free))
    drawn["train"] = _chosen(free, num_train, settings, rng)
    if settings.time_by and rows.times is not None:
        train = np.sort(drawn["train"])
        drawn["train"] = train[np.argsort(rows.times[train], kind="stable")]
    if rows.cache_key is not None:  # texts on disk are read a part at a time, in order
        in_order = ("test", "val") if settings.time_by else ("test", "val", "train")
        drawn |= {name: np.sort(drawn[name]) for name in in_order}
    return drawn, len(free), num_leaks


def _order(rows: Rows, settings: DataSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """All rows in the order in which they are drawn, and of each row its group's place in it; None: all are groups of one."""
    num_rows = len(rows.labels)
    if settings.time_by and rows.times is not None:
        mixed = rng.permutation(num_rows)
        return mixed[np.argsort(-rows.times[mixed], kind="stable")], rows.times
    if settings.stratify:
        return _interleaved(rows, rng.permutation(num_rows)), None
    if rows.groups is None:
        order = rng.permutation(_as_words(num_rows))
        rng.permutation(num_rows)  # within groups, were there any: whatever is drawn next stays what it was
        return order, None
    groups = np.unique(rows.groups, return_inverse=True)[1]
    names = rng.permutation(int(groups.max(initial=-1)) + 1)
    place = np.empty(len(names), dtype=np.int64)
    place[names] = np.arange(len(names))
    ranks = place[groups]
    return np.lexsort((rng.permutation(num_rows), ranks)), ranks


def _as_words(num_rows: int) -> np.ndarray:
    """0 to num_rows - 1 in the order of their digits, as words are: rows were first drawn so, and records hold them."""
    numbers = np.arange(num_rows, dtype=np.int64)
    digits = np.searchsorted(10 ** np.arange(1, 18, dtype=np.int64), numbers, side="right") + 1
    # Filled up with zeros to as many digits; of equal ones the shorter first.
    return np.argsort(numbers * 10 ** (digits.max(initial=1) - digits) * 32 + digits, kind="stable")


def _interleaved(rows: Rows, mixed: np.ndarray) -> np.ndarray:
    """Rows in an order of which every part has about each label's share: the k-th of a label's n at (k + 1/2) / n."""
    labels = rows.labels[mixed] + len(rows.label_names) * rows.assigned_split[mixed].astype(np.int64)
    by_label = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    nth = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = np.empty(len(labels))
    at[by_label] = (nth + 0.5) / np.repeat(counts, counts)
    return mixed[np.argsort(at, kind="stable")]


def _chosen(pool: np.ndarray, wanted: int, settings: DataSettings, rng: np.random.Generator) -> np.ndarray:
    if settings.stratify:
        return pool[:wanted]
    return rng.permutation(pool)[:wanted]


def _end_of_group(ranks: np.ndarray | None, at: int) -> int:
    if ranks is None:
        return at
    while 0 < at < len(ranks) and ranks[at] == ranks[at - 1]:
        at += 1
    return at


def _too_few_given(own: str, name: str, num_rows: int, wanted: int) -> UserError:
    return UserError(f"data.{name}_source {own!r}: {num_rows} usable rows, and num_{name} = {wanted} asks for more")


def _too_few(settings: DataSettings, num_rows: int, num_left: int | None = None) -> UserError:
    left = f", of which {num_left} are left for training" if num_left is not None else ""
    return UserError(
        f"data {settings.source!r}: {num_rows} usable rows{left}; num_train = {settings.num_train}, num_val = "
        f'{settings.num_val} and num_test = {settings.num_test} ask for more; lower them, or num_train = "all"'
    )
