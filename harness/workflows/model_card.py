"""Model card (README.md) of a saved model: data, figures, cost and use (pure)."""

from __future__ import annotations

import functools
import json
import re

from harness.analysis.estimate import Estimate
from harness.analysis.summarize import summarize
from harness.errors import Unavailable
from harness.pricing.cost import Priced
from harness.pricing.cost import price as price_summaries
from harness.pricing.prices import Price
from harness.schema.cells import FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.record import Record
from harness.schema.settings import PACKAGED_MODEL
from harness.store.saved_models import FACTS, SavedModel, WriteCard

_GIB = 2**30
_NOT_MEASURED = "not measured"
# Hub ids of packaged models, because a model card names its base model by hub id.
_HUB_IDS = {PACKAGED_MODEL: "sentence-transformers/all-MiniLM-L6-v2"}
_VERSIONS = ("torch", "transformers", "tokenizers", "safetensors")
_UNSAFE_IN_MARKDOWN = re.compile(r"[`|\r\n\x00-\x1f]")


def card_writer(price: Price | Unavailable) -> WriteCard:
    """Return a function that writes model cards, with costs at this price."""
    return functools.partial(model_card, price=price)


def model_card(saved: SavedModel, price: Price | Unavailable) -> str:
    """Return a model card in Markdown, with the hub's YAML header."""
    record = saved.record
    (priced,) = price_summaries(summarize([record]), lambda _: price)
    base = _base_name(record)
    return "\n".join([
        *_head(saved, base),
        f"# {_code(record.cell)} of study {_code(record.study)}",
        "",
        f"{_code(base)} (licence: {saved.base_licence or 'not told by its files'}), fine-tuned to classify text by "
        f"bert-cost-harness {record.harness_version}. These weights and what came with the base model stand under that licence.",
        "",
        *_ending(record),
        *_figures(saved, priced, price),
        "",
        *_data(record),
        "",
        *_circumstances(record),
        "",
        *_use(record),
    ])  # fmt: skip


def _base_name(record: Record) -> str:
    config = record.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - baselines save no model
    if record.model is not None and record.model.hub is not None:
        return record.model.hub.repo  # without the revision that the study may name
    return _HUB_IDS.get(config.model.name, config.model.name)


def _head(saved: SavedModel, base: str) -> list[str]:
    """Return the YAML header; JSON strings are valid YAML."""
    lines = ["---"]
    if saved.base_licence is not None:
        lines.append(f"license: {json.dumps(saved.base_licence)}")
    return [
        *lines,
        f"base_model: {json.dumps(base)}",
        "library_name: transformers",
        "pipeline_tag: text-classification",
        "---",
        "",
    ]


def _ending(record: Record) -> list[str]:
    if record.outcome == "ok":
        return []
    reason = f": {_UNSAFE_IN_MARKDOWN.sub(' ', record.reason)}" if record.reason else ""
    return [f"**Its cell ended as {record.outcome}{reason}.** What follows is of the best validation before that.", ""]


