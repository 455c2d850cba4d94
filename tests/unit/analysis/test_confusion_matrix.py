"""What a test evaluation got wrong: counted by hand, shown in the report and in the terminal."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from harness.analysis.confusion_matrix import confusion_matrix
from harness.analysis.summarize import summarize
from harness.cli.views.mistakes import describe_mistakes
from harness.cli.views.progress import describe_record
from harness.execution.assemble import most_confident_mistakes
from harness.report import write_report
from harness.report.sections.mistakes import MAX_CELLS, mistakes
from harness.schema.record import to_json, upgrade_record
from harness.schema.training_record import SavedWeights, TestEvaluation
from tests.make_priced import AT, priced
from tests.make_records import MIB, make_record

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e"
# Of 0: three right, one taken for 1. Of 1: two right, two taken for 0, one for 2. Of 2: none.
LABELS = (0, 0, 0, 0, 1, 1, 1, 1, 1)
GIVEN = (0, 0, 0, 1, 1, 1, 0, 0, 2)
SURE = (0.9, 0.9, 0.9, 0.6, 0.9, 0.9, 0.95, 0.7, 0.95)


def an_evaluation(labels=LABELS, given=GIVEN, sure=SURE):
    return TestEvaluation(evaluate_s=1.0, labels=labels, predictions=given, probabilities=sure)


def record_of(test, names=("bad", "good", HOSTILE), store_texts=True, **fields):
    record = make_record(sections={"data": {"store_texts": store_texts}}, **fields)
    read = (lambda rows: [f"text {row} {HOSTILE}" for row in rows]) if store_texts else None
    training = record.training.model_copy(update={"test": test, "mistakes": most_confident_mistakes(test, read)})
    data = record.data.model_copy(update={"labels": names})
    return record.model_copy(update={"training": training, "data": data})


def test_confusion_counted_by_hand():
    found = confusion_matrix(record_of(an_evaluation()))
    assert dict(found.counts) == {(0, 0): 3, (0, 1): 1, (1, 1): 2, (1, 0): 2, (1, 2): 1}
    assert (found.num_rows, found.num_correct, [found.num_with_label(label) for label in range(3)]) == (9, 5, [4, 5, 0])
    assert found.most_confused() == [(1, 0, 2), (0, 1, 1), (1, 2, 1)]


def test_nothing_tested_has_no_confusion():
    assert confusion_matrix(make_record(outcome="oom", reason="killed")) is None
    assert confusion_matrix(make_record(training={"accuracy": None})) is None


def test_the_surest_mistakes_come_first_and_their_texts_are_cut():
    found = most_confident_mistakes(an_evaluation(), lambda rows: ["x" * 1000 for _ in rows])
    assert [(one.row, one.label, one.predicted, one.probability) for one in found] == [
        (6, 1, 0, 0.95), (8, 1, 2, 0.95), (7, 1, 0, 0.7), (3, 0, 1, 0.6),
    ]  # fmt: skip
    assert {len(one.text) for one in found} == {300} and all(one.text.endswith("…") for one in found)


def test_at_most_ten_texts_are_asked_for():
    asked = []
    wrong = an_evaluation(labels=(0,) * 40, given=(1,) * 40, sure=tuple(i / 40 for i in range(40)))
    most_confident_mistakes(wrong, lambda rows: asked.append(list(rows)) or ["" for _ in rows])
    assert asked == [list(range(39, 29, -1))]


def test_without_texts_or_probabilities_there_are_no_mistakes_to_read():
    assert most_confident_mistakes(an_evaluation(), None) == ()
    assert most_confident_mistakes(an_evaluation(sure=()), lambda rows: ["" for _ in rows]) == ()
    assert most_confident_mistakes(None, lambda rows: ["" for _ in rows]) == ()


def test_a_record_keeps_them_and_one_without_them_reads_on():
    record = record_of(an_evaluation())
    assert upgrade_record(json.loads(to_json(record))) == record
    fields = json.loads(to_json(record))
    del fields["training"]["mistakes"], fields["training"]["kept"], fields["training"]["test"]["probabilities"]
    older = upgrade_record(fields)
    assert (older.training.mistakes, older.training.kept, older.training.test.probabilities) == ((), None, ())


def test_the_page_shows_the_matrix_by_label_and_escapes_texts(tmp_path):
    cells = priced([record_of(an_evaluation())])
    (one,) = mistakes(cells, cells[0]).cells
    assert one.told == "5 of 9 right (55.6%)"
    assert one.heads[:3] == ("its label, the model's →", "bad", "good")
    assert [[field.text for field in row[1:]] for row in one.rows] == [
        ["3", "1", "0"],
        ["2", "2", "1"],
        ["0", "0", "0"],
    ]
    assert [row[1].extra for row in one.rows] == ["75.0%", "40.0%", ""]
    assert [row[3].text for row in one.surest] == ["95.0%", "95.0%", "70.0%", "60.0%"]
    text = write_report(cells, tmp_path, generated_at=AT).read_text(encoding="utf-8")
    assert 'id="mistakes"' in text and "text 6 &lt;/script&gt;&lt;img" in text
    assert "<img src=x" not in text and "\u202e" not in text


def test_a_kept_model_is_told_of(tmp_path):
    record = record_of(an_evaluation())
    kept = SavedWeights(num_updates=30, sha256="0" * 64, num_bytes=87 * MIB, keep_s=1.25)
    record = record.model_copy(update={"training": record.training.model_copy(update={"kept": kept})})
    (one,) = mistakes(priced([record]), None).cells
    assert one.told == "5 of 9 right (55.6%); the model after update 30 was tested, and is kept"
    out = Console(file=io.StringIO(), width=200)
    describe_record(out, record, summarize([record])[0], tmp_path / "20261001T080000Z-0123.json")
    text = " ".join(out.file.getvalue().split())
    assert "after update 30, 87 MiB, 1.2 s in no other figure: models/study/b16-s64" in text
    assert "-20261001T080000Z-0123 beside the records" in text


def test_of_many_classes_the_most_confused_pairs_are_shown():
    names = tuple(f"class {index}" for index in range(20))
    cells = priced([record_of(an_evaluation(), names=names)])
    (one,) = mistakes(cells, None).cells
    assert one.heads == ("its label", "the model's", "examples", "of that label")
    assert [[field.text for field in row] for row in one.rows] == [
        ["class 1", "class 0", "2", "40.0%"], ["class 0", "class 1", "1", "25.0%"], ["class 1", "class 2", "1", "20.0%"],
    ]  # fmt: skip


def test_the_chosen_cell_comes_first_and_the_rest_is_counted():
    cells = priced([record_of(an_evaluation(), axes={"batch_size": size}) for size in range(1, MAX_CELLS + 4)])
    found = mistakes(cells, cells[5])
    assert (len(found.cells), found.num_more) == (MAX_CELLS, 3)
    assert found.cells[0].name.startswith("6×")
    assert mistakes(priced([make_record(training={"accuracy": None})]), None) is None


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (record_of(an_evaluation(), store_texts=False), "store_texts = false"),
        (record_of(an_evaluation(sure=())), "probabilities were not kept"),
    ],
)
def test_why_no_mistake_can_be_read_is_said(record, words):
    (one,) = mistakes(priced([record]), None).cells
    assert one.surest == () and words in one.untold


def test_show_prints_matrix_and_mistakes_without_marks_of_direction():
    out = Console(file=io.StringIO(), width=160)
    describe_mistakes(out, record_of(an_evaluation()))
    text = out.file.getvalue()
    assert "4 of 9 test examples" in text
    assert "good, labelled bad at 0.95: text 6 </script>" in text
    assert "\u202e" not in text
    lines = [line.split() for line in text.splitlines()]
    assert ["bad", "3", "1", "0"] in lines and ["good", "2", "2", "1"] in lines


def test_show_says_nothing_where_nothing_was_tested():
    out = Console(file=io.StringIO())
    describe_mistakes(out, make_record(outcome="oom", reason="killed"))
    assert out.file.getvalue() == ""
