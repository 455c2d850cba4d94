"""Majority class, and TF-IDF with logistic regression: what a classifier costs that costs almost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness.dataset.corpus import load_texts
from harness.schema.scores import accuracy, macro_f1
from harness.schema.training_record import TestEvaluation

Predict = Callable[[Collection[str]], np.ndarray]
# TF-IDF's vocabulary and features are held in memory, about 1 GiB of them for so many short reviews.
MOST_FITTED_ROWS = 100_000


def run_baseline(classifier: str, folder: Path) -> dict[str, Any]:
    """Fit on the training texts in `folder`, and look once at the test texts.

    Of more than MOST_FITTED_ROWS every second, third, ... is taken, so that at most so many are.

    Returns:
        Seconds of fitting (features included), the number of rows it was fitted on, the test evaluation, and accuracy and
        macro-F1 on validation.
    """
    fit = {"majority": lambda: _fit_majority, "tfidf": _prepare_tfidf}[classifier]()
    (train, train_labels), (val, val_labels), (test, test_labels) = (
        load_texts(folder, split) for split in ("train", "val", "test")
    )
    began = time.perf_counter()
    every = -(-len(train) // MOST_FITTED_ROWS)
    fitted = train if every == 1 else list(islice(train, 0, None, every))
    predict = fit(fitted, train_labels[::every])
    train_s = time.perf_counter() - began
    began = time.perf_counter()
    predictions = predict(test).tolist()
    evaluate_s = time.perf_counter() - began
    val_predictions = predict(val).tolist()
    return {
        "train_s": train_s,
        "num_fitted": len(fitted),
        "test": TestEvaluation(
            evaluate_s=evaluate_s, labels=tuple(test_labels.tolist()), predictions=tuple(predictions)
        ),
        "val_accuracy": accuracy(val_labels.tolist(), val_predictions),
        "val_macro_f1": macro_f1(val_labels.tolist(), val_predictions),
    }


def _fit_majority(texts: Collection[str], labels: np.ndarray) -> Predict:
    commonest = int(np.bincount(labels).argmax())
    return lambda unseen: np.full(len(unseen), commonest)


def _prepare_tfidf() -> Callable[[Collection[str], np.ndarray], Predict]:
    """Import scikit-learn outside of the timed fit."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def fit(texts: Collection[str], labels: np.ndarray) -> Predict:
        features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        predict: Predict = make_pipeline(features, LogisticRegression(max_iter=1000)).fit(texts, labels).predict
        return predict

    return fit
