"""What a file of labelled texts holds: columns, classes, tokens, what two cheap classifiers make of it (no torch)."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.dataset.column_guess import ColumnGuess, Role, guess_columns
from harness.dataset.corpus import Corpus, load_corpus, load_tokenizer, write_texts
from harness.dataset.file_formats import find_files, read_column_names
from harness.dataset.file_readers import read_parts
from harness.dataset.rows import Rows, read_rows
from harness.dataset.sources import ModelFiles
from harness.errors import UserError
from harness.execution.baselines import run_baseline
from harness.machine.describe import describe_machine
from harness.schema.cells import FineTuneConfig
from harness.schema.inputs_record import DataFacts
from harness.schema.model_shapes import load_model_shape
from harness.schema.settings import PACKAGED_DATA, DataSettings, ModelSettings
from harness.store.record_files import own_records
from harness.workflows.seq_len_advice import SeqLenAdvice, advise_seq_len, like_cells

Kind = Literal["short", "median", "long", "truncated"]

TOKENISED_ROWS = 20_000  # of more a random sample tells of lengths
_FITTED_ROWS = 20_000  # TF-IDF is fitted on so many at most: seconds
_HELD_OUT = (0.2, 0.1, 0.02)  # of the rows, for validation and for test
UNKNOWN = "[UNK]"
_SHARES = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class TokenizedExample:
    """One text as the model would see it, uncut.

    Attributes:
        kind: Short (a tenth are shorter), median, long (a tenth are longer), or one that `seq_len` cuts.
    """

    kind: Kind
    label: str
    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class BaselineFloor:
    """What answering is worth that costs next to nothing.

    Attributes:
        majority: Share of the held-out rows that have the commonest label.
        tfidf: Accuracy on them of TF-IDF with logistic regression.
        seconds: Of fitting it.
    """

    majority: float
    tfidf: float
    seconds: float
    num_train: int
    num_test: int


@dataclass(frozen=True)
class Inspection:
    """All that is told of a source.

    Attributes:
        guesses: Of the columns that were not given.
        settings: That would read it.
        facts: Of a split in the proportions 60, 20, 20: duplicates, leaks, bad rows.
        classes: Rows of each label, most first.
        lengths: Tokens of each looked-at row, uncut, special tokens included, `(num_rows,)`.
        unknown_fraction: Share of its tokens that the vocabulary has no word for.
        floor: None where there are too few rows to hold any back.
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
        """The number of tokens that so large a share of the texts does not pass."""
        return {share: int(np.quantile(self.lengths, share, method="higher")) for share in _SHARES}


def resolve_columns(source: str, said: dict[str, Any]) -> tuple[DataSettings, dict[Role, ColumnGuess], tuple[str, ...]]:
    """Complete what was said of a source's columns by what its first rows let guess.

    Args:
        said: Keys of [data] that the user gave.

    Raises:
        UserError: When it can't be read, or text or label can't be told.
    """
    if source == PACKAGED_DATA:
        return DataSettings.model_validate(said | {"source": source, "on_bad_row": "skip"}), {}, ()
    where = f"data {source!r}"
    files = find_files(source, where)
    if files is None:
        raise UserError(f"{where}: no such file, and of hub datasets columns are not guessed: name a local copy")
    names = tuple(read_column_names(files[0], where))
    first = next(iter(read_parts(files[0], names, where)))
    frame = pd.DataFrame(first.columns).convert_dtypes(dtype_backend="numpy_nullable")
    for name in frame.columns:  # of a table of text, numbers are text too
        numbers = pd.to_numeric(frame[name], errors="coerce")
        if numbers.notna().sum() == frame[name].replace("", pd.NA).notna().sum() > 0:
            frame[name] = numbers
    guesses = guess_columns(frame)
    keys: dict[Role, str] = {"text": "text", "label": "label", "group": "group_by"}
    guessed = {role: guess for role, guess in guesses.items() if role in keys and keys[role] not in said}
    missing = [role for role in ("text", "label") if role not in said and role not in guessed]
    if missing:
        raise UserError(
            f"{where}: no column looks like the {' or the '.join(missing)}; its columns: {', '.join(map(repr, names))}; "
            f"say which it is (--{missing[0]} COLUMN)"
        )
    told = {keys[role]: guess.column for role, guess in guessed.items()}
    if {"time_by", "stratify"} & said.keys():
        told.pop("group_by", None)
    shown = {role: guess for role, guess in guesses.items() if role in guessed or role == "time"}
    return DataSettings.model_validate(told | said | {"source": source, "on_bad_row": "skip"}), shown, names


