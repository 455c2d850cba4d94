"""`harness compare` on real and synthetic records: exit status, table, Markdown, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.store.archive import pack_records
from harness.store.record_files import save_record
from tests.make_records import MIB, make_machine, make_record

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
AMD, INTEL = REFERENCE / "amd-epyc-2c-24g-dbbbf2", REFERENCE / "intel-xeon-2c-24g-b47fd4"
CELL = "b16-s64-fp32-cpu-longest-all"


def invoke(*args, status=0):
    done = CliRunner().invoke(cli.app, ["compare", *map(str, args)], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done


def fields(*args, status=0):
    return json.loads(invoke(*args, "--json", status=status).stdout)


def save(folder, *step_s, machine=None, minutes=0.0, **fields):
    for repeat, seconds in enumerate(step_s):
        save_record(
            make_record(
                repeat=repeat, minutes=minutes + repeat, machine=machine,
                training={"seconds": [seconds] * 40, "peaks": [(0, "rss", 600 * MIB)]}, **fields,
            ),
            folder,
        )  # fmt: skip
    return folder


@pytest.fixture
def sides(tmp_path):
    before = save(tmp_path / "before", 1.000, 1.001, 0.999)
    return before, save(tmp_path / "after", 1.100, 1.101, 1.099, minutes=60)


@pytest.mark.parametrize("folder", [REFERENCE, AMD, AMD / "ddp", INTEL], ids=lambda path: path.name)
def test_a_folder_compared_with_itself_is_neither_faster_nor_slower(folder):
    comparison = fields(folder, folder, "--fail-above", "0%")
    verdicts = [figure["verdict"] for cell in comparison["cells"] for figure in cell["figures"].values()]
    assert len(verdicts) > 8 and set(verdicts) <= {"no difference", "cannot tell"}
    assert all(figure["verdict"] in ("no difference", "cannot tell") for figure in comparison["overall"].values())
    assert all(cell["figures"]["samples_per_s"]["ratio"] == pytest.approx(1) for cell in comparison["cells"])
    assert (
        not comparison["failed"]
        and any("stand on both sides" in note for note in comparison["notes"])
        and not comparison["alone"]
    )


def test_three_repeats_that_agree_within_three_percent_show_no_difference():
    comparison = fields(AMD / "ddp", AMD / "ddp")
    speeds = {cell["cell"]: cell["figures"]["samples_per_s"] for cell in comparison["cells"]}
    steady = speeds["b16-s64-fp32-cpu-grouped-all"]
    assert steady["verdict"] == "no difference" and steady["basis"] == "between 3 and 3 runs (Welch)"
    assert 0.98 < steady["ratio_low"] < 1 < steady["ratio_high"] < 1.02
    # These repeats differ by 20 %, too much to detect 3 %.
    assert speeds["b32-s64-fp32-cpu-grouped-all"]["verdict"] == "cannot tell"


def test_single_runs_on_two_machines_are_not_ranked():
    comparison = fields(f"{REFERENCE}:amd-epyc-2c-24g", f"{REFERENCE}:intel", "--fail-above", "3%")
    speeds = {cell["cell"]: cell["figures"]["samples_per_s"] for cell in comparison["cells"]}
    assert len(speeds) == 12 and {speed["verdict"] for speed in speeds.values()} == {"cannot tell"}
    assert speeds["b16-s64-bf16-cpu-grouped-all"]["ratio"] == pytest.approx(47.9 / 88.9, abs=0.002)
    assert all("one run" in speed["reason"] for speed in speeds.values())
    assert not comparison["failed"]
    assert "machine: amd-epyc-2c-24g-dbbbf2 on A; intel-xeon-2c-24g-b47fd4 on B" in comparison["differences"]
    assert {(cell["side"], cell["cell"]) for cell in comparison["alone"]} >= {
        ("B", "b16-s64-fp32-cpu-ddp2-grouped-all")
    }
    # With the same seed and rows, both machines' fp32 models make the same predictions.
    assert {cell["figures"]["accuracy"]["difference"] for cell in comparison["cells"] if "fp32" in cell["cell"]} == {
        0.0
    }


def test_a_given_run_spread_makes_large_differences_conclusive():
    comparison = fields(f"{REFERENCE}:amd-epyc-2c-24g", INTEL, "--run-spread", "5%")
    verdicts = {cell["cell"]: cell["figures"]["samples_per_s"]["verdict"] for cell in comparison["cells"]}
    assert (
        verdicts["b16-s64-bf16-cpu-grouped-all"] == "slower"
        and verdicts["b16-s32-fp32-cpu-grouped-all"] == "cannot tell"
    )


def test_a_slowdown_above_the_threshold_fails_and_is_shown(sides, tmp_path):
    output = invoke(*sides, "--fail-above", "3%", "--markdown", tmp_path / "table.md", status=1).stdout
    assert CELL in output and "slower" in output
    assert f"--fail-above 3%: FAILED, certainly slower by more: {CELL}." in output
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("Speed of 1 cell on both sides: 1 slower. --fail-above 3%: FAILED")
    assert lines[2:4] == ["| cell | figure | A | B | B/A, 95 % | verdict |", "|---|---|---:|---:|---:|---|"]
    assert lines[4].startswith(f"| {CELL} | samples/s | 16.0 | 14.5 | 0.909 (0.906 to 0.912) | slower |")
    assert any(line.startswith("- All runs of A were made before those of B") for line in lines)
    assert "passed; 1 of 1 cell could have failed" in invoke(*sides[::-1], "--fail-above", "3%").stdout
    assert "FAILED" not in invoke(*sides).stdout


def test_single_runs_pass_and_the_output_says_that_no_cell_was_tested(tmp_path):
    before, after = save(tmp_path / "a", 1.0), save(tmp_path / "b", 2.0, minutes=60)
    output = invoke(before, after, "--fail-above", "3%").stdout
    assert "passed, but nothing was held to it" in output
    assert "one run: spread between runs unknown, repeat with repeats = 3" in output
    assert "0.500" in output


def test_one_seed_a_side_is_said_to_be_of_trained_models_and_what_would_decide(tmp_path):
    for folder, predictions in (("a", 0.8), ("b", 0.82)):
        save_record(make_record(training={"accuracy": predictions}), tmp_path / folder)
    cell = fields(tmp_path / "a", tmp_path / "b", "--accuracy-margin", "3%")["cells"][0]["figures"]["accuracy"]
    assert (cell["difference"], cell["verdict"]) == (pytest.approx(0.02), "no difference")
    # 20 examples more that are right: p = 2^-19; within a margin of 1 point it is a difference.
    cell = fields(tmp_path / "a", tmp_path / "b")["cells"][0]["figures"]["accuracy"]
    assert (cell["verdict"], cell["p_holm"]) == ("better", pytest.approx(2**-19))
    assert (cell["num_seeds_a"], cell["num_seeds_b"], cell["judged"]) == (1, 1, "trained models")
    assert cell["basis"] == "paired over 1,000 test examples: of these trained models"
    assert (
        "better, accuracy, B-A of 1 cell: one seed: of these trained models"
        in invoke(tmp_path / "a", tmp_path / "b").stdout
    )


def test_seeds_a_side_are_of_recipes_and_undecided_ones_say_what_would_decide(tmp_path):
    for folder, accuracies in (("a", (0.8, 0.82)), ("b", (0.82, 0.84))):
        for seed, accuracy in enumerate(accuracies):
            save_record(make_record(seed=seed, minutes=seed, training={"accuracy": accuracy}), tmp_path / folder)
    cell = fields(tmp_path / "a", tmp_path / "b")["cells"][0]["figures"]["accuracy"]
    assert (cell["verdict"], cell["judged"], cell["num_seeds_b"]) == ("cannot tell", "recipes", 2)
    # Between seeds (0.000190 measured + 0.000392 and 0.000376 assumed) / 2, together 0.000574; over examples 0.0000106;
    # an interval that excludes 0 needs (0.02 / 1.96)^2 = 0.000104: 6.1 seeds.
    assert cell["would_decide"] == {"num_seeds": 7, "num_test": None}
    invoke(tmp_path / "a", tmp_path / "b", "--markdown", tmp_path / "table.md")
    line = f"- To decide accuracy of {CELL}, if the difference stays as measured: 7 seeds a side."
    assert line in (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()


def test_macro_f1_is_compared_instead_of_accuracy(tmp_path):
    for folder, accuracy in (("a", 0.6), ("b", 0.8)):
        save_record(make_record(training={"accuracy": accuracy}), tmp_path / folder)
    figures = fields(tmp_path / "a", tmp_path / "b", "--metric", "macro_f1")["cells"][0]["figures"]
    assert "accuracy" not in figures and figures["macro_f1"]["verdict"] == "better"
    assert "macro F1, B-A" in invoke(tmp_path / "a", tmp_path / "b", "--metric", "macro_f1").stdout


def test_an_archive_is_compared_like_its_folder(sides, tmp_path):
    archive = tmp_path / "after.tar.gz"
    pack_records(sides[1].rglob("*.json"), sides[1], archive)
    assert fields(sides[0], archive)["cells"] == fields(*sides)["cells"]


def test_strict_rejects_differing_packages_and_names_them(tmp_path):
    before = save(tmp_path / "a", 1.0, 1.01, 0.99)
    after = save(tmp_path / "b", 1.0, 1.01, 0.99, minutes=60, packages={"torch": "2.12.0"})
    assert "differs: torch" in invoke(before, after).stderr
    with pytest.raises(UserError, match=r"torch: 2\.12\.0 on B; 2\.13\.0 on A"):
        invoke(before, after, "--strict")
    invoke(before, save(tmp_path / "c", 1.0, minutes=60), "--strict")


def test_two_machines_in_one_folder_are_compared(tmp_path):
    folder = save(tmp_path / "both", 1.0, 1.001, 0.999, machine=make_machine(machine_id="slow-box"))
    save(folder, 0.5, 0.501, 0.499, machine=make_machine(machine_id="quick-box", host="host-q"))
    by_option = fields(folder, folder, "--machine-a", "slow", "--machine-b", "quick")
    assert by_option == fields(f"{folder}:slow-box", f"{folder}:quick-box")
    assert by_option["cells"][0]["figures"]["samples_per_s"]["verdict"] == "faster"
    with pytest.raises(UserError, match="name different machines"):
        invoke(f"{folder}:slow-box", folder, "--machine-a", "quick-box")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--margin", "lots"], r"--margin lots: expected a fraction from 0% to below 100%"),
        (["--fail-above", "3"], r"--fail-above 3: expected a fraction"),
        (["--run-spread", "nan"], r"--run-spread nan: expected a fraction"),
    ],
)
def test_invalid_options_are_rejected(sides, args, message):
    with pytest.raises(UserError, match=message):
        invoke(*sides, *args)


def test_a_missing_path_is_rejected(sides):
    with pytest.raises(UserError, match=r"nowhere: no such folder, file or archive"):
        invoke(sides[0], "nowhere")


def test_amounts_are_shown_in_the_users_currency(sides, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[currency]\ncode = "EUR"\nper_usd = 0.5\nas_of = 2026-11-01\nsource = "by hand"\n', encoding="utf-8"
    )
    # 1 USD an hour at 16 samples/s is 0.01736 USD per 1,000 samples.
    output = invoke(*sides, "--prices", prices, "--usd-per-hour", "1").stdout
    assert "EUR per 1,000" in output and "€0.00868" in output
    assert "$0.0174" in invoke(*sides, "--usd-per-hour", "1").stdout
