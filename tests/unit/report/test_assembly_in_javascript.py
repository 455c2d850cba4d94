"""recompute.js derives prices, costs and worth as harness/pricing and decision/worth.py do, to 1e-9."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields
from importlib.resources import files

import pytest

from harness.analysis.summarize import summarize
from harness.decision.choice import choose
from harness.decision.worth import judge_cell_worth
from harness.errors import Unavailable
from harness.pricing.cost import Priced, price
from harness.pricing.prices import Price
from harness.pricing.rates import apply_plan
from harness.report.page_data import page_data
from harness.schema.assumptions import Assumptions
from tests.costs import agrees
from tests.make_records import make_baseline, make_machine, make_record

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="Node.js is missing; tests/e2e compares the figures in a browser"
)

LISTED = Price(
    0.5, "g5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None,
    usd_per_hour_listed=0.5, usd_per_hour_on_demand=0.5, usd_per_hour_spot=0.2, granularity_s=60.0, minimum_s=120.0,
)  # fmt: skip
OTHER = make_machine(machine_id="epyc-8c-32g-000002", num_logical=8)
PRICE_OF_MACHINE = {"epyc-4c-16g-000001": LISTED, OTHER.id: Unavailable("no row has this machine")}
AMOUNTS = [field.name for field in fields(Priced) if field.name.startswith("usd_")]
USES = ({}, {"retraining": {"per_month": 2}}, {"retraining": {"trials_per_kept": 3}})
ENERGY = {"joules": "joules", "kwh": "energy_kwh", "usd": "energy_usd", "gco2e": "energy_gco2e"}
WORTH = (
    *("upfront_usd", "upkeep_usd_per_month", "serving_usd_per_million", "wrong_usd", "payback_months"),
    *("return_fraction", "break_even_accuracy", "break_even_items"),
)
RATES = [
    {"instance": "g5.xlarge", "plan": plan, "usd_per_hour": usd, "region": region}
    for plan, usd, region in (
        ("on_demand", 0.4, None), ("on_demand", 0.3, "us-east-1"), ("spot", 0.1, None), ("committed", 0.2, None),
        ("on_demand", 0.01, "eu-west-1"),
    )
]  # fmt: skip
PRICES = [
    {},
    {"discount_percent": 20, "retraining": {"num_rows": 5000}},
    *({"plan": plan, "rental": {"idle_hours_per_month": 10}} for plan in ("spot", "committed", "own")),
    *({"plan": plan, "rate": RATES} for plan in ("on_demand", "spot", "committed", "own")),
    {"plan": "own", "own": {"machine": OTHER.id}},
    {"plan": "spot", "spot": {"interruptions_per_hour": 3_600_000}},
    {"spot": {"checkpoint_every_s": 1e12}},
    {"energy": {"watts": 100}, "retraining": {"num_rows": 5000}},
]
VALUES = [{}, {"today": "by_hand"}, {"false_positive_usd": 0.1, "false_negative_usd": 0.01, "horizon_months": 0.5}]


def make_summaries():
    """Make cells of every kind: with and without accuracy, failed, baselines, repeated, with energy, without a price."""
    test = make_record().training.test.model_dump()
    return summarize(
        [
            make_record(energy={"source": "RAPL", "seconds": 50.0, "cpu_joules": (3000.0,)}),
            make_record(axes={"batch_size": 4}, training={"accuracy": None}, minutes=1),
            make_record(axes={"batch_size": 999}, outcome="oom", reason="x", minutes=2),
            make_record(machine=OTHER, minutes=3),
            make_record(axes={"device": "cpu-ddp2x3", "batch_size": 2}, minutes=3.5),
            make_baseline("majority", accuracy=0.5, minutes=4),
            make_baseline(accuracy=0.78, minutes=5),
            *(
                make_record(
                    axes={"batch_size": 8}, seed=seed, minutes=6 + seed,
                    sections={"training": {"target_accuracy": 0.75}},
                    training={
                        "seconds": [0.9 + seed / 10, 1.1] * 20, "test": test | {"evaluate_s": 4.0 + seed},
                        "evaluations": [(10.0, 0.7, 1.0), (20.0, 0.76, 2.0)],
                    },
                )
                for seed in range(3)
            ),
        ]
    )  # fmt: skip


def derive(all_data):
    """Run the page's scripts on the data of each page; return the costs and worth that they derive."""
    scripts = [
        files("harness.report.assets").joinpath(name).read_text(encoding="utf-8")
        for name in ("formulas.js", "recompute.js")
    ]
    states = "all.map(recompute.unpack).map((facts) => recompute.derive(facts, { values: facts.values, choices: [] }))"
    script = "\n".join([*scripts, f"const all = {json.dumps(all_data)};", f"console.log(JSON.stringify({states}));"])
    completed = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(completed.stdout)


def value_and_ends(estimate):
    sides = ("value", "low", "high")
    if isinstance(estimate, dict):
        return [estimate[side] for side in sides]
    return [None] * 3 if estimate is None else [getattr(estimate, side) for side in sides]


def figures_of(cell, assumed):
    """Return every figure of a cell as Python computes it."""
    figures = {name: value_and_ends(getattr(cell, name)) for name in AMOUNTS}
    figures |= {js: value_and_ends(cell.energy and getattr(cell.energy, name)) for name, js in ENERGY.items()}
    worth = judge_cell_worth(cell, assumed)
    if worth is None:
        return figures | {"worth": None}
    figures |= {name: [getattr(worth, name)] for name in WORTH}
    names = ("benefit_usd_per_month", "net_present_value_usd")
    return figures | {name: value_and_ends(getattr(worth, name)) for name in names}


def figures_in_javascript(money, worth):
    """Return the same figures as the page computes them."""
    figures = {name: value_and_ends(money.get(name)) for name in (*AMOUNTS, *ENERGY.values())}
    if worth is None:
        return figures | {"worth": None}
    figures |= {name: [worth[name]] for name in WORTH}
    return figures | {name: value_and_ends(worth[name]) for name in ("benefit_usd_per_month", "net_present_value_usd")}


def test_the_page_computes_every_cost_and_worth_as_python_does_under_every_plan():
    summaries = make_summaries()
    cases = [Assumptions.model_validate({"prices": p, "value": v}) for p in PRICES for v in VALUES]
    priced = [
        price(summaries, apply_plan(lambda summary: PRICE_OF_MACHINE[summary.machine_id], case.prices), case)
        for case in cases
    ]
    choices = {"epyc-4c-16g-000001": [LISTED]}
    derived = derive(
        [page_data(cells, choose(cells), case, choices) for cells, case in zip(priced, cases, strict=True)]
    )
    num_compared = 0
    for assumed, cells, page in zip(cases, priced, derived, strict=True):
        for index, cell in enumerate(cells):
            expected = figures_of(cell, assumed)
            computed = figures_in_javascript(page["money"][index], page["worth"][index])
            assert expected.keys() == computed.keys()
            for name, values in expected.items():
                pairs = zip(values or [None], computed[name] or [None], strict=True)
                wrong = [pair for pair in pairs if not agrees(pair[1], pair[0])]
                assert wrong == [], f"{name} of {cell.summary.cell} under {assumed.prices}"
                num_compared += sum(value is not None for value in values or [])
    assert num_compared > 3000
