"""What the page computes with: prices that may be chosen, and descriptions that its inputs are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from harness.decision.choice import choose
from harness.errors import Unavailable
from harness.pricing.price_search import find_instance
from harness.pricing.price_table import load_prices
from harness.pricing.prices import choices, price_machine
from harness.report.page_data import inputs, page_data, values
from harness.schema.assumptions import Assumptions, load_assumptions
from tests.make_priced import ASSUMED, GPU_MACHINE, priced, study_records, two_machines
from tests.make_records import GIB, make_machine

TABLE = load_prices()


def unpacked(found):
    return [dict(zip(found["cells"]["fields"], row, strict=True)) for row in found["cells"]["rows"]]


def test_a_gpu_machine_may_be_priced_where_the_same_card_and_count_are():
    machine = make_machine(gpus=["NVIDIA A10G"])
    own = price_machine(TABLE, machine)
    first, *others = choices(TABLE, machine, own)
    assert first is own
    rows = [find_instance(TABLE, price.instance, price.region) for price in others]
    assert {(row.hardware, row.accelerator_count) for row in rows} == {("NVIDIA A10G", 1)}
    assert [row.usd_per_hour_on_demand for row in rows] == sorted(row.usd_per_hour_on_demand for row in rows)
    assert (
        len(choices(TABLE, make_machine(gpus=["NVIDIA A10G"] * 3), Unavailable("no row"))) == 1
    )  # nobody rents out three


def test_a_cpu_machine_may_be_what_covers_it_and_has_no_gpu():
    machine = make_machine(num_logical=8)
    first, *others = choices(TABLE, machine, Unavailable("no price was found"))
    assert first is None
    assert len(others) >= 3
    for price in others:
        row = find_instance(TABLE, price.instance, price.region)
        assert row.accelerator_count == 0
        assert row.vcpus >= 8
        assert row.memory_gib * GIB >= machine.memory_bytes
        assert price.basis == "stated"
        assert not price.instance.startswith("t3.")  # burstable


def test_the_reports_own_price_is_not_offered_twice():
    machine = make_machine()
    own = price_machine(TABLE, machine)
    found = choices(TABLE, machine, own)
    places = [(price.provider, price.instance, price.region) for price in found]
    assert len(places) == len(set(places)) > 1


def test_every_assumption_but_what_only_a_file_says_has_an_input():
    names = [each.name for each in inputs()]
    assert len(names) == len(set(names))
    told = dict(values(Assumptions()))
    file_alone = {"prices.own.name", "prices.own.machine", "prices.currency.source", "prices.energy.watts_source"}
    assert set(told) - set(names) == file_alone
    described = {each.name: asdict(each) for each in inputs()}
    assert described["prices.own.years"] | {"why": ""} == {
        "name": "prices.own.years", "title": "Kept for", "unit": "years", "why": "", "choices": [], "pattern": None,
        "is_date": False, "is_number": True, "is_optional": False, "min": None, "above": 0, "max": None, "below": None,
    }  # fmt: skip
    assert described["prices.plan"]["choices"] == ["on_demand", "spot", "committed", "own"]
    assert described["prices.currency.as_of"]["is_date"]
    assert described["prices.currency.code"]["pattern"] == "^[A-Z]{3}$"
    assert described["prices.energy.watts"]["is_optional"]
    assert (described["prices.discount_percent"]["min"], described["prices.discount_percent"]["below"]) == (0, 100)
    assert all(one["title"] for one in described.values())


def test_cells_hold_what_python_knows_and_stand_at_their_own_places():
    records, prices = two_machines()
    cells = priced(records, prices=prices)
    choice = choose(cells)
    found = page_data(cells, choice, Assumptions(), {})
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    for cell, told in zip(cells, unpacked(found), strict=True):
        assert told["name"] == cell.summary.cell
        assert told["train_s"] == cell.summary.train_s
        assert found["machines"][told["machine"]]["id"] == cell.summary.machine_id
        assert told["compared"] == any(cell is one for one in choice.compared)
        if cell.summary.accuracy is not None:
            assert told["accuracy"] == [
                cell.summary.accuracy.value,
                cell.summary.accuracy.low,
                cell.summary.accuracy.high,
            ]
    assert unpacked(found)[found["tfidf"]]["classifier"] == "tfidf"
    gpu = next(machine for machine in found["machines"] if machine["id"] == GPU_MACHINE["id"])
    assert gpu["has_gpus"]
    assert [choice["listed"] for choice in gpu["choices"]] == [1.006]


def test_a_machine_without_a_price_says_why():
    (machine,) = page_data(cells := priced(study_records(), None), choose(cells), Assumptions(), {})["machines"]
    assert (machine["choices"], machine["chosen"]) == ([], None)
    assert machine["missing"] == "no price row has this machine; give --usd-per-hour"


def test_a_price_that_hardware_disagrees_with_is_doubtful():
    odd = replace(ASSUMED, basis="stated", note="m5.xlarge has 4 logical CPUs; seen: 2")
    (machine,) = page_data(cells := priced(study_records(), odd), choose(cells), Assumptions(), {})["machines"]
    assert machine["choices"][0]["doubtful"]


def test_what_the_readers_files_gave_is_the_readers(tmp_path):
    path = tmp_path / "prices.toml"
    rate = '[[rate]]\ninstance = "m5.xlarge"\nusd_per_hour = 0.1\nas_of = 2026-11-02\n'
    path.write_text(f"discount_percent = 7\n{rate}", encoding="utf-8")
    assumed = load_assumptions(path)
    found = page_data(cells := priced(study_records()), choose(cells), assumed, {})
    assert found["given"] == ["prices.discount_percent", "prices.rate"]
    assert found["values"]["prices.discount_percent"] == 7
    (rate,) = found["rates"]
    assert rate == {
        "instance": "m5.xlarge", "region": None, "plan": "on_demand", "usd_per_hour": 0.1, "as_of": "2026-11-02",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["name", "missing", "instance"])
def test_foreign_texts_are_cleaned(name):
    hostile = "\u202e" + "x" * 10_000
    records = [record.model_copy(update={"cell": hostile}) for record in study_records()]
    cells = priced(records, replace(ASSUMED, instance=hostile) if name != "missing" else None)
    cells = [replace(cell, missing=hostile if cell.missing else None) for cell in cells]
    found = page_data(cells, choose(cells), Assumptions(), {})
    machine = found["machines"][0]
    text = {"name": unpacked(found)[0]["name"], "missing": machine["missing"]} | (
        {"instance": machine["choices"][0]["instance"]} if machine["choices"] else {}
    )
    assert "\u202e" not in text[name]
    assert len(text[name]) <= 600
