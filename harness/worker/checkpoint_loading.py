"""Load a checkpoint and account for every tensor: none of the encoder's may be random, and the head's labels must be the data's.

transformers makes every tensor that the file lacks anew, and says so in a log only. An encoder of random weights would train,
be evaluated, and pass for pretrained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from harness.dataset.model_folder import weight_files
from harness.schema.inputs_record import LoadedWeights
from harness.worker.device import Unsupported

# What DataParallel, DDP and torch.compile add to a tensor's name when the wrapper is saved instead of the model.
_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:module\.|_orig_mod\.)+")
_UNNAMED = re.compile(r"LABEL_\d+")
_MAX_NAMES = 8
_MAX_NAMES_IN_REASON = 4
_MAX_LABELS_IN_REASON = 3


@dataclass(frozen=True)
class _HeadPlan:
    """What to do with the head's last layer.

    Attributes:
        order: For each label of the data, the row of the checkpoint's layer; None: keep the rows as they are.
        reason: Why the layer is made anew, or its rows are moved.
        is_new: Whether it is made anew.
    """

    order: tuple[int, ...] | None = None
    reason: str | None = None
    is_new: bool = False


def load_checkpoint(
    folder: Path, config: PreTrainedConfig, labels: Sequence[str], options: Mapping[str, Any]
) -> tuple[PreTrainedModel, LoadedWeights]:
    """Load a classifier, with the head's rows in the order of the data's labels, or with a new last layer.

    Args:
        folder: The model's folder.
        config: The model's configuration, with the checkpoint's label names; it receives the data's.
        labels: The data's labels in order; empty: keep the head as it is, and the checkpoint's labels.
        options: Further arguments of `from_pretrained`.

    Raises:
        Unsupported: If the file lacks tensors of the encoder, or has them in other shapes.
    """
    names = tensor_names(folder)
    stripped = {name: _WRAPPER.sub("", name) for name in names}
    prefixes = sorted({match[0] for name in names for match in _WRAPPER.finditer(name)})
    names_of_labels: Any = config.id2label
    theirs = [str(names_of_labels[index]) for index in range(len(names_of_labels))]
    set_labels(config, labels)
    output = _output_layer(config)
    plan = _plan_head(theirs, labels, has_head=f"{output}.weight" in stripped.values())
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, config=config, local_files_only=True, use_safetensors=True, key_mapping={_WRAPPER.pattern: ""} if prefixes else None,
        ignore_mismatched_sizes=True, output_loading_info=True, **options,
    )  # fmt: skip
    new = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    _require_encoder(model, new)
    if plan.order is not None:
        _move_rows(model.get_submodule(output), plan.order)
    remade = (
        {f"{output}.{name}" for name, _ in model.get_submodule(output).named_parameters()} if plan.is_new else set()
    )
    if remade - new:
        _initialize(model, model.get_submodule(output))
    base = f"{model.base_model_prefix}."  # the encoder's come first, since another head's go without saying
    unused = sorted(
        {*info["unexpected_keys"], *(remade & set(stripped.values()))},
        key=lambda name: (not name.startswith(base), name),
    )
    new |= remade
    weights = LoadedWeights(
        num_tensors=len(names),
        stripped_prefixes=tuple(prefixes),
        new=tuple(sorted(new)),
        num_unused=len(unused),
        unused=tuple(unused[:_MAX_NAMES]),
        head="new" if plan.is_new else "reordered" if plan.order else "kept",
        head_reason=plan.reason,
    )
    return model, weights


def set_labels(config: PreTrainedConfig, labels: Sequence[str]) -> None:
    """Write the data's labels, unless there are none, to a configuration; this also sets the number of labels."""
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}


def tensor_names(folder: Path) -> list[str]:
    """Return the names of the tensors in a checkpoint."""
    names: list[str] = []
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as tensors:
            names += tensors.keys()
    return names


def _output_layer(config: PreTrainedConfig) -> str:
    """Return the name of the head's last layer, which has a row of weights for each label."""
    with torch.device("meta"):  # no memory, and no random numbers
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    base = f"{model.base_model_prefix}."
    found: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module.out_features == config.num_labels
        and not name.startswith(base)
    ]
    if not found:
        raise Unsupported(f"{type(model).__name__} has no linear layer with a row for each label")
    return found[-1]


def _plan_head(theirs: Sequence[str], labels: Sequence[str], *, has_head: bool) -> _HeadPlan:
    """Match the checkpoint's label names with the data's, ignoring case if the exact names differ."""
    if not has_head:
        return _HeadPlan(reason="the checkpoint has none", is_new=True)
    if not labels:
        return _HeadPlan()
    if len(theirs) != len(labels):
        return _HeadPlan(reason=f"the checkpoint's has {len(theirs)} labels, the data {len(labels)}", is_new=True)
    if all(map(_UNNAMED.fullmatch, theirs)):
        return _HeadPlan(reason="the checkpoint doesn't name its labels", is_new=True)
    for key in (str, _folded):
        rows = {key(name): row for row, name in enumerate(theirs)}
        if len(rows) == len(theirs) and set(rows) == {key(label) for label in labels}:
            order = tuple(rows[key(label)] for label in labels)
            if order == tuple(range(len(labels))):
                return _HeadPlan()
            return _HeadPlan(order, f"the checkpoint's labels come in the order {_listed(theirs)}")
    return _HeadPlan(
        reason=f"the checkpoint's labels are {_listed(theirs)}, the data's are {_listed(labels)}", is_new=True
    )


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(labels: Iterable[str]) -> str:
    names = list(labels)
    more = f" and {len(names) - _MAX_LABELS_IN_REASON} more" if len(names) > _MAX_LABELS_IN_REASON else ""
    return ", ".join(names[:_MAX_LABELS_IN_REASON]) + more


def _move_rows(output: torch.nn.Module, order: Sequence[int]) -> None:
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.copy_(parameter[list(order)].clone())


@torch.no_grad()
def _initialize(model: PreTrainedModel, layer: torch.nn.Module) -> None:
    """Initialize one layer as transformers does for a new model; it leaves parameters alone that are marked as loaded."""
    for parameter in layer.parameters():
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # transformers' own mark
    model._init_weights(layer)
    model._init_weights(model)  # ModernBERT initializes its last layer through the whole model


def _require_encoder(model: PreTrainedModel, new: set[str]) -> None:
    """Raise Unsupported if some tensors of the encoder were made anew; the pooler belongs to the head."""
    base = f"{model.base_model_prefix}."
    encoder = {name for name in model.state_dict() if name.startswith(base) and not name.startswith(f"{base}pooler.")}
    if missing := sorted(encoder & new):
        first = ", ".join(missing[:_MAX_NAMES_IN_REASON])
        more = f" and {len(missing) - _MAX_NAMES_IN_REASON} more" if len(missing) > _MAX_NAMES_IN_REASON else ""
        raise Unsupported(
            f"the checkpoint lacks {len(missing)} of the encoder's {len(encoder)} tensors, or has them in another shape, so that they "
            f"would be random: {first}{more}; save it again by save_pretrained, check that its config.json is its own, or "
            'measure speed alone (model.init = "random")'
        )
