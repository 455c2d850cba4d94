"""What a person sees of an inspected file, and the study that is written for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.report.formatting import plural
from harness.schema.settings import Padding
from harness.workflows.inspect_dataset import UNKNOWN, Inspection, TokenizedExample
from harness.workflows.seq_len_advice import PADDINGS, WHOLE_FRACTION, Length, SeqLenAdvice

_SHOWN_CLASSES = 12
_SHOWN_TOKENS = 28
_FLAGS = {"text": "--text", "label": "--label", "group": "--group-by", "time": "--time-by"}
_LONGER = 1.005  # times the arithmetic: below that a longer length costs nothing to speak of
_RARE = 0.02
_NOTHING = 0.001  # of the tokens
_MANY_NEAR = 0.005  # of the rows that are held out


def show_inspection(console: Console, found: Inspection, advice: SeqLenAdvice) -> None:
    """Print all of it."""

    def say(line: str = "") -> None:
        console.print(line, highlight=False, soft_wrap=True)

    say(f"[bold]{escape(found.facts.source)}[/]")
    for line in _columns(found):
        say(line)
    say()
    for line in _rows(found):
        say(line)
    say()
    console.print(_classes(found), highlight=False)
    say()
    for line in _lengths(found):
        say(line)
    for one in found.examples:
        say(_example(one, advice.best.seq_len))
    say()
    console.print(_table(advice), highlight=False)
    for line in sentences(advice):
        say(line)
    say()
    say(_floor(found))


def sentences(advice: SeqLenAdvice) -> Iterator[str]:
    """What is recommended, and what more would cost."""
    best, longer = advice.best, advice.longer
    whole = 1 - best.cut_texts_fraction
    yield (
        f"[bold]Recommended: seq_len = {best.seq_len}[/], the shortest that leaves 95 % of the texts whole ({whole:.1%})."
        if best.cut_texts_fraction <= 1 - WHOLE_FRACTION
        else f"[bold]Recommended: seq_len = {best.seq_len}[/], the longest there is: it cuts {best.cut_texts_fraction:.1%} of "
        "the texts."
    )
    if longer is None or best.cut_tokens_fraction < _NOTHING:
        return
    by_padding: tuple[tuple[Padding, str], ...] = (
        ("grouped", "with batches grouped by length"),
        ("max", "with every text padded to it"),
    )
    costs = [
        f"{_times(longer.work[padding].flops_per_sample / best.work[padding].flops_per_sample)} {words}"
        for padding, words in by_padding
    ]
    yield (
        f"{longer.seq_len} would leave {1 - longer.cut_texts_fraction:.1%} whole and {longer.cut_tokens_fraction:.1%} of the "
        f"tokens out, instead of {best.cut_tokens_fraction:.1%}; it takes {' and '.join(costs)}."
    )
    gained = longer.accuracy, best.accuracy
    if gained[0] is not None and gained[1] is not None:
        yield f"Measured test accuracy: {gained[1].value:.3f} at {best.seq_len} tokens, {gained[0].value:.3f} at {longer.seq_len}."


def study_text(found: Inspection, advice: SeqLenAdvice, batch_size: int) -> str:
    """A study file for this source."""
    data = found.settings.model_dump(mode="json", exclude_defaults=True) | {"source": found.settings.source}
    order = ["source", *(key for key in data if key != "source")]
    num_rows = found.facts.num_source_rows
    held_out = max(1, min(1000, num_rows // 5))
    keys = {key: data[key] for key in order} | {"num_train": "all", "num_val": held_out, "num_test": held_out}
    lines = [
        f"# Made by `harness inspect` of {num_rows:,} usable rows; run it by `harness run`.",
        "[data]",
        # JSON's strings, numbers, truths and lists are TOML's too.
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()),
        "",
        "[matrix]",
        f"batch_size = [{batch_size}]",
        f"seq_len = [{advice.best.seq_len}]{_note(advice)}",
        'padding = ["grouped"]',
    ]
    return "\n".join(lines) + "\n"


def inspection_fields(found: Inspection, advice: SeqLenAdvice) -> dict[str, Any]:
    """The same for programs."""
    return {
        "settings": found.settings.model_dump(mode="json"),
        "guesses": {role: {"column": guess.column, "why": guess.why} for role, guess in found.guesses.items()},
        "data": found.facts.model_dump(mode="json"),
        "classes": found.classes,
        "tokens_at_share": {f"{share:g}": tokens for share, tokens in found.tokens_at().items()},
        "mean_tokens": float(found.lengths.mean()),
        "unknown_fraction": found.unknown_fraction,
        "floor": None if found.floor is None else vars(found.floor),
        "recommended_seq_len": advice.best.seq_len,
        "lengths": [_length_fields(one) for one in advice.lengths],
    }


def _length_fields(one: Length) -> dict[str, Any]:
    return {
        "seq_len": one.seq_len,
        "cut_texts_fraction": one.cut_texts_fraction,
        "cut_tokens_fraction": one.cut_tokens_fraction,
        "work": {padding: vars(work) for padding, work in one.work.items()},
        "speeds": {padding: vars(speed) for padding, speed in one.speeds.items()},
        "accuracy": None if one.accuracy is None else vars(one.accuracy),
    }


def _columns(found: Inspection) -> Iterator[str]:
    settings = found.settings
    for role, said in (("text", " + ".join(settings.text_columns)), ("pair", settings.pair), ("label", settings.label),
                       ("group", settings.group_by), ("time", settings.time_by)):  # fmt: skip
        guess = found.guesses.get(role)  # type: ignore[call-overload]
        if guess is not None and guess.column == said:
            yield f"  {role:6} {escape(guess.column)}  [dim]guessed: {escape(guess.why)}; {_FLAGS[role]} names another[/]"
        elif said:
            yield f"  {role:6} {escape(said)}"
        elif guess is not None:
            yield f"  {role:6} [dim]perhaps {escape(guess.column)}: {escape(guess.why)}; {_FLAGS[role]} takes it[/]"


def _rows(found: Inspection) -> Iterator[str]:
    facts = found.facts
    skipped = sum(facts.bad_rows.values())
    yield f"{facts.num_source_rows:,} usable rows"
    if skipped:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in facts.bad_rows.items())
        yield f'  [yellow]{skipped:,} can\'t be used: {escape(kinds)}[/] (a study stops at them, or data.on_bad_row = "skip")'
    if facts.num_duplicates_dropped:
        other = (
            f", {facts.num_conflicting_duplicates:,} of them with another label"
            if facts.num_conflicting_duplicates
            else ""
        )
        yield f"  {facts.num_duplicates_dropped:,} repeat an earlier text{other}: each text is taken once"
    if facts.num_near_duplicates:
        held_out = facts.val.num_rows + facts.test.num_rows
        repeat = "repeats" if facts.num_near_duplicates == 1 else "repeat"
        words = f"{plural(facts.num_near_duplicates, 'row')} held out nearly {repeat} one to be trained on"
        if facts.num_near_duplicates > _MANY_NEAR * held_out:
            advice = "" if found.settings.group_by else "; --group-by a column whose rows belong together"
            yield f"  [yellow]{words}: accuracy would be told too high{advice}[/]"
        else:
            yield f"  {words}"
    if facts.rare_labels:
        shown = ", ".join(map(repr, facts.rare_labels[:_SHOWN_CLASSES]))
        yield f"  [yellow]fewer than 10 training rows of {escape(shown)}[/]: hardly to be learnt"


def _classes(found: Inspection) -> Table:
    table, total = Table(box=None, pad_edge=False, header_style="bold"), sum(found.classes.values())
    table.add_column("label", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    for label, count in list(found.classes.items())[:_SHOWN_CLASSES]:
        table.add_row(escape(label), f"{count:,}", f"{count / total:.1%}", "█" * max(1, round(40 * count / total)))
    more = len(found.classes) - _SHOWN_CLASSES
    if more > 0:
        table.add_row(f"and {more:,} more", "", "", "")
    return table


def _lengths(found: Inspection) -> Iterator[str]:
    at = found.tokens_at()
    sample = f", of {len(found.lengths):,} rows" if len(found.lengths) < found.facts.num_source_rows else ""
    yield (
        f"tokens a text{sample}: {at[0.0]} to {at[1.0]}, half have {at[0.5]} or fewer, 90 % {at[0.9]}, 99 % {at[0.99]}   "
        f"{_histogram(found.lengths)}"
    )
    share = f"{found.unknown_fraction:.2%} of the tokens are unknown to the vocabulary"
    yield f"[yellow]{share}[/]: is this its language and script?" if found.unknown_fraction > _RARE else share


def _histogram(lengths: np.ndarray) -> str:
    """Of 24 bars from the shortest to the 99th hundredth."""
    counts, _ = np.histogram(
        lengths, bins=24, range=(lengths.min(), max(lengths.min() + 1, np.quantile(lengths, 0.99)))
    )
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * count / counts.max()))] for count in counts)


def _example(one: TokenizedExample, seq_len: int) -> str:
    kept = one.tokens[: min(seq_len, _SHOWN_TOKENS)]
    words = " ".join(f"[bold red]{escape(token)}[/]" if token == UNKNOWN else escape(token) for token in kept)
    left = len(one.tokens) - len(kept)
    more = "" if left <= 0 else f" [dim]... {left} more[/]"
    if len(one.tokens) > seq_len:
        more += f" [yellow]({len(one.tokens) - seq_len} cut at {seq_len})[/]"
    kind = "longest" if one.kind == "truncated" else one.kind
    return f"  [bold]{kind:8}[/] {escape(one.label)}  {words}{more}"


def _table(advice: SeqLenAdvice) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("seq_len", "texts cut", "tokens cut", *(f"padding, {name}" for name in PADDINGS)):
        table.add_column(head, justify="right")
    known = [padding for padding in PADDINGS if any(padding in one.speeds for one in advice.lengths)]
    for padding in known:
        table.add_column(f"samples/s, {padding}", justify="right")
    has_accuracy = any(one.accuracy is not None for one in advice.lengths)
    if has_accuracy:
        table.add_column("accuracy", justify="right")
    for one in advice.lengths:
        speeds = [_speed(one, padding) for padding in known]
        cells = [f"{one.seq_len}", f"{one.cut_texts_fraction:.1%}", f"{one.cut_tokens_fraction:.1%}",
                 *(f"{one.work[padding].padding_fraction:.0%}" for padding in PADDINGS), *speeds]  # fmt: skip
        if has_accuracy:
            cells.append("-" if one.accuracy is None else f"{one.accuracy.value:.3f}")
        table.add_row(*cells, style="bold" if one is advice.best else None)
    if known:
        table.caption = "~ estimated from cells of other lengths; padding is its share of the arithmetic"
        table.caption_justify = "left"
    return table


def _speed(one: Length, padding: Padding) -> str:
    speed = one.speeds.get(padding)
    if speed is None:
        return "-"
    return f"{'' if speed.basis == 'measured' else '~'}{speed.samples_per_s:.1f}"


def _floor(found: Inspection) -> str:
    floor = found.floor
    if floor is None:
        return "No floor: rows that belong together are so many that none can be held out."
    return (
        f"To beat on {floor.num_test:,} held-out rows: always the commonest label, {floor.majority:.3f}; TF-IDF with logistic "
        f"regression, {floor.tfidf:.3f}, fitted on {floor.num_train:,} rows in {floor.seconds:.1f} s."
    )


def _times(factor: float) -> str:
    return "no more arithmetic" if factor < _LONGER else f"{factor:.2f} times the arithmetic"


def _note(advice: SeqLenAdvice) -> str:
    return f" # cuts {advice.best.cut_texts_fraction:.1%} of the texts"
