"""Planning interleaved A/B runs: pairs, order and error messages."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.schema.interleaving import plan_interleaved

COMPILE = ("training.compile=false", "training.compile=true")


@pytest.fixture
def study(tmp_path):
    def write(text=""):
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_each_cell_runs_as_a_b_b_a(study):
    plan = plan_interleaved(study("repeats = 9\n[matrix]\nbatch_size = [8, 16]\n"), (), COMPILE)
    assert plan.study == "mine-compile-false-vs-compile-true"
    runs = plan.runs(3)
    assert len(runs) == 2 * 4 * 3 and {run.study for run in runs} == {plan.study}
    order = [(run.config.batch_size, run.config.training.compile, run.repeat) for run in runs[:12]]
    a, b = False, True
    assert order[:8] == [(8, a, 0), (8, b, 0), (8, b, 1), (8, a, 1), (16, a, 0), (16, b, 0), (16, b, 1), (16, a, 1)]
    assert order[8:] == [(8, a, 2), (8, b, 2), (8, b, 3), (8, a, 3)]
    assert [run.name for run in runs[:2]] == [
        "b8-s64-fp32-cpu-longest-all-compile=False", "b8-s64-fp32-cpu-longest-all-compile=True",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (("matrix.batch_size=[8]", "matrix.batch_size=[32]"), [(8, "fp32", 1e-4), (32, "fp32", 1e-4)]),
        (("batch_size=8", "matrix.batch_size=32"), [(8, "fp32", 1e-4), (32, "fp32", 1e-4)]),
        (("training.lr=2e-4", "precision=bf16"), [(16, "fp32", 2e-4), (16, "bf16", 1e-4)]),
        (("matrix.training.lr=[1e-3]", "training.lr=1e-4"), [(16, "fp32", 1e-3), (16, "fp32", 1e-4)]),
    ],
)
def test_any_two_settings(study, settings, values):
    ((a, b),) = plan_interleaved(study("[matrix]\nseq_len = [32]\n"), ("training.epochs=1",), settings).pairs
    assert [(cell.config.batch_size, cell.config.precision, cell.config.training.lr) for cell in (a, b)] == values
    assert {cell.config.training.epochs for cell in (a, b)} == {1}


def test_a_swept_key_is_replaced_and_each_seed_is_a_pair(study):
    path = study('[training]\nseeds = [0, 1]\n[matrix]\n"training.compile" = [false, true]\n')
    plan = plan_interleaved(path, (), COMPILE)
    assert [(a.config.seed, b.config.seed) for a, b in plan.pairs] == [(0, 0), (1, 1)]


def test_devices_split_a_global_batch(study):
    path = study("[matrix]\nglobal_batch_size = [32]\n")
    ((a, b),) = plan_interleaved(path, (), ("matrix.device=cpu", "matrix.device=cpu-ddp2")).pairs
    assert (a.config.batch_size, b.config.batch_size) == (32, 16)


def test_unpaired_cells_are_left_out_with_a_reason(study):
    rule = '[[exclude]]\nbatch_size = 8\n"training.compile" = true\n'
    plan = plan_interleaved(study(f"[matrix]\nbatch_size = [8, 16]\n{rule}"), (), COMPILE)
    assert [a.config.batch_size for a, _ in plan.pairs] == [16]
    assert plan.left_out == (
        "b8-s64-fp32-cpu-longest-all-compile=False: the study has no such cell under B.",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("training.compile", "training.compile=true"), "expected KEY=VALUE of a cell"),
        (("repeats=3", "repeats=4"), r"--interleave repeats=3: expected KEY=VALUE of a cell"),
        (("training.seeds=[0]", "training.seeds=[1]"), "both sides train with the study's seeds"),
        (("training.compile=true", "training.compile=true"), "both settings measure the same"),
        (("limits.timeout_s=1", "limits.timeout_s=2"), "both settings measure the same"),
        (("matrix.batch_size=[8, 16]", "matrix.batch_size=[32]"), "several values; each side has one"),
        (("training.compil=true", "training.compile=true"), "did you mean 'compile'"),
        (("training.compile=true", "matrix.seq_len=[2]"), "seq_len"),
    ],
)
def test_mistakes(study, settings, message):
    with pytest.raises(UserError, match=message):
        plan_interleaved(study(), (), settings)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rounds", "3"], "need --interleave A B"),
        (["--fail-above", "3%"], "need --interleave A B"),
        (["--interleave", *COMPILE, "--fail-above", "3"], "--fail-above 3: expected a fraction"),
        (["--interleave", *COMPILE, "--only", "training.compile=True"], "no cell is left under both settings"),
    ],
)
def test_mistakes_in_options(study, args, message):
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(cli.app, ["run", str(study()), *args], catch_exceptions=False)


def test_a_record_is_refused_as_a_study(tmp_path):
    with pytest.raises(UserError, match="is a record; expected a study file"):
        plan_interleaved(tmp_path / "one.json", (), COMPILE)
