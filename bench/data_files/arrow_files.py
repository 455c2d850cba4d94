"""Parquet and Arrow files: types, sizes, damage."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from data_files.case import NUM_ROWS, Case, refused, table, texts

TEXTS, LABELS = texts(), [label for _, label in table()]
NUMBERS = [row % 2 for row in range(NUM_ROWS)]
AGAIN = "again"


def arrow_files() -> Iterator[Case]:
    """Yield the cases of Parquet and Arrow files."""
    yield from _text_types()
    yield from _label_types()
    yield from _other_types()
    yield from _layouts()
    yield from _damage()


def _parquet(columns: dict[str, object], **options: object) -> Callable[[Path], None]:
    return lambda folder: pq.write_table(pa.table(columns), folder / "a.parquet", **options)


def _arrow(columns: dict[str, object], *, stream: bool = False) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        rows = pa.table(columns)
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(folder / "a.arrow"), rows.schema) as writer:
            writer.write_table(rows)

    return write


def _text_types() -> Iterator[Case]:
    kind = "Parquet types"
    for name in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view"):
        values = pa.array(TEXTS, getattr(pa, name)())
        yield Case(
            f"{name} texts", kind, "a.parquet", _parquet({"text": values, "label": LABELS}), in_ci=name == "string_view"
        )
        yield Case(f"{name} texts, Arrow", kind, "a.arrow", _arrow({"text": values, "label": LABELS}))
    yield Case(
        "dictionary texts", kind, "a.parquet", _parquet({"text": pa.array(TEXTS).dictionary_encode(), "label": LABELS})
    )
    views = pa.array(TEXTS, pa.string_view())
    codes = pa.DictionaryArray.from_arrays(pa.array(range(NUM_ROWS), pa.int32()), views)
    yield Case("dictionary of string_view texts, Arrow", kind, "a.arrow", _arrow({"text": codes, "label": LABELS}))
    latin = pa.array([f"{text} déçu".encode("latin-1") for text in TEXTS])
    for name, values in (("binary texts in Latin-1", latin), ("string texts in Latin-1", _unchecked(latin))):
        yield refused(
            name, kind, "a.parquet", _parquet({"text": values, "label": LABELS}), "save it as UTF-8", bad=NUM_ROWS
        )
    for name, values in (
        ("numbers", NUMBERS),
        ("lists", [[text] for text in TEXTS]),
        ("structs", [{"a": text} for text in TEXTS]),
    ):
        yield refused(
            f"{name} as texts", kind, "a.parquet", _parquet({"text": values, "label": LABELS}), "--text", bad=NUM_ROWS
        )
    yield refused("a text column of nulls", kind, "a.parquet", _parquet({"text": pa.nulls(NUM_ROWS), "label": LABELS}), "empty text",
                  bad=NUM_ROWS, predicted=NUM_ROWS, predict_refusal="")  # fmt: skip


def _unchecked(values: pa.Array) -> pa.Array:
    """Return binary values as strings without a check of their encoding, as some writers do."""
    return pa.Array.from_buffers(pa.string(), len(values), values.buffers())


def _labelled(
    name: str,
    values: object,
    *,
    rows: int | None = NUM_ROWS,
    refusal: str = "",
    arrow: bool = False,
    in_ci: bool = False,
) -> Case:
    """Return a case of labels of some type, which `predict` doesn't read."""
    columns = {"text": TEXTS, "label": values}
    content = _arrow(columns) if arrow else _parquet(columns)
    bad = NUM_ROWS if rows is None else 0
    return Case(
        f"{name} as labels",
        "label types",
        "a.arrow" if arrow else "a.parquet",
        content,
        rows=rows,
        bad=bad,
        refusal=refusal,
        in_ci=in_ci,
    )


def _label_types() -> Iterator[Case]:
    for name in ("bool_", "int8", "uint8", "int16", "int64", "uint64", "float16", "float32", "float64"):
        yield _labelled(name, pa.array(NUMBERS).cast(getattr(pa, name)()))
    yield _labelled("dictionary", pa.array(LABELS).dictionary_encode())
    yield _labelled("string_view", pa.array(LABELS, pa.string_view()))
    yield _labelled("binary", pa.array(LABELS, pa.binary()))
    yield _labelled("run-end encoded", pa.RunEndEncodedArray.from_arrays([20, 40], ["good", "bad"]), arrow=True)
    yield _labelled("whole decimal", pa.array(list(map(decimal.Decimal, NUMBERS)), pa.decimal128(5, 2)), in_ci=True)
    tenths = [decimal.Decimal(row) / 10 for row in range(NUM_ROWS)]
    yield _labelled("fractional decimal", pa.array(tenths, pa.decimal128(5, 1)), rows=None, refusal="low, high")
    day, noon = datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 12)
    for name, value in (
        ("date", day), ("time stamp", noon), ("time of day", noon.time()), ("duration", datetime.timedelta(seconds=3)),
    ):  # fmt: skip
        yield _labelled(name, pa.array([value] * NUM_ROWS), rows=None, refusal=r"data\.label", in_ci=name == "date")
    yield _labelled("list", [[label] for label in LABELS], rows=None, refusal="one label a text", in_ci=True)
    yield _labelled("struct", [{"name": label} for label in LABELS], rows=None, refusal=r"data\.label")
    yield _labelled(
        "map", pa.array([[("a", 1)]] * NUM_ROWS, pa.map_(pa.string(), pa.int64())), rows=None, refusal=r"data\.label"
    )
    yield _labelled("null", pa.nulls(NUM_ROWS), rows=None, refusal="missing label")
    yield _labelled("fraction", [row / 10 for row in range(NUM_ROWS)], rows=None, refusal="low, high")


