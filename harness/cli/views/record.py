"""Terminal view of `harness show`: one record and its mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from harness.analysis.confusion_matrix import MAX_MATRIX_CLASSES, ConfusionMatrix, confusion_matrix
from harness.analysis.estimate import value_of
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.cli.console import layout_width, print_facts, print_table, print_text
from harness.cli.layout import Cell, columns
from harness.cli.views.progress import MIB, OUTCOME_STYLES, summary_figures
from harness.printable import printable
from harness.report.labels import attention_text
from harness.schema.inputs_record import Example
from harness.schema.record import Record
from harness.store.record_files import folder_name

_MAX_LABEL_LENGTH = 24
_SPARK = 60  # most blocks of a loss curve
_LOSS_WORDS = 24  # columns of the words around it


def show_record(console: Console, record: Record, summary: Summary, path: Path) -> None:
    """Print a record: figures, loss curve, one tokenized example, ends of stderr, and warnings.

    Args:
        console: Where to print.
        record: The record.
        summary: Summary of the record.
        path: File of the record.
    """
    print_text(console, f"[bold]{escape(record.cell)}[/]")
    style = OUTCOME_STYLES.get(record.outcome, "yellow")
    reason = f": {escape(record.reason)}" if record.reason else ""
    print_text(console, f"[{style}]{record.outcome}[/]{reason}", hang=2)
    print_facts(console, [(name, escape(value)) for name, value in _facts(record, summary, path).items()])
    if record.training:
        if losses := [loss for loss in record.training.steps.loss if loss is not None]:
            width = min(_SPARK, (layout_width(console) or _SPARK + _LOSS_WORDS) - _LOSS_WORDS)
            ends = f"{losses[0]:.3f} to {losses[-1]:.3f}"
            print_text(console, f"\n[bold]loss[/]  {_spark(losses, width)}  {ends}")
        _show_example(console, record.training.example)
    for rank, lines in enumerate(record.stderr_tail):
        if lines:
            print_text(console, f"\n[bold]last lines of rank {rank}[/]")
            print_text(console, Text("\n".join(lines), style="dim"))
    for warning in summary.warnings:
        print_text(console, f"[yellow]![/] {escape(warning)}", hang=2)


def hub_lines(records: Iterable[Record]) -> list[str]:
    """Say of each model and dataset of the hub which commit was used."""
    lines = []
    for record in records:
        sources = {"model": record.model.hub if record.model else None, **(record.data.hub if record.data else {})}
        for hub in filter(None, sources.values()):
            config = f":{hub.config}" if hub.config else ""
            lines.append(f"{hub.repo}{config}: commit {hub.commit} (revision {hub.revision})")
    return list(dict.fromkeys(lines))


def run_fields(record: Record, path: Path | None) -> dict[str, object]:
    """Return the fields of `run --json` and `train --json` for one run."""
    summary = summarize([record])[0]
    return {
        "cell": record.cell,
        "seed": record.seed,
        "repeat": record.repeat,
        "outcome": record.outcome,
        "reason": record.reason,
        "record": None if path is None else str(path),
        "samples_per_s": value_of(summary.samples_per_s),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "accuracy": value_of(summary.accuracy),
        "duration_s": record.duration_s,
        "noise": list(summary.noise),
    }


def _facts(record: Record, summary: Summary, path: Path) -> dict[str, str]:
    throughput, peak, accuracy = summary_figures(summary)
    interval = summary.samples_per_s
    spread = (
        f"  ({interval.low:.1f} to {interval.high:.1f}, {interval.basis})"
        if interval and interval.low and interval.high
        else ""
    )
    phases = ", ".join(f"{name.removesuffix('_s')} {value:.2f}" for name, value in record.phases if value is not None)
    gpus = [gpu.name for gpu in record.machine.gpus]
    facts = {
        "record": str(path),
        "when": f"{record.started_at:%Y-%m-%d %H:%M} UTC, {record.duration_s:.1f} s",
        "machine": f"{record.machine.id} ({', '.join([record.machine.cpu.model, *gpus])})",
        "samples/s": throughput + spread,
        "peak memory": f"{peak} MiB ({summary.peak_memory_source})" if summary.peak_memory_source else "-",
        "accuracy": accuracy
        + (f"  (majority class {summary.majority_accuracy:.3f})" if summary.majority_accuracy else ""),
        "phases, s": phases or "-",
    }
    if record.model:
        facts["model"] = (
            f"{record.model.name} ({record.model.origin}), {record.model.num_parameters / 1e6:.1f} M parameters"
        )
        weights, family = record.model.weights, record.model.family
        if family:
            facts["family"] = f"{family}, {record.model.attention} attention"
        if record.training and (choice := record.training.attention_choice):
            facts["attention"] = (
                f"{attention_text([choice])}; {choice.choose_s:.1f} s of choosing in no figure of training"
            )
        if weights:
            reason = f" ({weights.head_reason})" if weights.head_reason else ""
            stripped = (
                f"; prefixes taken off: {', '.join(weights.stripped_prefixes)}" if weights.stripped_prefixes else ""
            )
            facts["checkpoint"] = (
                f"{weights.num_tensors} tensors, {weights.num_unused} of them not used; made anew: {', '.join(weights.new) or 'none'}; "
                f"head {weights.head}{reason}{stripped}"
            )
    if record.baseline and record.baseline.features:
        chosen, num_layers = record.baseline.features, len(record.baseline.features.val_accuracies) - 1
        facts["features"] = (
            f"layer {chosen.layer} of {num_layers}, C = {chosen.c:g}, chosen on validation (accuracy "
            f"{record.baseline.val_accuracy:.3f}; by layer {' '.join(f'{a:.3f}' for a in chosen.layer_accuracies)})"
        )
    if hub := hub_lines([record]):
        facts["hub"] = "; ".join(hub)
    if record.training:
        training = record.training
        if record.nodes:
            interfaces = ", ".join(dict.fromkeys(node.interface for node in record.nodes))
            facts["machines"] = f"{len(record.nodes)} x {record.machine.id}, joined by {interfaces}"
        facts["updates"] = (
            f"{len(training.steps.loss)} of {training.num_updates_planned}, global batch {training.global_batch_size}, "
            f"peak learning rate {training.lr_peak:.2e}, {training.world_size} x {training.threads_per_rank} threads"
        )
        if training.kept:
            kept = training.kept
            facts["model kept"] = (
                f"after update {kept.num_updates}, {kept.num_bytes / MIB:,.0f} MiB, {kept.keep_s:.1f} s in no other figure: "
                f"models/{folder_name(record.study)}/{folder_name(record.cell)}-{path.stem} beside the records"
            )
    return facts


def _show_example(console: Console, example: Example) -> None:
    print_text(console, "\n[bold]one example as the model sees it[/]")
    if example.text is None or example.tokens is None or example.input_ids is None:
        real = sum(example.attention_mask)
        print_text(
            console,
            f"not stored (data.store_texts = false); {real} tokens, {len(example.attention_mask) - real} of padding",
        )
        return
    print_text(console, Text(f"{example.label}: {example.text}"))
    tokens = "  ".join(f"{token}/{input_id}" for token, input_id in zip(example.tokens, example.input_ids, strict=True))
    padding = len(example.attention_mask) - sum(example.attention_mask)
    print_text(console, Text(tokens + (f"  + {padding} x [PAD]" if padding else ""), style="dim"))


def _spark(values: Sequence[float], width: int) -> str:
    """Draw a line of blocks, each the mean of consecutive values."""
    size = max(1, -(-len(values) // width))
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    low, span = min(means), (max(means) - min(means)) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round((mean - low) / span * 7)] for mean in means)


def show_mistakes(console: Console, record: Record) -> None:
    """Print a record's confusion matrix (or, for many classes, the most confused pairs) and its most confident mistakes."""
    confusion = confusion_matrix(record)
    if confusion is None:
        return
    print_text(
        console,
        f"\n[bold]what it got wrong[/]  {confusion.num_rows - confusion.num_correct:,} of {confusion.num_rows:,} test examples",
    )
    if len(confusion.labels) > MAX_MATRIX_CLASSES:
        _print_pairs(console, confusion)
    else:
        _print_matrix(console, confusion)
    mistakes = record.training.mistakes if record.training else ()
    if mistakes:
        print_text(console, "\n[bold]the mistakes that it was surest of[/]")
    for mistake in mistakes:
        true, predicted = (_one_line(confusion.labels[index]) for index in (mistake.label, mistake.predicted))
        heading = f"  {true}, labelled {predicted} at {mistake.probability:.2f}: "
        print_text(console, Text.assemble((heading, "bold"), _one_line(mistake.text, None)), hang=2)


def _print_matrix(console: Console, confusion: ConfusionMatrix) -> None:
    labels = [Text(_one_line(label)) for label in confusion.labels]
    rows: list[tuple[Cell, ...]] = [
        (label, *(f"{confusion.counts[true, predicted]:,}" for predicted in range(len(labels))))
        for true, label in enumerate(labels)
    ]
    print_table(console, columns(["its label, the model's →"], [label.plain for label in labels]), rows)


def _print_pairs(console: Console, confusion: ConfusionMatrix) -> None:
    rows: list[tuple[Cell, ...]] = [
        (
            *(Text(_one_line(confusion.labels[index])) for index in (true, predicted)),
            f"{count:,}",
            f"{count / confusion.num_with_label(true):.0%}",
        )
        for true, predicted, count in confusion.most_confused()
    ]
    print_table(console, columns(["its label", "the model's"], ["examples", "of that label"]), rows)


def _one_line(text: str, max_length: int | None = _MAX_LABEL_LENGTH) -> str:
    flat = printable(" ".join(text.split()))
    return flat if max_length is None or len(flat) <= max_length else flat[: max_length - 1] + "…"
