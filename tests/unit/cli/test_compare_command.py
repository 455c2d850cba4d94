"""`harness compare` on real records and on made-up ones: exit status, table, Markdown, JSON."""

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
    for repeat, one in enumerate(step_s):
        save_record(
            make_record(
                repeat=repeat, minutes=minutes + repeat, machine=machine,
                training={"seconds": [one] * 40, "peaks": [(0, "rss", 600 * MIB)]}, **fields,
            ),
            folder,
        )  # fmt: skip
    return folder


@pytest.fixture
def sides(tmp_path):
    before = save(tmp_path / "before", 1.000, 1.001, 0.999)
    return before, save(tmp_path / "after", 1.100, 1.101, 1.099, minutes=60)


@pytest.mark.parametrize("folder", [REFERENCE, AMD, AMD / "ddp", INTEL], ids=lambda path: path.name)
def test_a_folder_held_against_itself_is_neither_faster_nor_slower(folder):
    found = fields(folder, folder, "--fail-above", "0%")
    verdicts = [figure["verdict"] for cell in found["cells"] for figure in cell["figures"].values()]
    assert len(verdicts) > 8 and set(verdicts) <= {"no difference", "cannot tell"}
    assert all(figure["verdict"] in ("no difference", "cannot tell") for figure in found["overall"].values())
    assert all(cell["figures"]["samples_per_s"]["ratio"] == pytest.approx(1) for cell in found["cells"])
    assert not found["failed"] and any("stand on both sides" in note for note in found["notes"]) and not found["alone"]


def test_three_repeats_that_agree_within_three_percent_are_told_so():
    found = fields(AMD / "ddp", AMD / "ddp")
    told = {cell["cell"]: cell["figures"]["samples_per_s"] for cell in found["cells"]}
    steady = told["b16-s64-fp32-cpu-grouped-all"]
    assert steady["verdict"] == "no difference" and steady["basis"] == "between 3 and 3 runs (Welch)"
    assert 0.98 < steady["ratio_low"] < 1 < steady["ratio_high"] < 1.02
    # These repeats lie 20 % apart: nothing can be told of 3 %.
    assert told["b32-s64-fp32-cpu-grouped-all"]["verdict"] == "cannot tell"


def test_two_kinds_of_machine_with_one_run_a_cell_are_not_ranked():
    found = fields(f"{REFERENCE}:amd-epyc-2c-24g", f"{REFERENCE}:intel", "--fail-above", "3%")
    speeds = {cell["cell"]: cell["figures"]["samples_per_s"] for cell in found["cells"]}
    assert len(speeds) == 12 and {one["verdict"] for one in speeds.values()} == {"cannot tell"}
    assert speeds["b16-s64-bf16-cpu-grouped-all"]["ratio"] == pytest.approx(47.9 / 88.9, abs=0.002)
    assert all("one run" in one["reason"] for one in speeds.values())
    assert not found["failed"]
    assert "machine: amd-epyc-2c-24g-dbbbf2 on A; intel-xeon-2c-24g-b47fd4 on B" in found["differences"]
    assert {(one["side"], one["cell"]) for one in found["alone"]} >= {("B", "b16-s64-fp32-cpu-ddp2-grouped-all")}
    # Same seed, same rows: in fp32 both machines' models say the same of every example.
    assert {cell["figures"]["accuracy"]["difference"] for cell in found["cells"] if "fp32" in cell["cell"]} == {0.0}


def test_a_stated_spread_lets_the_clear_ones_be_told():
    found = fields(f"{REFERENCE}:amd-epyc-2c-24g", INTEL, "--run-spread", "5%")
    told = {cell["cell"]: cell["figures"]["samples_per_s"]["verdict"] for cell in found["cells"]}
    assert told["b16-s64-bf16-cpu-grouped-all"] == "slower" and told["b16-s32-fp32-cpu-grouped-all"] == "cannot tell"


