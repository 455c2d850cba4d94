"""Reading labelled texts: every format gives the same rows, and each kind of bad data has its message."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.corpus import load_corpus
from harness.dataset.file_formats import PART_ROWS, SourceFile, find_files
from harness.dataset.file_readers import read_column_names, read_parts
from harness.dataset.rows import read_rows
from harness.errors import UserError
from harness.schema.settings import DataSettings

HARD = ['a comma, and "quotes"', "two\nlines", "tab\there", "né à Łódź 漢字 🙂", "  blanks  ", "NA", "null", "'single'"]


def settings(**changes):
    return DataSettings(**{"num_train": 60, "num_val": 20, "num_test": 30} | changes)


def table(num=130):
    """Make texts that are hard for some formats, second texts, and labels of three types."""
    rng = random.Random(0)
    rows = [f"{HARD[i % len(HARD)]} row {i}" for i in range(num)]
    return {
        "text": rows,
        "second": [f"and {row[::-1]}" for row in rows],
        "word": [rng.choice(("good", "bad", "no opinion")) for _ in rows],
        "number": [rng.choice((0, 1, 10)) for _ in rows],
        "flag": [rng.random() < 0.5 for _ in rows],
    }


def as_csv(columns, sep=","):
    return pd.DataFrame(columns).to_csv(index=False, sep=sep).encode()


def as_lines(columns):
    rows = zip(*columns.values(), strict=True)
    return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows).encode()


def write_arrow(path, columns, stream=False):
    table_ = pa.table(columns)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table_.schema) as writer:
        writer.write_table(table_, max_chunksize=50)


def write(path, columns):
    name = path.name
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), path, row_group_size=40)
    elif name.endswith((".arrow", ".feather")):
        write_arrow(path, columns, stream=name.endswith(".arrow"))
    else:
        data = as_lines(columns) if ".jsonl" in name else as_csv(columns, "\t" if ".tsv" in name else ",")
        data = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(data)
        path.write_bytes(data)
    return path


def parts_of(columns, num):
    bounds = np.linspace(0, len(columns["text"]), num + 1).astype(int)
    return [{name: values[a:b] for name, values in columns.items()} for a, b in pairwise(bounds)]


FORMATS = (
    "own.csv", "own.csv.gz", "own.csv.bz2", "own.tsv", "own.tsv.gz", "own.tsv.bz2", "own.jsonl", "own.jsonl.gz",
    "own.jsonl.bz2", "own.parquet", "own.arrow", "own.feather", "shards/*.parquet", "shards", "mixed/*",
)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Write the same table in every format, as one file, and as shards of one or several formats."""
    folder, columns = tmp_path_factory.mktemp("formats"), table()
    (folder / "shards").mkdir()
    (folder / "mixed").mkdir()
    for name in FORMATS:
        if "*" not in name and name != "shards":
            write(folder / name, columns)
    for index, part in enumerate(parts_of(columns, 3)):
        write(folder / "shards" / f"part-{index}.parquet", part)
        write(folder / "mixed" / f"part-{index}{('.csv', '.jsonl.gz', '.feather')[index]}", part)
    (folder / "shards" / "README.md").write_text("not a shard")
    return folder


@pytest.mark.parametrize("label", ["word", "number", "flag"])
def test_all_formats_give_the_same_rows(sources, label):
    columns = table()
    expected = (columns["text"], columns["second"], [str(value) for value in columns[label]])
    splits = set()
    for name in FORMATS:
        chosen = settings(source=str(sources / name), label=label, pair="second")
        rows = read_rows(chosen)
        actual = (rows.texts, rows.pairs, [rows.label_names[number] for number in rows.labels])
        assert actual == expected, name
        facts = load_corpus(chosen).facts
        splits.add((facts.labels, facts.train.sha256, facts.val.sha256, facts.test.sha256))
    assert len(splits) == 1


def test_several_text_columns_are_joined_by_a_space_without_empty_ones(tmp_path):
    columns = {"title": ["A", "", None], "text": ["b", "c", "d"], "label": ["x", "y", "x"]}
    path = write(tmp_path / "own.jsonl", columns)
    assert read_rows(settings(source=str(path), text=("title", "text"))).texts == ["A b", "c", "d"]


def test_whole_floats_are_whole_numbers(tmp_path):
    path = write(tmp_path / "own.parquet", {"text": ["a", "b", "c"], "label": [1.0, 2.0, 1.0]})
    assert read_rows(settings(source=str(path))).label_names == ("1", "2")


