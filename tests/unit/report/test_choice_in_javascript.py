"""ranking.js chooses as decision/choice.py does: on the reference records, under other prices, targets and machines."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from harness.decision.choice import Goal, choose
from harness.report.formatting import USD
from harness.report.page_data import page_data, values
from harness.report.sections.plain_verdict import plain_sentences
from harness.schema.assumptions import Assumptions
from harness.store.archive import read_records
from harness.workflows.priced_records import PriceOptions, price_records

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="Node.js is missing; tests/e2e compares in a browser"
)

REFERENCE = Path(__file__).parents[3] / "results/reference"
FOLDERS = [
    REFERENCE,
    *sorted(path for path in REFERENCE.glob("*/*") if path.name in ("default", "ladder", "data", "ddp", "coverage")),
]
HOSTED = {
    "prices.serving.hosted_usd_per_million": 5.0, "prices.serving.hosted_accuracy": 0.93, "value.items_per_month": 20_000.0,
}  # fmt: skip
# Values that the reader changes, and the accuracy that the reader needs.
STATES = [
    ({}, None),
    ({}, 0.75),
    ({}, 0.79),
    ({}, 0.9),
    ({"prices.retraining.per_month": 4.0}, None),
    ({"prices.retraining.trials_per_kept": 3.0, "value.label_usd": 0.2}, None),
    ({"value.num_labels": 100.0, "value.label_usd": 0.3}, None),
    (HOSTED, None),
    (HOSTED, 0.8),
    ({"value.right_usd": 0.0, "value.wrong_usd": 1.0}, None),
]
KINDS = ("way", "pick", "best", "rivals", "level", "inDollars", "verdict")


def in_javascript(facts, states, asked="choice"):
    """Return the choice, or the sentences of the verdict, of the page's scripts for each state."""
    names = ("formulas.js", "wording.js", "recompute.js", "comparing.js", "ranking.js", "decision.js")
    scripts = [files("harness.report.assets").joinpath(name).read_text(encoding="utf-8") for name in names]
    results = {"choice": "chosen", "sentences": "decision.sentences(facts, derived, chosen, full)"}
    script = "\n".join([
        *scripts,
        f"const facts = recompute.unpack({json.dumps(facts)});",
        f"const states = {json.dumps(states)};",
        "const all = states.map((state) => { const full = { choices: {}, ...state, values: { ...facts.values, ...state.values } };"
        " const derived = recompute.derive(facts, full); const chosen = ranking.choose(facts, derived, full);"
        f" return {results[asked]} }});",
        "console.log(JSON.stringify(all));",
    ])  # fmt: skip
    completed = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(completed.stdout)


def assumptions_with(changed):
    """Assumptions whose file states these values."""
    fields = {}
    for name, value in changed.items():
        *path, key = name.split(".")
        place = fields
        for part in path:
            place = place.setdefault(part, {})
        place[key] = value
    return Assumptions.model_validate(fields | {"set_by_user": set(changed)})


def summary_of(choice, places):
    """What both languages must agree on."""
    way = choice.way
    return {
        "way": None if way is None else [way.kind, way.cell and places[way.cell.key]],
        "pick": None if choice.pick is None else places[choice.pick.key],
        "best": None if choice.best is None or choice.best.cell is None else places[choice.best.cell.key],
        "rivals": [places[each.cell.key] for each in choice.admitted if each.cell is not None],
        "level": [places[cell.key] for cell in choice.level],
        "inDollars": choice.in_dollars,
        "verdict": {"kind": choice.verdict.kind, "reasons": [each.kind for each in choice.verdict.reasons]},
    }


def summary_in_javascript(chosen):
    way = chosen["way"]
    return {key: chosen[key] for key in KINDS} | {"way": None if way is None else [way["kind"], way["index"]]}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: "/".join(path.parts[-2:]))
def test_both_languages_choose_alike(folder):
    records = read_records([folder]).records
    written = price_records(records, PriceOptions())
    choice = choose(written.cells, written.assumed)
    facts = page_data(written.cells, choice, written.assumed, {})
    states = [{"values": changed, "accuracy": target, "machine": None} for changed, target in STATES]
    places = {cell.key: index for index, cell in enumerate(written.cells)}
    for (changed, target), chosen in zip(STATES, in_javascript(facts, states), strict=True):
        assumed = assumptions_with(changed)
        assert dict(values(assumed)) | {"prices.spot.checkpoint_s": None} == dict(values(Assumptions())) | changed | {
            "prices.spot.checkpoint_s": None
        }
        python = choose(written.cells, assumed, Goal(target=target))
        assert summary_in_javascript(chosen) == summary_of(python, places), (changed, target)


def test_machines_are_ranked_by_cost_only_at_known_prices():
    records = read_records([REFERENCE]).records
    for usd_per_hour, in_dollars in ((None, False), (0.1, True)):
        written = price_records(records, PriceOptions(usd_per_hour=usd_per_hour))
        choice = choose(written.cells, written.assumed)
        facts = page_data(written.cells, choice, written.assumed, {})
        (chosen,) = in_javascript(facts, [{"values": {}, "accuracy": None, "machine": None}])
        places = {cell.key: index for index, cell in enumerate(written.cells)}
        assert summary_in_javascript(chosen) == summary_of(choice, places)
        assert (len(facts["machines"]) > 1, choice.in_dollars) == (True, in_dollars)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: "/".join(path.parts[-2:]))
def test_both_languages_write_the_same_verdict(folder):
    written = price_records(read_records([folder]).records, PriceOptions())
    choice = choose(written.cells, written.assumed)
    facts = page_data(written.cells, choice, written.assumed, {})
    states = [{"values": changed, "accuracy": target, "machine": None} for changed, target in STATES]
    for (changed, target), sentences in zip(STATES, in_javascript(facts, states, "sentences"), strict=True):
        assumed = assumptions_with(changed)
        python = choose(written.cells, assumed, Goal(target=target))
        expected = plain_sentences(written.cells, python, USD)
        # Next steps are Python's alone, and amounts follow assumptions that price cells anew.
        kept = [line for line in expected if not line.startswith(("Next: ", "Then: "))]
        assert changed or [line for line in sentences if not line.startswith(("Next: ", "Then: "))] == kept, target
        assert sentences[0] == kept[0], (changed, target)


def test_one_machine_alone_is_compared_with_its_own_best():
    records = read_records([REFERENCE]).records
    written = price_records(records, PriceOptions())
    choice = choose(written.cells, written.assumed)
    facts = page_data(written.cells, choice, written.assumed, {})
    machines = [machine["id"] for machine in facts["machines"]]
    states = [{"values": {}, "accuracy": None, "machine": index} for index in range(len(machines))]
    places = {cell.key: index for index, cell in enumerate(written.cells)}
    for machine, chosen in zip(machines, in_javascript(facts, states), strict=True):
        own = [
            cell
            for cell in written.cells
            if cell.summary.machine_id == machine and cell.summary.test_sha256 == choice.pick.summary.test_sha256
        ]
        python = choose(own, written.assumed)
        assert chosen["pick"] == places[python.pick.key], machine
        assert chosen["rivals"] == [places[way.cell.key] for way in python.admitted], machine
