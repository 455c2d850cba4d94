"""What the page's template is filled with: plain values, already in words (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.decision.choice import run_seconds
from harness.decision.differences import slice_words
from harness.pricing.cost import Priced
from harness.pricing.price_rows import age_words
from harness.pricing.prices import Price
from harness.report.formatting import MoneyFormat, clean, memory, seconds
from harness.report.labels import machine_labels, short_labels
from harness.report.sections.cell_table import OUTCOMES
from harness.schema.host_record import Machine
from harness.schema.inputs_record import Example
from harness.schema.record import Record

_PADS_SHOWN = 6
_LONGEST_TOKEN = 60
_LONGEST_TEXT = 2_000
_LONGEST_REASON = 400
_PAD = "[PAD]"
_MAX_NAMES = 8


MADE_UP = "Made-up records are among these, as tests use them: no figure of theirs was measured anywhere."


def is_synthetic(cells: Sequence[Priced]) -> bool:
    """Whether any record serves a test alone."""
    return any(record.is_made_up for cell in cells for record in cell.summary.records)


@dataclass(frozen=True)
class ResultPlace:
    """One machine of the page: its facts and its price, as (name, value) pairs."""

    name: str
    facts: tuple[tuple[str, str], ...]
    price: tuple[tuple[str, str], ...]
    basis: str | None
    note: str


def places(cells: Sequence[Priced], money: MoneyFormat) -> list[ResultPlace]:
    """Every machine with the price that its dollars rest on."""
    found = []
    for machine_id, label in machine_labels(cells).items():
        own = [cell for cell in cells if cell.summary.machine_id == machine_id]
        record = own[0].summary.records[-1]
        price = next((cell.price for cell in own if cell.price is not None), None)
        missing = next((cell.missing for cell in own if cell.missing), None)
        note = (price.note if price is not None else missing) or ""
        hosts = len({r.machine.host for cell in own for r in cell.summary.records})
        facts = (*_facts(record.machine), *_metadata(record), *_software(record), ("Hosts of this kind", f"{hosts}"))
        found.append(
            ResultPlace(label, facts, _price_facts(price, money), None if price is None else price.basis, clean(note))
        )
    return found


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
        (
            "GPU",
            clean("; ".join(gpus)) or f"none{f' ({clean(machine.gpu_note)})' if machine.gpu_note else ''}",
        ),
        *([("Slice", f"{part}; priced as the whole machine unless an instance is stated")] if part else []),
        ("System", clean(f"{machine.system} {machine.kernel}, Python {machine.python}")),
    ]
    return [*facts, ("Firmware says", clean(cloud))] if cloud else facts


def _metadata(record: Record) -> list[tuple[str, str]]:
    seen = record.detected
    if seen is None:
        return []
    told = " ".join(part for part in (seen.vendor, seen.instance, seen.region) if part)
    return [("Metadata service says", clean(told + (", spot" if seen.is_spot else "")))]


def _software(record: Record) -> list[tuple[str, str]]:
    versions = [f"{name} {record.packages[name]}" for name in ("torch", "transformers") if name in record.packages]
    return [("Software", clean(", ".join(versions)))] if versions else []


def _price_facts(price: Price | None, money: MoneyFormat) -> tuple[tuple[str, str], ...]:
    if price is None:
        return ()
    place = ", ".join(part for part in (price.instance, price.provider, price.region) if part)
    facts = [
        ("Price", f"{money.hourly(price.usd_per_hour)} an hour"),
        *([("Paid", clean(price.paid))] if price.paid else []),
        ("Instance", clean(place) or "none named"),
        (
            "As of",
            clean(", ".join(part for part in (price.as_of or "no date given", age_words(price.age_days)) if part)),
        ),
        ("Source", clean(price.source or "no source given")),
    ]
    return tuple(facts)


@dataclass(frozen=True)
class Loss:
    """A cell that failed, or of which a run did."""

    cell: str
    where: str
    outcome: str
    reason: str
    runs: str


def losses(failures: Sequence[Priced], machines: dict[str, str]) -> list[Loss]:
    """Cells that did not end well, and why."""
    return [
        Loss(
            clean(cell.summary.cell, 160),
            machines.get(cell.summary.machine_id, "") if len(machines) > 1 else "",
            OUTCOMES[cell.summary.outcome],
            clean(cell.summary.reason or "no reason was recorded", _LONGEST_REASON),
            f"{cell.summary.num_ok} of {len(cell.summary.records)} runs ended well",
        )
        for cell in failures
    ]


@dataclass(frozen=True)
class Token:
    """One position of the tokenised example."""

    position: int
    token: str
    number: str
    mask: int


@dataclass(frozen=True)
class Sample:
    """The tokenised example; `text` is None where the study stores none."""

    cell: str
    label: str | None
    text: str | None
    tokens: tuple[Token, ...]
    num_tokens: int
    num_real: int
    num_hidden_pads: int


def sample(cells: Sequence[Priced]) -> Sample | None:
    """The first measured cell's example, cut after a few padding tokens; None where no record has one."""
    for cell in cells:
        for record in cell.summary.records:
            if record.training is not None:
                return _sample(cell.summary.cell, record.training.example)
    return None


def _sample(cell: str, example: Example) -> Sample:
    mask = example.attention_mask
    num_real = sum(mask)
    # The positions up to the last real token, and a few of the padding behind.
    shown = min(len(mask), max((i + 1 for i, value in enumerate(mask) if value), default=0) + _PADS_SHOWN)
    tokens = tuple(Token(i, *_token(example, i), mask[i]) for i in range(shown))
    text = None if example.text is None else clean(example.text, _LONGEST_TEXT)
    label = None if example.label is None else clean(example.label, _LONGEST_TOKEN)
    return Sample(clean(cell, 160), label, text, tokens, len(mask), num_real, len(mask) - shown)


def _token(example: Example, index: int) -> tuple[str, str]:
    """A position's token and id; a record keeps those of the text, and what follows is filled with padding, id 0."""
    names, ids = example.tokens, example.input_ids
    if names is not None and ids is not None and index < len(ids):
        return clean(names[index], _LONGEST_TOKEN), str(ids[index])
    return ("not kept", "not kept") if example.attention_mask[index] else (_PAD, "0")


def totals(cells: Sequence[Priced]) -> str:
    """How long all of it took, in words."""
    spent = sum(record.duration_s for cell in cells for record in cell.summary.records)
    longest = max((run_seconds(cell) or 0.0 for cell in cells), default=0.0)
    return f"{seconds(spent)} of cells, the longest run {seconds(longest)}"


def warnings_by_text(cells: Sequence[Priced]) -> list[tuple[str, str]]:
    """Each warning once, with the names of the cells that it is about."""
    labels = short_labels(cells)
    about: dict[str, list[str]] = {}
    for cell in cells:
        for warning in cell.summary.warnings:
            about.setdefault(clean(warning), []).append(labels[cell.key])
    return [(warning, _some(names)) for warning, names in about.items()]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
