"""The job of a process that labels a file, its messages, and the paths of its unfinished output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from harness.schema.settings import AttentionKind, Count, DeviceKind, Precision, SeqLen, Settings

# Rows of a window: they are read, tokenised, sorted by length and written together. A killed process loses at most
# one window.
WINDOW_ROWS = 2048


class PredictJob(Settings):
    """The job of labelling a file: the file, the model and the settings.

    Attributes:
        model: Folder with config.json, model.safetensors and tokenizer.json.
        text: Text columns; text_stream.py joins several columns to one text.
        pair: Column of a second text; None for single texts.
        carried: Columns that are copied to the output.
        batch_size: Rows per batch.
        seq_len: Maximum tokens, special tokens included.
        threads: CPU threads of the tokenizer and of torch.
        attention: The attention that the model's training was set to; None for what is usual.
        pad_multiple: Each batch's length is a multiple of this, or `seq_len`.
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
    attention: AttentionKind | None = None
    pad_multiple: Count = 1
    window_rows: Count = WINDOW_ROWS


def progress_paths(out: Path) -> tuple[Path, Path, Path]:
    """Return the paths of an unfinished output, of its progress note, and of its writer's lock."""
    partial, note, lock = (out.with_name(f"{out.name}.{end}") for end in ("partial", "progress.json", "lock"))
    return partial, note, lock


def restart(out: Path) -> None:
    """Delete an unfinished output, its progress note and its lock."""
    for path in progress_paths(out):
        path.unlink(missing_ok=True)


class PredictStarted(Settings):
    """The message after loading the model; `num_rows` rows were already written by an earlier run."""

    kind: Literal["begin"] = "begin"
    num_rows: int
    load_s: float


class RowsPredicted(Settings):
    """The message about progress, sent at most once a second.

    Attributes:
        num_rows: Rows of the whole output so far.
        seconds: Seconds since this run began to read.
    """

    kind: Literal["rows"] = "rows"
    num_rows: int
    seconds: float


class PredictResult(Settings):
    """A finished output; fields that end in `_now` exclude rows that an earlier run wrote.

    Attributes:
        num_unlabelled: Rows without a text.
        num_padded_tokens_now: Tokens, padding included.
        seconds: Seconds from reading the first row to writing the last.
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
    """The last message: a result, or an error for the user.

    Attributes:
        errno: The error's number if the file system refused something, such as a write to a full disk.
        file: The file or folder of such an error, if it is known.
    """

    kind: Literal["end"] = "end"
    result: PredictResult | None = None
    error: str | None = None
    errno: int | None = None
    file: str | None = None


# A message from the predicting process, sent as a line of JSON.
PredictMessage = PredictStarted | RowsPredicted | PredictEnded
AnyPredictMessage = Annotated[PredictMessage, Field(discriminator="kind")]
