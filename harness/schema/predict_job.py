"""What a process that labels a file is told."""

from __future__ import annotations

from pathlib import Path

from harness.schema.settings import Count, DeviceKind, Precision, SeqLen, Settings

# Rows that are read, tokenised, sorted by length and written together: what a kill can cost.
WINDOW_ROWS = 2048


class PredictJob(Settings):
    """A file to label, by which model and how.

    Attributes:
        model: A folder with config.json, model.safetensors and tokenizer.json.
        text: Columns of the text; several are joined, see text_stream.py.
        pair: Column of a second text, or None.
        carried: Columns that are copied to the output.
        seq_len: Tokens at most, special tokens included.
        threads: CPU threads, of the tokenizer and of torch.
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
    """Where an output lies until it is whole, what notes how far it came, and the lock of who writes it."""
    partial, note, lock = (out.with_name(f"{out.name}.{end}") for end in ("partial", "progress.json", "lock"))
    return partial, note, lock


def restart(out: Path) -> None:
    """Forget an unfinished output."""
    for path in progress_paths(out):
        path.unlink(missing_ok=True)
