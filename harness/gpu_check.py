"""Everything that one GPU can check, in minutes, without a network and without being installed: `make gpu-check`.

One verdict a line; every record in RESULTS and in RESULTS/gpu-check.tar.gz, which `harness import` unpacks elsewhere. Where no
GPU is, nothing runs, and all that was not checked is listed. Needs what a cell needs, and no more.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from harness.archive import pack_records
from harness.errors import UserError
from harness.gpu_verdicts import (
    Verdict,
    compare_losses,
    compare_smi,
    judge_clock,
    judge_memory,
    judge_mfu,
    judge_readings,
    judge_stopwatch,
)
from harness.machine import package_version
from harness.matrix import Cell, expand
from harness.prices import gpu_peak_flops, load_prices
from harness.record import Machine, Record
from harness.runner import FineTuneJob, Runner, Surroundings
from harness.settings import PACKAGED_DATA, PACKAGED_MODEL
from harness.sources import DATA_VARIABLE
from harness.store import save_record
from harness.study import parse_study
from harness.sweep import Preparations, look_around

STUDY = "gpu-check"
ARCHIVE = "gpu-check.tar.gz"
_BUDGET_S = 450.0  # of the eight minutes that it may take; a check begun late still has its time-out
_GIB = 2**30
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
PLAIN = {"attention_dropout": 0.0, "hidden_dropout": 0.0}  # so that losses can be compared
RANDOM = {"init": "random"}
_IN_NAMES = (("model", "shape"), ("training", "compile"))  # set for one check or another, and told in the cell's name
_SHAPES = ("bert-base", "bert-large")
# What one GPU can't tell, whatever it runs.
NEVER_HERE = (
    "gpu-ddp over several GPUs: NCCL between them, NVLink, scaling",
    "a GPU that MIG has divided",
    "a GPU that falls off the bus, and a driver whose library and kernel module differ",
    "GPUs of another architecture than this one's, and those that this torch has no kernels for",
)


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
    around: Surroundings
    base: dict[str, Any]
    shapes: dict[str, dict[str, Any]]
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
        assert isinstance(prepared.job, FineTuneJob)  # noqa: S101 - asked for as one
        prepared = replace(prepared, job=replace(prepared.job, shares_gpu=True))
        doubled = here.model_copy(update={"gpus": here.gpus[:1] * 2})
        return self.runner.run(cell, prepared, replace(self.around, machine=doubled))


Check = Callable[[CheckRun], Iterator[Verdict]]


def check_precisions(run: CheckRun) -> Iterator[Verdict]:
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
                yield Verdict.of_ending(name, record)
                continue
            exact = exact or record
            yield compare_losses(name, record, exact, first_only=True)


def check_clocks(run: CheckRun) -> Iterator[Verdict]:
    """The step timer against two clocks that are not it, and the marks of memory against each other."""
    record = run.run(
        model=PLAIN,
        training={"epochs": 1000, "eval_every": 2.0},
        limits={"max_train_s": run.train_s},
        matrix={"padding": ["max"]},
    )
    if record.outcome != "ok":
        yield Verdict.of_ending("clocks", record)
        return
    yield judge_stopwatch(record)
    yield judge_clock(record)
    yield judge_memory(record)
    if run.device == "gpu":
        yield judge_readings(record)


def check_compile(run: CheckRun) -> Iterator[Verdict]:
    """torch.compile gives eager's losses, and its seconds are apart."""
    tables: dict[str, Any] = {"model": PLAIN | {"num_layers": 2}, "matrix": {"padding": ["longest"]}}
    eager = run.run(training={"max_steps": 20}, **tables)
    record = run.run(training={"max_steps": 20, "compile": True}, **tables)
    if record.outcome != "ok" or record.training is None:
        yield Verdict.of_ending("compile", record)
        return
    yield compare_losses(f"compile in {record.training.compile_s or 0:.1f} s, apart from training", record, eager)


def check_ddp(run: CheckRun) -> Iterator[Verdict]:
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


def check_out_of_memory(run: CheckRun) -> Iterator[Verdict]:
    """A cell that can't fit any GPU runs out of memory for real, and the next one runs."""
    name = "out of memory is an outcome"
    record = run.run(
        model=RANDOM | {"shape": "bert-large"},
        training={"max_steps": 1},
        matrix={"batch_size": [4096], "seq_len": [512], "padding": ["max"]},
    )
    yield Verdict.of_ending(name, record, wanted="oom")
    after = run.run(model=PLAIN, training={"max_steps": 5}, matrix={"batch_size": [8]})
    yield Verdict.of_ending("the cell after it runs", after)