def _other_types() -> Iterator[Case]:
    """Yield files whose other columns have types that are neither read nor copied."""
    names = {
        "decimal": [decimal.Decimal("1.5")] * NUM_ROWS, "list": [[1, 2]] * NUM_ROWS, "struct": [{"a": {"b": 1}}] * NUM_ROWS,
        "date": [datetime.date(2026, 1, 1)] * NUM_ROWS, "date far off": [datetime.date(9999, 12, 31)] * NUM_ROWS,
        "binary": [b"\xff\x00"] * NUM_ROWS, "null": pa.nulls(NUM_ROWS), "duration": [datetime.timedelta(1)] * NUM_ROWS,
        "nanoseconds": pa.array([1] * NUM_ROWS, pa.timestamp("ns", "UTC")), "half floats": pa.array([1.5] * NUM_ROWS, pa.float16()),
        "year 300,000": pa.array([10**13] * NUM_ROWS, pa.timestamp("s")),
    }  # fmt: skip
    for name, values in names.items():
        columns = {"other": values, "text": TEXTS, "label": LABELS}
        yield Case(f"another column: {name}", "Parquet types", "a.parquet", _parquet(columns), in_ci=name == "list")


def _layouts() -> Iterator[Case]:
    kind, columns = "Parquet layout", {"text": TEXTS, "label": LABELS}
    for codec in ("none", "gzip", "zstd", "brotli", "lz4"):
        yield Case(f"compressed by {codec}", kind, "a.parquet", _parquet(columns, compression=codec))
    yield Case("a row group for every row", kind, "a.parquet", _parquet(columns, row_group_size=1))
    yield Case("version 1.0 with old time stamps", kind, "a.parquet", _parquet(columns, version="1.0"))
    empty = {name: pa.array([], pa.string()) for name in columns}
    yield refused("no rows", kind, "a.parquet", _parquet(empty), "no rows.*again", predicted=0, predict_refusal="")
    yield refused(
        "no columns", kind, "a.parquet", lambda folder: pq.write_table(pa.table({}), folder / "a.parquet"), "no column"
    )
    yield Case("an Arrow stream", kind, "a.arrow", _arrow(columns, stream=True))
    dotted = {"a.text": TEXTS, "the.label": LABELS}
    yield Case("names with dots", kind, "a.parquet", _parquet(dotted), text="a.text", label="the.label")
    yield refused("two columns of one name", kind, "a.parquet", _write_twice, "rename one")
    yield refused(
        "nested columns",
        kind,
        "a.parquet",
        _parquet({"review": [{"text": text} for text in TEXTS], "label": LABELS}),
        "no column 'text'",
    )


def _write_twice(folder: Path) -> None:
    rows = pa.Table.from_arrays([pa.array(TEXTS), pa.array(TEXTS), pa.array(LABELS)], names=["text", "text", "label"])
    pq.write_table(rows, folder / "a.parquet")


def _damage() -> Iterator[Case]:
    columns: dict[str, Sequence[object]] = {"text": TEXTS, "label": LABELS}

    def damaged(write: Callable[[Path], None], name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        def write_damaged(folder: Path) -> None:
            write(folder)
            (folder / name).write_bytes(change((folder / name).read_bytes()))

        return write_damaged

    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut off": lambda raw: raw[: len(raw) // 2],
        "with changed bytes": lambda raw: raw[:40] + bytes(60) + raw[100:],
        "empty": lambda raw: b"",
        "CSV": lambda raw: b"text,label\na,b\n",
    }
    # An Arrow file has no checksums: changed bytes of its texts can't be told.
    for name, change in changes.items():
        for file, write in (("a.parquet", _parquet(columns)), ("a.arrow", _arrow(columns))):
            if (file, name) != ("a.arrow", "with changed bytes"):
                content = damaged(write, file, change)
                yield refused(f"{file}, {name}", "damage", file, content, f"{AGAIN}|rename", in_ci=name == "cut off")
