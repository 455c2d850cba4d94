"""Confusion matrix and most confident mistakes: counts by hand, in the report and in the terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.analysis.confusion_matrix import confusion_matrix
from harness.analysis.summarize import summarize
from harness.cli.views.record import show_mistakes, show_record
from harness.execution.assemble import most_confident_mistakes
from harness.report import write_report
from harness.report.sections.mistakes import MAX_CELLS, mistakes_section
from harness.schema.record import to_json, upgrade_record
from harness.schema.training_record import SavedWeights, TestEvaluation
from tests.make_priced import AT, priced
from tests.make_records import MIB, make_record

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
# True label 0: three predicted 0, one 1. True label 1: two predicted 1, two 0, one 2. True label 2: no examples.
LABELS = (0, 0, 0, 0, 1, 1, 1, 1, 1)
PREDICTED = (0, 0, 0, 1, 1, 1, 0, 0, 2)
CONFIDENCE = (0.9, 0.9, 0.9, 0.6, 0.9, 0.9, 0.95, 0.7, 0.95)


def make_evaluation(labels=LABELS, predicted=PREDICTED, confidence=CONFIDENCE):
    return TestEvaluation(evaluate_s=1.0, labels=labels, predictions=predicted, probabilities=confidence)


def record_of(test, names=("bad", "good", HOSTILE), store_texts=True, **fields):
    record = make_record(sections={"data": {"store_texts": store_texts}}, **fields)
    read = (lambda rows: [f"text {row} {HOSTILE}" for row in rows]) if store_texts else None
    training = record.training.model_copy(update={"test": test, "mistakes": most_confident_mistakes(test, read)})
    data = record.data.model_copy(update={"labels": names})
    return record.model_copy(update={"training": training, "data": data})


def test_counts_by_hand():
    result = confusion_matrix(record_of(make_evaluation()))
    assert dict(result.counts) == {(0, 0): 3, (0, 1): 1, (1, 1): 2, (1, 0): 2, (1, 2): 1}
    assert (result.num_rows, result.num_correct, [result.num_with_label(label) for label in range(3)]) == (
        9,
        5,
        [4, 5, 0],
    )
    assert result.most_confused() == [(1, 0, 2), (0, 1, 1), (1, 2, 1)]


def test_without_a_test_evaluation_there_is_no_matrix():
    assert confusion_matrix(make_record(outcome="oom", reason="killed")) is None
    assert confusion_matrix(make_record(training={"accuracy": None})) is None


def test_the_most_confident_mistakes_come_first_with_truncated_texts():
    result = most_confident_mistakes(make_evaluation(), lambda rows: ["x" * 1000 for _ in rows])
    assert [(section.row, section.label, section.predicted, section.probability) for section in result] == [
        (6, 1, 0, 0.95), (8, 1, 2, 0.95), (7, 1, 0, 0.7), (3, 0, 1, 0.6),
    ]  # fmt: skip
    assert {len(section.text) for section in result} == {300} and all(section.text.endswith("…") for section in result)


def test_at_most_ten_texts_are_read():
    requested = []
    wrong = make_evaluation(labels=(0,) * 40, predicted=(1,) * 40, confidence=tuple(i / 40 for i in range(40)))
    most_confident_mistakes(wrong, lambda rows: requested.append(list(rows)) or ["" for _ in rows])
    assert requested == [list(range(39, 29, -1))]


def test_without_texts_or_probabilities_there_are_no_mistakes_to_show():
    assert most_confident_mistakes(make_evaluation(), None) == ()
    assert most_confident_mistakes(make_evaluation(confidence=()), lambda rows: ["" for _ in rows]) == ()
    assert most_confident_mistakes(None, lambda rows: ["" for _ in rows]) == ()


def test_records_with_and_without_mistakes_can_be_read():
    record = record_of(make_evaluation())
    assert upgrade_record(json.loads(to_json(record))) == record
    fields = json.loads(to_json(record))
    del fields["training"]["mistakes"], fields["training"]["kept"], fields["training"]["test"]["probabilities"]
    older = upgrade_record(fields)
    assert (older.training.mistakes, older.training.kept, older.training.test.probabilities) == ((), None, ())


def test_the_page_shows_the_matrix_by_label_and_escapes_texts(tmp_path):
    cells = priced([record_of(make_evaluation())])
    (section,) = mistakes_section(cells, cells[0]).cells
    assert section.score == "5 of 9 right (55.6%)"
    assert section.confusion.heads[:3] == ("its label, the model's →", "bad", "good")
    assert [[field.text for field in row[1:]] for row in section.confusion.rows] == [
        ["3", "1", "0"],
        ["2", "2", "1"],
        ["0", "0", "0"],
    ]
    assert [row[1].extra for row in section.confusion.rows] == ["75.0%", "40.0%", ""]
    assert [row[3].text for row in section.most_confident.rows] == ["95.0%", "95.0%", "70.0%", "60.0%"]
    text = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert 'id="mistakes"' in text and "text 6 &lt;/script&gt;&lt;img" in text
    assert "<img src=x" not in text and "\u202e" not in text


def test_a_saved_model_is_mentioned(tmp_path):
    record = record_of(make_evaluation())
    kept = SavedWeights(num_updates=30, sha256="0" * 64, num_bytes=87 * MIB, keep_s=1.25)
    record = record.model_copy(update={"training": record.training.model_copy(update={"kept": kept})})
    (section,) = mistakes_section(priced([record]), None).cells
    assert section.score == "5 of 9 right (55.6%); the model after update 30 was tested, and is kept"
    out = Console(file=io.StringIO(), width=200)
    show_record(out, record, summarize([record])[0], tmp_path / "20261001T080000Z-0123.json")
    text = " ".join(out.file.getvalue().split())
    assert "after update 30, 87 MiB, 1.2 s in no other figure: models/study/b16-s64" in text
    assert "-20261001T080000Z-0123 beside the records" in text


def test_with_many_classes_the_most_confused_pairs_are_shown():
    names = tuple(f"class {index}" for index in range(20))
    cells = priced([record_of(make_evaluation(), names=names)])
    (section,) = mistakes_section(cells, None).cells
    assert section.confusion.heads == ("its label", "the model's", "examples", "of that label")
    assert [[field.text for field in row] for row in section.confusion.rows] == [
        ["class 1", "class 0", "2", "40.0%"], ["class 0", "class 1", "1", "25.0%"], ["class 1", "class 2", "1", "20.0%"],
    ]  # fmt: skip


def test_the_chosen_cell_comes_first_and_the_others_are_counted():
    cells = priced([record_of(make_evaluation(), axes={"batch_size": size}) for size in range(1, MAX_CELLS + 4)])
    result = mistakes_section(cells, cells[5])
    assert (len(result.cells), result.num_more) == (MAX_CELLS, 3)
    assert result.cells[0].name.startswith("6×")
    assert mistakes_section(priced([make_record(training={"accuracy": None})]), None) is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (record_of(make_evaluation(), store_texts=False), "store_texts = false"),
        (record_of(make_evaluation(confidence=())), "probabilities were not kept"),
    ],
)
def test_the_reason_for_missing_mistakes_is_given(record, reason):
    (section,) = mistakes_section(priced([record]), None).cells
    assert not section.most_confident and reason in section.why_none


def test_show_prints_matrix_and_mistakes_without_bidi_marks():
    out = Console(file=io.StringIO(), width=160)
    show_mistakes(out, record_of(make_evaluation()))
    text = out.file.getvalue()
    assert "4 of 9 test examples" in text
    assert "good, labelled bad at 0.95: text 6 </script>" in text
    assert "\u202e" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["bad", "3", "1", "0"] in lines and ["good", "2", "2", "1"] in lines


def test_show_prints_nothing_without_a_test_evaluation():
    out = Console(file=io.StringIO())
    show_mistakes(out, make_record(outcome="oom", reason="killed"))
    assert out.file.getvalue() == ""
