"""comparing.js and machine_comparison.js rank as analysis/ranking.py and decision/side_by_side.py do."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
from importlib.resources import files

import pytest
from scipy import special

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.ranking import MAX_DEGREES_OF_FREEDOM, rank_all
from harness.analysis.summarize import summarize
from harness.decision.choice import choose
from harness.pricing.cost import price
from harness.pricing.prices import Price
from harness.report.formatting import USD
from harness.report.page_data import page_data
from harness.report.sections.machines import machines_section
from harness.schema.assumptions import Assumptions
from tests.make_records import make_machine, make_record

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is missing")


def in_javascript(expression, data, names=("comparing",)):
    assets = files("harness.report.assets")
    script = "\n".join(assets.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in names)
    script += f"\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify({expression}));"
    completed = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(completed.stdout)


def test_students_p_values_are_scipys():
    cases = [(df, t) for df in (0.7, 1, 1.9, 4, 17.3, 120, 1000) for t in (0, 0.01, 1, 2.5, 8, 40)]
    computed = in_javascript("data.map(([df, t]) => comparing.studentP(df, t))", cases)
    for (df, t), p_value in zip(cases, computed, strict=True):
        assert p_value == pytest.approx(2 * special.stdtr(df, -t), rel=1e-9, abs=1e-300), (df, t)


def test_rankings_are_pythons():
    rng = random.Random(20261127)

    def figure():
        if rng.random() < 0.1:
            return None
        value, df = math.exp(rng.gauss(0, 0.4)), rng.choice([1.5, 2, 4, 9.7, math.inf])
        if rng.random() < 0.1:
            return Estimate(value, None, None, "", df)
        if rng.random() < 0.05:
            return Estimate(0.0, 0.0, 0.0, "")
        factors = [math.exp(rng.uniform(0.0, 0.4)) for _ in range(2)]
        return Estimate(value, value / factors[0], value * factors[1], "", df)

    cases = [[[figure() for _ in range(rng.randint(0, 5))] for _ in range(rng.randint(1, 4))] for _ in range(300)]

    def packed(estimate):
        if estimate is None:
            return None
        df = min(estimate.degrees_of_freedom, MAX_DEGREES_OF_FREEDOM)
        return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "df": df, "t": t_quantile(df)}

    data = [[[packed(estimate) for estimate in figures] for figures in families] for families in cases]
    num_clear = 0
    for most in (True, False):
        found = in_javascript(f"data.map((families) => comparing.rankAll(families, {json.dumps(most)}))", data)
        for families, computed in zip(cases, found, strict=True):
            expected = [[ranking.first, list(ranking.level)] for ranking in rank_all(families, most=most)]
            assert computed == expected
            num_clear += sum(len(ranking.clear) for ranking in rank_all(families, most=most))
    assert num_clear > 100


def test_the_page_writes_the_tables_of_machines_as_python_does():
    """Every line's verdict and every machine's best, with runs that missed the target."""
    rng = random.Random(20261127)
    machines = [make_machine(machine_id=f"m-{index}", host=f"host-{index}") for index in range(3)]
    sections = {"training": {"target_accuracy": 0.75}}
    records = [
        make_record(
            machine=machine,
            axes={"batch_size": size},
            seed=seed,
            minutes=30 * seed,
            sections=sections,
            training={
                "seconds": [(index + 1) * math.exp(rng.gauss(0, 0.2))] * 40,
                "evaluations": [(20.0, rng.choice([0.7, 0.76]), 1.0)],
            },
        )
        for index, machine in enumerate(machines)
        for size in (4, 8, 16)
        for seed in range(1 if size == 4 else 4)
    ]
    hourly = Price(0.36, None, None, None, "given", None, None, None, usd_per_hour_on_demand=0.36)
    cells = price(summarize(records), lambda _summary: hourly)
    assumed = Assumptions()
    section = machines_section(cells, assumed, USD)
    data = page_data(cells, choose(cells, assumed), assumed, {}) | {"side": section.recompute}
    names = ("formulas", "wording", "recompute", "comparing", "ranking", "machine_comparison")
    money = "{ amount: (usd) => usd, interval: () => '', convert: (usd) => usd }"
    script = f"""(() => {{
      const facts = recompute.unpack(data);
      const context = {{ facts, values: facts.values, derived: recompute.derive(facts, {{ values: facts.values, choices: [] }}), moneyFormat: {money} }};
      const lines = facts.side.lines.map((_, place) => machineComparison.tableCell("verdict", place, context));
      const bests = facts.side.figures.map((key) => facts.side.machines.map((_, place) => machineComparison.tableCell(key, place, context).lines));
      return {{ lines, bests }};
    }})()"""
    page = in_javascript(script, data, names)
    heads = [row[1] for row in section.shared.rows]
    assert [[cell["text"], "; ".join(cell["lines"]), cell["title"]] for cell in page["lines"]] == [
        [field.text, field.extra, field.title] for field in heads
    ]
    assert {field.text for field in heads} >= {"fastest: none clearly"}
    num_missed = 0
    for row, found in zip(section.types.rows, zip(*page["bests"], strict=True), strict=True):
        for field, lines in zip(row[1:], found, strict=False):
            spread, *own = field.extra.split("; ")  # the interval comes first; here the page writes none for amounts
            assert own == [line for line in lines if line != spread]
            num_missed += sum("missed it" in line for line in lines)
    assert num_missed > 0
