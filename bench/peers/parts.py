"""Parts of the comparison: each is a function that measures one round and returns all contenders' runs in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from peers.contenders import Contenders, make_cell

from harness.schema.cells import Cell, FineTuneConfig
from harness.schema.expansion import expand
from harness.schema.study_file import load_study

BATCH, SEQ_LEN, LR = 16, 128, 1e-4
FEW = {"num_val": 16, "num_test": 16}  # few rows, for splits that a part does not use
BENCH = Path(__file__).resolve().parents[1]
_SWEEP = {"batch_size": [2, 4, 8, 16], "seq_len": [16, 32, 64]}
_ALONE = {"batch_size": 8, "seq_len": 64}


@dataclass(frozen=True)
class Choices:
    """Amounts to measure.

    Attributes:
        steps: Steps per run in the parts `steps` and `precision`, warm-up included.
        rows: Training rows in the part `throughput`: a random subset, trained on once.
        train_rows: Training rows in the part `engine`.
        cell_steps: Steps per cell in the parts `start` and `sweep`, warm-up included.
        cell_warmup: How many of these steps are warm-up and not measured.
        best: Study file of the part `recipe`; the harness runs its last cell.
        best_rows: Training rows in the part `recipe`; None for the study's own number.
    """

    steps: int = 15
    rows: int = 640
    train_rows: int = 1024
    val_rows: int = 500
    epochs: float = 2
    target: float = 0.74
    cell_steps: int = 10
    cell_warmup: int = 2
    best: str = "bench/peers/best.toml"
    best_rows: int | None = None


@dataclass(frozen=True)
class Part:
    """A part of the comparison, with its number of rounds (unless the user asks for one round)."""

    run: Callable[[Contenders, Choices, int], list[dict]]
    num_rounds: int
    settings: tuple[str, ...]

    def settings_of(self, choices: Choices) -> dict:
        """Return the choices that this part depends on."""
        return {key: value for key, value in asdict(choices).items() if key in self.settings}


def steps(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Measure steps of the harness and of a bare loop in turns A B B A; every batch has the same shape."""
    cell = _fixed_shape("peers-steps", choices.steps)
    contenders = {"ours": lambda: bench.ours(cell), "bare loop": lambda: bench.bare(cell)}
    return _in_turns(contenders, ["ours", "bare loop", "bare loop", "ours"], turn)


