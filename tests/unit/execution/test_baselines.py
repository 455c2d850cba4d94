"""Baselines on generated rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from harness.analysis.result_warnings import result_warnings
from harness.analysis.summarize import summarize
from harness.dataset.corpus import Corpus, write_texts
from harness.execution.baselines import run_baseline
from harness.schema.record import was_fitted_on_part
from tests.make_records import make_baseline


def write_rows(folder):
    """Write thirty texts of two labels, the same in every split; return the labels."""
    texts = [f"{('dull', 'bright')[row // 3 % 2]} film number {row}" for row in range(30)]
    labels = np.arange(30) // 3 % 2
    splits = dict.fromkeys(("train", "val", "test"))
    write_texts(Corpus(None, dict.fromkeys(splits, texts), dict.fromkeys(splits, labels)), folder)
    return labels


@pytest.mark.parametrize(("most", "fitted"), [(100, 30), (30, 30), (29, 15), (7, 6)])
def test_tfidf_is_fitted_on_evenly_spaced_rows(most, fitted, tmp_path):
    labels = write_rows(tmp_path)

    baseline = run_baseline("tfidf", tmp_path, max_rows=most)

    assert baseline.num_fitted == fitted
    assert baseline.test.labels == tuple(labels) and baseline.test.accuracy == 1.0


def test_the_majority_class_imports_no_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.pipeline", None)
    labels = write_rows(tmp_path)

    baseline = run_baseline("majority", tmp_path)

    assert baseline.test.labels == tuple(labels) and set(baseline.test.predictions) == {0}
    with pytest.raises(ImportError):
        run_baseline("tfidf", tmp_path)


def test_a_baseline_fitted_on_part_of_the_rows_has_a_warning():
    record = make_baseline("tfidf")
    (quiet,) = summarize([record])
    part = record.model_copy(update={"baseline": record.baseline.model_copy(update={"num_fitted": 1_000})})
    (loud,) = summarize([part])

    assert not was_fitted_on_part(record) and was_fitted_on_part(part)
    assert not any("fitted on" in warning for warning in result_warnings(quiet))
    (warning,) = (warning for warning in result_warnings(loud) if "fitted on" in warning)
    assert warning.startswith("TF-IDF was fitted on 1,000 of the 2,000 training rows")


@pytest.mark.parametrize(
    ("words", "ngrams"),
    [(("dull", "bright"), "words"), (("🙁", "🙂"), "characters"), (("?!", "..."), "characters"), (("难看的电影", "好看的电影"), "characters"),
     (("หนังแย่มาก", "หนังดีมาก"), "characters"), (("плохо", "хорошо"), "words"), (("나쁜 영화", "좋은 영화"), "words")],
)  # fmt: skip
def test_tfidf_counts_characters_where_there_are_no_separate_words(words, ngrams, tmp_path):
    """Texts of emoji alone once crashed it: "empty vocabulary; perhaps the documents only contain stop words"."""
    labels = np.arange(30) // 3 % 2
    texts = [words[label] * (1 + row % 3) for row, label in enumerate(labels)]
    splits = ("train", "val", "test")
    write_texts(Corpus(None, dict.fromkeys(splits, texts), dict.fromkeys(splits, labels)), tmp_path)

    baseline = run_baseline("tfidf", tmp_path)

    assert (baseline.ngrams, baseline.test.accuracy) == (ngrams, 1.0)
    assert run_baseline("majority", tmp_path).ngrams is None


def test_a_baseline_of_characters_has_a_warning():
    record = make_baseline("tfidf")
    changed = record.model_copy(update={"baseline": record.baseline.model_copy(update={"ngrams": "characters"})})
    warnings = [list(result_warnings(summary)) for each in (record, changed) for summary in summarize([each])]

    assert [any("TF-IDF counts characters" in warning for warning in found) for found in warnings] == [False, True]
