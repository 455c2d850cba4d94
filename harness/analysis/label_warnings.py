"""Sentences about labels that may not be what was meant, for the page, `run` and `inspect`."""

from __future__ import annotations

from collections.abc import Iterator

from harness.schema.inputs_record import DataFacts, SimilarLabels

_MAX_LABELS = 5
_MAX_CHARACTERS = 40


def label_warnings(data: DataFacts) -> Iterator[str]:
    """Yield sentences about labels that may not be what was meant: spellings, words for missing labels, lists."""
    merged = [group for group in data.similar_labels if group.merged]
    apart = [group for group in data.similar_labels if not group.merged]
    if merged:
        yield f"Labels merged by clean_labels: {_groups(merged)}."
    if apart:
        yield (
            f"Labels that look alike count as classes of their own: {_groups(apart)}. data.clean_labels = true merges them."
        )
    if data.null_like_labels:
        words = [
            f"{_quoted(label)} ({rows:,} {'row' if rows == 1 else 'rows'})"
            for label, rows in list(data.null_like_labels.items())[:_MAX_LABELS]
        ]
        yield (
            f"A label may stand for a missing one: {', '.join(words)}. It counts as a class; data.clean_labels = true takes nan and "
            "null for missing."
        )
    lists = [label for label in data.labels if _looks_like_list(label)]
    if lists:
        yield (
            f"Labels look like lists, as {_quoted(lists[0])}: each combination counts as a class of its own, since one label a "
            "text is supported."
        )


def one_label_warnings(data: DataFacts) -> Iterator[str]:
    """Yield a sentence for each of the user's own files whose rows all have one label; drawn splits never do."""
    for split, title in ((data.val, "validation"), (data.test, "test")):
        if split.has_one_label:
            yield (
                f"All {title} rows have the same label: accuracy on them is that label's recall, and always predicting it gives "
                "1.000."
            )


def _groups(groups: list[SimilarLabels]) -> str:
    shown = "; ".join(map(_group, groups[:_MAX_LABELS]))
    return shown + (f"; and {len(groups) - _MAX_LABELS:,} more groups" if len(groups) > _MAX_LABELS else "")


def _group(group: SimilarLabels) -> str:
    """Describe one group, with signs escaped where labels differ in how their signs are coded."""
    quote = ascii if {"Unicode normalization", "full-width form"} & set(group.kinds) else _quoted
    labels = [f"{quote(label[:_MAX_CHARACTERS])} {rows:,}" for label, rows in list(group.rows.items())[:_MAX_LABELS]]
    return f"{', '.join(labels)} ({' and '.join(group.kinds)})"


def _quoted(label: str) -> str:
    """Quote a label, so that blanks at its ends show."""
    return repr(label[:_MAX_CHARACTERS])


def _looks_like_list(label: str) -> bool:
    return label.startswith("[") and label.endswith("]") and len(label) > len("[]")