def throughput(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Measure one epoch over the same rows, collating included."""
    cell = make_cell(
        "peers-throughput",
        data={"num_train": choices.rows} | FEW,
        training={"epochs": 1, "lr": LR, "eval_every": 1.0},
        matrix={"batch_size": [BATCH], "seq_len": [SEQ_LEN], "padding": ["grouped"]},
    )
    contenders = {"ours, grouped": lambda: bench.ours(cell)} | {
        f"Trainer, {padding}": lambda padding=padding: bench.trainer(cell, padding, _recipe(1))
        for padding in ("grouped", "dynamic", "max")
    }
    return _in_turns(contenders, list(contenders), turn)


def engine(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Train with one recipe for all contenders to the same validation accuracy; the round is the seed."""
    cell = make_cell(
        "peers-engine",
        data={"num_train": choices.train_rows, "num_val": choices.val_rows, "num_test": FEW["num_test"]},
        training={
            "epochs": choices.epochs,
            "lr": LR,
            "eval_every": 0.5,
            "seeds": [turn],
            "target_accuracy": choices.target,
        },
        matrix={"batch_size": [BATCH], "seq_len": [SEQ_LEN], "padding": ["grouped"]},
    )
    looks = {"eval_every": 0.5, "target": choices.target}
    contenders = {"ours, grouped": lambda: bench.ours(cell)} | {
        f"Trainer, {padding}": lambda padding=padding: bench.trainer(cell, padding, _recipe(choices.epochs), **looks)
        for padding in ("grouped", "dynamic")
    }
    return _in_turns(contenders, list(contenders), turn)


def recipe(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Train to the same validation accuracy, by our best recipe and by TrainingArguments' defaults.

    The round is the seed.
    """
    cell = _best_cell(choices, turn)
    looks = {"eval_every": cell.config.training.eval_every, "target": choices.target}
    contenders = {
        "ours, best recipe": lambda: bench.ours(cell),
        "Trainer, defaults": lambda: bench.trainer(cell, "dynamic", {}, **looks),
    }
    return _in_turns(contenders, list(contenders), turn)


def start(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Measure one cell by command, and how optimum-benchmark's launcher changes the speed of the loop it measures."""
    study = _optimum_like("peers-start", choices, {key: [value] for key, value in _ALONE.items()})
    like = make_cell(**study)

    def ours() -> dict:
        wall_s, (run,) = bench.ours_by_command(study)
        return {"wall_s": wall_s, "cells": [run]}

    def theirs(launcher: str) -> dict:
        return bench.optimum([_ALONE], launcher, choices.cell_steps, choices.cell_warmup, like)

    contenders = {
        "ours": ours,
        "optimum-benchmark, process": lambda: theirs("process"),
        "optimum-benchmark, inline": lambda: theirs("inline"),
    }
    return _in_turns(contenders, list(contenders), turn)


def sweep(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Measure the wall-clock time of a whole command that runs twelve cells."""
    study = _optimum_like("peers-sweep", choices, _SWEEP)
    cells = [{"batch_size": batch, "seq_len": length} for batch in _SWEEP["batch_size"] for length in _SWEEP["seq_len"]]
    like = make_cell(**_optimum_like("peers-sweep", choices, {"batch_size": [16], "seq_len": [64]}))

    def ours() -> dict:
        wall_s, runs = bench.ours_by_command(study)
        return {"wall_s": wall_s, "cells": runs}

    contenders = {
        "ours": ours,
        "optimum-benchmark, process": lambda: bench.optimum(
            cells, "process", choices.cell_steps, choices.cell_warmup, like
        ),
    }
    return _in_turns(contenders, list(contenders), turn)


def precision(bench: Contenders, choices: Choices, turn: int) -> list[dict]:
    """Measure our step in bf16 and in fp32, with the model's own dropout and without, in forward and reverse order."""
    contenders = {}
    for dropout, model in (("own dropout", {}), ("dropout 0", {"attention_dropout": 0.0, "hidden_dropout": 0.0})):
        for kind in ("fp32", "bf16"):
            cell = _fixed_shape("peers-precision", choices.steps, kind, model)
            contenders[f"{kind}, {dropout}"] = lambda cell=cell: bench.ours(cell)
    return _in_turns(contenders, [*contenders, *reversed(contenders)], turn)


PARTS = {
    "steps": Part(steps, 4, ("steps",)),
    "throughput": Part(throughput, 5, ("rows",)),
    "engine": Part(engine, 5, ("train_rows", "val_rows", "epochs", "target")),
    "recipe": Part(recipe, 5, ("best", "best_rows", "val_rows", "target")),
    "start": Part(start, 3, ("cell_steps", "cell_warmup")),
    "sweep": Part(sweep, 1, ("cell_steps", "cell_warmup")),
    "precision": Part(precision, 2, ("steps",)),
}


def _in_turns(contenders: dict[str, Callable[[], dict]], order: list[str], turn: int) -> list[dict]:
    """Run contenders one after the other; every second round is in reverse order, so that drift cancels."""
    runs = []
    for who in order if turn % 2 == 0 else reversed(order):
        print(f"  {who} ...", end="", flush=True)
        runs.append({"who": who} | contenders[who]())
        print(f" {_shown(runs[-1])}", flush=True)
    return runs


def _shown(run: dict) -> str:
    if run.get("outcome", "ok") != "ok":
        return f"{run['outcome']}: {run['reason']}"
    if "wall_s" in run:
        return f"{run['wall_s']:.1f} s, first step after {run['cells'][0]['first_step_s']:.2f} s"
    text = f"{sum(run['steps_s']):.1f} s in {len(run['steps_s'])} steps"
    looks = ", ".join(f"{look['accuracy']:.3f} at {look['train_s']:.1f} s" for look in run.get("evaluations") or [])
    return f"{text}; {looks}" if looks else text


def _fixed_shape(name: str, num_steps: int, kind: str = "fp32", model: dict | None = None) -> Cell:
    return make_cell(
        name,
        model=model or {},
        data={"num_train": num_steps * BATCH} | FEW,
        training={"epochs": 1, "lr": LR, "eval_every": 1.0},
        matrix={"batch_size": [BATCH], "seq_len": [SEQ_LEN], "padding": ["max"], "precision": [kind]},
    )


def _optimum_like(name: str, choices: Choices, axes: dict[str, list[int]]) -> dict:
    """Return a study whose cells take as many steps as optimum-benchmark's; every batch has the same shape."""
    return {
        "name": name,
        "baselines": False,
        "data": {"num_train": choices.cell_steps * max(axes["batch_size"])} | FEW,
        "training": {"max_steps": choices.cell_steps, "eval_every": 1000.0},
        "matrix": axes | {"padding": ["max"]},
    }


def _recipe(epochs: float) -> dict:
    """Return the harness's defaults as TrainingArguments; clipping is off, because the harness does not clip."""
    return {
        "per_device_train_batch_size": BATCH,
        "learning_rate": LR,
        "num_train_epochs": epochs,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,  # below 1, it is a share of all steps
        "weight_decay": 0.01,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 0.0,
    }


def _best_cell(choices: Choices, seed: int) -> Cell:
    """Return the last cell of the study of our best recipe, with this seed and the target and rows of `choices`."""
    cell = [one for one in expand(load_study(Path(choices.best))) if isinstance(one.config, FineTuneConfig)][-1]
    config = cell.config
    assert isinstance(config, FineTuneConfig)
    rows = {} if choices.best_rows is None else {"num_train": choices.best_rows}
    return cell.model_copy(
        update={
            "study": "peers-recipe",
            "repeat": 0,
            "config": config.model_copy(
                update={
                    "seed": seed,
                    "data": config.data.model_copy(update=rows | {"num_val": choices.val_rows}),
                    "training": config.training.model_copy(update={"target_accuracy": choices.target}),
                }
            ),
        }
    )
