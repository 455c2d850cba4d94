"""Every tested family trains as a plain loop over unpadded single texts does, whatever the precision, part, padding and ranks."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import combinations, islice, product

import numpy as np
import pytest
import torch
from encoders import FAMILY_TYPES, LABELS, texts, write_encoder
from transformers import AutoModelForSequenceClassification

from harness.machine.support import unsupported_reason
from harness.worker.distributed import DistributedContext
from harness.worker.train_loop import iter_batches
from harness.worker.train_state import SplitTokens, TrainContext

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_STEPS, BATCH, LR = 3, 8, 0.02
AXES = {
    "precision": ("fp32", "bf16"),
    "trainable": ("all", "head", "top"),
    "padding": ("longest", "max", "grouped"),
    "pad_multiple": (1, 8),
    "attention": (None, "eager"),
    "ranks": (1, 2),
}
# Below it, the losses of bf16 differ by rounding alone, which depends on the CPU.
TOLERANCE = {"fp32": 2e-5, "bf16": 0.03}


def pairwise(axes):
    """Return few rows in which every pair of values of two axes occurs; each row covers as many new pairs as any could."""
    rows, names = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())], list(axes)

    def pairs(row):
        return {(a, row[a], b, row[b]) for a, b in combinations(names, 2)}

    left, chosen = set().union(*map(pairs, rows)), []
    while left:
        chosen.append(max(rows, key=lambda row: len(pairs(row) & left)))
        left -= pairs(chosen[-1])
    return chosen


COVERING = pairwise(AXES)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "films.csv"
    with path.open("w", newline="") as file:
        rows = ((text, LABELS[n % 2]) for n, text in enumerate(dict.fromkeys(texts(120, 24))))
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def test_the_covering_has_every_pair_of_values():
    for (a, first), (b, second) in combinations(AXES.items(), 2):
        assert {(row[a], row[b]) for row in COVERING} == set(product(first, second))
    assert len(COVERING) <= 12


@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_losses_are_those_of_a_plain_loop_over_unpadded_single_texts(model_type, bench, films, tmp_path):
    folder = write_encoder(tmp_path / model_type, model_type)
    for number, row in enumerate(COVERING):
        top = "top2" if model_type == "albert" else "top1"  # ALBERT's layers share their weights
        trainable = top if row["trainable"] == "top" else row["trainable"]
        device = "cpu" if row["ranks"] == 1 else f"cpu-ddp{row['ranks']}"
        attention = {"attention": row["attention"]} if row["attention"] else {}
        raw = {
            "model": {"name": str(folder), "attention_dropout": 0.0, "hidden_dropout": 0.0} | attention,
            "data": {"source": str(films), "num_train": 48, "num_val": 8, "num_test": 8},
            "training": {"max_steps": NUM_STEPS, "optimizer": "sgd", "lr": LR, "lr_scaling": "none", "schedule": "constant",
                         "warmup_fraction": 0.0, "weight_decay": 0.0},
            "matrix": {"precision": [row["precision"]], "trainable": [trainable], "padding": [row["padding"]],
                       "pad_multiple": [row["pad_multiple"]], "seq_len": [64],
                       "device": [device], "batch_size": [BATCH // row["ranks"]], "threads": [row["ranks"]]},
        }  # fmt: skip
        (cell,) = bench.cells(**raw)
        environment = bench.with_cores(2)
        # bf16 where the CPU has no instructions for it, and of DeBERTa
        if unsupported_reason(cell.config, environment.machine) or (model_type, row["precision"]) == (
            "deberta",
            "bf16",
        ):
            raw["matrix"]["precision"] = ["fp32"]
        raw["training"]["allow_slow_precision"] = True  # on a busy machine, the worker's own timing could refuse bf16
        (cell,) = bench.cells(**raw)
        prepared = bench.prepare(cell)
        # The extra steps after training work for every family too; once is enough.
        job = replace(prepared.job, run_diagnostics=number == 0)
        record = bench.runner.run(cell, replace(prepared, job=job), environment, lambda _: None)
        assert record.outcome == "ok", (row, record.reason, record.stderr_tail)
        assert record.model.weights.head == "kept" and record.model.family is not None
        expected = plain_losses(folder, bench.prepare(cell).job, cell.config, row["ranks"], trainable)
        tolerance = TOLERANCE[cell.config.precision]
        assert record.training.steps.loss == pytest.approx(expected, abs=tolerance, rel=tolerance), row
        assert abs(expected[-1] - expected[0]) > 5 * TOLERANCE["fp32"]  # it learned something that could be wrong


def plain_losses(folder, job, config, world_size, trainable):
    """Train on the same rows, one text at a time, and return the mean loss of each step."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()  # no dropout
    if trainable != "all":
        base = model.base_model_prefix + "."
        for name, parameter in model.named_parameters():
            in_head = not name.startswith(base) or name.startswith(f"{base}pooler.")
            in_layer = trainable.startswith("top") and name.startswith(
                tuple(f"{base}{part}" for part in TOP[model.config.model_type])
            )
            parameter.requires_grad_(in_head or in_layer)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=LR)
    context = TrainContext(
        config, DistributedContext(torch.device("cpu"), 0, world_size), SplitTokens.load(job.tokens_folder)
    )
    rows, losses = context.splits.train, []
    for step in islice(iter_batches(context), NUM_STEPS):
        step_rows = np.concatenate([part for micro in step for part in micro])
        total = 0.0
        optimizer.zero_grad()
        for row in step_rows:
            ids = torch.from_numpy(rows.ids[rows.offsets[row] : rows.offsets[row + 1]].astype(np.int64))[None]
            with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
                logits = model(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([rows.labels[row]])) / len(step_rows)
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    return losses


_ENCODER_LAYER = ("encoder.layer.1.",)
TOP = dict.fromkeys(FAMILY_TYPES, _ENCODER_LAYER) | {
    "distilbert": ("transformer.layer.1.",),
    "albert": ("encoder.albert_layer_groups.",),
    "modernbert": ("layers.3.", "final_norm."),
}
