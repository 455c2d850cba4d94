"""The programs to compare: the harness, by its runner and its command, and its peers, by scripts in their own environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.machine.describe import describe_machine
from harness.machine.support import num_threads
from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import load_records, save_record

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv-peers"
_LONGEST_S = 1200
_SHOWN_LINES = 15


class Contenders(AbstractContextManager["Contenders"]):
    """All contenders, with the same rows and threads; the harness's forkserver stays warm, but is idle while a peer runs."""

    def __init__(self, out: Path) -> None:
        self._records = out / "records"
        self._stack = ExitStack()

    def __enter__(self) -> Contenders:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-"))
        self._preparations = Preparations(Path(folder))
        self._runner: Runner | None = None
        self.folder = Path(folder)
        self.around = describe_environment(None)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ours(self, cell: Cell) -> dict:
        """Run one cell as `harness run` does, and save its record."""
        if self._runner is None:
            self._runner = self._stack.enter_context(Runner())
            self._runner.wait_until_warm()
        record = self._runner.run(cell, self._preparations.prepare(cell), self.around)
        path = save_record(record, self._records)
        return as_run(record) | {"record": path.relative_to(self._records).as_posix()}

    def ours_by_command(self, raw: dict) -> tuple[float, list[dict]]:
        """Run a study by `harness run` in a process of its own; return the wall-clock time and the cells as runs."""
        study, results = self.folder / "study.json", self.folder / f"results-{time.monotonic_ns()}"
        study = study.with_suffix(".toml")
        study.write_text(_as_toml(raw))
        command = [sys.executable, "-m", "harness", "run", str(study), "--results", str(results)]
        wall_s, _ = _timed(command, os.environ | {"PYTHONPATH": str(ROOT)})
        records = load_records([results]).records
        for record in records:
            save_record(record, self._records)
        return wall_s, [as_run(record) for record in records]

    def trainer(self, cell: Cell, padding: str, arguments: dict, **choices: object) -> dict:
        """Run transformers' Trainer on a cell's rows."""
        job = self._job(cell) | {"padding": padding, "arguments": arguments, "target": None, "eval_every": None}
        return self._peer("trainer", "trainer_run.py", job | choices)[1]

    def bare(self, cell: Cell) -> dict:
        """Run the bare loop on a cell's rows."""
        return self._peer("trainer", "bare_loop.py", self._job(cell))[1]

    def optimum(self, cells: list[dict], launcher: str, steps: int, warmup_steps: int, like: Cell) -> dict:
        """Run cells of optimum-benchmark in one process of its own; `wall_s` is the wall-clock time of this process."""
        job = self._job(like) | {"cells": cells, "launcher": launcher, "steps": steps, "warmup_steps": warmup_steps}
        wall_s, told = self._peer("optimum", "optimum_cells.py", job)
        return told | {"wall_s": wall_s}

    def _job(self, cell: Cell) -> dict:
        job = self._preparations.prepare(cell).job
        config = cell.config
        assert isinstance(config, FineTuneConfig)
        return {
            "model": str(job.model.folder), "tokens": str(job.tokens_folder), "seq_len": config.seq_len,
            "batch_size": config.batch_size, "seed": config.seed, "threads": num_threads(config, self.around.machine),
        }  # fmt: skip

    def _peer(self, venv: str, script: str, job: dict) -> tuple[float, dict]:
        python = VENVS / venv / "bin" / "python"
        if not python.exists():
            sys.exit(f"{python}: not there; `make .venv-peers/.{venv}` (or `make bench-peers`) makes it")
        threads = {name: str(job["threads"]) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | threads | quiet
        command = [str(python), "-P", str(Path(__file__).parent / script), json.dumps(job)]
        wall_s, output = _timed(command, environment, self.folder)
        return wall_s, json.loads(output.strip().splitlines()[-1])


def as_run(record: Record) -> dict:
    """Return the fields of a record that the tables need, under the names that the peers' scripts use too."""
    if record.training is None:
        return {"outcome": record.outcome, "reason": record.reason}
    steps = record.training.steps
    return {
        "outcome": record.outcome,
        "cell": record.cell,
        "steps_s": steps.seconds[0],
        "train_s": record.phases.train_s,
        "duration_s": record.duration_s,
        "start_s": record.phases.start_s,
        "load_s": record.phases.load_s,
        "first_step_s": record.phases.first_step_s,
        "num_rows": sum(steps.num_samples),
        "losses": steps.loss,
        "threads": record.training.threads_per_rank,
        "evaluations": [
            {"train_s": look.train_s, "num_updates": look.num_updates, "accuracy": look.accuracy}
            for look in record.training.evaluations
        ],
        "versions": {name: record.packages.get(name) for name in ("torch", "transformers")},
    }


def make_cell(name: str, **tables: dict) -> Cell:
    """Return the only cell of the study with these tables."""
    (cell,) = expand(parse_study({"name": name, "baselines": False} | tables, name))
    return cell


def machine_facts() -> dict:
    """Return the facts of this machine to store with the figures."""
    machine = describe_machine()
    return {"id": machine.id, "cpu": machine.cpu.model, "flags": machine.cpu.flags, "num_usable": machine.cpu.num_usable,
            "memory_bytes": machine.memory_bytes, "python": machine.python}  # fmt: skip


def _timed(command: list[str], environment: dict[str, str], folder: Path = ROOT) -> tuple[float, str]:
    """Run a command to its end; return the wall-clock time and the output."""
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=_LONGEST_S)
        except BaseException:
            # Kill the whole process group, because a process that goes on computing would disturb the next measurement.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    wall_s = time.perf_counter() - began
    if process.returncode:
        last = "\n".join((errors or output).splitlines()[-_SHOWN_LINES:])
        sys.exit(f"{' '.join(command)[:200]} ended with status {process.returncode}:\n{last}")
    return wall_s, output


def _as_toml(raw: dict) -> str:
    """Return a study with one level of tables as TOML; numbers, strings, lists and booleans are the same in JSON."""
    top = [f"{key} = {json.dumps(value)}" for key, value in raw.items() if not isinstance(value, dict)]
    for table, keys in raw.items():
        if isinstance(keys, dict):
            top += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(top) + "\n"
