"""Terminal view of `harness inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from harness.analysis.label_warnings import label_warnings
from harness.cli.console import print_table, print_text
from harness.cli.layout import columns
from harness.dataset.row_checks import CURES
from harness.report.formatting import plural
from harness.schema.settings import Padding
from harness.workflows.inspect_dataset import UNKNOWN, Inspection, TokenizedExample
from harness.workflows.seq_len_advice import PADDINGS, WHOLE_FRACTION, CandidateLength, SeqLenAdvice

_MAX_CLASSES = 12
_MAX_TOKENS = 28
_BAR = 40  # columns of the bar of all rows
_FLAGS = {"text": "--text", "label": "--label", "group": "--group-by", "time": "--time-by"}
_NEGLIGIBLE_FACTOR = 1.005  # a FLOP ratio below this counts as no extra cost
_MANY_UNKNOWN = 0.02  # a larger fraction of unknown tokens is marked as too many
_NEGLIGIBLE_CUT = 0.001  # with a smaller fraction of truncated tokens, the next longer length is not mentioned
_MANY_NEAR_DUPLICATES = 0.005  # a larger fraction of the held-out rows gets a warning


def show_inspection(console: Console, inspection: Inspection, advice: SeqLenAdvice) -> None:
    """Print columns, rows, classes, lengths, examples and the recommended `seq_len`."""

    def print_line(line: str = "") -> None:
        print_text(console, line, hang=2)

    print_line(f"[bold]{escape(inspection.facts.source)}[/]")
    for line in _columns(inspection):
        print_line(line)
    print_line()
    for line in _rows(inspection):
        print_line(line)
    print_line()
    _print_classes(console, inspection)
    print_line()
    for line in _lengths(inspection):
        print_line(line)
    for example in inspection.examples:
        print_line(_example(example, advice.best.seq_len))
    print_line()
    _print_lengths(console, advice)
    for line in sentences(advice):
        print_line(line)
    print_line()
    print_line(_floor(inspection))


def sentences(advice: SeqLenAdvice) -> Iterator[str]:
    """Yield the recommendation and the cost of the next longer length."""
    best, longer = advice.best, advice.longer
    whole_fraction = 1 - best.cut_texts_fraction
    yield (
        f"[bold]Recommended: seq_len = {best.seq_len}[/], the shortest that leaves 95 % of the texts whole ({whole_fraction:.1%})."
        if best.cut_texts_fraction <= 1 - WHOLE_FRACTION
        else f"[bold]Recommended: seq_len = {best.seq_len}[/], the longest there is: it cuts {best.cut_texts_fraction:.1%} of "
        "the texts."
    )
    if longer is None or best.cut_tokens_fraction < _NEGLIGIBLE_CUT:
        return
    paddings: tuple[tuple[Padding, str], ...] = (
        ("grouped", "with batches grouped by length"),
        ("max", "with every text padded to it"),
    )
    costs = [
        f"{_times(longer.work[padding].flops_per_sample / best.work[padding].flops_per_sample)} {label}"
        for padding, label in paddings
    ]
    yield (
        f"{longer.seq_len} would leave {1 - longer.cut_texts_fraction:.1%} whole and {longer.cut_tokens_fraction:.1%} of the "
        f"tokens out, instead of {best.cut_tokens_fraction:.1%}; it takes {' and '.join(costs)}."
    )
    if longer.accuracy is not None and best.accuracy is not None:
        yield (
            f"Measured test accuracy: {best.accuracy.value:.3f} at {best.seq_len} tokens, "
            f"{longer.accuracy.value:.3f} at {longer.seq_len}."
        )


def _columns(inspection: Inspection) -> Iterator[str]:
    settings = inspection.settings
    for role, column in (("text", " + ".join(settings.text_columns)), ("pair", settings.pair), ("label", settings.label),
                       ("group", settings.group_by), ("time", settings.time_by)):  # fmt: skip
        guess = inspection.guesses.get(role)  # type: ignore[call-overload]
        if guess is not None and guess.column == column:
            yield f"  {role:6} {escape(guess.column)}  [dim]guessed: {escape(guess.why)}; {_FLAGS[role]} names another[/]"
        elif column:
            yield f"  {role:6} {escape(column)}"
        elif guess is not None:
            yield f"  {role:6} [dim]perhaps {escape(guess.column)}: {escape(guess.why)}; {_FLAGS[role]} takes it[/]"


def _rows(inspection: Inspection) -> Iterator[str]:
    facts = inspection.facts
    skipped = sum(facts.bad_rows.values())
    yield f"{facts.num_source_rows:,} usable rows"
    if skipped:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in facts.bad_rows.items())
        yield f'  [yellow]{skipped:,} can\'t be used: {escape(kinds)}[/] (a study stops at them, or data.on_bad_row = "skip")'
        for kind in facts.bad_rows:
            if kind in CURES:
                yield f"    {kind}: {escape(CURES[kind])}"
    if facts.num_duplicates_dropped:
        conflicts = (
            f", {facts.num_conflicting_duplicates:,} of them with another label"
            if facts.num_conflicting_duplicates
            else ""
        )
        yield f"  {facts.num_duplicates_dropped:,} repeat an earlier text{conflicts}: each text is taken once"
    if facts.num_near_duplicates:
        held_out = facts.val.num_rows + facts.test.num_rows
        repeat = "repeats" if facts.num_near_duplicates == 1 else "repeat"
        line = f"{plural(facts.num_near_duplicates, 'row')} held out nearly {repeat} one to be trained on"
        if facts.num_near_duplicates > _MANY_NEAR_DUPLICATES * held_out:
            advice = "" if inspection.settings.group_by else "; --group-by a column whose rows belong together"
            yield f"  [yellow]{line}: accuracy would be told too high{advice}[/]"
        else:
            yield f"  {line}"
    if facts.rare_labels:
        shown = ", ".join(map(repr, facts.rare_labels[:_MAX_CLASSES]))
        yield f"  [yellow]fewer than 10 training rows of {escape(shown)}[/]: hardly to be learnt"
    for warning in label_warnings(facts):
        yield f"  [yellow]{escape(warning)}[/]"
    if inspection.study_problem:
        yield f"  [yellow]a study of these rows is refused: {escape(inspection.study_problem)}[/]"


def _print_classes(console: Console, inspection: Inspection) -> None:
    total = sum(inspection.classes.values())
    rows = [
        (Text(_label_text(label)), f"{count:,}", f"{count / total:.1%}", "█" * max(1, round(_BAR * count / total)))
        for label, count in list(inspection.classes.items())[:_MAX_CLASSES]
    ]
    print_table(console, columns(["label"], ["rows", "share"], [""]), rows)
    more = len(inspection.classes) - _MAX_CLASSES
    if more > 0:
        print_text(console, f"and {more:,} more")


def _lengths(inspection: Inspection) -> Iterator[str]:
    quantiles = inspection.tokens_at()
    sample = (
        f", of {len(inspection.lengths):,} rows" if len(inspection.lengths) < inspection.facts.num_source_rows else ""
    )
    yield (
        f"tokens a text{sample}: {quantiles[0.0]} to {quantiles[1.0]}, half have {quantiles[0.5]} or fewer, "
        f"90 % {quantiles[0.9]}, 99 % {quantiles[0.99]}   {_histogram(inspection.lengths)}"
    )
    unknown = f"{inspection.unknown_fraction:.2%} of the tokens are unknown to the vocabulary"
    too_many = inspection.unknown_fraction > _MANY_UNKNOWN
    yield f"[yellow]{unknown}[/]: is this its language and script?" if too_many else unknown
    if inspection.special_tokens:
        counts = ", ".join(f"{token} in {rows:,}" for token, rows in inspection.special_tokens.items())
        yield (
            f"[yellow]special tokens inside texts: {escape(counts)}[/]; the model reads them as its own marks: replace them"
        )


def _histogram(lengths: np.ndarray) -> str:
    """Draw 24 bars from the shortest length to the 99th percentile."""
    counts, _ = np.histogram(
        lengths, bins=24, range=(lengths.min(), max(lengths.min() + 1, np.quantile(lengths, 0.99)))
    )
    return "".join(" ▁▂▃▄▅▆▇█"[int(np.ceil(8 * count / counts.max()))] for count in counts)


def _example(example: TokenizedExample, seq_len: int) -> str:
    kept = example.tokens[: min(seq_len, _MAX_TOKENS)]
    text = " ".join(f"[bold red]{escape(token)}[/]" if token == UNKNOWN else escape(token) for token in kept)
    num_hidden = len(example.tokens) - len(kept)
    suffix = "" if num_hidden <= 0 else f" [dim]... {num_hidden} more[/]"
    if len(example.tokens) > seq_len:
        suffix += f" [yellow]({len(example.tokens) - seq_len} cut at {seq_len})[/]"
    kind = "longest" if example.kind == "truncated" else example.kind
    return f"  [bold]{kind:8}[/] {escape(_label_text(example.label))}  {text}{suffix}"


def _label_text(label: str) -> str:
    """Return a label as it is, or quoted if it has blanks at its ends or signs that don't show."""
    return label if label.isprintable() and label == label.strip() else repr(label)


