"""Labels that look alike are reported, and merged only with `clean_labels`."""

from __future__ import annotations

import csv
import json

import pytest

from harness.dataset.corpus import load_corpus
from harness.dataset.rows import read_rows
from harness.dataset.similar_labels import find_similar_labels, null_like_labels
from harness.errors import UserError
from harness.schema.cells import BaselineConfig, hash_config
from harness.schema.settings import DataSettings, LimitSettings


@pytest.fixture
def write(tmp_path):
    """Return a function that writes one row for each label, and returns the file's settings."""

    def write_labels(labels, name="own.csv", **changes):
        path = tmp_path / name
        rows = [(f"text {index} of {name}", label) for index, label in enumerate(labels)]
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("text", "label"), *rows])
        else:
            path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        return DataSettings(**{"source": str(path), "num_train": "all", "num_val": 2, "num_test": 2} | changes)

    return write_labels


def groups(labels):
    return [(group.kinds, list(group.rows)) for group in find_similar_labels(dict.fromkeys(labels, 1))]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (("neg", "neg "), "blanks"),
        (("very  good", "very good"), "blanks"),
        (("good", "go\u200bod"), "blanks"),
        (("a\u00a0b", "a b"), "blanks"),
        (("Neg", "neg"), "case"),
        (("STRASSE", "straße"), "case"),
        (("pos", "\uff50\uff4f\uff53"), "full-width form"),
        (("né", "ne\u0301"), "Unicode normalization"),
        (("0", "0.0"), "number form"),
        (("1", "1e0"), "number form"),
        (("7", "07"), "number form"),
        (("0", "False"), "number form"),
    ],
)
def test_each_kind_of_difference_is_named(labels, kind):
    """Once these were two classes without a word."""
    ((kinds, found),) = groups([*labels, "other"])
    assert set(found) == set(labels)
    assert kind in kinds


def test_labels_that_differ_in_several_ways_are_one_group():
    assert groups(["Neg", "neg ", "neg", "pos"]) == [(("blanks", "case"), ["Neg", "neg", "neg "])]


@pytest.mark.parametrize(
    "labels",
    [
        ("yes", "true", "no"),
        ("a", "b"),
        ("1", "2"),
        ("0.5", "0.25"),
        ("12345678901234567890", "12345678901234567891"),
        ("-1", "1"),
    ],
)
def test_labels_that_differ_in_meaning_are_no_group(labels):
    assert groups(labels) == []


def test_words_for_a_missing_label_are_counted_with_their_rows():
    rows = {"nan": 3, "None": 2, "N/A": 1, "good": 9, "nanny": 4}
    assert null_like_labels(rows) == {"nan": 3, "None": 2, "N/A": 1}


def test_the_record_counts_labels_that_look_alike(write):
    facts = load_corpus(write(["neg"] * 8 + ["neg "] * 3 + ["pos"] * 8)).facts
    assert facts.labels == ("neg", "neg ", "pos")
    ((group,), null_like) = facts.similar_labels, facts.null_like_labels
    assert (group.kinds, group.rows, group.merged) == (("blanks",), {"neg": 8, "neg ": 3}, False)
    assert null_like == {}


def test_clean_labels_merges_into_the_most_frequent_and_records_what_it_merged(write):
    rows = read_rows(write(["neg "] * 3 + ["neg"] * 8 + ["pos"] * 8 + ["POS"], clean_labels=True))
    assert rows.label_names == ("neg", "pos")
    assert rows.labels.tolist() == [0] * 11 + [1] * 9
    facts = load_corpus(write(["neg "] * 3 + ["neg"] * 8 + ["pos"] * 8 + ["POS"], clean_labels=True)).facts
    assert [(group.rows, group.merged) for group in facts.similar_labels] == [
        ({"neg": 8, "neg ": 3}, True),
        ({"pos": 8, "POS": 1}, True),
    ]


def test_numbers_in_four_forms_are_two_classes_once_cleaned(write):
    """A CSV's 0, 1, 0.0 and 1.0 are four labels, of which `inspect` once said "2 values"."""
    labels = ["0", "1", "0.0", "1.0"] * 6
    assert read_rows(write(labels)).label_names == ("0", "0.0", "1", "1.0")
    assert read_rows(write(labels, clean_labels=True)).label_names == ("0", "1")


def test_nan_among_whole_numbers_is_a_word_and_no_scale(write):
    """Once refused: "labels such as '0', '1', 'nan' are numbers on a scale"."""
    labels = ["0", "1"] * 8 + ["nan"] * 3
    facts = load_corpus(write(labels)).facts
    assert facts.labels == ("0", "1", "nan")
    assert facts.null_like_labels == {"nan": 3}
    with pytest.raises(
        UserError, match=r"(?s)missing label: 3 \(line 18: 'nan' stands for a missing label, .*\"skip\""
    ):
        read_rows(write(labels, clean_labels=True))
    rows = read_rows(write(labels, clean_labels=True, on_bad_row="skip"))
    assert (rows.label_names, rows.facts.bad_rows) == (("0", "1"), {"missing label": 3})
    with pytest.raises(UserError, match="numbers on a scale"):
        read_rows(write(["0.5", "1", "nan"]))


def test_a_word_that_may_name_a_class_is_never_dropped(write):
    rows = read_rows(write(["none", "insult"] * 8, clean_labels=True))
    assert rows.label_names == ("insult", "none")
    assert rows.facts.null_like_labels == {"none": 8}


def test_json_values_of_one_meaning_are_merged_and_others_are_mixed_types(write):
    labels = [0, 1, 0.0, 1.0, "1", "0", True, False] * 3
    with pytest.raises(UserError, match="mixed types: 12"):
        read_rows(write(labels, "own.jsonl"))
    assert read_rows(write(labels, "own.jsonl", clean_labels=True)).label_names == ("0", "1")
    with pytest.raises(UserError, match=r"mixed types: 1 \(line 25: 'label' is text, and a number in earlier rows\)"):
        read_rows(write([*labels, "one"], "own.jsonl", clean_labels=True))


def test_test_files_may_spell_labels_otherwise_if_they_are_merged(write):
    test = write(["Neg", "pos "] * 4, "test.csv").source
    with pytest.raises(UserError, match=r"'Neg' is in no row of data\.source, which has 'neg' \(data\.clean_labels"):
        read_rows(write(["neg", "pos"] * 8, test_source=test))
    rows = read_rows(write(["neg", "pos"] * 8, test_source=test, clean_labels=True))
    assert rows.label_names == ("neg", "pos")
    assert rows.labels.tolist() == [0, 1] * 12


def test_a_text_under_two_spellings_is_no_conflict_once_they_are_merged(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("text,label\nsame,neg\nsame,neg \nother,pos\n")
    counts = [
        read_rows(DataSettings(source=str(path), clean_labels=clean)).facts.num_conflicting_duplicates
        for clean in (False, True)
    ]
    assert counts == [1, 0]


def test_older_records_keep_their_hashes():
    config = BaselineConfig(classifier="majority", data=DataSettings(), limits=LimitSettings())
    assert hash_config(config) == "1c860d3b8988"
    cleaned = config.model_copy(update={"data": DataSettings(clean_labels=True)})
    assert hash_config(cleaned) != hash_config(config)