def _figures(saved: SavedModel, priced: Priced, price: Price | Unavailable) -> list[str]:
    record, summary, validation = saved.record, priced.summary, saved.validation
    data, training = record.data, record.training
    num_val, num_test = (data.val.num_rows, data.test.num_rows) if data else (0, 0)
    rows = {
        "accuracy, validation": _NOT_MEASURED
        if validation is None
        else f"{validation.accuracy:.3f} of {num_val:,} rows, after update {validation.num_updates:,}: the best of its validations",
        "accuracy, test": f"{_estimate(summary.accuracy)} of {num_test:,} rows, looked at once, with these weights"
        if summary.accuracy
        else _NOT_MEASURED,
        "macro-F1, test": _NOT_MEASURED if summary.macro_f1 is None else f"{summary.macro_f1:.3f}",
        "accuracy of the commonest label": _NOT_MEASURED
        if summary.majority_accuracy is None
        else f"{summary.majority_accuracy:.3f}",
        "seconds: set-up, training, evaluations": ", ".join(
            _NOT_MEASURED if value is None else f"{value:.1f}"
            for value in (summary.setup_s, summary.train_s, summary.evaluate_s)
        ),
        "seconds of keeping it, in no other figure": f"{training.kept.keep_s:.1f}"
        if training is not None and training.kept is not None
        else _NOT_MEASURED,
        "USD of this run": _dollars(priced, price),
    }
    return ["| figure | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _dollars(priced: Priced, price: Price | Unavailable) -> str:
    if isinstance(price, Unavailable):
        return f"not known: {_UNSAFE_IN_MARKDOWN.sub(' ', price.reason)}"
    rate = f"at {price.usd_per_hour:.4f} USD an hour, {price.basis_word} price"
    details = ", ".join(part for part in (price.instance, price.region, price.as_of, price.source) if part)
    where = f" ({_UNSAFE_IN_MARKDOWN.sub(' ', details)})" if details else ""
    amount = priced.usd_per_run
    return f"{_NOT_MEASURED if amount is None else f'{amount.value:.5f}'}, {rate}{where}"


def _data(record: Record) -> list[str]:
    data = record.data
    if data is None:
        return []
    splits = [(name, getattr(data, name)) for name in ("train", "val", "test")]
    return [
        "## Data",
        "",
        f"{_code(data.source)}, SHA-256 of the file {data.sha256 or 'not known: it is no single file'}.",
        "",
        "| split | rows | SHA-256 of labels and texts |",
        "|---|---:|---|",
        *(f"| {name} | {split.num_rows:,} | `{split.sha256}` |" for name, split in splits),
        "",
        f"Labels: {', '.join(_code(label) for label in data.labels)}.",
    ]


def _circumstances(record: Record) -> list[str]:
    config = record.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - baselines save no model
    versions = [f"{name} {record.packages[name]}" for name in _VERSIONS if name in record.packages]
    commit = f", commit {record.git.commit[:12]}{' with changes' if record.git.dirty else ''}" if record.git else ""
    return [
        "## How it was made",
        "",
        f"- Recipe: batch {config.named_batch_size}, {config.seq_len} tokens, {config.precision} on {config.device}, "
        f"{config.trainable} trained, seed {config.seed}; all of it is in the record, configuration {record.config_hash}.",
        f"- Machine: {_machine(record.machine)}.",
        f"- Versions: {', '.join([f'Python {record.machine.python}', *versions])}; harness {record.harness_version}{commit}.",
        f"- When: {record.started_at:%Y-%m-%d %H:%M} UTC.",
    ]


def _machine(machine: Machine) -> str:
    cpu = _UNSAFE_IN_MARKDOWN.sub(" ", machine.cpu.model)
    gpus = [_UNSAFE_IN_MARKDOWN.sub(" ", gpu.name) for gpu in machine.gpus]
    return ", ".join(
        [
            f"{cpu}, {machine.cpu.num_usable} of {machine.cpu.num_logical} logical CPUs",
            f"{(machine.memory_limit_bytes or machine.memory_bytes) / _GIB:.1f} GiB",
            *gpus,
            f"{machine.system} {machine.kernel}",
        ]
    )


def _use(record: Record) -> list[str]:
    config = record.config
    assert isinstance(config, FineTuneConfig)  # noqa: S101 - baselines save no model
    return [
        "## Use",
        "",
        "```python",
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        "```",
        "",
        f"or `harness predict FOLDER FILE -o labelled.csv`. Texts were cut at {config.seq_len} tokens; `{FACTS}` says how "
        "they were read.",
        "",
    ]


def _estimate(estimate: Estimate) -> str:
    spread = f" ({estimate.low:.3f} to {estimate.high:.3f})" if estimate.low is not None and estimate.high is not None else ""  # fmt: skip
    return f"{estimate.value:.3f}{spread}"


def _code(text: str) -> str:
    """Format untrusted text as inline code on one line."""
    return f"`{_UNSAFE_IN_MARKDOWN.sub('_', text)}`"