def _print_lengths(console: Console, advice: SeqLenAdvice) -> None:
    """Print what each length cuts, then the measured and estimated speeds, if there are any."""
    names = ["seq_len", "texts cut", "tokens cut", *(f"padding, {name}" for name in PADDINGS)]
    rows = [
        (
            f"{length.seq_len}",
            f"{length.cut_texts_fraction:.1%}",
            f"{length.cut_tokens_fraction:.1%}",
            *(f"{length.work[padding].padding_fraction:.0%}" for padding in PADDINGS),
        )
        for length in advice.lengths
    ]
    print_table(console, columns([], names), _bold_best(rows, advice))
    measured = [padding for padding in PADDINGS if any(padding in length.speeds for length in advice.lengths)]
    if not measured:
        return
    has_accuracy = any(length.accuracy is not None for length in advice.lengths)
    names = ["seq_len", *(f"samples/s, {name}" for name in measured), *(["accuracy"] if has_accuracy else [])]
    speeds = [
        (
            f"{length.seq_len}",
            *(_speed(length, padding) for padding in measured),
            *([_accuracy(length)] if has_accuracy else []),
        )
        for length in advice.lengths
    ]
    print_text(console)
    print_table(console, columns([], names), _bold_best(speeds, advice))
    print_text(console, "~ estimated from cells of other lengths; padding is its share of the arithmetic")


