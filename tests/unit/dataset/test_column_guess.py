"""Guessing columns by their values, then by their names, and not without evidence."""

from __future__ import annotations

import datetime
import decimal

import pandas as pd
import pytest

from harness.dataset.column_guess import explain_missing_label, guess_columns

REVIEWS = pd.DataFrame(
    {
        "id": [f"r{i}" for i in range(60)],
        "movie_name": [f"film {i % 12}" for i in range(60)],
        "stars": [1 + i % 5 for i in range(60)],
        "headline": ["good one"] * 60,
        "review": [f"a rather long review number {i} of a film" for i in range(60)],
        "written_on": [f"2026-0{1 + i % 9}-11" for i in range(60)],
        "score": [0.5 + i / 100 for i in range(60)],
    }
)


def columns(frame):
    return {role: guess.column for role, guess in guess_columns(frame.to_dict("list")).items()}


def guess(**values):
    return {role: found.column for role, found in guess_columns(values).items()}


class TestGuess:
    def test_a_table_of_reviews(self):
        assert columns(REVIEWS) == {"text": "review", "label": "stars", "group": "movie_name", "time": "written_on"}

    def test_gives_reasons(self):
        guesses = guess_columns(REVIEWS.to_dict("list"))
        assert guesses["text"].why == "9 words in the mean, more than any other column"
        assert guesses["label"].why == "5 values (1, 2, 3, 4, ...), and its name"
        assert guesses["group"].why == "its name, and 12 values that come back 5.0 times each"
        assert guesses["time"].why == "its name, and its values are dates (2026-01-11 to 2026-09-11)"

    def test_uninformative_names(self):
        frame = REVIEWS[["stars", "review"]].set_axis(["a", "b"], axis=1)
        assert columns(frame) == {"text": "b", "label": "a"}

    def test_a_matching_name_beats_fewer_values(self):
        frame = REVIEWS.assign(verified=[i % 2 == 0 for i in range(60)])
        assert columns(frame)["label"] == "stars"

    @pytest.mark.parametrize(
        "values",
        [[0.5 + i / 100 for i in range(60)], [f"v{i}" for i in range(60)], ["same"] * 60, [None] * 60],
        ids=["regression", "as many values as rows", "one value", "nothing"],
    )
    def test_no_label_is_guessed(self, values):
        assert "label" not in columns(pd.DataFrame({"review": REVIEWS["review"], "label": values}))

    def test_whole_numbers_that_pandas_reads_as_floats_can_be_labels(self):
        stars = [float(1 + i % 5) if i else None for i in range(60)]
        assert columns(pd.DataFrame({"review": REVIEWS["review"], "stars": stars}))["label"] == "stars"

    def test_numbers_are_not_text(self):
        assert "text" not in columns(REVIEWS[["stars", "score"]])

    def test_labels_are_counted_as_a_study_reads_them(self):
        """The strings 0, 1, 0.0 and 1.0 of a CSV file are four labels; once the reason was "2 values (0.0, 1.0)"."""
        texts = [f"a text of some words {i}" for i in range(60)]
        label = guess_columns({"text": texts, "label": ["0", "1", "0.0", "1.0"] * 15})["label"]
        assert label.why == "4 values (0, 1, 0.0, 1.0), and its name"

    @pytest.mark.parametrize(
        "values",
        [[["a"], ["b"]] * 30, [{"a": 1}, {"a": 2}] * 30, [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)] * 30,
         [decimal.Decimal("0.5"), decimal.Decimal("1.5")] * 30, ["0.5", "1.5"] * 30],
        ids=["lists", "objects", "dates", "decimals", "fractions as text"],
    )  # fmt: skip
    def test_values_that_are_no_classes_are_no_label(self, values):
        """Lists once ended in "TypeError: unhashable type: 'list'"."""
        assert "label" not in guess(review=[f"a text of some words {i}" for i in range(60)], label=values)
        assert "'label'" in explain_missing_label({"label": values})

    def test_whole_decimals_can_be_labels(self):
        values = [decimal.Decimal("0.00"), decimal.Decimal("1.00")] * 30
        assert guess(review=[f"a text of some words {i}" for i in range(60)], label=values)["label"] == "label"

    def test_a_word_of_a_script_without_blanks_is_a_sign(self):
        texts = {"text": [f"很好的电影{i}" for i in range(60)], "stars": [1, 2] * 30}
        assert guess(**texts) == {"text": "text", "label": "stars"}

    def test_distinct_emoji_are_texts_if_the_columns_name_says_so(self):
        signs = ["🙂" * (1 + i) for i in range(60)]
        assert guess(text=signs, label=["a", "b"] * 30)["text"] == "text"
        assert "text" not in guess(column=signs, label=["a", "b"] * 30)

    def test_texts_in_another_encoding_are_left_out_of_the_guess(self):
        """Bytes that are not UTF-8 once ended in a UnicodeEncodeError."""
        texts = [f"caf\udce9 of the town {i}" if i % 2 else f"a text of words {i}" for i in range(60)]
        assert guess(text=texts, label=["a", "b"] * 30)["text"] == "text"
