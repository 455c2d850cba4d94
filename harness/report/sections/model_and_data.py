"""Descriptions of the trained models and of their data, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.label_warnings import label_warnings, one_label_warnings
from harness.pricing.cost import Priced
from harness.report.formatting import clean, listed, plural
from harness.report.labels import attention_text
from harness.schema.encoder_families import UNTESTED
from harness.schema.inputs_record import DataFacts, ModelFacts
from harness.schema.record import Record
from harness.schema.settings import PACKAGED_MODEL
from harness.schema.training_record import AttentionChoice

_MAX_LABELS = 5
# Tensors of the heads that models are pretrained with; that these are not used goes without saying.
_OTHER_HEADS = (
    "cls.",
    "lm_head.",
    "vocab_",
    "discriminator_predictions.",
    "generator_",
    "predictions.",
    "decoder.",
    "head.",
    "classifier.",
)


def model_descriptions(cells: Sequence[Priced]) -> list[str]:
    """Describe each trained model in a sentence, and the attention that cells chose.

    A baseline's encoder is described only if no cell trained it.
    """
    records = _records(cells)
    models = [(record.config.kind, record.model, _lacks_sdpa(record)) for record in records if record.model is not None]
    trained = {model.sha256 for kind, model, _ in models if kind == "fine_tune"}
    descriptions = dict.fromkeys(
        _model(model, lacks_sdpa=lacks_sdpa)
        for kind, model, lacks_sdpa in models
        if kind == "fine_tune" or model.sha256 not in trained
    )
    return [*descriptions, *_chosen_attention(records)]


def _chosen_attention(records: Sequence[Record]) -> Iterator[str]:
    """Say for each attention that runs chose how much faster it was."""
    choices: dict[str, list[AttentionChoice]] = {}
    for record in records:
        if record.training is not None and (choice := record.training.attention_choice) is not None:
            choices.setdefault(choice.implementation, []).append(choice)
    for chosen in choices.values():
        runs = f" ({plural(len(chosen), 'run')})" if len(chosen) > 1 else ""
        yield f"attention: {attention_text(chosen)}{runs}."


def data_descriptions(cells: Sequence[Priced]) -> list[str]:
    """Describe each dataset and its problems in a few sentences."""
    descriptions = []
    for record in _records(cells):
        data = record.data
        if data is not None:
            split = f", split by {clean(data.split_by, 60)}" if data.split_by else ""
            parts = {"training": data.train, "validation": data.val, "test": data.test}
            sizes = listed([f"{part.num_rows:,} {name}" for name, part in parts.items()]) + " rows"
            commit = f" at commit {data.hub['source'].short_commit}" if "source" in data.hub else ""
            description = f"{clean(data.source, 120)}{commit}: {sizes}{split}, {len(data.labels)} classes."
            descriptions.append(" ".join([description, *_data_warnings(data)]))
    return list(dict.fromkeys(descriptions))


def _data_warnings(data: DataFacts) -> Iterator[str]:
    """Describe problems of the data that could affect accuracy."""
    if data.bad_rows:
        kinds = listed([f"{count:,} {clean(kind, 40)}" for kind, count in data.bad_rows.items()])
        yield f"Left out as unusable: {kinds}."
    if data.num_leaks_dropped:
        yield f"{data.num_leaks_dropped:,} rows that also stand in its validation or test file left out."
    if data.num_conflicting_duplicates:
        yield f"{data.num_conflicting_duplicates:,} texts occur under two labels: the first counts."
    if data.num_near_duplicates:
        num_checked = data.num_near_checked or 0
        all_checked = num_checked == data.train.num_rows + data.val.num_rows + data.test.num_rows
        sample = "" if all_checked else f", of a sample of {num_checked:,} rows"
        yield f"{data.num_near_duplicates:,} validation and test rows nearly are a training row{sample}."
    yield from one_label_warnings(data)
    if data.rare_labels:
        names = listed([clean(name, 40) for name in data.rare_labels[:_MAX_LABELS]])
        more = f" and {len(data.rare_labels) - _MAX_LABELS:,} more" if len(data.rare_labels) > _MAX_LABELS else ""
        yield f"Fewer than 10 training rows each: {names}{more}."
    yield from label_warnings(data)


def _records(cells: Sequence[Priced]) -> list[Record]:
    return [record for cell in cells for record in cell.summary.records]


def _lacks_sdpa(record: Record) -> bool:
    """Return whether the record's model has eager attention because transformers has no other for it."""
    model, settings = record.model, record.config.model
    was_chosen = record.training is not None and record.training.attention_choice is not None
    is_wanted = was_chosen or (settings is not None and settings.attention == "eager")
    return model is not None and model.attention == "eager" and not is_wanted


def _model(model: ModelFacts, *, lacks_sdpa: bool) -> str:
    millions = f"{model.num_parameters / 1e6:.1f} M parameters"
    size = f"{plural(model.num_layers, 'layer')}, hidden size {model.hidden_size}, {millions}"
    if PACKAGED_MODEL in model.name and model.origin != "random":
        sentence = (
            f"{PACKAGED_MODEL} ({size}): a small sentence-embedding checkpoint of BERT's architecture, not bert-base. "
            "Figures for bert-base need a study that names it."
        )
        return " ".join([sentence, *_model_notes(model, lacks_sdpa=lacks_sdpa)])
    commit = f" of commit {model.hub.short_commit}" if model.hub else ""
    weights = (
        "random weights: speed and memory alone" if model.origin == "random" else f"{model.origin} weights{commit}"
    )
    sentence = f"{clean(model.name, 120)}, {clean(model.architecture, 60)} ({size}), {weights}."
    return " ".join([sentence, *_model_notes(model, lacks_sdpa=lacks_sdpa)])


def _model_notes(model: ModelFacts, *, lacks_sdpa: bool) -> list[str]:
    """Say what is unusual about a model: its family, its attention, and how its checkpoint was loaded."""
    notes = []
    if model.family == UNTESTED:
        notes.append("Its family was never tested: two batches were compared with its own forward pass.")
    if lacks_sdpa:
        notes.append("transformers has no fused attention for it, so that attention is slower and takes more memory.")
    if (weights := model.weights) is None:
        return notes
    if weights.stripped_prefixes:
        prefixes = listed([f"{clean(prefix, 40)}" for prefix in weights.stripped_prefixes])
        notes.append(f"A wrapper's prefix was taken off its tensors' names ({prefixes}).")
    if weights.head == "new":
        notes.append(f"Its head was made anew ({clean(weights.head_reason or '', 200)}).")
    if weights.head == "reordered":
        notes.append(
            f"Its head's rows were put in the order of the data's labels ({clean(weights.head_reason or '', 200)})."
        )
    if unused := [name for name in weights.unused if not name.startswith(_OTHER_HEADS)]:
        notes.append(
            f"{plural(weights.num_unused, 'tensor')} of its file have no place in it: {clean(', '.join(unused[:3]), 200)}."
        )
    return notes