def inspect_source(
    settings: DataSettings,
    model: ModelFiles,
    guesses: dict[Role, ColumnGuess],
    columns: Sequence[str],
    *,
    seed: int = 0,
) -> Inspection:
    """Read a source whole, tokenise up to 20,000 of its rows, and fit the cheap classifiers.

    Raises:
        UserError: When it can't be read, or has fewer than two labels or ten rows.
    """
    rows = read_rows(settings)
    num_rows = len(rows.labels)
    if num_rows < 10:  # noqa: PLR2004 - a few for each split
        raise UserError(f"data {settings.source!r}: {num_rows} usable rows; ten at least are needed")
    drawn = _draw(settings, rows, num_rows)
    fitted = drawn if num_rows <= _FITTED_ROWS else _draw(settings, rows, _FITTED_ROWS)
    counts = np.bincount(rows.labels, minlength=len(rows.label_names))
    classes = {rows.label_names[index]: int(counts[index]) for index in np.argsort(-counts, kind="stable")}
    chosen = np.sort(np.random.default_rng(seed).permutation(num_rows)[:TOKENISED_ROWS])
    tokens, texts = _encode(rows, chosen, model)
    lengths = np.array([len(row) for row in tokens])
    num_unknown = sum(row.count(UNKNOWN) for row in tokens)
    labels = [rows.label_names[index] for index in rows.labels[chosen]]
    return Inspection(
        settings=settings,
        guesses=guesses,
        columns=tuple(columns),
        facts=drawn.facts,
        classes=classes,
        lengths=lengths,
        unknown_fraction=num_unknown / int(lengths.sum()),
        examples=_pick(lengths, tokens, texts, labels) if settings.store_texts else (),
        floor=_floor(fitted),
    )


def _encode(rows: Rows, chosen: np.ndarray, model: ModelFiles) -> tuple[list[list[str]], list[str]]:
    tokenizer, _ = load_tokenizer(model)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    first, second = rows.take(chosen)
    texts = list(first)
    pairs = None if second is None else list(second)
    encodings = tokenizer.encode_batch(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    shown = texts if pairs is None else [f"{one} | {other}" for one, other in zip(texts, pairs, strict=True)]
    return [encoding.tokens for encoding in encodings], shown


def _pick(
    lengths: np.ndarray, tokens: list[list[str]], texts: list[str], labels: list[str]
) -> tuple[TokenizedExample, ...]:
    """The texts that stand a tenth, half and nine tenths of the way from the shortest to the longest, and that one."""
    order = np.argsort(lengths, kind="stable")
    last = len(order) - 1
    places: list[tuple[Kind, int]] = [
        ("short", last // 10),
        ("median", last // 2),
        ("long", 9 * last // 10),
        ("truncated", last),
    ]
    return tuple(
        TokenizedExample(kind, labels[at], texts[at], tuple(tokens[at]))
        for kind, at in ((k, order[p]) for k, p in places)
    )


def _draw(settings: DataSettings, rows: Rows, num_rows: int) -> Corpus:
    """Splits of so many rows; a fifth each is held out for validation and test, or less where groups are too large for it."""
    for share in _HELD_OUT:
        held_out = max(1, int(share * num_rows))
        num_train = "all" if num_rows == len(rows.labels) else num_rows - 2 * held_out
        asked = settings.model_copy(update={"num_val": held_out, "num_test": held_out, "num_train": num_train})
        with contextlib.suppress(UserError):
            return load_corpus(asked, rows)
    raise UserError(
        f"data {settings.source!r}: groups of {settings.group_by!r} are too large for any to be held out; name another column "
        "by data.group_by (--group-by)"
    )


def _floor(corpus: Corpus) -> BaselineFloor | None:
    if len(np.unique(corpus.labels["train"])) < 2:  # noqa: PLR2004 - nothing to learn
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


def advise_on(
    found: Inspection, model: ModelSettings, files: ModelFiles, batch_size: int, results: Path
) -> SeqLenAdvice:
    """Tell of every length, by this machine's own records where like cells are among them.

    Raises:
        UserError: When the model's folder does not tell its sizes.
    """
    machine = describe_machine()
    records = own_records(results, machine).records
    summaries = with_mfu(summarize(records), lambda *_: None)
    config = FineTuneConfig.model_validate(
        {"batch_size": batch_size, "seq_len": 64, "precision": "fp32", "device": "cpu", "padding": "grouped"}
        | {
            "trainable": "all",
            "threads": None,
            "seed": 0,
            "model": model,
            "data": found.settings,
            "training": {},
            "limits": {},
        }
    )
    measured, same_data = like_cells(config, summaries, machine.id)
    return advise_seq_len(
        found.lengths, load_model_shape(model, files.folder), len(found.classes),
        batch_size=batch_size, measured=measured, same_data=same_data,
    )  # fmt: skip
