"""A checkpoint and a table so small that a cell takes a third of a second."""

from __future__ import annotations

import csv
import json
import random
import shutil
from pathlib import Path

from harness.dataset.sources import locate_model
from harness.schema.settings import PACKAGED_MODEL

# The words of the learnable table: one of the first two decides the label. No word is a part of another word, of a
# file's name or of a key, so that a test may look for them in a record's text.
DECIDING = {"good": ("superb", "delightful"), "bad": ("dreadful", "tedious")}
FILLING = ("banana", "umbrella", "giraffe", "volcano", "saxophone", "teapot", "zeppelin", "walrus", "cactus", "lantern")
NUM_ROWS = 420


def write_checkpoint(folder: Path, kind: str) -> Path:
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        model = BertForSequenceClassification(config)
    elif kind == "roberta":
        config = RobertaConfig(
            vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        model = RobertaForSequenceClassification(config)
    else:
        config = DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64)
        model = DistilBertForSequenceClassification(config)
    model.save_pretrained(folder)
    shutil.copy(locate_model(PACKAGED_MODEL, weights=False).folder / "tokenizer.json", folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == kind
    return folder


def write_reviews(path: Path) -> Path:
    """A CSV of labelled texts of 3 to 12 words, one of which decides the label."""
    rng = random.Random(0)
    rows = {}
    while len(rows) < NUM_ROWS:
        label = rng.choice(("good", "good", "bad"))
        words = [rng.choice(FILLING) for _ in range(rng.randint(3, 12))]
        words.insert(rng.randrange(len(words)), rng.choice(DECIDING[label]))
        rows[" ".join(words)] = label
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows.items()])
    return path