def test_a_slow_down_fails_and_is_shown(sides, tmp_path):
    said = invoke(*sides, "--fail-above", "3%", "--markdown", tmp_path / "table.md", status=1).stdout
    assert CELL in said and "slower" in said
    assert f"--fail-above 3%: FAILED, certainly slower by more: {CELL}." in said
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("Speed of 1 cell on both sides: 1 slower. --fail-above 3%: FAILED")
    assert lines[2:4] == ["| cell | figure | A | B | B/A, 95 % | verdict |", "|---|---|---:|---:|---:|---|"]
    assert lines[4].startswith(f"| {CELL} | samples/s | 16.0 | 14.5 | 0.909 (0.907 to 0.911) | slower |")
    assert any(line.startswith("- All runs of A were made before those of B") for line in lines)
    assert "passed; 1 of 1 cell could have failed" in invoke(*sides[::-1], "--fail-above", "3%").stdout
    assert "FAILED" not in invoke(*sides).stdout


def test_one_run_a_side_passes_and_says_that_nothing_was_held(tmp_path):
    one, other = save(tmp_path / "a", 1.0), save(tmp_path / "b", 2.0, minutes=60)
    said = invoke(one, other, "--fail-above", "3%").stdout
    assert "passed, but nothing was held to it" in said
    assert "one run: spread between runs unknown, repeat with repeats = 3" in said
    assert "0.500" in said


def test_archives_are_read_as_folders_are(sides, tmp_path):
    archive = tmp_path / "after.tar.gz"
    pack_records(sides[1].rglob("*.json"), sides[1], archive)
    assert fields(sides[0], archive)["cells"] == fields(*sides)["cells"]


def test_strict_refuses_what_differs_and_names_it(tmp_path):
    one = save(tmp_path / "a", 1.0, 1.01, 0.99)
    other = save(tmp_path / "b", 1.0, 1.01, 0.99, minutes=60, packages={"torch": "2.12.0"})
    assert "differs: torch" in invoke(one, other).stderr
    with pytest.raises(UserError, match=r"torch: 2\.12\.0 on B; 2\.13\.0 on A"):
        invoke(one, other, "--strict")
    invoke(one, save(tmp_path / "c", 1.0, minutes=60), "--strict")


def test_one_folder_of_two_machines(tmp_path):
    folder = save(tmp_path / "both", 1.0, 1.001, 0.999, machine=make_machine(machine_id="slow-box"))
    save(folder, 0.5, 0.501, 0.499, machine=make_machine(machine_id="quick-box", host="host-q"))
    by_option = fields(folder, folder, "--machine-a", "slow", "--machine-b", "quick")
    assert by_option == fields(f"{folder}:slow-box", f"{folder}:quick-box")
    assert by_option["cells"][0]["figures"]["samples_per_s"]["verdict"] == "faster"
    with pytest.raises(UserError, match="name different machines"):
        invoke(f"{folder}:slow-box", folder, "--machine-a", "quick-box")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--margin", "lots"], r"--margin lots: expected a fraction from 0% to below 100%"),
        (["--fail-above", "3"], r"--fail-above 3: expected a fraction"),
        (["--run-spread", "nan"], r"--run-spread nan: expected a fraction"),
    ],
)
def test_mistakes_in_options(sides, args, said):
    with pytest.raises(UserError, match=said):
        invoke(*sides, *args)


def test_a_path_that_is_not_there(sides):
    with pytest.raises(UserError, match=r"nowhere: no such folder, file or archive"):
        invoke(sides[0], "nowhere")


def test_amounts_in_the_readers_currency(sides, tmp_path):
    book = tmp_path / "prices.toml"
    book.write_text(
        '[currency]\ncode = "EUR"\nper_usd = 0.5\nas_of = 2026-11-01\nsource = "by hand"\n', encoding="utf-8"
    )
    # 1 USD an hour over 16 samples a second: 0.01736 USD a thousand.
    said = invoke(*sides, "--prices", book, "--usd-per-hour", "1").stdout
    assert "EUR per 1,000" in said and "€0.00868" in said
    assert "$0.0174" in invoke(*sides, "--usd-per-hour", "1").stdout