def _bold_best(rows: Sequence[Sequence[str]], advice: SeqLenAdvice) -> list[list[str]]:
    """Return a row of cells per length, those of the recommended length bold."""
    is_best = [length is advice.best for length in advice.lengths]
    return [[f"[bold]{cell}[/]" if best else cell for cell in row] for row, best in zip(rows, is_best, strict=True)]


def _accuracy(length: CandidateLength) -> str:
    return "-" if length.accuracy is None else f"{length.accuracy.value:.3f}"


def _speed(length: CandidateLength, padding: Padding) -> str:
    speed = length.speeds.get(padding)
    if speed is None:
        return "-"
    return f"{'' if speed.basis == 'measured' else '~'}{speed.samples_per_s:.1f}"


def _floor(inspection: Inspection) -> str:
    floor = inspection.floor
    if floor is None:
        return "No floor: too many rows belong together to hold any out."
    return (
        f"To beat on {floor.num_test:,} held-out rows: always the commonest label, {floor.majority:.3f}; TF-IDF with logistic "
        f"regression, {floor.tfidf:.3f}, fitted on {floor.num_train:,} rows in {floor.seconds:.1f} s."
    )


def _times(factor: float) -> str:
    return "no more arithmetic" if factor < _NEGLIGIBLE_FACTOR else f"{factor:.2f} times the arithmetic"
