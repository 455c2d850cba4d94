"""The input of a process that labels a file, and the names of its unfinished output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.schema.settings import Count, DeviceKind, Precision, SeqLen, Settings

# Rows that are read, tokenised, sorted by length and written together; a kill loses at most one window.
WINDOW_ROWS = 2048


class PredictJob(Settings):
    """A file to label, with which model and how.

    Attributes:
        model: Folder with config.json, model.safetensors and tokenizer.json.
        text: Text columns; text_stream.py joins several.
        pair: Column of a second text; None for single texts.
        carried: Columns that are copied to the output.
        batch_size: Rows per batch.
        seq_len: Maximum tokens, special tokens included.
        threads: CPU threads of the tokenizer and of torch.
    """

    model: str
    file: str
    out: str
    text: tuple[str, ...]
    pair: str | None = None
    carried: tuple[str, ...] = ()
    precision: Precision = "fp32"
    batch_size: Count = 32
    seq_len: SeqLen
    threads: Count
    device: DeviceKind = "cpu"
    window_rows: Count = WINDOW_ROWS


def progress_paths(out: Path) -> tuple[Path, Path, Path]:
    """Return the paths of an unfinished output, of its progress note, and of its writer's lock."""
    partial, note, lock = (out.with_name(f"{out.name}.{end}") for end in ("partial", "progress.json", "lock"))
    return partial, note, lock


def restart(out: Path) -> None:
    """Delete an unfinished output."""
    for path in progress_paths(out):
        path.unlink(missing_ok=True)


class PredictStarted(Settings):
    """The process loaded the model; `num_rows` were already written by an earlier run."""

    kind: Literal["begin"] = "begin"
    num_rows: int
    load_s: float


class RowsPredicted(Settings):
    """Progress, at most once a second: rows of the whole output, and seconds since this run began to read."""

    kind: Literal["rows"] = "rows"
    num_rows: int
    seconds: float


class PredictResult(Settings):
    """A finished output; fields that end in `_now` exclude what an earlier run wrote.

    Attributes:
        num_unlabelled: Rows without a text.
        num_padded_tokens_now: Tokens with padding.
        seconds: From the first row read to the last one written.
        peak_rss_bytes: Peak of main memory, loading included.
        peak_cuda_bytes: Peak reserved GPU memory; None on a CPU.
    """

    num_rows: int
    num_unlabelled: int
    num_rows_now: int
    num_tokens_now: int
    num_padded_tokens_now: int
    num_truncated_now: int
    load_s: float
    seconds: float
    peak_rss_bytes: int
    peak_cuda_bytes: int | None


class PredictEnded(Settings):
    """The last message: a result, or an error for the user."""

    kind: Literal["end"] = "end"
    result: PredictResult | None = None
    error: str | None = None


# A line of JSON from the predicting process.
PredictMessage = PredictStarted | RowsPredicted | PredictEnded
AnyPredictMessage = Annotated[PredictMessage, Field(discriminator="kind")]