def check_mfu(run: CheckRun) -> Iterator[Verdict]:
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


def check_smi(run: CheckRun) -> Iterator[Verdict]:
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


def run_checks(run: CheckRun, checks: dict[str, tuple[Check, bool]], budget_s: float = _BUDGET_S) -> list[Verdict]:
    """Do the checks in order, saying each verdict as it is found; what there is no time for is said too."""
    began, found = time.perf_counter(), []
    for name, (check, _) in checks.items():
        if time.perf_counter() - began > budget_s:
            found.append(Verdict(None, name, f"no time was left of {budget_s:.0f} s"))
            _say(str(found[-1]))
            continue
        try:
            for verdict in check(run):
                found.append(verdict)
                _say(str(verdict))
        except Exception as error:  # noqa: BLE001 - one check that fails must not cost the others their verdicts
            found.append(Verdict(False, name, f"the check itself failed: {type(error).__name__}: {error}"))
            _say(str(found[-1]))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what this machine can check; 0 unless something failed."""
    asked = _parse(arguments)
    results = asked.results.resolve()
    around = look_around(None)
    reason = no_gpu(around.machine)
    if reason:
        for name in CHECKS:
            _say(str(Verdict(None, name, reason)))
        _say_what_is_never_checked()
        _say("0 passed, 0 failed: nothing was checked")
        return 0
    importable_from_anywhere()
    with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
        base = base_tables(asked.model, asked.data, Path(folder))
        with contextlib.chdir(folder), Runner() as runner:
            run = CheckRun(
                "gpu", results, runner, Preparations(Path(folder)), around, base,
                shapes={"the embedded model": {}} | {name: RANDOM | {"shape": name} for name in _SHAPES},
            )  # fmt: skip
            runner.wait_until_warm()
            found = run_checks(run, CHECKS)
    found.append(archive_verdict(run.files, results))
    _say(str(found[-1]))
    _say_what_is_never_checked()
    counts = [sum(verdict.passed is wanted for verdict in found) for wanted in (True, False, None)]
    _say(f"{counts[0]} passed, {counts[1]} failed, {counts[2]} not checked; {around.machine.gpus[0].name}")
    return 1 if counts[1] else 0


def archive_verdict(files: Sequence[Path], results: Path) -> Verdict:
    """Pack the records, and say where."""
    archive = results / ARCHIVE
    pack_records(files, results, archive)
    return Verdict(bool(files), f"{len(files)} records in {archive.name}", "`harness import` unpacks it elsewhere")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.gpu_check", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder for records and archive")
    parser.add_argument("--model", type=Path, help="folder of the embedded model (default: the installed one)")
    parser.add_argument("--data", type=Path, help="the packaged data's file (default: the installed one)")
    return parser.parse_args(arguments)


def no_gpu(machine: Machine) -> str | None:
    """Say why nothing can be checked here, or None."""
    if not machine.gpus:
        return f"no NVIDIA GPU here ({machine.gpu_note or 'NVML lists none'})"
    if package_version("torch") == "not installed":
        return "torch is not installed"
    return f"torch {package_version('torch')} is a CPU build" if "+cpu" in package_version("torch") else None


def base_tables(model: Path | None, data: Path | None, folder: Path) -> dict[str, Any]:
    """Tables of every cell: 4,096 rows, so that one batch can be larger than any GPU.

    A record tells of a local model by a name in `folder`, and by nothing of where it lies on this machine.
    """
    for path, what in ((model, "--model"), (data, "--data")):
        if path is not None and not path.exists():
            raise UserError(f"{what} {path}: no such file or folder")
    if data is not None:
        os.environ[DATA_VARIABLE] = str(data.resolve())
    name = PACKAGED_MODEL
    if model is not None:
        name = f"local-{model.resolve().name}"
        (folder / name).symlink_to(model.resolve(), target_is_directory=True)
    return {
        "model": {"name": name},
        "data": {"source": PACKAGED_DATA, "num_train": 4096, "num_val": 256, "num_test": 256},
        "limits": {"timeout_s": 150},
        "matrix": {"seq_len": [128]},
    }


def importable_from_anywhere() -> None:
    """Let processes that start in another folder find this package, which nobody installed."""
    root = str(Path(__file__).resolve().parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))


def _say_what_is_never_checked() -> None:
    for what in NEVER_HERE:
        _say(str(Verdict(None, what, "one GPU can't tell")))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        status = main()
    except UserError as mistake:
        sys.stderr.write(f"error: {mistake}\n")
        status = 2
    sys.exit(status)
