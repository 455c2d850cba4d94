"""What a report says of the data: only what is known, and what of it could spoil a figure."""

from __future__ import annotations

from types import SimpleNamespace

from harness.report.sections.model_and_data import data_descriptions


def words(record, **changes):
    record = record.model_copy(update={"data": record.data.model_copy(update=changes)})
    return data_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])


def test_older_records_say_no_more_than_they_know(ok_record):
    (told,) = words(ok_record)
    assert told.endswith("classes.") and "nearly" not in told


def test_what_could_spoil_a_figure_is_said(ok_record):
    data = ok_record.data
    num_rows = data.train.num_rows + data.val.num_rows + data.test.num_rows
    (told,) = words(
        ok_record, bad_rows={"empty text": 1_200, "broken row": 3}, num_leaks_dropped=4, num_conflicting_duplicates=5,
        num_near_duplicates=6, num_near_checked=num_rows, rare_labels=tuple("abcdefg"),
    )  # fmt: skip
    assert told.endswith(
        "Left out as unusable: 1,200 empty text and 3 broken row. 4 rows that also stand in its validation or test file left "
        "out. 5 texts occur under two labels: the first counts. 6 validation and test rows nearly are a training row. "
        "Fewer than 10 training rows each: a, b, c, d and e and 2 more."
    )
    (told,) = words(ok_record, num_near_duplicates=6, num_near_checked=200_000)
    assert told.endswith("nearly are a training row, of a sample of 200,000 rows.")
