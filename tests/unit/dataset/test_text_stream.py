"""Streaming texts from every format in windows, and the messages for unreadable files."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from harness.dataset.file_formats import SourceFile
from harness.dataset.file_readers import read_parts
from harness.dataset.text_stream import output_format_of, read_windows
from harness.errors import UserError

ROWS = [
    {"id": 7, "head": "One", "text": 'says "hi",\nthen goes'},
    {"id": 8, "head": "Two", "text": ""},
    {"id": 9, "head": "", "text": "é 漢 🙂"},
    {"id": 10, "head": "Four", "text": "  "},
    {"id": 11, "head": "Five", "text": "tab\tinside"},
]


def write(folder, name):
    path = folder / name
    table = pa.Table.from_pylist(ROWS)
    kind = path.suffixes[0]
    if kind == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=2)
        return path
    if kind in (".arrow", ".feather"):
        opener = pa.ipc.new_stream if kind == ".arrow" else pa.ipc.new_file
        with opener(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        return path
    if kind == ".jsonl":
        content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    else:
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(table, sink, pa.csv.WriteOptions(delimiter="\t" if kind == ".tsv" else ","))
        content = sink.getvalue().to_pybytes()
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(content))
    return path


def texts(path, **options):
    options = {"text": ["text"], "num_rows": 2} | options
    return [text for window in read_windows(path, **options) for text in window.texts]


FILE_NAMES = ["a.csv", "a.csv.gz", "a.csv.bz2", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "a.feather"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_format_gives_the_same_windows(tmp_path, name):
    windows = list(read_windows(write(tmp_path, name), text=["text"], carried=["id"], num_rows=2))
    assert [window.first_row for window in windows] == [0, 2, 4]
    assert [window.texts for window in windows] == [
        ['says "hi",\nthen goes', None], ["é 漢 🙂", None], ["tab\tinside"],
    ]  # fmt: skip
    assert [int(value.as_py()) for window in windows for value in window.carried.column("id")] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("skip", [1, 2, 3, 4, 5, 9])
def test_rows_can_be_skipped_within_a_window(tmp_path, name, skip):
    path = write(tmp_path, name)
    assert texts(path, skip=skip) == texts(path)[skip:]
    firsts = [window.first_row for window in read_windows(path, text=["text"], num_rows=2, skip=skip)]
    assert firsts == [max(begin, skip) for begin in (0, 2, 4) if min(begin + 2, 5) > skip]


def test_several_columns_are_joined_without_blank_ones(tmp_path):
    path = write(tmp_path, "a.csv")
    assert texts(path, text=["head", "text"])[1:4] == ["Two", "é 漢 🙂", "Four   "]


def test_a_pair_column_is_returned_separately(tmp_path):
    (first, *_) = read_windows(write(tmp_path, "a.parquet"), text=["head"], pair="text", num_rows=3)
    assert (first.texts, first.pairs) == (["One", "Two", None], ['says "hi",\nthen goes', "", "é 漢 🙂"])


def test_windows_span_blocks_without_losing_rows(tmp_path):
    path = tmp_path / "long.csv"
    rows = [f"{index} {'word ' * 200}" for index in range(20_000)]  # 20 MB: several blocks
    path.write_text("text\n" + "".join(f"{row}\n" for row in rows))
    sizes = [len(window.texts) for window in read_windows(path, text=["text"], num_rows=1500)]
    assert sizes == [1500] * 13 + [500]
    assert [text.split()[0] for text in texts(path, num_rows=1500)] == [str(index) for index in range(20_000)]


def test_a_file_without_rows_has_no_windows(tmp_path):
    path = tmp_path / "none.csv"
    path.write_text("text,id\n")
    assert texts(path) == []


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "text\nfine\n", {"text": ["body"]}, "no column 'body'; its columns: 'text'; name them with"),
        ("a.jsonl", '{"text": "fine"}\n', {"carried": ["id"]}, "no column 'id'; its columns: 'text'; name them with"),
        ("a.csv", "text,id\nfine,1\nbroken\n", {}, "broken row: 1 (line 3: 1 fields instead of 2); fix them"),
        ("a.jsonl", '{"text": "fine"}\n{"text": 3}\n', {}, "line 2: 'text' is a number; write it as text, or name"),
        ("a.jsonl", '{"text": \n', {}, "not JSON Lines: no line is a JSON object"),
        ("a.parquet", "not parquet", {}, "can't be read as Parquet; export or download it again"),
        ("a.arrow", "not arrow", {}, "can't be read as Arrow; export or download it again"),
        (
            "a.csv.gz",
            "not packed",
            {},
            "can't be read as CSV compressed as .gz; export or download it again, or rename it",
        ),
        ("a.csv", "", {}, "the file is empty; export or download it again"),
        ("a.csv", '"text"\n"open\nnext\n', {}, "a quotation mark in line 2 or after it is never closed; close it"),
        ("a.csv", "text,text\na,b\n", {}, "several columns are named 'text'; rename one"),
        ("a.xlsx", "", {}, "is not supported; save it in one of the supported: .csv, .tsv"),
        ("a.parquet.gz", "", {}, "is not supported; unpack it"),
    ],
)
def test_unreadable_files_say_why_and_what_to_do(tmp_path, name, content, options, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        texts(path, **options)
    assert message in str(caught.value)


def test_bytes_that_are_not_utf8_are_rejected(tmp_path):
    """Once the message was pyarrow's own, without what to do: "CSV conversion error to string: invalid UTF8 data"."""
    path = tmp_path / "latin.csv"
    path.write_bytes("text,id\nplain,1\ncafé,2\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 3: 'text' is not UTF-8; save it as UTF-8"):
        texts(path)
    path.write_bytes("text,id\nplain,é\n".encode("latin-1"))
    assert texts(path) == ["plain"]
    with pytest.raises(UserError, match="column 'id' from line 2 on is not UTF-8; save it as UTF-8, or leave it out"):
        list(read_windows(path, text=["text"], carried=["id"], num_rows=2))


