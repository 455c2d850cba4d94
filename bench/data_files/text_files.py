"""CSV and TSV files: encodings, delimiters, line ends and quoting."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from data_files.case import NUM_ROWS, Case, csv_text, refused, table

ENCODING = "save it as UTF-8"
FIX_ROWS = r'data\.on_bad_row = "skip"'
HEADER = "first line must name the columns"
SCRIPTS = {
    "koi8-r": "фильм о любви", "shift_jis": "とても良い映画", "gb18030": "很好的电影", "cp1256": "فيلم جميل", "euc_kr": "좋은 영화",
}  # fmt: skip
ACCENTED = [(f"{text}, très déçu", label) for text, label in table()]
HALF_ACCENTED = [(text if row % 4 < 2 else f"{text} déçu", label) for row, (text, label) in enumerate(table())]


def text_files() -> Iterator[Case]:
    """Yield the cases of encodings, delimiters, line ends and quoting."""
    yield from _encodings()
    yield from _delimiters()
    yield from _line_ends()
    yield from _quoting()


def _encodings() -> Iterator[Case]:
    kind, content = "encoding", csv_text(ACCENTED)
    yield Case("UTF-8", kind, "a.csv", content.encode())
    yield Case("UTF-8 with a byte-order mark", kind, "a.csv", content.encode("utf-8-sig"), in_ci=True)
    for name in ("latin-1", "cp1252", "iso8859-15", "mac-roman"):
        yield refused(
            f"{name}, every text", kind, "a.csv", content.encode(name), ENCODING, bad=NUM_ROWS, in_ci=name == "latin-1"
        )
    half = csv_text(HALF_ACCENTED).encode("latin-1")
    yield refused(
        "Latin-1, every second text", kind, "a.csv", half, ENCODING, rows=NUM_ROWS // 2, bad=NUM_ROWS // 2, in_ci=True
    )
    for name, words in SCRIPTS.items():
        rows = [(f"{words} {row}", label) for row, (_, label) in enumerate(table())]
        yield refused(name, kind, "a.csv", csv_text(rows).encode(name), ENCODING, bad=NUM_ROWS)
        yield Case(f"{name}'s texts as UTF-8", kind, "a.csv", csv_text(rows).encode())
    for name in ("utf-16", "utf-32"):
        yield refused(name, kind, "a.csv", content.encode(name), ENCODING, in_ci=name == "utf-16")
    for name in ("utf-16-le", "utf-16-be", "utf-32-le"):
        yield refused(
            f"{name} without a byte-order mark",
            kind,
            "a.csv",
            content.encode(name),
            ENCODING,
            in_ci=name == "utf-16-le",
        )
    yield refused("EBCDIC", kind, "a.csv", csv_text().encode("cp037"), ENCODING)
    header = csv_text([(*row, "x") for row in table()], ("text", "label", "né")).encode("latin-1")
    yield Case("Latin-1 in the header of a column that is not used", kind, "a.csv", header)
    extra = csv_text([(*row, "né") for row in table()], ("text", "label", "extra")).encode("latin-1")
    yield Case("Latin-1 in a column that is not used", kind, "a.csv", extra)
    labels = csv_text(table(labels=("bon", "raté"))).encode("latin-1")
    yield refused(
        "Latin-1 labels", kind, "a.csv", labels, ENCODING, bad=NUM_ROWS // 2, predicted=NUM_ROWS, predict_refusal=""
    )


def _delimiters() -> Iterator[Case]:
    kind, rows = "delimiter", [(text.replace(",", " -"), label) for text, label in table()]
    for name, delimiter in (("semicolons", ";"), ("tabs", "\t"), ("vertical bars", "|")):
        content = csv_text(rows, delimiter=delimiter).encode()
        yield refused(f"{name} in a .csv", kind, "a.csv", content, "save it with commas", in_ci=name == "semicolons")
    yield Case("tabs in a .tsv", kind, "a.tsv", csv_text(delimiter="\t").encode())
    yield Case("tabs in a .TSV", kind, "a.TSV", csv_text(delimiter="\t").encode())
    yield refused("commas in a .tsv", kind, "a.tsv", csv_text().encode(), "save it with tabs")
    yield refused("a line `sep=,` before the header", kind, "a.csv", b"sep=,\n" + csv_text().encode(), HEADER)
    blanks = "".join(f'"{text}", {label}\n' for text, label in [("text", "label"), *table()])
    yield refused(
        "blanks after the commas", kind, "a.csv", blanks.encode(), "' label'", predicted=NUM_ROWS, predict_refusal=""
    )


def _line_ends() -> Iterator[Case]:
    kind, content = "line ends", csv_text()
    yield Case("CRLF", kind, "a.csv", content.replace("\n", "\r\n").encode())
    yield Case("CR alone", kind, "a.csv", content.replace("\n", "\r").encode())
    mixed = "".join(line + ("\n", "\r\n", "\r")[row % 3] for row, line in enumerate(content.splitlines()))
    yield Case("mixed", kind, "a.csv", mixed.encode(), in_ci=True)
    yield Case("none at the end", kind, "a.csv", content.rstrip("\n").encode())
    yield Case("empty lines between rows", kind, "a.csv", content.replace("\n", "\n\n").encode())
    yield Case("empty lines before the header", kind, "a.csv", b"\n\n" + content.encode())
    blank = content.replace("\n", "\n  \n").encode()
    yield refused(
        "lines of blanks", kind, "a.csv", blank, FIX_ROWS, rows=NUM_ROWS, bad=NUM_ROWS + 1, predict_refusal="fix"
    )
    signs = {"U+2028": "\u2028", "U+0085": "\x85", "a form feed": "\f", "a vertical tab": "\v", "U+001C": "\x1c"}
    for name, sign in signs.items():
        rows = [(f"one{sign}two {text}", label) for text, label in table()]
        yield Case(f"{name} in a text", kind, "a.csv", csv_text(rows).encode())
    end = content.encode() + b"\x1a"
    yield refused("a control Z at the end", kind, "a.csv", end, FIX_ROWS, rows=NUM_ROWS, bad=1, predict_refusal="fix")


def _quoting() -> Iterator[Case]:
    kind = "quoting"
    rows = [(f'says "hi",\nthen goes {text}', label) for text, label in table()]
    yield Case("quoted line ends, commas and quotation marks", kind, "a.csv", csv_text(rows).encode(), in_ci=True)
    rows = [(f"a\r\nb {text}", label) for text, label in table()]
    yield Case("quoted CRLF", kind, "a.csv", csv_text(rows, lineterminator="\r\n").encode())
    yield Case("everything quoted", kind, "a.csv", csv_text(quoting=csv.QUOTE_ALL).encode())
    marks = "".join(f'5" wide {row},{label}\n' for row, (_, label) in enumerate(table()))
    yield Case("quotation marks in the middle", kind, "a.csv", f"text,label\n{marks}".encode())
    rows = [(f"'{text}", label) for text, label in table()]
    yield Case("an apostrophe at the start", kind, "a.csv", csv_text(rows).encode())
    escaped = "".join(f'"a \\"bad\\", film {row}",{label}\n' for row, (_, label) in enumerate(table()))
    content = f"text,label\n{escaped}".encode()
    yield refused("backslashes before quotation marks", kind, "a.csv", content, "fix", bad=NUM_ROWS)
    content = csv_text().encode() + b'"open,good\nnext,bad\n'
    yield refused("a quotation mark that is never closed", kind, "a.csv", content, "close it", in_ci=True)
    content = b'text,label\n"open,good\n' + csv_text(header=()).replace('"', "").encode()
    yield refused("the same, in the first row", kind, "a.csv", content, "close it")
    marked = [f"{chr(34) if row in (5, 9) else ''}a film of {row}\t{label}\n" for row, (_, label) in enumerate(table())]
    content = f"text\tlabel\n{''.join(marked)}".encode()
    yield refused(
        "two texts of a .tsv begin with a quotation mark",
        kind,
        "a.tsv",
        content,
        "not doubled",
        rows=NUM_ROWS - 5,
        bad=5,
        in_ci=True,
    )
    rows = [(f"a\0b {text}", label) for text, label in table()]
    yield Case("NUL bytes in texts", kind, "a.csv", csv_text(rows).encode(), in_ci=True)
