"""Fixtures: one warm runner for all tests, tiny models and a tiny table."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny import write_checkpoint, write_reviews

from harness.execution.jobs import Environment, PreparedCell
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.record import Record
from harness.schema.study_file import parse_study


@pytest.fixture(scope="session", autouse=True)
def restore_sigint():
    """Restore Python's handler: a background shell makes its children ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def one_thread():
    """Compute on one thread: with two, threads that wait for each other took 37 s of CPU a family, and 1.5 s now."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Folder of a BERT with 2 layers, width 32, stored random weights and the packaged tokenizer."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny-bert", "bert")


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory):
    """Folder of a DistilBERT of the same size."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny-distilbert", "distilbert")


@pytest.fixture(scope="session")
def half_bert(tiny_bert, tmp_path_factory):
    """`tiny_bert` with its tensors stored as 16-bit floats."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("models") / "half-bert"
    shutil.copytree(tiny_bert, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor.to(torch.float16) for name, tensor in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@dataclass
class Bench:
    """Runs studies given as dicts by one warm runner, preparing data once."""

    defaults: dict[str, Any]
    preparations: Preparations
    environment: Environment
    runner: Runner
    records: list[Record] = field(default_factory=list)

    def cells(self, **raw: Any) -> list[Cell]:
        """Expand a study; each table of `raw`, as in TOML, is merged into the default one."""
        merged = {"baselines": False} | self.defaults | raw
        for table in ("model", "data", "training", "limits", "matrix"):
            merged[table] = self.defaults.get(table, {}) | raw.get(table, {})
        return expand(parse_study(merged, "test"))

    def prepare(self, cell: Cell) -> PreparedCell:
        return self.preparations.prepare(cell)

    def run(
        self,
        environment: Environment | None = None,
        on_message=lambda _: None,
        runner: Runner | None = None,
        **raw: Any,
    ) -> Record:
        (cell,) = self.cells(**raw)
        return (runner or self.runner).run(cell, self.prepare(cell), environment or self.environment, on_message)

    def with_cores(self, num: int) -> Environment:
        """Return an environment with `num` usable cores, whatever this machine has."""
        machine = self.environment.machine
        cpu = machine.cpu.model_copy(update={"num_usable": num})
        return Environment(machine.model_copy(update={"cpu": cpu}), None, None, self.environment.packages)


@pytest.fixture(scope="session")
def warm_runner():
    with Runner() as runner:
        runner.wait_until_warm()
        yield runner


@pytest.fixture(scope="session")
def bench(tiny_bert, reviews, warm_runner, tmp_path_factory):
    """A bench whose default study is one tiny cell."""
    defaults = {
        "name": "tiny",
        "model": {"name": str(tiny_bert)},
        "data": {"source": str(reviews), "num_train": 256, "num_val": 64, "num_test": 64},
        "training": {"epochs": 1, "lr": 3e-3},
        "matrix": {"seq_len": [24], "threads": [1]},  # two threads would wait for each other on a busy machine
    }
    return Bench(defaults, Preparations(tmp_path_factory.mktemp("prepared")), describe_environment(None), warm_runner)


@pytest.fixture
def study_file(tmp_path, tiny_bert, reviews):
    """Return a function that writes a study of the tiny model and table; its arguments are lines of TOML."""

    def write(extra: str = "", training: str = "epochs = 1", limits: str = "", baselines: bool = False) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(
            f"baselines = {str(baselines).lower()}\n"
            f'[model]\nname = "{tiny_bert}"\n'
            f'[data]\nsource = "{reviews}"\nnum_train = 256\nnum_val = 64\nnum_test = 64\n'
            f"[training]\n{training}\n[limits]\n{limits}\n{extra}\n"
        )
        return path

    return write
