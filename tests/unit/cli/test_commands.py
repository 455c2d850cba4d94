"""Commands that run no cell, on the stored fixture records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.commands.local_runs import study_budget
from harness.cli.lookups import MachineOptions
from harness.errors import UserError
from harness.schema.record import Record
from harness.store.archive import pack_records
from harness.store.record_files import load_record, save_record

ROOT = Path(__file__).parents[3]
RECORDS = ROOT / "tests" / "fixtures" / "records" / "v1"


@pytest.fixture
def ok() -> Record:
    return load_record(RECORDS / "ok.json")


@pytest.fixture
def results(tmp_path, ok) -> Path:
    for path in sorted(RECORDS.glob("*.json")):
        save_record(load_record(path), tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def study(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('[matrix]\nbatch_size = [8, 16]\nprecision = ["fp32", "tf32"]\n', encoding="utf-8")
    return path


def invoke(*args):
    result = CliRunner().invoke(cli.app, [str(arg) for arg in args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_plan_lists_every_cell_with_its_state(study, tmp_path):
    rows = json.loads(invoke("plan", study, "--results", tmp_path / "none", "--json"))
    states = {row["cell"]: row["state"] for row in rows}
    assert states == {
        "baseline-majority": "to do",
        "baseline-tfidf": "to do",
        "baseline-features": "to do",
        "b8-s64-fp32-cpu-longest-all": "to do",
        "b8-s64-tf32-cpu-longest-all": "unsupported",
        "b16-s64-fp32-cpu-longest-all": "to do",
        "b16-s64-tf32-cpu-longest-all": "unsupported",
    }
    assert "tensor cores" in next(row["reason"] for row in rows if row["state"] == "unsupported")


def test_plan_text_counts_the_states(study, tmp_path):
    assert "7 cells: 5 to do, 2 unsupported" in invoke("plan", study, "--results", tmp_path / "none")


def test_only_and_set_select_cells(study, tmp_path):
    options = ["--only", "precision=fp32", "--set", "matrix.seq_len=[32]", "--set", "baselines=false", "--json"]
    rows = json.loads(invoke("plan", study, "--results", tmp_path, *options))
    assert [row["cell"] for row in rows] == ["b8-s32-fp32-cpu-longest-all", "b16-s32-fp32-cpu-longest-all"]


def test_only_without_a_match_lists_the_values(study, tmp_path):
    with pytest.raises(UserError, match=r"--only batch_size=99: no cell matches; its values here: 16, 8"):
        invoke("plan", study, "--results", tmp_path, "--only", "batch_size=99")


def test_a_record_can_be_given_in_place_of_a_study(results, ok, tmp_path):
    path = save_record(ok, tmp_path / "one")
    (row,) = json.loads(invoke("plan", path, "--results", results, "--json"))
    assert (row["cell"], row["config_hash"]) == (ok.cell, ok.config_hash)


def test_report_writes_all_three_files(results, tmp_path):
    out = tmp_path / "report"
    printed = invoke("report", results, "--out", out, "--usd-per-hour", "3.6")
    assert sorted(path.name for path in out.iterdir()) == ["cells.csv", "report.html", "summary.md"]
    assert str(out / "report.html") in printed.replace("\n", "")
    header, *rows = (out / "cells.csv").read_text(encoding="utf-8").splitlines()
    assert "usd_per_1000_samples" in header
    assert all("given" in row for row in rows)


def test_report_of_a_study_skips_other_cells(results, study, tmp_path):
    assert "0 records, 0 cells" in invoke("report", results, "--out", tmp_path / "report", "--study", study)


def test_report_names_and_skips_a_broken_record(results, tmp_path):
    broken = results / "broken.json"
    broken.write_text("{", encoding="utf-8")
    assert "broken.json: not a readable record" in invoke("report", results, "--out", tmp_path / "report")


def test_show_prints_figures_loss_and_example(results, ok):
    text = invoke("show", ok.cell, "--results", results)
    assert f"{ok.training.steps.loss[0]:.3f} to {ok.training.steps.loss[-1]:.3f}" in text
    assert "[CLS]/" in text
    assert json.loads(invoke("show", ok.cell, "--results", results, "--json"))["cell"] == ok.cell


def test_show_command_repeats_the_record(results, ok):
    path = next(path for path in results.rglob("*.json") if load_record(path) == ok)
    assert invoke("show", path, "--command").strip() == f"harness run {path} --force"


def test_show_prints_what_the_baseline_features_chose():
    text = " ".join(invoke("show", RECORDS.parent / "v5" / "features.json").split())
    assert "layer 0 of 2, C = 1, chosen on validation (accuracy 0.938; by layer 0.938 0.938 0.938)" in text


def test_show_prints_the_attention_that_was_chosen(tmp_path):
    record = json.loads((RECORDS.parent / "v5" / "ok.json").read_text(encoding="utf-8"))
    seconds = {"sdpa": 6.5, "eager": 5.0}
    record["training"]["attention_choice"] = {
        "implementation": "eager", "seconds": seconds, "num_steps": 6, "choose_s": 17.25,
    }  # fmt: skip
    (tmp_path / "auto.json").write_text(json.dumps(record), encoding="utf-8")
    text = " ".join(invoke("show", tmp_path / "auto.json").split())
    assert "attention eager, chosen: 1.3 times as fast as sdpa on this study's shapes; 17.2 s of choosing" in text
    del seconds["sdpa"]
    (tmp_path / "auto.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match="the seconds of each implementation"):
        invoke("show", tmp_path / "auto.json")


def test_show_of_an_unknown_cell_fails(results):
    with pytest.raises(UserError, match="no such cell"):
        invoke("show", "b99", "--results", results)


def test_machine_prints_its_facts_and_price():
    fields = json.loads(invoke("machine", "--json", "--instance", "m7i.2xlarge"))
    assert fields["price"]["basis"] == "stated"
    assert fields["price"]["usd_per_hour"] == 0.4032
    assert "priced as" in invoke("machine")


def test_an_unknown_instance_is_rejected_before_running_a_cell(study, tmp_path):
    with pytest.raises(UserError, match=r"m7i\.2xlarg"):
        invoke("run", study, "--results", tmp_path, "--instance", "m7i.2xlarg")


def test_a_budget_in_dollars_becomes_seconds_at_the_price():
    from harness.schema.expansion import expand
    from harness.schema.study_file import parse_study

    cell = expand(parse_study({"limits": {"budget_usd": 0.5, "budget_minutes": 60}}, "s"))[0]
    budget = study_budget(cell, MachineOptions(usd_per_hour=2.0).price(_machine()))
    assert budget.seconds == pytest.approx(900)
    assert "budget_usd = 0.5 at 2 USD an hour (given price)" in budget.reason


def _machine():
    from harness.machine.describe import describe_machine

    return describe_machine()


def test_five_mistakes_in_a_study_give_five_lines_and_exit_status_2(tmp_path):
    study = tmp_path / "wrong.toml"
    study.write_text(
        "repeat = 2\n[data]\nnum_train = 0\n[training]\noptimizer = 'adam'\n[matrix]\nprecision = ['fp31']\n"
        "device = ['tpu']\n",
        encoding="utf-8",
    )
    completed = subprocess.run(
        [sys.executable, "-m", "harness", "plan", str(study)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [line.strip() for line in completed.stderr.splitlines() if line.startswith("  ")]
    assert completed.returncode == 2
    assert len(lines) == 5
    assert {line.split(":")[0] for line in lines} == {
        "repeat",
        "data.num_train",
        "training.optimizer",
        "matrix.precision[0]",
        "matrix.device[0]",
    }
    assert "Traceback" not in completed.stderr


def test_the_table_of_keys_in_the_readme_is_up_to_date():
    assert invoke("keys") in (ROOT / "bench" / "README.md").read_text(encoding="utf-8")


def test_reading_commands_import_no_torch(tmp_path):
    code = (
        "import sys; from typer.testing import CliRunner; from harness.cli.main import app;"
        f"CliRunner().invoke(app, ['report', {str(RECORDS)!r}, '--out', sys.argv[1]], catch_exceptions=False);"
        "assert 'plotly' in sys.modules and not {'torch', 'transformers'} & set(sys.modules), 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT)


def test_import_unpacks_each_record_once(results, tmp_path):
    pack_records(results.rglob("*.json"), results, tmp_path / "gpu-check.tar.gz")
    count = len(list(results.rglob("*.json")))
    into = tmp_path / "home"
    printed = invoke("import", tmp_path / "gpu-check.tar.gz", "--results", into)
    assert printed.replace("\n", "") == f"{count} records imported into {into}."
    assert len(list(into.rglob("*.json"))) == count
    assert f"0 records imported into {into}, {count} were there already." in invoke(
        "import", tmp_path / "gpu-check.tar.gz", "--results", into
    ).replace("\n", "")


def fails(status, *args):
    result = CliRunner().invoke(cli.app, [str(arg) for arg in args])
    assert result.exit_code == status, result.output
    return result


def test_pack_archives_all_records_or_fails_without_records_of_this_machine(results, tmp_path):
    archive = tmp_path / "away" / "all.tar.gz"
    archive.parent.mkdir()
    count = len(list(results.rglob("*.json")))
    assert invoke("pack", results, "--all", "--out", archive).replace("\n", "") == f"{count} records: {archive}"
    with pytest.raises(UserError, match="no records of this machine"):
        invoke("pack", results, "--out", archive)


def test_a_report_of_an_archive_equals_that_of_its_folder(results, tmp_path):
    invoke("pack", results, "--all", "--out", tmp_path / "all.tar.gz")
    invoke("report", results, "--out", tmp_path / "folder")
    invoke("report", tmp_path / "all.tar.gz", "--out", tmp_path / "archive")
    folder, archive = ((tmp_path / name / "cells.csv").read_bytes() for name in ("folder", "archive"))
    assert folder == archive


def test_strict_rejects_differences_that_a_report_prints(results, ok, tmp_path):
    other = ok.model_copy(
        update={
            "machine": ok.machine.model_copy(update={"id": "other-machine"}),
            "packages": ok.packages | {"transformers": "4.0.0"},
        }
    )
    save_record(other, results)
    assert "differs: transformers: 4.0.0 on other-machine" in invoke(
        "report", results, "--out", tmp_path / "report"
    ).replace("\n", "")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "transformers: 4.0.0 on " in page
    with pytest.raises(UserError, match=r"transformers: 4\.0\.0 on other-machine"):
        invoke("report", results, "--out", tmp_path / "strict", "--strict")
    assert not (tmp_path / "strict").exists()


def test_recommend_chooses_cells_or_exits_with_status_1(results):
    fields = json.loads(invoke("recommend", results, "--usd-per-hour", "3.6", "--json"))
    assert {"verdict", "pick", "runner_up", "differences", "largest_loss_not_excluded", "measure_next"} <= set(fields)
    assert fields["pick"]["price_basis"] == "given"
    none = fails(1, "recommend", results, "--usd-per-hour", "3.6", "--budget", "0.0000001")
    assert "Nothing that was measured meets all requirements." in none.output
    assert "The nearest takes" in none.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--deadline", "soon"), "--deadline soon"),
        (("--budget", "0"), "--max-usd 0"),
        (("--gpu-memory", "0"), "--max-gpu-memory-gib 0"),
        (("--instance", "nowhere=g5.xlarge"), "no records of a machine 'nowhere'"),
    ],
)
def test_recommend_rejects_invalid_options(results, options, message):
    with pytest.raises(UserError, match=message):
        invoke("recommend", results, *options)
