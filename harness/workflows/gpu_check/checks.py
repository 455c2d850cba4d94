"""The checks of `make gpu-check`: which cells each runs, and what it holds them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.execution.jobs import Environment, TrainJob
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.pricing.price_search import gpu_peak_flops
from harness.pricing.price_table import load_prices
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import save_record
from harness.workflows.gpu_check.verdicts import (
    GpuCheckVerdict,
    compare_losses,
    compare_smi,
    judge_clock,
    judge_memory,
    judge_mfu,
    judge_readings,
    judge_stopwatch,
)

STUDY = "gpu-check"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
PLAIN = {"attention_dropout": 0.0, "hidden_dropout": 0.0}  # so that losses can be compared
RANDOM = {"init": "random"}
SHAPES: dict[str, dict[str, Any]] = {"the embedded model": {}} | {
    name: RANDOM | {"shape": name} for name in ("bert-base", "bert-large")
}
_IN_NAMES = (("model", "shape"), ("training", "compile"))  # set for one check or another, and told in the cell's name
_GIB = 2**30


@dataclass
class CheckRun:
    """The cells of a check, on one kind of device: their records are saved as they end.

    Attributes:
        train_s: How long a timed cell trains.
        names: Of the cells so far, each with its configuration's hash.
        records: By their configuration's hash.
        shapes: Models that all precisions are tried on, as settings of a study's `model`.
        base: Tables of every cell's study.
    """

    device: Literal["cpu", "gpu"]
    results: Path
    runner: Runner
    preparations: Preparations
    around: Environment
    base: dict[str, Any]
    shapes: dict[str, dict[str, Any]] = field(default_factory=lambda: SHAPES)
    precisions: Sequence[str] = PRECISIONS
    train_s: float = 8.0
    names: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def cell(self, **raw: Any) -> Cell:  # noqa: ANN401 - a study's tables, as TOML has them
        """One cell; each table of `raw` is laid over the base's."""
        merged: dict[str, Any] = {"name": STUDY, "baselines": False}
        for name in ("model", "data", "training", "limits", "matrix"):
            merged[name] = {"device": [self.device]} if name == "matrix" else {}
            merged[name] |= self.base.get(name, {}) | raw.get(name, {})
        for table, key in _IN_NAMES:
            if key in merged[table]:
                merged["matrix"][f"{table}.{key}"] = [merged[table].pop(key)]
        (cell,) = expand(parse_study(merged, STUDY))
        # Two checks may ask for cells that differ in nothing that a name holds.
        if self.names.setdefault(cell.name, cell.config_hash) == cell.config_hash:
            return cell
        return cell.model_copy(update={"name": f"{cell.name}-{cell.config_hash[:6]}"})

    def run(self, **raw: Any) -> Record:  # noqa: ANN401
        """Run one cell and save its record; a configuration that ran already is not run again."""
        cell = self.cell(**raw)
        if cell.config_hash not in self.records:
            record = self.runner.run(cell, self.preparations.prepare(cell), self.around)
            self.files.append(save_record(record, self.results))
            self.records[cell.config_hash] = record
        return self.records[cell.config_hash]

    def run_sharing(self, **raw: Any) -> Record:  # noqa: ANN401
        """Run two ranks on the one GPU. Its record is not saved: it would read as a cell of two GPUs."""
        cell, here = self.cell(**raw), self.around.machine
        prepared = self.preparations.prepare(cell)
        assert isinstance(prepared.job, TrainJob)  # noqa: S101 - asked for as one
        prepared = replace(prepared, job=replace(prepared.job, share_first_gpu=True))
        doubled = here.model_copy(update={"gpus": here.gpus[:1] * 2})
        return self.runner.run(cell, prepared, replace(self.around, machine=doubled))


Check = Callable[[CheckRun], Iterator[GpuCheckVerdict]]


