"""Guessing columns by their values, then by their names, and not without evidence."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.dataset.column_guess import guess_columns

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
    return {role: guess.column for role, guess in guess_columns(frame).items()}


class TestGuess:
    def test_a_table_of_reviews(self):
        assert columns(REVIEWS) == {"text": "review", "label": "stars", "group": "movie_name", "time": "written_on"}

    def test_gives_reasons(self):
        guesses = guess_columns(REVIEWS)
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
