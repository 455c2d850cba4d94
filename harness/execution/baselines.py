"""Baselines: the majority class, and TF-IDF with logistic regression."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.dataset.corpus import load_texts
from harness.schema.scores import accuracy, macro_f1
from harness.schema.training_record import Baseline, TestEvaluation, TfidfNgrams

Predict = Callable[[Collection[str]], np.ndarray]
# Limited because scikit-learn holds TF-IDF's vocabulary and features in memory: about 1 GiB for this many short
# reviews.
MAX_FITTED_ROWS = 100_000
_SAMPLED_TEXTS, _SAMPLED_CHARACTERS = 100, 200
# Signs of scripts written without blanks between words: Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSEPARATED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class _Fitted(NamedTuple):
    """A fitted classifier, and what its features are; None without features."""

    predict: Predict
    ngrams: TfidfNgrams | None = None


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
    predict, ngrams = fit(fitted, train_labels[::stride])
    train_s = time.perf_counter() - began
    began = time.perf_counter()
    predictions = predict(test).tolist()
    evaluate_s = time.perf_counter() - began
    val_predictions = predict(val).tolist()
    return Baseline(
        train_s=train_s,
        num_fitted=len(fitted),
        ngrams=ngrams,
        peak_memory=(),
        test=TestEvaluation(evaluate_s=evaluate_s, labels=tuple(test_labels.tolist()), predictions=tuple(predictions)),
        val_accuracy=accuracy(val_labels.tolist(), val_predictions),
        val_macro_f1=macro_f1(val_labels.tolist(), val_predictions),
    )


def _fit_majority(texts: Collection[str], labels: np.ndarray) -> _Fitted:
    most_common = int(np.bincount(labels).argmax())
    return _Fitted(lambda new_texts: np.full(len(new_texts), most_common))


def _prepare_tfidf() -> Callable[[Collection[str], np.ndarray], _Fitted]:
    """Import scikit-learn, so that the timed fit does not include the import, and return the fit function."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def fit_on(ngrams: TfidfNgrams, texts: Collection[str], labels: np.ndarray) -> _Fitted:
        analyzer = "word" if ngrams == "words" else "char"
        features = TfidfVectorizer(analyzer=analyzer, ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(features, LogisticRegression(max_iter=1000)).fit(texts, labels)
        return _Fitted(model.predict, ngrams)

    def fit(texts: Collection[str], labels: np.ndarray) -> _Fitted:
        if _has_blanks_between_words(texts):
            try:
                return fit_on("words", texts, labels)
            except ValueError as error:
                # scikit-learn has no class of its own for texts without any word, such as emoji alone.
                if "empty vocabulary" not in str(error):
                    raise
        return fit_on("characters", texts, labels)

    return fit


def _has_blanks_between_words(texts: Collection[str]) -> bool:
    """Return False if most letters of the first texts are of scripts that don't separate words, such as Chinese."""
    sample = "".join(text[:_SAMPLED_CHARACTERS] for text in islice(texts, _SAMPLED_TEXTS))
    num_letters = sum(map(str.isalpha, sample))
    return 2 * len(_UNSEPARATED.findall(sample)) <= num_letters
