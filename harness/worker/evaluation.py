"""TODO: say in one line what this module is for."""

from __future__ import annotations

import contextlib
import time
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
)

from harness.dataset.batch_plan import (
    MIN_EVALUATION_BATCH,
)
from harness.dataset.tokens import TokenArrays
from harness.schema.cells import FineTuneConfig
from harness.schema.training_record import PROBABILITY_DIGITS, TestEvaluation
from harness.worker.collate import attention_mask, collate, token_types
from harness.worker.distributed import DistributedContext, all_gather_object
from harness.worker.train_state import OnProgress

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def evaluation_batches(rows: TokenArrays, config: FineTuneConfig, place: DistributedContext) -> list[np.ndarray]:
    """This rank's rows in the order of length, cut to batches."""
    mine = np.argsort(rows.lengths, kind="stable")[place.rank :: place.world_size]
    batch_size = _evaluation_batch_size(config, place)
    return [mine[begin : begin + batch_size] for begin in range(0, len(mine), batch_size)]


def predict(
    model: torch.nn.Module, rows: TokenArrays, batch: np.ndarray, config: FineTuneConfig, place: DistributedContext
) -> tuple[torch.Tensor, torch.Tensor]:
    """Label one batch: the index of each row's likeliest label, and what the model gives it, both `(batch,)`."""
    ids, mask, _, num_real = collate(rows, batch, pad_to=config.seq_len if config.padding == "max" else None)
    seen = attention_mask(mask.to(place.device), padded=num_real < ids.numel())
    with torch.inference_mode(), autocast(config, place):
        segments = segment_ids(model, rows, batch, ids.shape[1], place)
        logits = model(input_ids=ids.to(place.device), attention_mask=seen, **segments).logits.float()
        likeliest = logits.argmax(dim=-1)
        return likeliest, logits.softmax(dim=-1).gather(-1, likeliest[:, None])[:, 0]


def evaluate(
    model: PreTrainedModel, rows: TokenArrays, config: FineTuneConfig, place: DistributedContext, beat: OnProgress
) -> TestEvaluation:
    """Predict every row once, shared out among ranks, batches in the order of length."""
    began = time.perf_counter()
    model.eval()
    found: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]] = []
    batches = evaluation_batches(rows, config, place)
    with autocast(config, place):  # around all batches, so that it casts each weight once
        for batch in batches:
            found.append((batch, *predict(model, rows, batch, config, place)))
            beat()
    for _ in range(_most_evaluation_batches(len(rows.labels), config, place) - len(batches)):
        beat()  # another rank has a row more, and a batch for it: counters that stay equal tell who is behind
    parts = [(batch, predicted.cpu().numpy(), given.cpu().numpy()) for batch, predicted, given in found]
    model.train()
    predictions = np.zeros(len(rows.labels), dtype=np.int64)
    probabilities = np.zeros(len(rows.labels))
    for batch, predicted, given in chain.from_iterable(all_gather_object(parts, place)):
        predictions[batch], probabilities[batch] = predicted, given
    return TestEvaluation(
        evaluate_s=time.perf_counter() - began,
        labels=tuple(rows.labels.tolist()),
        predictions=tuple(predictions.tolist()),
        # What is no number has no place in JSON: a model that gives such is told by its loss.
        probabilities=tuple(np.round(probabilities, PROBABILITY_DIGITS).tolist())
        if np.isfinite(probabilities).all()
        else (),
    )


def _evaluation_batch_size(config: FineTuneConfig, place: DistributedContext) -> int:
    return max(config.device_batch(place.world_size), MIN_EVALUATION_BATCH)


def _most_evaluation_batches(num_rows: int, config: FineTuneConfig, place: DistributedContext) -> int:
    """Of any rank."""
    return -(-num_rows // (_evaluation_batch_size(config, place) * place.world_size))


def segment_ids(
    model: torch.nn.Module, rows: TokenArrays, batch: np.ndarray, width: int, place: DistributedContext
) -> dict[str, torch.Tensor]:
    """What the model is told of two segments; of one nothing, nor a model that tells none apart (DistilBERT)."""
    types = token_types(rows, batch, width)
    if types is None or getattr(model.config, "type_vocab_size", 0) < 2:  # noqa: PLR2004 - a type for each
        return {}
    types = types.pin_memory() if place.device.type == "cuda" else types
    return {"token_type_ids": types.to(place.device, non_blocking=True)}


def autocast(config: FineTuneConfig, place: DistributedContext) -> contextlib.AbstractContextManager[Any]:
    """Autocast context of the cell's precision."""
    dtype = _AUTOCAST.get(config.precision)
    return torch.autocast(place.device.type, dtype=dtype) if dtype is not None else contextlib.nullcontext()
