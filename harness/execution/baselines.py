"""Baselines: the majority class, and TF-IDF with logistic regression."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path

import numpy as np

from harness.dataset.corpus import load_texts
from harness.schema.scores import accuracy, macro_f1
from harness.schema.training_record import Baseline, TestEvaluation

Predict = Callable[[Collection[str]], np.ndarray]
# Limited because scikit-learn holds TF-IDF's vocabulary and features in memory: about 1 GiB for this many short
# reviews.
MAX_FITTED_ROWS = 100_000


def run_baseline(classifier: str, folder: Path, max_rows: int = MAX_FITTED_ROWS) -> Baseline:
    """Fit a classifier on the training texts in `folder` and evaluate it on the validation and test texts.

    Args:
        classifier: `majority` or `tfidf`.
        folder: Folder with the texts and labels of the splits; see `harness.dataset.corpus`.
        max_rows: Most rows to fit on. If there are more training rows, fit on every second, third, ... row.

    Returns:
        The result without peak memory. Its `train_s` includes the computation of features, but no imports.
    """
    prepare = {"majority": lambda: _fit_majority, "tfidf": _prepare_tfidf}[classifier]
    fit = prepare()
    (train, train_labels), (val, val_labels), (test, test_labels) = (
        load_texts(folder, split) for split in ("train", "val", "test")
    )
    began = time.perf_counter()
    stride = -(-len(train) // max_rows)
    fitted = train if stride == 1 else list(islice(train, 0, None, stride))
    predict = fit(fitted, train_labels[::stride])
    train_s = time.perf_counter() - began
    began = time.perf_counter()
    predictions = predict(test).tolist()
    evaluate_s = time.perf_counter() - began
    val_predictions = predict(val).tolist()
    return Baseline(
        train_s=train_s,
        num_fitted=len(fitted),
        peak_memory=(),
        test=TestEvaluation(evaluate_s=evaluate_s, labels=tuple(test_labels.tolist()), predictions=tuple(predictions)),
        val_accuracy=accuracy(val_labels.tolist(), val_predictions),
        val_macro_f1=macro_f1(val_labels.tolist(), val_predictions),
    )


def _fit_majority(texts: Collection[str], labels: np.ndarray) -> Predict:
    most_common = int(np.bincount(labels).argmax())
    return lambda new_texts: np.full(len(new_texts), most_common)


def _prepare_tfidf() -> Callable[[Collection[str], np.ndarray], Predict]:
    """Import scikit-learn, so that the timed fit does not include the import, and return the fit function."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def fit(texts: Collection[str], labels: np.ndarray) -> Predict:
        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        predict: Predict = make_pipeline(features, LogisticRegression(max_iter=1000)).fit(texts, labels).predict
        return predict

    return fit
