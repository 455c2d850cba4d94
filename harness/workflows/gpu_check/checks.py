"""The checks of `make gpu-check`: the cells that each one runs and the verdicts on their records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

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
# Dropout draws differ between kernels; without dropout, losses of two runs can be compared.
NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
RANDOM_INIT = {"init": "random"}
MODELS: dict[str, dict[str, str]] = {"the embedded model": {}} | {
    shape: RANDOM_INIT | {"shape": shape} for shape in ("bert-base", "bert-large")
}
# Keys that only some checks set. As matrix axes they become part of the cell's name.
_AXIS_KEYS = (("model", "shape"), ("training", "compile"))
_GIB = 2**30

Table = Mapping[str, object]


@dataclass
class CheckRun:
    """Runs the cells of the checks on one kind of device and saves each record as its cell ends.

    Attributes:
        train_s: Training time of a timed cell, in seconds.
        base: Tables that every cell's study starts from.
        models: Models that `check_precisions` trains: label to `[model]` table.
        names: Cell names so far, with their configuration hashes.
        records: Records by configuration hash.
    """

    device: Literal["cpu", "gpu"]
    results: Path
    runner: Runner
    preparations: Preparations
    environment: Environment
    base: Mapping[str, Table]
    models: Mapping[str, Table] = field(default_factory=lambda: MODELS)
    precisions: Sequence[str] = PRECISIONS
    train_s: float = 8.0
    names: dict[str, str] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def cell(self, **tables: Table) -> Cell:
        """Build one cell; each of `tables` overrides keys of the same base table."""
        merged: dict[str, dict[str, object]] = {
            name: {**self.base.get(name, {}), **tables.get(name, {})}
            for name in ("model", "data", "training", "limits", "matrix")
        }
        merged["matrix"].setdefault("device", [self.device])
        for table, key in _AXIS_KEYS:
            if key in merged[table]:
                merged["matrix"][f"{table}.{key}"] = [merged[table].pop(key)]
        (cell,) = expand(parse_study({"name": STUDY, "baselines": False} | merged, STUDY))
        # Cells of two checks may differ only in keys that cell names leave out.
        if self.names.setdefault(cell.name, cell.config_hash) == cell.config_hash:
            return cell
        return cell.model_copy(update={"name": f"{cell.name}-{cell.config_hash[:6]}"})

    def run(self, **tables: Table) -> Record:
        """Run one cell and save its record, or return the record if the same configuration already ran."""
        cell = self.cell(**tables)
        if cell.config_hash not in self.records:
            record = self.runner.run(cell, self.preparations.prepare(cell), self.environment)
            self.files.append(save_record(record, self.results))
            self.records[cell.config_hash] = record
        return self.records[cell.config_hash]

    def run_on_shared_gpu(self, **tables: Table) -> Record:
        """Run two ranks on the one GPU; the record is not saved because it would look like a two-GPU result."""
        cell, machine = self.cell(**tables), self.environment.machine
        prepared = self.preparations.prepare(cell)
        assert isinstance(prepared.job, TrainJob)  # noqa: S101 - the cell trains
        prepared = replace(prepared, job=replace(prepared.job, share_first_gpu=True))
        two_gpus = machine.model_copy(update={"gpus": machine.gpus[:1] * 2})
        return self.runner.run(cell, prepared, replace(self.environment, machine=two_gpus))


Check = Callable[[CheckRun], Iterator[GpuCheckVerdict]]


def check_precisions(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Train every model in every precision; the first loss must match fp32 within the precision's rounding."""
    for label, model in run.models.items():
        batch_size = 8 if label == "bert-large" else 16
        reference: Record | None = None
        for precision in run.precisions:
            record = run.run(
                model={**model, **NO_DROPOUT},
                training={"max_steps": 20},
                limits={"max_train_s": run.train_s},
                matrix={"precision": [precision], "batch_size": [batch_size], "padding": ["max"]},
            )
            name = f"{precision} on {label}"
            if record.outcome != "ok" or record.training is None:
                yield GpuCheckVerdict.of_ending(name, record)
                continue
            reference = reference or record
            yield compare_losses(name, record, reference, first_only=True)


def check_clocks(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Compare the step timer with two independent clocks, and memory figures with each other."""
    record = run.run(
        model=NO_DROPOUT,
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
    """Compare losses under torch.compile with eager mode; compile time is reported separately."""
    tables: dict[str, Table] = {"model": NO_DROPOUT | {"num_layers": 2}, "matrix": {"padding": ["longest"]}}
    eager = run.run(training={"max_steps": 20}, **tables)
    record = run.run(training={"max_steps": 20, "compile": True}, **tables)
    if record.outcome != "ok" or record.training is None:
        yield GpuCheckVerdict.of_ending("compile", record)
        return
    yield compare_losses(f"compile in {record.training.compile_s or 0:.1f} s, apart from training", record, eager)


def check_ddp(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Compare losses of DDP with one and two ranks with a single device on the same global batches."""
    tables: dict[str, Table] = {"model": NO_DROPOUT, "training": {"max_steps": 20}}
    single = run.run(**tables, matrix={"batch_size": [32]})
    one_rank = run.run(**tables, matrix={"batch_size": [32], "device": [f"{run.device}-ddp1"]})
    backend = "NCCL" if run.device == "gpu" else "gloo"
    yield compare_losses(f"{run.device}-ddp with one rank on {backend}", one_rank, single)
    matrix = {"batch_size": [16], "device": [f"{run.device}-ddp2"]}
    if run.device == "gpu":
        two_ranks = run.run_on_shared_gpu(**tables, matrix=matrix)
        name = "two ranks on one GPU over gloo (for correctness: no scaling result, its record is not kept)"
    else:
        two_ranks, name = run.run(**tables, matrix=matrix), "two ranks over gloo"
    yield compare_losses(name, two_ranks, single)


def check_out_of_memory(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Cause a real out-of-memory error, then check that the next cell still runs."""
    name = "out of memory is an outcome"
    record = run.run(
        model=RANDOM_INIT | {"shape": "bert-large"},
        training={"max_steps": 1},
        matrix={"batch_size": [4096], "seq_len": [512], "padding": ["max"]},
    )
    yield GpuCheckVerdict.of_ending(name, record, wanted="oom")
    after = run.run(model=NO_DROPOUT, training={"max_steps": 5}, matrix={"batch_size": [8]})
    yield GpuCheckVerdict.of_ending("the cell after it runs", after)


def check_mfu(run: CheckRun) -> Iterator[GpuCheckVerdict]:
    """Check that bert-large in bf16 at 384 and 512 tokens reaches a plausible MFU."""
    table = load_prices()
    memory = run.environment.machine.gpus[0].memory_bytes or 0
    for seq_len in (384, 512):
        record = run.run(
            model=RANDOM_INIT | {"shape": "bert-large"},
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
    """Compare NVML's figures with nvidia-smi's."""
    yield from compare_smi(run.environment.machine)


# Name: (check, whether it needs a GPU). Tests run the checks that need none on a CPU.
CHECKS: dict[str, tuple[Check, bool]] = {
    "NVML against nvidia-smi": (check_smi, True),
    "throughput, clocks, memory and readings": (check_clocks, False),
    "all precisions on the embedded model, bert-base and bert-large": (check_precisions, False),
    "MFU of bert-large": (check_mfu, True),
    "DDP with one rank, and with two on one device": (check_ddp, False),
    "out of memory made for real, and survived": (check_out_of_memory, True),
    "torch.compile": (check_compile, False),
}
