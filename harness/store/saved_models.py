"""Saved models: folders in results/models with weights, tokenizer, model card and metadata, never incomplete."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.dataset.model_folder import WEIGHTS_FILE
from harness.dataset.sources import ModelFiles
from harness.dataset.tokenizer_files import load_tokenizer
from harness.errors import UnwritableError
from harness.files import cached_sha256
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.record import Record
from harness.schema.settings import PACKAGED_MODEL
from harness.schema.training_record import Evaluation
from harness.store.record_files import record_folder

MODELS = "models"
CARD = "README.md"
# File for `harness predict` and scripts: what the model was trained on, and how to read texts for it.
FACTS = "harness.json"
_STAGING = ".staging-"
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_LICENCE_LINE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class SavedModel:
    """Facts about a saved model, for its card and its metadata file.

    Attributes:
        record: The record of the cell that trained the model.
        record_path: The record's file.
        base_licence: Licence of the model that was fine-tuned; None if its files don't name one.
        validation: The validation with the highest accuracy, whose weights were saved; None if there was no validation.
        sha256: Hash of the weights file.
    """

    record: Record
    record_path: Path
    base_licence: str | None
    validation: Evaluation | None
    sha256: str


# Function that returns the text of a model's card.
WriteCard = Callable[[SavedModel], str]


@contextlib.contextmanager
def staging_folder(cell: Cell, results: Path) -> Iterator[Path | None]:
    """Provide a folder for a cell's weights during training, or None if the cell saves no model.

    The folder is on the file system of `results`, so that `save_model` can move it. It is removed at the end unless
    it was moved. Folders left by killed runs are removed too: no other run can use them, because the caller holds the
    lock of `results`.

    Raises:
        UnwritableError: The folder can't be created.
    """
    if not isinstance(cell.config, FineTuneConfig) or not cell.config.training.keep_model:
        yield None
        return
    models = results.resolve() / MODELS
    folder = models / f"{_STAGING}{secrets.token_hex(4)}"
    try:
        models.mkdir(parents=True, exist_ok=True)
        for leftover in models.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise UnwritableError(f"{models}: no model can be saved there: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_model(
    folder: Path, record: Record, record_path: Path, base: ModelFiles, results: Path, write_card: WriteCard
) -> Path | None:
    """Add the other files to a staging folder that contains the worker's weights, and move the folder to results/models.

    The model of a failed cell is saved too if a validation came before the failure; its card says so.

    Args:
        folder: The staging folder.
        record: The cell's record.
        record_path: The record's file.
        base: The model that was fine-tuned.
        results: Folder of records.
        write_card: Returns the text of the model card.

    Returns:
        The model's folder, named after the record; None if no weights were written.

    Raises:
        UnwritableError: The folder can't be written.
    """
    weights = folder / WEIGHTS_FILE
    gave_up_saving = record.training is not None and record.training.kept is None
    if not weights.is_file() or gave_up_saving or record.data is None:
        return None
    study, cell = record_folder(record, results).parts[-2:]
    target = results / MODELS / study / f"{cell}-{record_path.stem}"
    validation = _header_metadata(weights).get("validation")
    model = SavedModel(
        record=record,
        record_path=record_path,
        base_licence=licence_of(base),
        validation=None if validation is None else Evaluation.model_validate_json(validation),
        sha256=cached_sha256(weights),
    )
    try:
        (folder / f"{WEIGHTS_FILE}.partial").unlink(missing_ok=True)  # left by a worker that was killed while writing
        _set_label_names(folder / "config.json", record.data.labels)
        _copy_tokenizer(base, folder, record)
        for name in _LICENCE_FILES:
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, folder / name)
        (folder / FACTS).write_text(json.dumps(metadata(model), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(write_card(model), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(target)
    except OSError as error:
        raise UnwritableError(f"{target}: the model can't be saved: {error.strerror}; its record is saved") from None
    return target


def is_model_missing(record: Record) -> bool:
    """Return whether a cell that succeeded should have left a model, and none could be saved."""
    config, training = record.config, record.training
    keeps_model = isinstance(config, FineTuneConfig) and config.training.keep_model
    return keeps_model and record.outcome == "ok" and training is not None and training.kept is None


def metadata(model: SavedModel) -> dict[str, Any]:
    """Return the content of the model's metadata file, `FACTS`."""
    record = model.record
    config, data = record.config, record.data
    assert isinstance(config, FineTuneConfig) and data is not None  # noqa: S101 - only a training saves a model
    data_fields = config.data.model_dump(mode="json")
    return {
        "study": record.study,
        "cell": record.cell,
        "record": model.record_path.name,
        "config_hash": record.config_hash,
        "outcome": record.outcome,
        "base_model": config.model.name,
        "weights_sha256": model.sha256,
        "labels": list(data.labels),
        "seq_len": config.seq_len,
        # What `auto` chose holds for training's steps, not for predictions.
        "attention": None if config.model.attention == "auto" else config.model.attention,
        "pad_multiple": config.pad_multiple,
        "text": data_fields["text"],
        "pair": data_fields.get("pair"),
        "data": {"source": data.source, "sha256": data.sha256, "train_sha256": data.train.sha256},
    }


def licence_of(model: ModelFiles) -> str | None:
    """Return the licence that a model's card names; None if its files don't name one."""
    if model.name == PACKAGED_MODEL:
        return "apache-2.0"  # stated by its package and its page on the hub
    card = model.folder / CARD
    match = _LICENCE_LINE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return match[1] if match else None


def _header_metadata(weights: Path) -> dict[str, str]:
    """Read the metadata that the worker wrote into the header of a safetensors file."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        fields: dict[str, str] = json.loads(file.read(length)).get("__metadata__", {})
    return fields


def _set_label_names(config: Path, labels: tuple[str, ...]) -> None:
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields["id2label"] = {str(index): label for index, label in enumerate(labels)}
    fields["label2id"] = {label: index for index, label in enumerate(labels)}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_tokenizer(base: ModelFiles, folder: Path, record: Record) -> None:
    """Write the tokenizer that training used, and its settings with the cell's sequence length as the maximum length."""
    tokenizer, _ = load_tokenizer(base)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    # Not tokenizer.save(), which raises a bare Exception if the disk is full.
    (folder / _TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    for name in ("vocab.txt", "special_tokens_map.json"):
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
    settings = base.folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    assert isinstance(record.config, FineTuneConfig)  # noqa: S101 - only a training saves a model
    fields["model_max_length"] = record.config.seq_len
    (folder / settings.name).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
