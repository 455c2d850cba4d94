"""Predict labels for a split and compare them with the true ones."""

from __future__ import annotations

import contextlib
import time
from itertools import chain
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from harness.dataset.tokens import TokenArrays
from harness.dataset.training_plan import evaluation_batch_size, evaluation_batches
from harness.schema.training_record import PROBABILITY_DIGITS, TestEvaluation
from harness.worker.collate import attention_mask, collate, token_types
from harness.worker.device import product_dtype
from harness.worker.distributed import all_gather_object
from harness.worker.train_state import TrainContext


def predict(
    model: torch.nn.Module, rows: TokenArrays, batch: np.ndarray, context: TrainContext
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predict the labels of one batch.

    Args:
        model: The model, in evaluation mode.
        rows: The split's token ids.
        batch: Indices of the batch's rows, `(batch,)`.
        context: Precision, padding and device.

    Returns:
        The index of each row's most likely label, and its probability, both `(batch,)`.
    """
    with torch.inference_mode(), autocast(context.config.precision, context.device):
        logits = batch_logits(model, rows, batch, context)
        likeliest = logits.argmax(dim=-1)
        return likeliest, logits.softmax(dim=-1).gather(-1, likeliest[:, None])[:, 0]


def batch_logits(
    model: torch.nn.Module, rows: TokenArrays, batch: np.ndarray, context: TrainContext, num_added: int = 0
) -> torch.Tensor:
    """Return the logits of one batch, `(batch, labels)` in fp32.

    Args:
        model: The model.
        rows: The split's token ids.
        batch: Indices of the batch's rows, `(batch,)`.
        context: Padding and device.
        num_added: Tokens of padding to add to the longest row.
    """
    config, longest = context.config, rows.longest(batch)
    pad_to = longest + num_added if num_added else config.padded_length(longest)
    ids, mask, _, num_real = collate(rows, batch, pad_to=pad_to, pad_id=pad_id(model))
    model_config: Any = model.config
    attended = attention_mask(
        mask.to(context.device), model_config, padded=num_real < ids.numel(), dtype=product_dtype(config.precision)
    )
    segments = segment_ids(model, token_types(rows, batch, ids.shape[1]), context.device)
    logits: torch.Tensor = model(input_ids=ids.to(context.device), attention_mask=attended, **segments).logits
    return logits.float()


def evaluate(model: PreTrainedModel, rows: TokenArrays, context: TrainContext) -> TestEvaluation:
    """Predict every row once, in batches sorted by length; ranks share the rows and return the same result."""
    began = time.perf_counter()
    model.eval()
    outputs: list[tuple[np.ndarray, torch.Tensor, torch.Tensor]] = []
    batches = evaluation_batches(context.config, rows.lengths, context.rank, context.world_size)
    # One context around all batches, so that autocast casts each weight once.
    with autocast(context.config.precision, context.device):
        for batch in batches:
            outputs.append((batch, *predict(model, rows, batch, context)))
            context.heartbeat()
    for _ in range(_max_batches_of_any_rank(rows, context) - len(batches)):
        context.heartbeat()  # ranks with one batch fewer still tick, so that heartbeat counters stay comparable
    own = [(batch, labels.cpu().numpy(), scores.cpu().numpy()) for batch, labels, scores in outputs]
    model.train()
    predictions = np.zeros(len(rows.labels), dtype=np.int64)
    probabilities = np.zeros(len(rows.labels))
    for batch, labels, scores in chain.from_iterable(all_gather_object(own, context.distributed)):
        predictions[batch], probabilities[batch] = labels, scores
    # JSON can't hold NaN, so a diverged model's probabilities are left out; its loss shows the divergence.
    finite = np.isfinite(probabilities).all()
    return TestEvaluation(
        evaluate_s=time.perf_counter() - began,
        labels=tuple(rows.labels.tolist()),
        predictions=tuple(predictions.tolist()),
        probabilities=tuple(np.round(probabilities, PROBABILITY_DIGITS).tolist()) if finite else (),
    )


def _max_batches_of_any_rank(rows: TokenArrays, context: TrainContext) -> int:
    return -(-len(rows.labels) // (evaluation_batch_size(context.config, context.world_size) * context.world_size))


def segment_ids(model: torch.nn.Module, types: torch.Tensor | None, device: torch.device) -> dict[str, torch.Tensor]:
    """Return token_type_ids for sentence pairs; {} for single sentences and for models without segment embeddings."""
    if types is None or getattr(model.config, "type_vocab_size", 0) < 2:  # noqa: PLR2004 - one type for each segment
        return {}
    types = types.pin_memory() if device.type == "cuda" else types
    return {"token_type_ids": types.to(device, non_blocking=True)}


def pad_id(model: torch.nn.Module) -> int:
    """Return the id of the padding token; 0 if the model has none."""
    return max(0, getattr(model.config, "pad_token_id", None) or 0)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the autocast context of a precision; fp32 and tf32 need none."""
    dtype = product_dtype(precision)
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