def test_byte_order_marks_empty_lines_and_quotes_are_read_as_pandas_does(tmp_path):
    raw = b'\xef\xbb\xbftext,label\n5 inches" wide,a\n\n"a ""quoted"" word",b\r\nplain,a\n'
    (tmp_path / "own.csv").write_bytes(raw)
    frame = pd.read_csv(tmp_path / "own.csv", dtype=str, keep_default_na=False)
    rows = read_rows(settings(source=str(tmp_path / "own.csv")))
    assert rows.texts == frame["text"].tolist() == ['5 inches" wide', 'a "quoted" word', "plain"]


def test_column_names_of_every_format(sources):
    for name in FORMATS:
        for file in find_files(str(sources / name), "here"):
            assert read_column_names(file, "here") == list(table())


def good(num=130):
    return [(f"text {i}", ("good", "bad")[i % 2]) for i in range(num)]


def csv_of(rows):
    return pd.DataFrame(rows, columns=["text", "label"]).to_csv(index=False).encode()


def lines_of(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


# Each kind of bad data: the file's name and bytes, changes to the settings, and the message.
BAD = {
    "a missing column": ("x.csv", csv_of(good()), {"text": "words"}, r"no column 'words'; its columns: 'text', 'label'"),
    "an empty text": ("x.csv", csv_of([*good(), ("  ", "good"), ("", "bad")]), {}, r"2 of 132 rows can't be used\n  empty text: 2 \(line 132, line 133\)"),
    "a missing label": ("x.csv", csv_of([("x", "")] * 9 + good()), {}, r"missing label: 9 \(line 2, line 3, line 4, line 5, line 6, \.\.\.\)"),
    "a broken row": ("x.csv", csv_of(good()) + b"one\nand,a,third\n", {}, r"broken row: 2 \(line 132: 1 fields instead of 2, line 133: 3 fields instead of 2\)"),
    "a broken line": ("x.jsonl", lines_of({"text": "a", "label": 1}) + b'{"text": "b"\n[1]\n', {}, r"broken row: 2 \(line 2: not JSON, line 3: not a JSON object\)"),
    "mixed types": ("x.jsonl", lines_of({"text": "a", "label": 1}, {"text": "b", "label": "one"}, {"text": 3, "label": 1}), {}, r"(?s)mixed types: 1 \(line 2: 'label' is text, and a whole number in earlier rows\).*no text: 1 \(line 3: 'text' is a number\); write it as text, or name"),
    "another encoding": ("x.csv", "text,label\ncafé,good\n".encode("latin-1"), {}, r"wrong encoding: 1 \(line 2: 'text' is not UTF-8\)"),
    "another encoding of lines": ("x.jsonl", lines_of({"text": "a", "label": 1}) + '{"text": "é", "label": 1}\n'.encode("latin-1"), {}, r"wrong encoding: 1 \(line 2: the line is not UTF-8\)"),
    "UTF-16": ("x.csv", "text,label\na,b\n".encode("utf-16"), {}, r"the file is UTF-16, not CSV in UTF-8 as its name says; save it as UTF-8"),
    "a single class": ("x.csv", csv_of([(f"text {i}", "good") for i in range(120)]), {}, r"only one label, 'good', in 120 usable rows; at least two labels are needed: add rows with another label, or name"),
    "fewer rows than requested": ("x.csv", csv_of(good(40)), {}, r"40 usable rows; num_train = 60, num_val = 20 and num_test = 30 need more"),
    "regression in a table": ("x.csv", b"text,label\na,0.5\nb,1\n", {}, r"labels such as '0\.5', '1' are numbers on a scale: that is regression"),
    "regression in typed columns": ("x.jsonl", lines_of({"text": "a", "label": 2}, {"text": "b", "label": 0.25}), {}, r"that is regression, and only classes are supported; write each row's class"),
    "more than 1,000 classes": ("x.csv", csv_of([(f"t {i}", f"c{i}") for i in range(1_001)]), {}, r"more than 1,000 different labels \('c0', 'c1', 'c2', \.\.\.\); is 'label' the label column"),
    "an empty file": ("x.csv", b"", {}, r"the file is empty; export or download it again"),
    "no such file": (None, b"", {"source": "no-such-folder/x.csv"}, r"data\.source 'no-such-folder/x\.csv': no such file"),
    "a glob that matches nothing": (None, b"", {"source": "no-such-folder/*.csv"}, r"no file matches \(supported: \.csv, \.tsv, \.jsonl"),
    "an unsupported format": ("x.docx", b"x", {}, r"the format of 'x\.docx' is not supported; save it in one of the supported: \.csv, \.tsv"),
    "a damaged Parquet file": ("x.parquet", b"text,label\na,b\n", {}, r"can't be read as Parquet; export or download it again, or rename it"),
    "a damaged Arrow file": ("x.arrow", b"text,label\na,b\n", {}, r"can't be read as Arrow; export or download it again, or rename it"),
    "not gzip": ("x.csv.gz", b"text,label\na,b\n", {}, r"can't be read as CSV compressed as \.gz; export or download it again, or rename .* \(Not a gzipped file"),
    "truncated gzip": ("x.csv.gz", gzip.compress(csv_of(good()))[:-20], {}, r"the file ends too early"),
    "Parquet named .csv": ("x.csv", b"PAR1....", {}, r"the file is Parquet, not CSV in UTF-8 as its name says"),
    "not JSON Lines": ("x.jsonl", csv_of(good()), {}, r"not JSON Lines: no line is a JSON object \(line 1: not JSON\)"),
    "a JSON array": ("x.json", b'[{"text": "a", "label": 1}]', {}, r"the file is one JSON array"),
    "an unclosed quotation mark": ("x.csv", csv_of(good()) + b'"open,good\nnext,bad\nlast,good\n', {}, r"a quotation mark in line 132 or after it is never closed; close it"),
    "two columns of one name": ("x.csv", b"text,text,label\na,b,c\n", {}, r"several columns are named 'text'"),
    "a missing group": ("x.csv", b"text,label,film\na,good,F\nb,bad,\n", {"group_by": "film"}, r"missing group: 1 \(line 3\)"),
    "a value that is not a time": ("x.csv", b"text,label,at\na,good,2024-01-01\nb,bad,soon\nc,bad,3\n", {"time_by": "at"}, r"missing time: 1 \(line 3: 'soon' is neither a number nor an ISO date\)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_data_has_its_message(tmp_path, kind):
    name, raw, changes, message = BAD[kind]
    if name:
        (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=message):
        load_corpus(settings(**{"source": str(tmp_path / (name or "none.csv"))} | changes))


def test_one_message_lists_all_kinds_with_counts_and_how_to_skip_them(tmp_path):
    raw = csv_of([*good(), ("", "good"), ("x", ""), ("y", "")]) + b"one\n" + b"\xff,good\n"
    (tmp_path / "x.csv").write_bytes(raw)
    source = str(tmp_path / "x.csv")
    with pytest.raises(UserError) as caught:
        load_corpus(settings(source=source))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("x.csv': 5 of 135 rows can't be used")
    assert sorted(lines[1:-1]) == sorted([
        "  missing label: 2 (line 133, line 134)",
        "  empty text: 1 (line 132)",
        "  broken row: 1 (line 135: 1 fields instead of 2)",
        "  wrong encoding: 1 (line 136: 'text' is not UTF-8); save it as UTF-8",
    ])  # fmt: skip
    assert 'data.on_bad_row = "skip"' in lines[-1]
    facts = load_corpus(settings(source=source, on_bad_row="skip")).facts
    assert facts.bad_rows == {"missing label": 2, "empty text": 1, "broken row": 1, "wrong encoding": 1}
    assert facts.num_source_rows == 130


def test_a_label_only_in_the_test_file_is_rejected(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv_of(good()))
    (tmp_path / "test.csv").write_bytes(csv_of([(f"new {i}", "good") for i in range(30)] + [("odd", "great")]))
    files = {"source": str(tmp_path / "train.csv"), "test_source": str(tmp_path / "test.csv")}
    with pytest.raises(UserError, match=r"unknown label: 1 \(line 32: 'great' is in no row of data\.source\)"):
        load_corpus(settings(**files))
    assert load_corpus(settings(**files, on_bad_row="skip")).facts.bad_rows == {"unknown label": 1}


def test_a_file_that_changes_while_it_is_read_is_rejected(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(csv_of(good(2 * PART_ROWS)))
    parts = read_parts(SourceFile(path, "CSV"), ["text", "label"], "here")
    next(parts)
    with path.open("ab") as file:
        file.write(b"one more,good\n")
    with pytest.raises(UserError, match="here: the file changed while it was read; run again when it is complete"):
        list(parts)


def test_messages_name_the_bad_shard(tmp_path):
    for index, part in enumerate(parts_of({"text": [f"t {i}" for i in range(9)], "label": ["a", "b", ""] * 3}, 3)):
        write(tmp_path / f"{index}.csv", part)
    with pytest.raises(UserError, match=r"missing label: 3 \(0\.csv line 4, 1\.csv line 4, 2\.csv line 4\)"):
        read_rows(settings(source=str(tmp_path)))
    (tmp_path / "1.csv").write_bytes(b"words,label\na,b\n")
    with pytest.raises(UserError, match=r"': 1\.csv: no column 'text'"):
        read_rows(settings(source=str(tmp_path)))


def test_a_row_of_several_lines_is_numbered_by_its_first(tmp_path):
    (tmp_path / "x.csv").write_bytes(b'text,label\n"one\ntwo\nthree",good\n\nfour,\n')
    with pytest.raises(UserError, match=r"missing label: 1 \(line 6\)"):
        read_rows(settings(source=str(tmp_path / "x.csv")))


def test_typed_dates_and_dates_as_text_are_the_same_times(tmp_path):
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=7 * i) for i in range(5)]
    texts = {"text": list("abcde"), "label": list("xyxyx")}
    typed = write(tmp_path / "a.parquet", texts | {"at": days})
    written = write(tmp_path / "b.csv", texts | {"at": [f"{day}T00:00:00+00:00" for day in days]})
    times = [read_rows(settings(source=str(path), time_by="at")).times.tolist() for path in (typed, written)]
    assert times[0] == times[1] == [1704067200 + 604800 * i for i in range(5)]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        (['First\tone', '"Second\ttwo', 'Third "sentence"\tone', "Fourth\ttwo"], ["First", "Fourth"]),
        (["First\tone", '"Great\ttwo', 'fine film"\tone', "Fourth\ttwo"], ["First", "Fourth"]),
        (["First\tone", '"Second\ttwo', "Third\tone", '"Fourth\ttwo', "Fifth\ttwo"], ["First", "Fifth"]),
    ],
    ids=["another in a later text", "one at a later text's end", "two texts begin with one"],
)  # fmt: skip
def test_rows_are_not_merged_by_a_text_that_begins_with_a_quotation_mark(tmp_path, rows, kept):
    """Once the rows in between became one text without a word: 'Second\\ttwo\\nThird sentence"' with the label `one`."""
    path = tmp_path / "own.tsv"
    path.write_text("\n".join(["text\tlabel", *rows, ""]))
    with pytest.raises(
        UserError, match=r"\(line 3: a quotation mark in lines 3 to \d is not doubled, or never closed, line 4"
    ):
        read_rows(settings(source=str(path)))
    found = read_rows(settings(source=str(path), on_bad_row="skip"))
    assert (found.texts, found.facts.bad_rows) == (kept, {"broken row": len(rows) - len(kept)})


