"""Smaller sections: machines and prices, failed cells, the example, totals and warnings (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.decision.cells import run_seconds
from harness.decision.differences import slice_words
from harness.pricing.cost import Priced
from harness.pricing.price_rows import age_words
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat, clean, memory, seconds, with_interval
from harness.report.labels import OUTCOMES, basis_word, machine_labels, short_labels
from harness.schema.host_record import Machine
from harness.schema.inputs_record import Example
from harness.schema.record import Record

_SHOWN_PADS = 6
_MAX_TOKEN = 60
_MAX_TEXT = 2_000
_MAX_REASON = 400
_PAD = "[PAD]"
_MAX_NAMES = 8

MADE_UP = "Made-up records are among these, as tests use them: no figure of theirs was measured anywhere."


def is_synthetic(cells: Sequence[Priced]) -> bool:
    """Return whether any record is made up; tests use made-up records."""
    return any(record.is_made_up for cell in cells for record in cell.summary.records)


@dataclass(frozen=True)
class MachineFacts:
    """One machine: its facts and its price as (name, value) pairs.

    Attributes:
        basis: How the price is known; None without a price.
        note: A remark on the price, or the reason why there is none.
    """

    name: str
    facts: tuple[tuple[str, str], ...]
    price: tuple[tuple[str, str], ...]
    basis: str | None
    note: str


def machine_facts(cells: Sequence[Priced], money: MoneyFormat) -> list[MachineFacts]:
    """List every machine with the price that its costs are based on."""
    machines = []
    for machine_id, label in machine_labels(cells).items():
        own = [cell for cell in cells if cell.summary.machine_id == machine_id]
        record = own[0].summary.records[-1]
        price = next((cell.price for cell in own if cell.price is not None), None)
        missing = next((cell.missing for cell in own if cell.missing), None)
        note = clean((price.note if price is not None else missing) or "")
        hosts = len({record.machine.host for cell in own for record in cell.summary.records})
        facts = (*_facts(record.machine), *_metadata(record), *_software(record), ("Hosts of this kind", f"{hosts}"))
        basis = None if price is None else basis_word(price)
        machines.append(MachineFacts(label, facts, _price_facts(price, money), basis, note))
    return machines


def _facts(machine: Machine) -> list[tuple[str, str]]:
    cpu = machine.cpu
    gpus = [f"{gpu.name}, {memory(gpu.memory_bytes) if gpu.memory_bytes else 'memory unknown'}" for gpu in machine.gpus]
    part = slice_words(machine)
    limit = f" (limited to {memory(machine.memory_limit_bytes)})" if machine.memory_limit_bytes else ""
    cloud = " ".join(filter(None, (machine.cloud_vendor, machine.cloud_product)))
    facts = [
        ("Processor", clean(f"{cpu.model}, {cpu.num_usable} of {cpu.num_logical} logical CPUs used")),
        ("Accelerated arithmetic", clean(", ".join(cpu.flags)) or "none known"),
        ("Memory", memory(machine.memory_bytes) + limit),
        ("GPU", clean("; ".join(gpus)) or with_interval("none", clean(machine.gpu_note or ""))),
        *([("Slice", f"{part}; priced as the whole machine unless an instance is stated")] if part else []),
        ("System", clean(f"{machine.system} {machine.kernel}, Python {machine.python}")),
    ]
    return [*facts, ("Firmware says", clean(cloud))] if cloud else facts


def _metadata(record: Record) -> list[tuple[str, str]]:
    detected = record.detected
    if detected is None:
        return []
    instance = " ".join(part for part in (detected.vendor, detected.instance, detected.region) if part)
    return [("Metadata service says", clean(instance + (", spot" if detected.is_spot else "")))]


def _software(record: Record) -> list[tuple[str, str]]:
    versions = [f"{name} {record.packages[name]}" for name in ("torch", "transformers") if name in record.packages]
    return [("Software", clean(", ".join(versions)))] if versions else []


def _price_facts(price: Price | None, money: MoneyFormat) -> tuple[tuple[str, str], ...]:
    if price is None:
        return ()
    place = ", ".join(part for part in (price.instance, price.provider, price.region) if part)
    dated = ", ".join(part for part in (price.as_of or "no date given", age_words(price.age_days)) if part)
    facts = [
        ("Price", f"{money.hourly(price.usd_per_hour)} an hour"),
        *([("Paid", clean(price.paid))] if price.paid else []),
        ("Instance", clean(place) or "none named"),
        ("As of", clean(dated)),
        ("Source", clean(price.source or "no source given")),
    ]
    return tuple(facts)


@dataclass(frozen=True)
class Failure:
    """A cell with at least one failed run."""

    cell: str
    where: str
    outcome: str
    reason: str
    runs: str


def failures(failed: Sequence[Priced], machines: Mapping[str, str]) -> list[Failure]:
    """List failed cells with the reason."""
    return [
        Failure(
            clean(cell.summary.cell, 160),
            machines.get(cell.summary.machine_id, "") if len(machines) > 1 else "",
            OUTCOMES[cell.summary.outcome],
            clean(cell.summary.reason or "no reason was recorded", _MAX_REASON, is_message=True),
            f"{cell.summary.num_ok} of {len(cell.summary.records)} runs ended well",
        )
        for cell in failed
    ]


@dataclass(frozen=True)
class Token:
    """One position of the tokenised example.

    Attributes:
        number: The token's id as text, because the record may not have kept it.
        mask: The attention mask: 0 for padding, else 1.
    """

    position: int
    token: str
    number: str
    mask: int


@dataclass(frozen=True)
class ExampleText:
    """A tokenised text.

    Attributes:
        label, text: None if the study stores no texts.
        num_tokens: Number of positions, padding included.
        num_real: Number of positions that are not padding.
        num_hidden_pads: Number of padding positions that are not shown.
    """

    cell: str
    label: str | None
    text: str | None
    tokens: tuple[Token, ...]
    num_tokens: int
    num_real: int
    num_hidden_pads: int


def tokenized_example(cells: Sequence[Priced]) -> ExampleText | None:
    """Return the first trained cell's example, cut after a few padding tokens; None if no record has one."""
    for cell in cells:
        for record in cell.summary.records:
            if record.training is not None:
                return _tokenized(cell.summary.cell, record.training.example)
    return None


