"""Recognise files that are damaged, empty or not of the format of their name, and say what to do about them."""

from __future__ import annotations

import contextlib
import csv
import zlib
from collections.abc import Iterator

from harness.dataset.file_formats import MAX_FIELD_BYTES, SourceFile, open_bytes
from harness.errors import UserError, shorten

_HEAD_BYTES = 4096
_MAX_REASON_LENGTH = 200
_AGAIN = "export or download it again"
_RENAME = "rename it with the suffix of its format"
_SAVE_AS_CSV = "save it as CSV in UTF-8"
_SAVE_AS_UTF8 = "save it as UTF-8"
# First bytes of what files often are despite a text format's suffix: what it is, and what to do. UTF-32 comes before
# UTF-16, whose mark it begins with.
_MAGIC_BYTES = {
    b"PAR1": ("Parquet", _RENAME),
    b"ARROW1": ("Arrow", _RENAME),
    b"\x1f\x8b": ("compressed by gzip", f"{_RENAME}, .gz"),
    b"BZh": ("compressed by bzip2", f"{_RENAME}, .bz2"),
    b"PK\x03\x04": ("a zip or Excel file", f"unpack it, or {_SAVE_AS_CSV}"),
    b"\xd0\xcf\x11\xe0": ("an old Excel or Word file", _SAVE_AS_CSV),
    b"\xfd7zXZ": ("compressed by xz", "unpack it"),
    b"(\xb5/\xfd": ("compressed by zstd", "unpack it"),
    b"%PDF": ("a PDF file", "export its table as CSV"),
    b"SQLite format 3": ("an SQLite database", "export its table as CSV"),
    b"<!doctype html": ("a web page", "download the file itself, logged in if need be"),
    b"<html": ("a web page", "download the file itself, logged in if need be"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    b"\xff\xfe\x00\x00": ("UTF-32", _SAVE_AS_UTF8),
    b"\x00\x00\xfe\xff": ("UTF-32", _SAVE_AS_UTF8),
    b"\xff\xfe": ("UTF-16", _SAVE_AS_UTF8),
    b"\xfe\xff": ("UTF-16", _SAVE_AS_UTF8),
}
# Of text in UTF-8 next to no byte is 0; of Latin letters in UTF-16 every second one is.
_MAX_NUL_FRACTION = 0.1


@contextlib.contextmanager
def convert_read_errors(file: SourceFile, where: str) -> Iterator[None]:
    """Convert any error of reading the file to a UserError, whose text says what to do before it quotes the cause."""
    format_name = f"{file.format}{f' compressed as {file.compression}' if file.compression else ''}"
    try:
        yield
    except EOFError:
        raise UserError(
            f"{where}: the file ends too early: it is truncated, or not {format_name}; {_AGAIN}, or {_RENAME}"
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{where}: a field is longer than {MAX_FIELD_BYTES >> 20} MiB; close its quotation mark if one is open, or "
            f"shorten the text ({error})"
        ) from None
    except PermissionError:
        raise UserError(f"{where}: {file.path.name} may not be read by this user; change its permissions") from None
    except (OSError, ValueError, NotImplementedError, zlib.error) as error:  # these include pyarrow's own exceptions
        reason = shorten((str(error).strip().splitlines() or [type(error).__name__])[0], _MAX_REASON_LENGTH)
        raise UserError(f"{where}: can't be read as {format_name}; {_AGAIN}, or {_RENAME} ({reason})") from None


def check_content(file: SourceFile, where: str) -> None:
    """Reject a file that is empty, and a text file whose first bytes show that it is something else.

    Raises:
        UserError: If the file is empty, of another format, or in another encoding.
    """
    if not file.path.stat().st_size:
        raise UserError(f"{where}: the file is empty; {_AGAIN}")
    if not file.is_text:
        return
    with open_bytes(file) as opened:
        head = opened.read(_HEAD_BYTES)
    for magic, (actual, fix) in _MAGIC_BYTES.items():
        if head[: len(magic)].lower() == magic.lower():
            raise UserError(f"{where}: the file is {actual}, not {file.format} in UTF-8 as its name says; {fix}")
    if head.count(0) > _MAX_NUL_FRACTION * len(head):
        raise UserError(
            f"{where}: the file has zero bytes, as UTF-16 and files that are no text have; {_SAVE_AS_UTF8}, or {_AGAIN}"
        )
    text = head.removeprefix(b"\xef\xbb\xbf").strip()
    if not text and len(head) < _HEAD_BYTES:
        raise UserError(f"{where}: the file is empty; {_AGAIN}")
    if file.format == "JSON Lines" and text.startswith(b"["):
        raise UserError(f"{where}: the file is one JSON array, not JSON Lines; write one object per line")
