"""Labels and texts that are valid, and seldom what was meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from data_files.case import NUM_ROWS, Case, csv_text, json_lines, refused, table
from data_files.text_files import FIX_ROWS


def contents() -> Iterator[Case]:
    """Yield the cases of labels and of texts."""
    yield from _labels()
    yield from _mixed_labels()
    yield from _texts()


def _labels() -> Iterator[Case]:
    kind = "labels"
    pairs: dict[str, Sequence[object]] = {
        "whole numbers": (0, 1), "negative numbers": (-1, 1), "whole floats": ("0.0", "1.0"), "True and False": (True, False),
        "emoji": ("🙂", "🙁"), "with line ends": ("good\nfilm", "bad\nfilm"), "with commas": ("good, fine", "bad, poor"),
        "of 10 KiB": ("g" * 10_240, "b"), "two spellings": ("neg", "neg ", "pos"), "numbers in two forms": ("0", "1", "0.0", "1.0"),
        "nan among numbers": ("0", "1", "0", "1", "nan"), "in capitals too": ("Good", "good", "bad"),
        "full-width": ("pos", "\uff50\uff4f\uff53", "neg"), "in two normal forms": ("né", "ne\u0301", "x"), "None and others": ("None", "spam"),
    }  # fmt: skip
    for name, labels in pairs.items():
        yield Case(
            name,
            kind,
            "a.csv",
            csv_text(table(labels=labels)).encode(),
            in_ci=name in ("two spellings", "nan among numbers"),
        )
    one = csv_text(table(labels=("good",))).encode()
    yield refused("one label", kind, "a.csv", one, "two labels", predicted=NUM_ROWS, predict_refusal="")
    many = csv_text(table(1_001, [f"c{row}" for row in range(1_001)])).encode()
    yield refused("1,001 labels", kind, "a.csv", many, r"data\.label", predicted=1_001, predict_refusal="")
    scale = csv_text(table(labels=[row / 10 for row in range(30)])).encode()
    yield refused("fractions", kind, "a.csv", scale, "low, high", predicted=NUM_ROWS, predict_refusal="")
    lists = csv_text(table(labels=("['a', 'b']", "['a']"))).encode()
    yield Case("lists in text", kind, "a.csv", lists)
    every = csv_text(table(labels=("",))).encode()
    yield refused(
        "no label anywhere", kind, "a.csv", every, "missing label", bad=NUM_ROWS, predicted=NUM_ROWS, predict_refusal=""
    )
    rows = csv_text([*table(), ("a film without one", ""), ("and another", "  ")]).encode()
    yield refused(
        "two missing",
        kind,
        "a.csv",
        rows,
        FIX_ROWS,
        rows=NUM_ROWS,
        bad=2,
        predicted=NUM_ROWS + 2,
        predict_refusal="",
        in_ci=True,
    )
    rare = csv_text([*table(labels=("bad",)), ("a good film", "good")]).encode()
    yield Case(
        "one row of the second label",
        kind,
        "a.csv",
        rare,
        rows=NUM_ROWS + 1,
        predicted=NUM_ROWS + 1,
        has_rare_label=True,
    )


def _mixed_labels() -> Iterator[Case]:
    kind = "labels"
    extra: dict[str, tuple[tuple[object, ...], object]] = {
        "a word among numbers, JSON": ((0, 1), "one"), "a number among words, JSON": (("good", "bad"), 1),
        "true among numbers, JSON": ((0, 1), True), "a list among words, JSON": (("good", "bad"), ["good"]),
    }  # fmt: skip
    for name, (labels, other) in extra.items():
        rows = [*table(labels=labels), ("another film", other)]
        cure = {"rows": NUM_ROWS, "bad": 1, "predict_refusal": "leave it out of --with"}
        yield refused(name, kind, "a.jsonl", json_lines(rows), FIX_ROWS, **cure)
    for name, labels in (("whole numbers and floats, JSON", (0, 1, 0.0, 1.0)), ("numbers as text, JSON", ("0", "1"))):
        yield Case(name, kind, "a.jsonl", json_lines(table(labels=labels)))
    for name, labels, cure in (
        ("lists, JSON", (["a"], ["a", "b"]), "one label a text"),
        ("objects, JSON", ({"a": 1}, {"b": 1}), r"data\.label"),
    ):
        yield refused(name, kind, "a.jsonl", json_lines(table(labels=labels)), cure, bad=NUM_ROWS, predicted=NUM_ROWS, predict_refusal="",
                      in_ci=name.startswith("lists"))  # fmt: skip


def _texts() -> Iterator[Case]:
    kind = "texts"
    prefixes = {
        "emoji alone": "🙂🎬", "punctuation alone": "?!", "Chinese": "很好的电影", "Arabic": "فيلم جميل", "Thai": "ภาพยนตร์ที่ดี",
        "combining marks": "e" + "\u0301" * 50, "zero-width characters": "\u200b\u200d", "right-to-left marks": "\u202e",
        "[SEP] and [MASK]": "[CLS] a [SEP] b [MASK] [PAD]", "</s>": "<s> a </s>", "ANSI escapes": "\x1b[31mred\x1b[0m",
        "rich markup": "[bold]loud[/bold] [/]", "a formula": "=1+1",
    }  # fmt: skip
    for name, prefix in prefixes.items():
        signs = "🙂🙁😐🎬🍿" if name == "emoji alone" else "?!.,;" if name == "punctuation alone" else ""
        rows = [
            (prefix + signs[row % 5] * (row + 1) if signs else f"{prefix} {row}", label)
            for row, (_, label) in enumerate(table())
        ]
        yield Case(name, kind, "a.csv", csv_text(rows).encode(), in_ci=name == "emoji alone")
    numbers = csv_text([(row, label) for row, (_, label) in enumerate(table())]).encode()
    yield Case("numbers", kind, "a.csv", numbers)
    empty = csv_text([*table(), ("", "good"), (" \t ", "bad"), ("\u3000", "bad")]).encode()
    yield refused(
        "three empty ones",
        kind,
        "a.csv",
        empty,
        FIX_ROWS,
        rows=NUM_ROWS,
        bad=3,
        predicted=NUM_ROWS + 3,
        predict_refusal="",
    )
    twice = json.loads(json.dumps(table()))
    conflict = csv_text([*twice, *((text, "other") for text, _ in twice[:5])]).encode()
    yield Case("five texts under two labels", kind, "a.csv", conflict, predicted=NUM_ROWS + 5)
    every = csv_text([*twice, *((text, {"good": "bad", "bad": "good"}[label]) for text, label in twice)]).encode()
    yield Case("every text under both labels", kind, "a.csv", every, predicted=2 * NUM_ROWS)
