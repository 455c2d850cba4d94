"""Sentence pairs reach the model with token types; large data is opened from the cache."""

from __future__ import annotations

import csv
import random

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from harness.dataset.corpus import load_texts
from harness.dataset.tokens import load_tokens
from harness.execution.preparation import Preparations
from harness.schema.cells import BaselineConfig
from harness.worker.collate import collate, token_types
from harness.worker.distributed import DistributedContext
from harness.worker.evaluation import predict
from harness.worker.model import build_model
from harness.worker.train_state import SplitTokens, TrainContext

CPU = DistributedContext(torch.device("cpu"), 0, 1)
WORDS = ("banana", "umbrella", "giraffe", "volcano", "saxophone", "teapot")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Write pairs labelled by whether both texts begin with the same word."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    rows = {}
    while len(rows) < 400:
        first, second = ([rng.choice(WORDS) for _ in range(rng.randint(1, 14))] for _ in range(2))
        rows[" ".join(first), " ".join(second)] = "same" if first[0] == second[0] else "other"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("one", "two", "label"), *((*pair, label) for pair, label in rows.items())])
    return path


def data_of(pairs):
    return {"source": str(pairs), "text": "one", "pair": "two"}


def test_pairs_are_tokenized_as_by_transformers(bench, pairs, tiny_bert, tiny_distilbert):
    (cell,) = bench.cells(data=data_of(pairs))
    prepared = bench.prepare(cell)
    rows = load_tokens(prepared.job.tokens_folder, "test")
    torch.manual_seed(0)
    model = build_model(prepared.job.model, cell.config.model, ("bad", "good")).eval()
    texts = [tuple(line[:2]) for line in csv.reader(pairs.read_text().splitlines())][1:]
    joined, _ = load_texts(bench.prepare(baseline_of(bench, pairs)).job.texts_folder, "test")
    drawn = [next(pair for pair in texts if " ".join(pair) == text) for text in joined]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny_bert / "tokenizer.json"), pad_token="[PAD]")
    batch = np.arange(32)
    theirs = tokenizer(
        [drawn[row][0] for row in batch], [drawn[row][1] for row in batch],
        truncation=True, max_length=24, padding=True, return_tensors="pt", return_token_type_ids=True,
    )  # fmt: skip
    ids, mask, _, _ = collate(rows, batch, pad_to=None)
    types = token_types(rows, batch, ids.shape[1])
    assert torch.equal(ids, theirs["input_ids"]) and torch.equal(mask, theirs["attention_mask"])
    assert torch.equal(types, theirs["token_type_ids"]) and 0 < types.sum() < mask.sum()
    assert mask.shape[1] == 24 and not mask.all()  # some are truncated, some are padded
    # Evaluation, like training, passes both segments to the model.
    passed = {}
    forward = model.forward
    model.forward = lambda **inputs: (passed.update(inputs), forward(**inputs))[1]
    context = TrainContext(cell.config, CPU, SplitTokens.load(prepared.job.tokens_folder))
    predicted, _ = predict(model, rows, batch, context)
    with torch.inference_mode():
        logits, alone = forward(**theirs).logits, forward(**{**theirs, "token_type_ids": None}).logits
    assert torch.equal(passed["token_type_ids"], types)
    assert torch.equal(predicted, logits.argmax(dim=-1)) and not torch.allclose(logits, alone)
    example = prepared.example
    assert sum(example.token_type_ids) == int(
        len(example.input_ids) - load_tokens(prepared.job.tokens_folder, "train").first_segment_lengths[0]
    )
    assert example.tokens.count("[SEP]") == 2 and example.pair
    # DistilBERT has no segment embeddings, so it gets the tokens without types.
    distil = bench.run(data=data_of(pairs), model={"name": str(tiny_distilbert)}, training={"max_steps": 2})
    assert distil.outcome == "ok", distil.stderr_tail


def baseline_of(bench, pairs):
    majority, *_ = bench.cells(data=data_of(pairs), baselines=True)
    assert isinstance(majority.config, BaselineConfig)
    return majority


def test_a_cell_trains_on_pairs_with_two_ranks(bench, pairs):
    record = bench.run(
        data=data_of(pairs), matrix={"device": ["cpu-ddp2"], "batch_size": [8]}, training={"max_steps": 4}
    )
    assert record.outcome == "ok", record.stderr_tail
    assert record.training.example.token_type_ids is not None


def test_ranks_and_baselines_train_on_large_data_as_on_small_data(bench, reviews, tmp_path, monkeypatch):
    raw = {"matrix": {"device": ["cpu-ddp2"], "batch_size": [8]}, "training": {"max_steps": 6, "eval_every": 1}}
    (cell,) = bench.cells(**raw)
    _, tfidf, *_ = bench.cells(**raw, baselines=True)
    small = bench.prepare(cell)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.dataset.row_collector.LARGE_ROWS", 100)
    monkeypatch.setattr("harness.dataset.rows.Cache.find", lambda *_: None)
    large = Preparations(tmp_path / "run")
    prepared = large.prepare(cell)
    assert tmp_path / "cache" in prepared.job.tokens_folder.parents
    assert (prepared.data.labels, prepared.data.num_train_available) == (
        small.data.labels,
        small.data.num_train_available,
    )
    record = bench.runner.run(cell, prepared, bench.environment, lambda _: None)
    assert record.outcome == "ok", record.stderr_tail
    assert record.data.test.num_rows == len(record.training.test.labels) == 64
    on_large, on_small = (
        bench.runner.run(tfidf, preparations.prepare(tfidf), bench.environment, lambda _: None)
        for preparations in (large, bench.preparations)
    )
    assert on_large.outcome == on_small.outcome == "ok", on_large.stderr_tail
    assert on_large.baseline.test.accuracy == on_small.baseline.test.accuracy
