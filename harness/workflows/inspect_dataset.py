"""`harness inspect`: columns, classes, token lengths and baseline accuracy of a dataset (no torch)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.dataset.column_guess import ColumnGuess, Role
from harness.dataset.corpus import Corpus, find_one_label_split, load_corpus, require_two_labels, write_texts
from harness.dataset.row_storage import Rows
from harness.dataset.rows import read_rows
from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import load_tokenizer
from harness.errors import UserError
from harness.execution.baselines import run_baseline
from harness.machine.describe import describe_machine
from harness.machine.private_folders import private_folder
from harness.schema.cells import FineTuneConfig
from harness.schema.inputs_record import DataFacts
from harness.schema.model_shapes import load_model_shape
from harness.schema.settings import DataSettings, ModelSettings
from harness.store.record_files import own_records
from harness.workflows.seq_len_advice import SeqLenAdvice, advise_seq_len, find_similar_cells

Kind = Literal["short", "median", "long", "truncated"]

TOKENISED_ROWS = 20_000  # of larger datasets, only a random sample of this size is tokenized
_FITTED_ROWS = 20_000  # most rows for TF-IDF, which takes seconds with so many
_HELD_OUT_FRACTIONS = (0.2, 0.1, 0.02)  # fraction of rows for validation, and again for test; tried in this order
UNKNOWN = "[UNK]"
_MAX_HELD_OUT = 1_000  # rows of the validation and the test split of the study that is written
_MIN_ROWS = 4  # one for validation, one for testing, and two labels to train on
_QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class TokenizedExample:
    """One text as tokens, before truncation.

    Attributes:
        kind: `short` (10th percentile of lengths), `median`, `long` (90th percentile), or `truncated` (the longest).
    """

    kind: Kind
    label: str
    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class BaselineFloor:
    """Accuracy that a cheap classifier reaches on held-out rows.

    Attributes:
        majority: Accuracy of always predicting the most common label.
        tfidf: Accuracy of TF-IDF with logistic regression.
        seconds: Time to fit and evaluate TF-IDF.
    """

    majority: float
    tfidf: float
    seconds: float
    num_train: int
    num_test: int


@dataclass(frozen=True)
class Inspection:
    """Everything known about a dataset.

    Attributes:
        settings: `[data]` settings that read the dataset.
        guesses: Guesses for columns that were not given.
        columns: Names of all columns.
        facts: Facts of a 60/20/20 split: duplicates, leaks, bad rows.
        classes: Rows per label, most common first.
        lengths: Tokens of each sampled row before truncation, special tokens included, shape `(num_rows,)`.
        unknown_fraction: Fraction of tokens missing from the vocabulary.
        special_tokens: Sampled rows whose text contains each of the tokenizer's special tokens, most first; tokens that
            occur in no text are left out.
        floor: Baseline accuracy; None if the training rows have fewer than two labels.
        study_settings: `[data]` settings of a study of all rows.
        study_problem: Why such a study is refused; None if it is not.
    """

    settings: DataSettings
    guesses: dict[Role, ColumnGuess]
    columns: tuple[str, ...]
    facts: DataFacts
    classes: dict[str, int]
    lengths: np.ndarray
    unknown_fraction: float
    special_tokens: dict[str, int]
    examples: tuple[TokenizedExample, ...]
    floor: BaselineFloor | None
    study_settings: DataSettings
    study_problem: str | None

    def tokens_at(self) -> dict[float, int]:
        """Return quantiles of the text length in tokens."""
        return {share: int(np.quantile(self.lengths, share, method="higher")) for share in _QUANTILES}


def inspect_source(
    settings: DataSettings,
    model: ModelFiles,
    guesses: dict[Role, ColumnGuess],
    columns: Sequence[str],
    *,
    seed: int = 0,
) -> Inspection:
    """Read a source, tokenize up to 20,000 of its rows, and fit the baseline classifiers.

    Args:
        settings: Settings that read the source.
        model: Files of the model whose tokenizer counts tokens.
        guesses: Column guesses, for the result.
        columns: Names of all columns, for the result.
        seed: Seed of the sample of tokenized rows.

    Raises:
        UserError: If the source can't be read, or has fewer than two labels or ten rows.
    """
    rows = read_rows(settings)
    require_two_labels(rows, settings)
    num_rows = len(rows.labels)
    if num_rows < _MIN_ROWS:
        raise UserError(f"data {settings.source!r}: {num_rows} usable rows; at least {_MIN_ROWS} are needed: add rows")
    corpus = _split(settings, rows, num_rows)
    fitted = corpus if num_rows <= _FITTED_ROWS else _split(settings, rows, _FITTED_ROWS)
    counts = np.bincount(rows.labels, minlength=len(rows.label_names))
    classes = {rows.label_names[index]: int(counts[index]) for index in np.argsort(-counts, kind="stable")}
    sampled = np.sort(np.random.default_rng(seed).permutation(num_rows)[:TOKENISED_ROWS])
    tokens, texts, special = _encode(rows, sampled, model)
    lengths = np.array([len(row) for row in tokens])
    num_unknown = sum(row.count(UNKNOWN) for row in tokens)
    labels = [rows.label_names[index] for index in rows.labels[sampled]]
    study_settings, study_problem = _choose_study_settings(settings, rows, corpus.facts.test.num_rows)
    return Inspection(
        settings=settings,
        guesses=guesses,
        columns=tuple(columns),
        facts=corpus.facts,
        classes=classes,
        lengths=lengths,
        unknown_fraction=num_unknown / int(lengths.sum()),
        special_tokens=special,
        examples=_pick_examples(lengths, tokens, texts, labels) if settings.store_texts else (),
        floor=_floor(fitted),
        study_settings=study_settings,
        study_problem=study_problem,
    )


def _choose_study_settings(settings: DataSettings, rows: Rows, num_held_out: int) -> tuple[DataSettings, str | None]:
    """Choose `[data]` settings that a study of all rows can use, stratified if a split would have one label otherwise.

    Args:
        settings: Settings that read the source.
        rows: All rows.
        num_held_out: Rows that can be held out for testing.

    Returns:
        The settings, and why a study with them is refused; None if it is not.
    """
    held_out = min(_MAX_HELD_OUT, num_held_out)
    study = settings.model_copy(update={"num_train": "all", "num_val": held_out, "num_test": held_out})
    problem = find_one_label_split(rows, study)
    if problem is None or settings.group_by or settings.time_by:
        return study, problem
    stratified = study.model_copy(update={"stratify": True})
    problem = find_one_label_split(rows, stratified)
    return stratified, problem


def _encode(rows: Rows, indices: np.ndarray, model: ModelFiles) -> tuple[list[list[str]], list[str], dict[str, int]]:
    """Return the tokens and the text of each of the given rows, and how many rows contain each special token."""
    tokenizer, _ = load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    first, second = rows.take(indices)
    texts = list(first)
    pairs = None if second is None else list(second)
    encodings = tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    shown = texts if pairs is None else [f"{text} | {pair}" for text, pair in zip(texts, pairs, strict=True)]
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    counts = {token: sum(token in text for text in shown) for token in special}
    found = {token: count for token, count in sorted(counts.items(), key=lambda item: -item[1]) if count}
    return [encoding.tokens for encoding in encodings], shown, found


def _pick_examples(
    lengths: np.ndarray, tokens: list[list[str]], texts: list[str], labels: list[str]
) -> tuple[TokenizedExample, ...]:
    """Pick the texts at the 10th, 50th and 90th percentile of lengths, and the longest."""
    order = np.argsort(lengths, kind="stable")
    last = len(order) - 1
    ranks: dict[Kind, int] = {"short": last // 10, "median": last // 2, "long": 9 * last // 10, "truncated": last}
    rows = {kind: order[rank] for kind, rank in ranks.items()}
    return tuple(TokenizedExample(kind, labels[row], texts[row], tuple(tokens[row])) for kind, row in rows.items())


def _split(settings: DataSettings, rows: Rows, num_rows: int) -> Corpus:
    """Split `num_rows` rows; hold out 20 % each for validation and test, or less if groups are too large."""
    for fraction in _HELD_OUT_FRACTIONS:
        held_out = max(1, int(fraction * num_rows))
        num_train = "all" if num_rows == len(rows.labels) else num_rows - 2 * held_out
        split_settings = settings.model_copy(update={"num_val": held_out, "num_test": held_out, "num_train": num_train})
        with contextlib.suppress(UserError):
            return load_corpus(split_settings, rows)
    column, option = (settings.group_by, "--group-by") if settings.group_by else (settings.time_by, "--time-by")
    raise UserError(
        f"data {settings.source!r}: rows with one value of {column!r} stay together, and these are too many to hold any out; "
        f"choose another column with {option}"
    )


def _floor(corpus: Corpus) -> BaselineFloor | None:
    if len(np.unique(corpus.labels["train"])) < 2:  # noqa: PLR2004 - a single label leaves nothing to learn
        return None
    with private_folder("inspect") as folder:
        write_texts(corpus, folder)
        began = time.perf_counter()
        fitted = run_baseline("tfidf", folder)
        seconds = time.perf_counter() - began
    facts = corpus.facts
    return BaselineFloor(
        facts.test.majority_fraction, fitted.test.accuracy, seconds, facts.train.num_rows, facts.test.num_rows
    )


def advise_for(
    inspection: Inspection, model: ModelSettings, files: ModelFiles, batch_size: int, results: Path
) -> SeqLenAdvice:
    """Recommend a `seq_len`, with speeds and accuracies from this machine's records of similar cells.

    Args:
        inspection: The inspected dataset.
        model: Settings of the model.
        files: The model's files.
        batch_size: Rows per batch.
        results: Folder with records.

    Raises:
        UserError: If the model's files don't state its sizes.
    """
    machine = describe_machine()
    records = own_records(results, machine).records
    summaries = with_mfu(summarize(records), lambda *_: None)
    config = FineTuneConfig.model_validate(
        {"batch_size": batch_size, "seq_len": 64, "precision": "fp32", "device": "cpu", "padding": "grouped"}
        | {"trainable": "all", "threads": None, "seed": 0, "model": model, "data": inspection.settings}
        | {"training": {}, "limits": {}}
    )
    measured, same_data = find_similar_cells(config, summaries, machine.id)
    return advise_seq_len(
        inspection.lengths, load_model_shape(model, files.folder), len(inspection.classes),
        batch_size=batch_size, measured=measured, same_data=same_data,
    )  # fmt: skip