@pytest.mark.parametrize(
    ("name", "raw", "texts"),
    [
        ("own.csv", 'text,label\n"a, b\nc ""d"", e",x\nplain,y\n', ['a, b\nc "d", e', "plain"]),
        ("own.csv", 'text,label\n"one, two\nthree, four",x\nplain,y\n', ["one, two\nthree, four", "plain"]),
        ("own.tsv", 'text\tlabel\n"a b\nc\td"\tx\nplain\ty\n', ["a b\nc\td", "plain"]),
    ],
)
def test_texts_of_several_lines_stay_whole(tmp_path, name, raw, texts):
    (tmp_path / name).write_text(raw)
    assert read_rows(settings(source=str(tmp_path / name))).texts == texts


def test_a_carriage_return_inside_a_text_is_a_broken_row(tmp_path):
    (tmp_path / "own.csv").write_bytes(b"text,label\none\rtwo,a\nthree,b\n")
    with pytest.raises(UserError, match=r"broken row: 1 \(line 2: 1 fields instead of 2\)"):
        read_rows(settings(source=str(tmp_path / "own.csv")))


def test_values_of_other_columns_may_have_any_type(tmp_path):
    lines = [
        {"text": "a b", "label": 1, "name": 1, "tags": None},
        {"text": "c d", "label": 2, "name": "Nan", "tags": ["x"]},
    ]
    (tmp_path / "own.jsonl").write_bytes(lines_of(*lines))
    assert read_rows(settings(source=str(tmp_path / "own.jsonl"))).label_names == ("1", "2")


def test_half_a_surrogate_pair_is_no_question_of_the_encoding(tmp_path):
    """Once "'text' is not UTF-8", of a file that is."""
    (tmp_path / "own.jsonl").write_bytes(
        lines_of({"text": "a", "label": 1}) + b'{"text": "half \\ud83d", "label": 2}\n'
    )
    with pytest.raises(UserError, match=r"broken row: 1 \(line 2: 'text' has half of a surrogate pair, '\\ud83d'\)"):
        read_rows(settings(source=str(tmp_path / "own.jsonl")))
