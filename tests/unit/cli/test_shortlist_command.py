"""`harness shortlist`: its options, table, Markdown and JSON."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.views.shortlist import shortlist_markdown, show_shortlist
from harness.errors import UserError
from harness.pricing.price_search import PriceQuery
from harness.report.formatting import USD
from harness.schema.expansion import expand
from harness.schema.study_file import load_study
from harness.workflows.shortlist import ShortlistOptions, make_shortlist

STUDY = Path(__file__).parents[3] / "bench" / "gpu.toml"


def harness(*args):
    result = CliRunner().invoke(cli.app, ["shortlist", str(STUDY), "--results", "no-such-folder", *args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@functools.cache
def found(num_samples=1_000_000, deadline_s=None, budget_usd=None):
    query = PriceQuery(provider="aws", region="us-east-1")
    options = ShortlistOptions(query, num_samples=num_samples, deadline_s=deadline_s, budget_usd=budget_usd)
    return make_shortlist(expand(load_study(STUDY)), options)


def shown(shortlist, *, show_all=False):
    console = Console(file=io.StringIO(), width=200)
    show_shortlist(console, shortlist, USD, show_all=show_all)
    return console.file.getvalue()


def test_json_has_every_row_and_three_to_measure():
    printed = json.loads(harness("--json"))
    fields = {
        "provider",
        "instance_type",
        "region",
        "cell",
        "basis",
        "fits",
        "largest_batch",
        "samples_per_s",
        "usd",
        "hours",
    }
    ends = {f"{name}_{end}" for name in ("samples_per_s", "usd", "usd_spot", "hours") for end in ("low", "high")}
    assert all(fields | ends <= row.keys() for row in printed["rows"])
    assert {row["basis"] for row in printed["rows"]} == {"datasheet", "must be measured"}
    for row in printed["rows"]:
        if row["basis"] == "datasheet":
            assert row["usd_low"] <= row["usd"] <= row["usd_high"]
            assert row["samples_per_s_low"] < row["samples_per_s"] < row["samples_per_s_high"]
            assert row["fits"] is True
            assert row["largest_batch"] >= 64 or "b64" not in row["cell"]
        else:
            assert row["usd"] is row["samples_per_s"] is row["hours_low"] is None
            assert row["reasons"]
    assert len(printed["measure_first"]) == 3
    for pick in printed["measure_first"]:
        assert 0 <= pick["probability"] <= printed["probability"] <= 1
        assert pick["measuring_usd_low"] < pick["measuring_usd"] < pick["measuring_usd_high"]
    assert (printed["num_samples"], printed["startup_s"], printed["setup_s"]) == (3840, 60, 120)


def test_the_command_prints_and_writes_what_was_asked_for(tmp_path):
    path = tmp_path / "shortlist.md"
    text = harness(
        "--provider", "aws", "--gpu", "T4", "--samples", "1000000", "--deadline", "2h", "--markdown", str(path)
    )
    assert "g4dn.xlarge" in text
    assert "g5.xlarge" not in text
    assert path.read_text(encoding="utf-8").startswith("| machine | bill | spot | hours | samples/s | cell |")


def test_files_that_are_no_records_are_named(tmp_path, capsys):
    (tmp_path / "machine" / "study" / "cell").mkdir(parents=True)
    (tmp_path / "machine" / "study" / "cell" / "broken.json").write_text("{", encoding="utf-8")
    result = CliRunner().invoke(cli.app, ["shortlist", str(STUDY), "--results", str(tmp_path), "--provider", "aws"])
    assert result.exit_code == 0
    assert "broken.json" in result.output + capsys.readouterr().err


def test_the_table_shows_ten_machines_and_says_what_is_hidden():
    text, rows = " ".join(shown(found()).split()), found().rows
    num_known = sum(row.basis == "datasheet" for row in rows)
    unknown = len(rows) - num_known
    assert text.count("by datasheet") == 10
    hidden = f"{num_known - 10} that cost more, {unknown} that must be measured ({unknown}: the study has no cell for a CPU)."
    assert f"Not shown (--all shows them): {hidden}" in text
    assert "A bill is for training on 1,000,000 rows, evaluations, and 3.00 min of start and set-up (assumed)" in text
    assert "Intervals are wide because: the published runs had another training loop" in text
    assert "A figure from a datasheet says what to measure, and never which machine is best." in text
    everything = shown(found(), show_all=True)
    assert everything.count("by datasheet") == num_known
    assert everything.count("must be measured") == unknown
    assert "Not shown" not in everything


def test_figures_have_their_intervals():
    row = found().rows[0]
    text = shown(found())
    assert USD.amount(row.usd.value) in text
    assert USD.interval(row.usd) in text
    assert f"{row.samples_per_s.low:,.0f} to {row.samples_per_s.high:,.0f}" in text
    assert f"batch up to {row.largest_batch:,}" in text


def test_limits_hide_machines_and_say_so():
    limited = found(deadline_s=1800, budget_usd=2)
    text = shown(limited)
    assert "that miss a limit" in text
    assert "g4dn.xlarge " not in text.split("Measure these first")[0]
    everything = shown(limited, show_all=True)
    assert "misses the deadline" in everything
    assert "misses the budget" in everything
    assert "Nothing to advise" in shown(found(deadline_s=1))


def test_a_short_run_is_decided_by_the_price_of_an_hour():
    assert "so that the price of an hour decides. For a longer training: --samples 1000000" in shown(found(None))
    assert "price of an hour decides" not in shown(found())


def test_markdown_has_the_same_figures():
    lines = shortlist_markdown(found(), USD).splitlines()
    rows = [line for line in lines if " | $" in line]
    assert len(rows) == 10
    row = found().rows[0]
    bill = f"{USD.amount(row.usd.value)} ({USD.interval(row.usd)})"
    assert rows[0].startswith(f"| {row.price.instance_type} (aws us-east-1, 1 x T4) | {bill} |")
    assert sum(line.startswith("- ") for line in lines) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--provider", "nobody"), "its providers"),
        (("--deadline", "soon"), "--deadline soon"),
        (("--max-usd", "0"), "--max-usd 0"),
        (("--only", "precision=int8"), "--only precision=int8"),
    ],
)
def test_mistakes_in_options_are_named(args, message):
    with pytest.raises(UserError, match=message):
        harness(*args)
