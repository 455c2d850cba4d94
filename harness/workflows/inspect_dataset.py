"""`harness inspect`: columns, classes, token lengths and baseline accuracy of a dataset (no torch)."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.dataset.column_guess import ColumnGuess, Role, guess_columns
from harness.dataset.corpus import Corpus, load_corpus, write_texts
from harness.dataset.file_formats import find_files, read_column_names
from harness.dataset.file_readers import read_parts
from harness.dataset.row_storage import Rows
from harness.dataset.rows import read_rows
from harness.dataset.sources import ModelFiles
from harness.dataset.tokens import load_tokenizer
from harness.errors import UserError
from harness.execution.baselines import run_baseline
from harness.machine.describe import describe_machine
from harness.schema.cells import FineTuneConfig
from harness.schema.inputs_record import DataFacts
from harness.schema.model_shapes import load_model_shape
from harness.schema.settings import PACKAGED_DATA, DataSettings, ModelSettings
from harness.store.record_files import own_records
from harness.workflows.seq_len_advice import SeqLenAdvice, advise_seq_len, find_similar_cells

Kind = Literal["short", "median", "long", "truncated"]

TOKENISED_ROWS = 20_000  # of larger datasets, only a random sample of this size is tokenized
_FITTED_ROWS = 20_000  # most rows for TF-IDF, which takes seconds with so many
_HELD_OUT_FRACTIONS = (0.2, 0.1, 0.02)  # fraction of rows for validation, and again for test; tried in this order
UNKNOWN = "[UNK]"
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
        floor: Baseline accuracy; None if the training rows have fewer than two labels.
    """

    settings: DataSettings
    guesses: dict[Role, ColumnGuess]
    columns: tuple[str, ...]
    facts: DataFacts
    classes: dict[str, int]
    lengths: np.ndarray
    unknown_fraction: float
    examples: tuple[TokenizedExample, ...]
    floor: BaselineFloor | None

    def tokens_at(self) -> dict[float, int]:
        """Return quantiles of the text length in tokens."""
        return {share: int(np.quantile(self.lengths, share, method="higher")) for share in _QUANTILES}


def resolve_columns(
    source: str, given: Mapping[str, object]
) -> tuple[DataSettings, dict[Role, ColumnGuess], tuple[str, ...]]:
    """Complete the given columns with guesses from the first rows.

    Args:
        source: A file, glob, folder or the packaged dataset.
        given: `[data]` keys that the user gave.

    Returns:
        Settings that read the source, guesses to show, and the names of all columns.

    Raises:
        UserError: If the source can't be read, or no column looks like text or label.
    """
    if source == PACKAGED_DATA:
        return DataSettings.model_validate({**given, "source": source, "on_bad_row": "skip"}), {}, ()
    where = f"data {source!r}"
    files = find_files(source, where)
    if files is None:
        raise UserError(f"{where}: no such file; columns of hub datasets can't be guessed: give a local copy")
    names = tuple(read_column_names(files[0], where))
    first = next(iter(read_parts(files[0], names, where)))
    frame = pd.DataFrame(first.columns).convert_dtypes(dtype_backend="numpy_nullable")
    for name in frame.columns:  # text formats such as CSV store numbers as text, which is converted here
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if numbers.notna().sum() == frame[name].replace("", pd.NA).notna().sum() > 0:
            frame[name] = numbers
    guesses = guess_columns(frame)
    keys: dict[Role, str] = {"text": "text", "label": "label", "group": "group_by"}
    guessed = {role: guess for role, guess in guesses.items() if role in keys and keys[role] not in given}
    missing = [role for role in ("text", "label") if role not in given and role not in guessed]
    if missing:
        raise UserError(
            f"{where}: no column looks like the {' or the '.join(missing)}; its columns: {', '.join(map(repr, names))}; "
            f"name it with --{missing[0]} COLUMN"
        )
    columns = {keys[role]: guess.column for role, guess in guessed.items()}
    if {"time_by", "stratify"} & given.keys():
        columns.pop("group_by", None)
    shown = {role: guess for role, guess in guesses.items() if role in guessed or role == "time"}
    return DataSettings.model_validate({**columns, **given, "source": source, "on_bad_row": "skip"}), shown, names


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
    num_rows = len(rows.labels)
    if num_rows < 10:  # noqa: PLR2004 - leaves a few rows for each split
        raise UserError(f"data {settings.source!r}: {num_rows} usable rows; at least ten are needed")
    corpus = _split(settings, rows, num_rows)
    fitted = corpus if num_rows <= _FITTED_ROWS else _split(settings, rows, _FITTED_ROWS)
    counts = np.bincount(rows.labels, minlength=len(rows.label_names))
    classes = {rows.label_names[index]: int(counts[index]) for index in np.argsort(-counts, kind="stable")}
    sampled = np.sort(np.random.default_rng(seed).permutation(num_rows)[:TOKENISED_ROWS])
    tokens, texts = _encode(rows, sampled, model)
    lengths = np.array([len(row) for row in tokens])
    num_unknown = sum(row.count(UNKNOWN) for row in tokens)
    labels = [rows.label_names[index] for index in rows.labels[sampled]]
    return Inspection(
        settings=settings,
        guesses=guesses,
        columns=tuple(columns),
        facts=corpus.facts,
        classes=classes,
        lengths=lengths,
        unknown_fraction=num_unknown / int(lengths.sum()),
        examples=_pick_examples(lengths, tokens, texts, labels) if settings.store_texts else (),
        floor=_floor(fitted),
    )


def _encode(rows: Rows, indices: np.ndarray, model: ModelFiles) -> tuple[list[list[str]], list[str]]:
    tokenizer, _ = load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    first, second = rows.take(indices)
    texts = list(first)
    pairs = None if second is None else list(second)
    encodings = tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    shown = texts if pairs is None else [f"{text} | {pair}" for text, pair in zip(texts, pairs, strict=True)]
    return [encoding.tokens for encoding in encodings], shown


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
    raise UserError(
        f"data {settings.source!r}: groups of {settings.group_by!r} are too large to hold any out; choose another column "
        "with --group-by (data.group_by)"
    )


def _floor(corpus: Corpus) -> BaselineFloor | None:
    if len(np.unique(corpus.labels["train"])) < 2:  # noqa: PLR2004 - a single label leaves nothing to learn
        return None
    with tempfile.TemporaryDirectory(prefix="harness-inspect-") as folder:
        write_texts(corpus, Path(folder))
        began = time.perf_counter()
        fitted = run_baseline("tfidf", Path(folder))
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
