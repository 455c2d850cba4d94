"""The reference records get the verdict and choice of results/reference/verdicts.md, everywhere alike."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.decision.choice import choose
from harness.report import write_report
from harness.store.archive import read_records
from harness.workflows.priced_records import PriceOptions, price_records

REFERENCE = Path(__file__).parents[3] / "results/reference"
MACHINE = "amd-epyc-2c-24g-dbbbf2"


def expected():
    """Read the table: folder, verdict and cell."""
    text = (REFERENCE / "verdicts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w/ ]+?) \| (use|do not use yet|measure more) \| `([^`]+)` \|", text, re.MULTILINE)
    folders = {"all of results/reference": REFERENCE}
    return [(folders.get(name, REFERENCE / MACHINE / name), verdict, cell) for name, verdict, cell in rows]


def test_the_table_has_every_folder():
    assert len(expected()) == 7


@pytest.mark.parametrize(("folder", "verdict", "cell"), expected(), ids=lambda value: str(value)[-30:])
def test_page_summary_command_and_star_agree_with_the_table(folder, verdict, cell, tmp_path):
    priced = price_records(read_records([folder]).records, PriceOptions())
    choice = choose(priced.cells, priced.assumed)
    assert (choice.verdict.kind, choice.way.name) == (verdict, cell)

    fields = json.loads(CliRunner().invoke(app, ["recommend", str(folder), "--json"]).stdout)
    assert (fields["verdict"], fields["pick"]["cell"]) == (verdict, cell)
    assert fields["largest_loss_not_excluded"] == pytest.approx(choice.way.loss.largest)

    write_report(priced.cells, tmp_path, generated_at=datetime.now(UTC), assumptions=priced.assumed)
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()[2]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    starts = {"measure more": "Measure more before you decide.", "do not use yet": "Do not use it yet", "use": "Use "}
    assert summary.startswith(starts[verdict])
    facts = json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)[1])
    assert facts["answer"][0].startswith(starts[verdict])
    figures = json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)[1])
    (chart,) = [figure["figure"]["data"] for figure in figures if figure["key"] == "chart-cost"]
    (star,) = [trace for trace in chart if trace["name"].startswith("chosen")]
    assert list(star["y"]) == [pytest.approx(choice.pick.summary.accuracy.value)]


def test_the_default_records_do_not_recommend_the_frozen_head():
    # `recommend` called the frozen head (61.5 %, the majority class's accuracy) cheapest, fastest and balanced.
    fields = json.loads(CliRunner().invoke(app, ["recommend", str(REFERENCE / MACHINE / "default"), "--json"]).stdout)
    assert fields["pick"]["score"]["value"] == pytest.approx(0.801)
    assert fields["differences"]["tfidf"]["value"] == pytest.approx(0.132)
    assert fields["differences"]["tfidf"]["low"] > 0.09


def test_the_ladder_does_not_star_the_least_certain_step():
    # The star went to 74.9 % (67.5 to 82.4), where 0.0003 USD more buys 81.2 %; by the page's own value model it loses money.
    priced = price_records(read_records([REFERENCE / MACHINE / "ladder"]).records, PriceOptions())
    choice = choose(priced.cells, priced.assumed)
    assert choice.way.score.value == pytest.approx(0.812)
    losses = {way.name: way.loss for way in choice.ways}
    unsure = losses["b32-s128-bf16-cpu-grouped-top3-lr=0.0003-attention_dropout=0-hidden_dropout=0"]
    assert unsure.mean > 0.03
