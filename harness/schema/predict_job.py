"""The input of a process that labels a file, and the names of its unfinished output."""

from __future__ import annotations

from pathlib import Path

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
