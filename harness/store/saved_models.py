"""Models that are kept: folders beside the records, there whole or not at all (no torch)."""

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

from harness.dataset.corpus import load_tokenizer
from harness.dataset.sources import WEIGHTS_FILE, ModelFiles
from harness.errors import UserError
from harness.files import cached_sha256
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.record import Record
from harness.schema.settings import PACKAGED_MODEL
from harness.schema.training_record import Evaluation
from harness.store.record_files import record_folder

MODELS = "models"
CARD = "README.md"
# What a model was trained on and how its texts are to be read, for `harness predict` and for scripts.
FACTS = "harness.json"
_STAGING = ".staging-"
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_LICENCE_LINE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class SavedModel:
    """What a model's card tells.

    Attributes:
        base_licence: Of the model that was fine-tuned; None where its files do not tell.
        validation: The one that was the best; None where there was none.
        sha256: Of the weights' file.
    """

    record: Record
    record_path: Path
    base_licence: str | None
    validation: Evaluation | None
    sha256: str


# The text of a model's card.
WriteCard = Callable[[SavedModel], str]


@contextlib.contextmanager
def staging_folder(cell: Cell, results: Path) -> Iterator[Path | None]:
    """A folder for a cell's weights while it is trained, on the file system of its results; None where none are kept.

    What is still in it afterwards is dropped. The caller holds the results' lock: what an earlier run that was killed left
    behind is removed.

    Raises:
        UserError: When the folder can't be made.
    """
    if not isinstance(cell.config, FineTuneConfig) or not cell.config.training.keep_model:
        yield None
        return
    models = results.resolve() / MODELS
    folder = models / f"{_STAGING}{secrets.token_hex(4)}"
    try:
        models.mkdir(parents=True, exist_ok=True)
        for left in models.glob(f"{_STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir()
    except OSError as error:
        raise UserError(f"{models}: no model can be kept there: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_model(
    folder: Path, record: Record, record_path: Path, base: ModelFiles, results: Path, write_card: WriteCard
) -> Path | None:
    """Complete what the worker wrote into a staged folder, and put it in its place beside the records.

    A cell that ended badly has its model kept too, where a validation had come before: the card says so.

    Returns:
        The model's folder, of its record's name; None where no weights were written.

    Raises:
        UserError: When it can't be written.
    """
    weights = folder / WEIGHTS_FILE
    given_up = record.training is not None and record.training.kept is None
    if not weights.is_file() or given_up or record.data is None:
        return None
    study, cell = record_folder(record, results).parts[-2:]
    target = results / MODELS / study / f"{cell}-{record_path.stem}"
    validation = _told_by(weights).get("validation")
    kept = SavedModel(
        record=record,
        record_path=record_path,
        base_licence=licence_of(base),
        validation=None if validation is None else Evaluation.model_validate_json(validation),
        sha256=cached_sha256(weights),
    )
    try:
        (folder / f"{WEIGHTS_FILE}.partial").unlink(missing_ok=True)  # of a worker that was ended while it wrote
        _name_labels(folder / "config.json", record.data.labels)
        _copy_tokenizer(base, folder, record)
        for name in _LICENCE_FILES:
            if (base.folder / name).is_file():
                shutil.copyfile(base.folder / name, folder / name)
        (folder / FACTS).write_text(json.dumps(metadata(kept), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(write_card(kept), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(target)
    except OSError as error:
        raise UserError(f"{target}: the model can't be kept: {error.strerror}; its record is saved") from None
    return target


def metadata(kept: SavedModel) -> dict[str, Any]:
    """What FACTS holds."""
    record = kept.record
    config, data = record.config, record.data
    assert isinstance(config, FineTuneConfig) and data is not None  # noqa: S101 - of a cell that trained
    return {
        "study": record.study,
        "cell": record.cell,
        "record": kept.record_path.name,
        "config_hash": record.config_hash,
        "outcome": record.outcome,
        "base_model": config.model.name,
        "weights_sha256": kept.sha256,
        "labels": list(data.labels),
        "seq_len": config.seq_len,
        "text": config.data.model_dump(mode="json")["text"],
        "pair": config.data.model_dump(mode="json").get("pair"),
        "data": {"source": data.source, "sha256": data.sha256, "train_sha256": data.train.sha256},
    }


def licence_of(model: ModelFiles) -> str | None:
    """The licence that a model's own card names; None where its files do not tell."""
    if model.name == PACKAGED_MODEL:
        return "apache-2.0"  # as its package and its page on the hub have it
    card = model.folder / CARD
    found = _LICENCE_LINE.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return found[1] if found else None


def _told_by(weights: Path) -> dict[str, str]:
    """What the worker wrote into the file's header beside the tensors' places (see weights.py)."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        told: dict[str, str] = json.loads(file.read(length)).get("__metadata__", {})
    return told


def _name_labels(config: Path, labels: tuple[str, ...]) -> None:
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields["id2label"] = {str(index): label for index, label in enumerate(labels)}
    fields["label2id"] = {label: index for index, label in enumerate(labels)}
    config.write_text(json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_tokenizer(base: ModelFiles, folder: Path, record: Record) -> None:
    """The tokenizer as it was trained with, and its settings with the length that texts were cut to."""
    tokenizer, _ = load_tokenizer(base)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / _TOKENIZER))
    for name in ("vocab.txt", "special_tokens_map.json"):
        if (base.folder / name).is_file():
            shutil.copyfile(base.folder / name, folder / name)
    settings = base.folder / "tokenizer_config.json"
    fields = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    assert isinstance(record.config, FineTuneConfig)  # noqa: S101 - of a cell that trained
    fields["model_max_length"] = record.config.seq_len
    (folder / settings.name).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