def check_precisions(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Every precision on every shape ends well, and its first loss is that of fp32 up to its own rounding."""
    for shape, model in run.shapes.items():
        batch = 8 if shape == "bert-large" else 16
        exact: Record | None = None
        for precision in run.precisions:
            record = run.run(
                model=model | PLAIN,
                training={"max_steps": 20},
                limits={"max_train_s": run.train_s},
                matrix={"precision": [precision], "batch_size": [batch], "padding": ["max"]},
            )
            name = f"{precision} on {shape}"
            if record.outcome != "ok" or record.training is None:
                yield GpuCheckVerdict.of_ending(name, record)
                continue
            exact = exact or record
            yield compare_losses(name, record, exact, first_only=True)


def check_clocks(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """The step timer against two clocks that are not it, and the marks of memory against each other."""
    record = run.run(
        model=PLAIN,
        training={"epochs": 1000, "eval_every": 2.0},
        limits={"max_train_s": run.train_s},
        matrix={"padding": ["max"]},
    )
    if record.outcome != "ok":
        yield GpuCheckVerdict.of_ending("clocks", record)
        return
    yield judge_stopwatch(record)
    yield judge_clock(record)
    yield judge_memory(record)
    if run.device == "gpu":
        yield judge_readings(record)


def check_compile(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """torch.compile gives eager's losses, and its seconds are apart."""
    tables: dict[str, Any] = {"model": PLAIN | {"num_layers": 2}, "matrix": {"padding": ["longest"]}}
    eager = run.run(training={"max_steps": 20}, **tables)
    record = run.run(training={"max_steps": 20, "compile": True}, **tables)
    if record.outcome != "ok" or record.training is None:
        yield GpuCheckVerdict.of_ending("compile", record)
        return
    yield compare_losses(f"compile in {record.training.compile_s or 0:.1f} s, apart from training", record, eager)


def check_ddp(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """DDP with one rank, and with two, give the losses of one device on the same global batches."""
    tables: dict[str, Any] = {"model": PLAIN, "training": {"max_steps": 20}}
    alone = run.run(**tables, matrix={"batch_size": [32]})
    one = run.run(**tables, matrix={"batch_size": [32], "device": [f"{run.device}-ddp1"]})
    by = "on NCCL" if run.device == "gpu" else "on gloo"
    yield compare_losses(f"{run.device}-ddp with one rank {by}", one, alone)
    two_ranks = {"batch_size": [16], "device": [f"{run.device}-ddp2"]}
    if run.device == "gpu":
        two = run.run_sharing(**tables, matrix=two_ranks)
        name = "two ranks on one GPU over gloo (for correctness: no scaling result, its record is not kept)"
    else:
        two, name = run.run(**tables, matrix=two_ranks), "two ranks over gloo"
    yield compare_losses(name, two, alone)


def check_out_of_memory(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """A cell that can't fit any GPU runs out of memory for real, and the next one runs."""
    name = "out of memory is an outcome"
    record = run.run(
        model=RANDOM | {"shape": "bert-large"},
        training={"max_steps": 1},
        matrix={"batch_size": [4096], "seq_len": [512], "padding": ["max"]},
    )
    yield GpuCheckVerdict.of_ending(name, record, wanted="oom")
    after = run.run(model=PLAIN, training={"max_steps": 5}, matrix={"batch_size": [8]})
    yield GpuCheckVerdict.of_ending("the cell after it runs", after)


def check_mfu(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """bert-large in bf16 at 384 and 512 tokens loads the GPU as published fine-tuning runs do."""
    table = load_prices()
    memory = run.around.machine.gpus[0].memory_bytes or 0
    for seq_len in (384, 512):
        record = run.run(
            model=RANDOM | {"shape": "bert-large"},
            training={"epochs": 1000},
            limits={"max_train_s": run.train_s},
            matrix={"precision": ["bf16"], "batch_size": [32 if memory > 40 * _GIB else 8]}
            | {"seq_len": [seq_len], "padding": ["max"]},
        )
        yield judge_mfu(
            f"MFU of bert-large at {seq_len} tokens in bf16",
            record,
            lambda gpu, precision: gpu_peak_flops(table, gpu, precision),
        )


def check_smi(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """What NVML tells this program is what nvidia-smi prints."""
    yield from compare_smi(run.around.machine)


# Each with whether it needs a GPU: the others are tried on a CPU by the tests.
CHECKS: dict[str, tuple[Check, bool]] = {
    "NVML against nvidia-smi": (check_smi, True),
    "throughput, clocks, memory and readings": (check_clocks, False),
    "all precisions on the embedded model, bert-base and bert-large": (check_precisions, False),
    "MFU of bert-large": (check_mfu, True),
    "DDP with one rank, and with two on one device": (check_ddp, False),
    "out of memory made for real, and survived": (check_out_of_memory, True),
    "torch.compile": (check_compile, False),
}
