"""CSV files of every size and shape, and damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from data_files.case import NUM_ROWS, Case, csv_text, json_lines, refused, table, texts
from data_files.text_files import ENCODING, FIX_ROWS, HEADER

AGAIN = "again"
MIB = 2**20


def shapes() -> Iterator[Case]:
    """Yield the cases of sizes, shapes, damage and names."""
    yield from _few_rows()
    yield from _rows_and_columns()
    yield from _sizes()
    yield from _damage()
    yield from _names()


def _few_rows() -> Iterator[Case]:
    kind = "size"
    for name, content in (
        ("an empty file", b""),
        ("one line end", b"\n"),
        ("a byte-order mark alone", b"\xef\xbb\xbf"),
    ):
        yield refused(name, kind, "a.csv", content, "empty.*again", in_ci=not content)
    yield refused("a header alone", kind, "a.csv", b"text,label\n", "no rows.*again", predicted=0, predict_refusal="")
    for num in (1, 3):
        content = csv_text(table(num)).encode()
        yield refused(f"{num} rows", kind, "a.csv", content, "add rows", predicted=num, predict_refusal="")
    for num in (10, 30):
        yield Case(f"{num} rows", kind, "a.csv", csv_text(table(num)).encode(), rows=num, predicted=num)
    same = csv_text([("the same", label) for _, label in table()]).encode()
    yield refused("one text forty times", kind, "a.csv", same, "add rows", predicted=NUM_ROWS, predict_refusal="")


def _rows_and_columns() -> Iterator[Case]:
    kind, content = "shape", csv_text()
    short, long = content.encode() + b"one\ntwo\n", content.encode() + b"one,good,\ntwo,bad,,\n"
    for name, raw in (("too short", short), ("too long", long)):
        yield refused(
            f"two rows {name}",
            kind,
            "a.csv",
            raw,
            FIX_ROWS,
            rows=NUM_ROWS,
            bad=2,
            predict_refusal="fix",
            in_ci=raw is short,
        )
    commas = content.replace("\n", ",\n")
    yield Case("a comma at the end of every line", kind, "a.csv", commas.encode())
    yield refused(
        "a comma at the end of every row",
        kind,
        "a.csv",
        commas.replace("label,", "label").encode(),
        "fix",
        bad=NUM_ROWS,
    )
    one = "\n".join(["text", *(text.replace(",", "") for text in texts())])
    yield refused(
        "one column", kind, "a.csv", one.encode(), "--label", predicted=NUM_ROWS, predict_refusal="", in_ci=True
    )
    index = csv_text([(row, *pair) for row, pair in enumerate(table())], ("", "text", "label"))
    yield Case("an index column without a name", kind, "a.csv", index.encode())
    twice = csv_text([(text, text, label) for text, label in table()], ("text", "text", "label"))
    yield refused("two text columns of one name", kind, "a.csv", twice.encode(), "rename one", in_ci=True)
    others = csv_text([(1, 2, *pair) for pair in table()], ("x", "x", "text", "label"))
    yield Case("two other columns of one name", kind, "a.csv", others.encode())
    names = [f"column {index}" for index in range(1_000)]
    wide = csv_text([(*pair, *range(1_000)) for pair in table()], ("text", "label", *names))
    yield Case("1,002 columns", kind, "a.csv", wide.encode())
    wide = csv_text([range(1_000)] * NUM_ROWS, names)
    yield refused("1,000 columns without a text", kind, "a.csv", wide.encode(), "--text")
    yield refused("no header", kind, "a.csv", csv_text(header=()).encode(), HEADER, in_ci=True)
    yield refused("a comment before the header", kind, "a.csv", b"# exported on Monday\n" + content.encode(), HEADER)
    for names in (("Text", "Label"), (" text ", " label ")):
        shown = ", ".join(map(repr, names))
        yield refused(f"columns {shown}", kind, "a.csv", csv_text(header=names).encode(), shown)


def _sizes() -> Iterator[Case]:
    kind, read = "size", {"rows": NUM_ROWS + 1, "predicted": NUM_ROWS + 1}
    for mib in (1, 5, 15, 17):
        content = csv_text([("word " * (mib * MIB // 5), "good"), *table()]).encode()
        if mib < 16:
            yield Case(f"a text of {mib} MiB", kind, "a.csv", content, **read)
        else:
            yield refused(f"a text of {mib} MiB", kind, "a.csv", content, "shorten")
    for mib in (5, 17):
        content = json_lines([("word " * (mib * MIB // 5), "good"), *table()])
        if mib < 16:
            yield Case(f"a JSON text of {mib} MiB", kind, "a.jsonl", content, **read)
        else:
            yield refused(f"a JSON text of {mib} MiB", kind, "a.jsonl", content, "shorten")
    yield Case("a word of 1 MiB", kind, "a.csv", csv_text([("w" * MIB, "good"), *table()]).encode(), **read)
    many = [(f"{text} of {row}", label) for row, (text, label) in enumerate(table(12_000))]
    yield Case("12,000 rows", kind, "a.csv", csv_text(many).encode(), rows=12_000, predicted=12_000)


def _damage() -> Iterator[Case]:
    kind, content = "damage", csv_text(table(2_000)).encode()
    packed, bz2_packed = gzip.compress(content, mtime=0), bz2.compress(content)
    rows = {"rows": 2_000, "predicted": 2_000}
    yield Case("gzip", kind, "a.csv.gz", packed, **rows)
    yield Case("bzip2", kind, "a.CSV.BZ2", bz2_packed, **rows)
    yield Case(
        "gzip in two members", kind, "a.csv.gz", gzip.compress(content[:5_000]) + gzip.compress(content[5_000:]), **rows
    )
    yield refused("gzip, cut off", kind, "a.csv.gz", packed[:-2_000], AGAIN, in_ci=True)
    yield refused("gzip, cut off in its header", kind, "a.csv.gz", packed[:5], AGAIN)
    yield refused("gzip with a wrong checksum", kind, "a.csv.gz", packed[:-8] + bytes(8), AGAIN)
    yield refused("gzip with changed bytes", kind, "a.csv.gz", packed[:2_000] + bytes(50) + packed[2_050:], AGAIN)
    yield refused("bzip2, cut off", kind, "a.csv.bz2", bz2_packed[:-500], AGAIN)
    yield refused("bzip2 with changed bytes", kind, "a.csv.bz2", bz2_packed[:500] + bytes(50) + bz2_packed[550:], AGAIN)
    yield refused("an empty .csv.gz", kind, "a.csv.gz", b"", "empty.*again")
    yield refused("gzip of nothing", kind, "a.csv.gz", gzip.compress(b""), "empty.*again")
    yield refused("CSV named .csv.gz", kind, "a.csv.gz", content, "rename")
    yield refused("gzip named .csv", kind, "a.csv", packed, "rename")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", content)
    yield refused("a zip file named .csv", kind, "a.csv", archive.getvalue(), "rename|unpack")
    yield refused("a zip file", kind, "a.csv.zip", archive.getvalue(), "unpack")
    yield refused(
        "an old Excel file named .csv",
        kind,
        "a.csv",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
        "save it as CSV",
    )
    yield refused("a PDF named .csv", kind, "a.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "export")
    yield refused(
        "a web page named .csv", kind, "a.csv", b"<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", "download"
    )
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    yield refused("a pointer of Git LFS", kind, "a.csv", pointer, "git lfs pull", in_ci=True)
    yield refused("zeros", kind, "a.csv", bytes(4_096), ENCODING)
    yield refused(
        "random bytes", kind, "a.csv", os.urandom(0) + bytes((row * 131 + 7) % 256 for row in range(4_096)), ENCODING
    )


def _names() -> Iterator[Case]:
    kind, content = "name", csv_text().encode()
    for name in (
        "reviews [1].csv",
        "reviews (2).csv",
        "né à Łódź 漢字.csv",
        "a b\tc.csv",
        "what?.csv",
        "*.star.csv",
        "-dash.csv",
    ):
        yield Case(repr(name), kind, name, content, in_ci="[" in name)
    yield refused("a name that is not UTF-8", kind, "r\udce9sum\udce9.csv", content, "rename the file|no such file")
    yield refused("a name of 300 letters", kind, f"{'a' * 300}.csv", lambda folder: None, "no such file")
    for name in ("a.txt", "a", "a.csv.xz", "a.csv.zst", "a.xlsx"):
        yield refused(name, kind, name, content, r"supported: \.csv|its name must end in")
    yield refused(
        "a folder named a.csv", kind, "a.csv", lambda folder: (folder / "a.csv").mkdir(), "no supported file|folder"
    )
    yield refused(
        "a link to nothing", kind, "a.csv", lambda folder: (folder / "a.csv").symlink_to("none.csv"), "no such file"
    )
    yield refused("a pipe", kind, "a.csv", lambda folder: os.mkfifo(folder / "a.csv"), "write its content to a file")
    yield Case("three shards", kind, "part-*.csv", _write_shards, predicted=None, predict_refusal="no such file")
    yield refused(
        "a shard without the label",
        kind,
        "part-*.csv",
        _write_bad_shard,
        "no column 'label'",
        predict_refusal="no such file",
    )


def _write_shards(folder: Path) -> None:
    for index in range(3):
        (folder / f"part-{index}.csv").write_text(csv_text(table()[index::3]))


def _write_bad_shard(folder: Path) -> None:
    _write_shards(folder)
    (folder / "part-9.csv").write_text("text,stars\na fine film,3\n")
