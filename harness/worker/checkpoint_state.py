"""The content of a checkpoint's files: weights, optimizer, scaler, schedule, random states, history."""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from harness.execution.messages import TrainHistory
from harness.files import atomic_write_text
from harness.schema.training_record import Evaluation
from harness.worker.train_state import TrainState

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"


def write_train_state(state: TrainState, folder: Path) -> None:
    """Write the state that is the same on all ranks."""
    optimizer = state.optimizer.state_dict()
    moments = {
        f"{index}.{name}": value.contiguous()
        for index, parameter_state in optimizer["state"].items()
        for name, value in parameter_state.items()
        if isinstance(value, torch.Tensor)  # SGD without momentum has None here
    }
    save_file({name: parameter.detach() for name, parameter in state.model.named_parameters()}, folder / MODEL_FILE)
    save_file(moments, folder / OPTIMIZER_FILE)
    scalars = {
        "learning_rates": [group["lr"] for group in optimizer["param_groups"]],
        "schedule": state.schedule.state_dict(),
        "scaler": state.scaler.state_dict(),
        "num_skipped": float(state.num_skipped),
    }
    atomic_write_text(folder / STATE_FILE, json.dumps(scalars))


def restore_train_state(state: TrainState, folder: Path) -> None:
    """Restore what `write_train_state` wrote.

    Weights are copied into the existing parameters: at other addresses, sums may differ in the last bit.
    """
    weights = load_file(folder / MODEL_FILE)
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(weights.pop(name))
    scalars = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    moments: defaultdict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, value in load_file(folder / OPTIMIZER_FILE).items():
        index, _, name = key.partition(".")
        moments[int(index)][name] = value.clone()  # copy it out of the mapped file
    groups = state.optimizer.state_dict()["param_groups"]
    rates = scalars["learning_rates"]
    state.optimizer.load_state_dict(
        {"state": dict(moments), "param_groups": [group | {"lr": lr} for group, lr in zip(groups, rates, strict=True)]}
    )
    state.schedule.load_state_dict(scalars["schedule"])
    if scalars["scaler"]:
        state.scaler.load_state_dict(scalars["scaler"])
    state.num_skipped.fill_(scalars["num_skipped"])


def rng_states(device: torch.device) -> dict[str, Any]:
    """Return the states of all random generators, as values that JSON can hold."""
    version, state, gauss = random.getstate()
    generator, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(state), gauss],
        "numpy": [generator, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": torch.cuda.get_rng_state(device).numpy().tobytes().hex() if device.type == "cuda" else None,
    }


def set_rng_states(states: dict[str, Any], device: torch.device) -> None:
    """Set all random generators to the states that `rng_states` returned."""
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state), gauss))
    generator, keys, *rest = states["numpy"]
    np.random.set_state((generator, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes_tensor(states["torch"]))
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(_bytes_tensor(states["cuda"]), device)


def _bytes_tensor(digits: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(digits), dtype=torch.uint8)


def history_as_json(history: TrainHistory) -> dict[str, Any]:
    """Return a history's fields, except `stopped`, as values that JSON can hold."""
    content = {field.name: getattr(history, field.name) for field in fields(TrainHistory) if field.name != "stopped"}
    content["evaluations"] = [evaluation.model_dump() for evaluation in history.evaluations]
    # JSON can't hold NaN or infinity, so these losses become strings.
    content["loss_sums"] = [loss if math.isfinite(loss) else str(loss) for loss in history.loss_sums]
    return content


def history_from_json(content: dict[str, Any]) -> TrainHistory:
    """Rebuild a history from what `history_as_json` returned."""
    evaluations = [Evaluation.model_validate(evaluation) for evaluation in content["evaluations"]]
    loss_sums = [float(loss) for loss in content["loss_sums"]]
    return TrainHistory(**content | {"evaluations": evaluations, "loss_sums": loss_sums})
