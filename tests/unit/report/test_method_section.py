"""The report's description of the data: known facts only, and what could bias a figure."""

from __future__ import annotations

from types import SimpleNamespace

from harness.report.sections.model_and_data import data_descriptions, model_descriptions
from harness.store.record_files import load_record
from tests.unit.frozen import RECORDS


def descriptions(record, **changes):
    record = record.model_copy(update={"data": record.data.model_copy(update=changes)})
    return data_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])


def test_a_baselines_encoder_is_described_only_if_no_cell_trained_it():
    features, trained = (load_record(RECORDS / "v5" / f"{name}.json") for name in ("features", "ok"))
    both, alone = (
        model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=records))])
        for records in ([features, trained], [features])
    )
    assert len(both) == len(alone) == 1
    assert "BertForSequenceClassification" in both[0] and "BertModel" in alone[0]


def test_facts_that_older_records_lack_are_omitted(ok_record):
    (description,) = descriptions(ok_record)
    assert description.endswith("classes.") and "nearly" not in description


def test_unusable_leaked_duplicate_and_rare_rows_are_reported(ok_record):
    data = ok_record.data
    num_rows = data.train.num_rows + data.val.num_rows + data.test.num_rows
    (description,) = descriptions(
        ok_record, bad_rows={"empty text": 1_200, "broken row": 3}, num_leaks_dropped=4, num_conflicting_duplicates=5,
        num_near_duplicates=6, num_near_checked=num_rows, rare_labels=tuple("abcdefg"),
    )  # fmt: skip
    assert description.endswith(
        "Left out as unusable: 1,200 empty text and 3 broken row. 4 rows that also stand in its validation or test file left "
        "out. 5 texts occur under two labels: the first counts. 6 validation and test rows nearly are a training row. "
        "Fewer than 10 training rows each: a, b, c, d and e and 2 more."
    )
    (description,) = descriptions(ok_record, num_near_duplicates=6, num_near_checked=200_000)
    assert description.endswith("nearly are a training row, of a sample of 200,000 rows.")