def test_a_missing_file_is_rejected(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        texts(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder; name one file"):
        texts(tmp_path)


def test_an_output_has_a_supported_suffix():
    assert output_format_of(Path("a.b.CSV")) == ".csv"
    with pytest.raises(UserError, match=r"its name must end in one of \.csv, \.tsv"):
        output_format_of(Path("a.arrow"))


@pytest.mark.parametrize("name", ["string_view", "large_string", "binary", "binary_view"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_every_type_of_text_is_read(tmp_path, name, suffix):
    """Polars writes string views: once refused with "column 'text' holds string_view, not text"."""
    values = pa.array(["é 漢", None, "b"], getattr(pa, name)())
    table, path = pa.table({"text": values}), tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    assert texts(path) == ["é 漢", None, "b"]


def test_a_text_of_fifteen_mebibytes_is_read_as_a_study_reads_it(tmp_path):
    """Once refused: "straddling object straddles two block boundaries (try to increase block size?)"."""
    path, long = tmp_path / "a.csv", "word " * (15 * 2**20 // 5)
    path.write_text(f"text\n{long}\nshort\n")
    assert texts(path) == [long, "short"]


def test_copied_columns_keep_the_type_of_the_first_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": "t", "id": row, "tags": ["a"], "none": None}) + "\n" for row in range(3))
    )
    (window,) = read_windows(path, text=["text"], carried=["id", "tags", "none"], num_rows=9)
    assert window.carried.to_pylist() == [{"id": row, "tags": ["a"], "none": None} for row in range(3)]
    path.write_text(
        "".join(json.dumps({"text": "t", "id": row if row < 5_000 else "x"}) + "\n" for row in range(5_001))
    )
    with pytest.raises(
        UserError, match="column 'id' from line 5,001 on has values of another type than before; leave it"
    ):
        list(read_windows(path, text=["text"], carried=["id"], num_rows=2_048))


def test_times_that_no_date_can_hold_are_numbers(tmp_path):
    """Once "OverflowError: date value out of range" as soon as `inspect` looked at the column."""
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"text": ["a"], "at": pa.array([10**13], pa.timestamp("s"))}), path)
    (part,) = read_parts(SourceFile(path, "Parquet"), ["at"], "here")
    assert part.columns == {"at": [10**16]}  # Parquet stores milliseconds
