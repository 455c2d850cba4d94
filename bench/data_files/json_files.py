"""JSON and JSON Lines files: their forms, their damage, and the types of their values."""

from __future__ import annotations

import json
from collections.abc import Iterator

from data_files.case import NUM_ROWS, Case, json_lines, refused, table
from data_files.text_files import ENCODING, FIX_ROWS

LINES = "one object per line"
OBJECTS = [{"text": text, "label": label} for text, label in table()]


def json_files() -> Iterator[Case]:
    """Yield the cases of JSON files."""
    yield from _forms()
    yield from _damage()
    yield from _values()


def _forms() -> Iterator[Case]:
    kind, lines = "JSON", json_lines()
    yield Case("JSON Lines", kind, "a.jsonl", lines, in_ci=True)
    yield Case("JSON Lines named .json", kind, "a.json", lines)
    yield Case("JSON Lines with a byte-order mark", kind, "a.jsonl", b"\xef\xbb\xbf" + lines)
    yield Case("JSON Lines with CRLF and empty lines", kind, "a.ndjson", lines.replace(b"\n", b"\r\n\r\n"))
    for name, value in (
        ("an array", OBJECTS),
        ("an array, indented", OBJECTS),
        ("an object of rows", {"data": OBJECTS}),
    ):
        content = json.dumps(value, indent=1 if name.endswith("indented") else None).encode()
        yield refused(name, kind, "a.json", content, f"{LINES}|no column 'text'", in_ci=name == "an array")
    columns = {"text": [text for text, _ in table()], "label": [label for _, label in table()]}
    yield refused("an object of columns", kind, "a.json", json.dumps(columns).encode(), LINES)
    indented = "\n".join(json.dumps(row, indent=1) for row in OBJECTS)
    yield refused("objects over several lines", kind, "a.jsonl", indented.encode(), LINES)
    yield refused("objects without line ends", kind, "a.jsonl", lines.replace(b"\n", b""), LINES)
    yield refused("Python's own dicts", kind, "a.jsonl", "\n".join(map(repr, OBJECTS)).encode(), LINES)
    yield refused("UTF-16", kind, "a.jsonl", lines.decode().encode("utf-16"), ENCODING)
    yield refused("numbers alone", kind, "a.jsonl", b"1\n2\n", LINES)
    yield refused("an empty file", kind, "a.jsonl", b"", "empty.*again")
    nested = [{"review": {"text": text, "by": {"name": "x"}}, "label": label} for text, label in table()]
    yield refused("a nested text", kind, "a.jsonl", json_lines(nested), "no column 'text'", in_ci=True)
    extra = [row | {"tags": ["a", {"b": 1}], "meta": {"n": index}} for index, row in enumerate(OBJECTS)]
    yield Case("other columns that are nested", kind, "a.jsonl", json_lines(extra))
    late = [*OBJECTS[:20], *(row | {"more": 1} for row in OBJECTS[20:])]
    yield Case("keys that come later", kind, "a.jsonl", json_lines(late))
    twice = lines.replace(b'{"text"', b'{"text": "first", "text"')
    yield Case("a key that comes twice", kind, "a.jsonl", twice)


def _damage() -> Iterator[Case]:
    kind, lines = "JSON", json_lines()
    yield refused(
        "a line that is cut off",
        kind,
        "a.jsonl",
        lines[:-8],
        FIX_ROWS,
        rows=NUM_ROWS - 1,
        bad=1,
        predict_refusal="fix",
        in_ci=True,
    )
    for name, line in (
        ("a comma after the last value", b'{"text": "x", "label": "good",}\n'), ("a comment", b"// exported\n"),
        ("an array in a line", b"[1, 2]\n"), ("brackets 100,000 deep", b'{"text": ' + b"[" * 100_000 + b"\n"),
    ):  # fmt: skip
        yield refused(name, kind, "a.jsonl", lines + line, FIX_ROWS, rows=NUM_ROWS, bad=1, predict_refusal="fix")
    latin = lines + '{"text": "déçu", "label": "bad"}\n'.encode("latin-1")
    yield refused("a line in Latin-1", kind, "a.jsonl", latin, ENCODING, rows=NUM_ROWS, bad=1)
    half = lines + b'{"text": "half a pair \\ud83d", "label": "bad"}\n'
    yield refused("half a surrogate pair", kind, "a.jsonl", half, FIX_ROWS, rows=NUM_ROWS, bad=1, predict_refusal="fix")


def _values() -> Iterator[Case]:
    kind = "JSON"
    for name, text in (("a number", 7), ("a list", ["a", "b"]), ("an object", {"a": 1}), ("true", True)):
        rows = [*table(), (text, "good")]
        yield refused(
            f"{name} as a text",
            kind,
            "a.jsonl",
            json_lines(rows),
            FIX_ROWS,
            rows=NUM_ROWS,
            bad=1,
            predict_refusal="fix|write",
        )
    missing = [*OBJECTS, {"label": "good"}, {"text": None, "label": "bad"}]
    yield refused(
        "two missing texts",
        kind,
        "a.jsonl",
        json_lines(missing),
        FIX_ROWS,
        rows=NUM_ROWS,
        bad=2,
        predicted=NUM_ROWS + 2,
        predict_refusal="",
    )
    numbers = [(index, label) for index, (_, label) in enumerate(table())]
    yield refused("numbers as texts", kind, "a.jsonl", json_lines(numbers), "is a number", bad=NUM_ROWS)
    rows = [("x", float("nan")), *table(labels=(0, 1))]
    yield refused(
        "NaN as a label",
        kind,
        "a.jsonl",
        json_lines(rows),
        FIX_ROWS,
        rows=NUM_ROWS,
        bad=1,
        predicted=NUM_ROWS + 1,
        predict_refusal="",
    )
    yield Case("a label of 40 digits", kind, "a.jsonl", json_lines(table(labels=(10**39, 1))))