def _tokenized(cell: str, example: Example) -> ExampleText:
    mask = example.attention_mask
    num_real = sum(mask)
    num_shown = min(len(mask), max((i + 1 for i, value in enumerate(mask) if value), default=0) + _SHOWN_PADS)
    tokens = tuple(Token(i, *_token(example, i), mask[i]) for i in range(num_shown))
    text = None if example.text is None else clean(example.text, _MAX_TEXT)
    label = None if example.label is None else clean(example.label, _MAX_TOKEN)
    return ExampleText(clean(cell, 160), label, text, tokens, len(mask), num_real, len(mask) - num_shown)


def _token(example: Example, index: int) -> tuple[str, str]:
    """Return a position's token and id; records omit padding, whose id is 0."""
    names, ids = example.tokens, example.input_ids
    if names is not None and ids is not None and index < len(ids):
        return clean(names[index], _MAX_TOKEN), str(ids[index])
    return ("not kept", "not kept") if example.attention_mask[index] else (_PAD, "0")


def totals(cells: Sequence[Priced]) -> str:
    """State the total time of all runs, and the longest run."""
    total_s = sum(record.duration_s for cell in cells for record in cell.summary.records)
    longest_s = max((run_seconds(cell) or 0.0 for cell in cells), default=0.0)
    return f"{seconds(total_s)} of cells, the longest run {seconds(longest_s)}"


def warnings_by_text(cells: Sequence[Priced]) -> list[tuple[str, str]]:
    """Return each warning once, with the labels of its cells."""
    labels = short_labels(cells)
    labels_by_warning: dict[str, list[str]] = {}
    for cell in cells:
        for warning in cell.summary.warnings:
            labels_by_warning.setdefault(clean(warning), []).append(labels[cell.key])
    return [(warning, _some(names)) for warning, names in labels_by_warning.items()]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
