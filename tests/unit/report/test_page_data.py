"""The data that the page computes with: prices to choose from, and descriptions of its inputs."""

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


def unpacked(data):
    return [dict(zip(data["cells"]["fields"], row, strict=True)) for row in data["cells"]["rows"]]


def test_a_gpu_machine_is_offered_prices_of_the_same_gpu_and_count():
    machine = make_machine(gpus=["NVIDIA A10G"])
    own = price_machine(TABLE, machine)
    first, *others = choices(TABLE, machine, own)
    assert first is own
    rows = [find_instance(TABLE, price.instance, price.region) for price in others]
    assert {(row.hardware, row.accelerator_count) for row in rows} == {("NVIDIA A10G", 1)}
    assert [row.usd_per_hour_on_demand for row in rows] == sorted(row.usd_per_hour_on_demand for row in rows)
    assert (
        len(choices(TABLE, make_machine(gpus=["NVIDIA A10G"] * 3), Unavailable("no row"))) == 1
    )  # no instance has three


def test_a_cpu_machine_is_offered_prices_of_cpu_instances_at_least_as_large():
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
    offered = choices(TABLE, machine, own)
    places = [(price.provider, price.instance, price.region) for price in offered]
    assert len(places) == len(set(places)) > 1


def test_every_assumption_has_an_input_unless_only_a_file_can_set_it():
    names = [each.name for each in inputs()]
    assert len(names) == len(set(names))
    defaults = dict(values(Assumptions()))
    file_only = {"prices.own.name", "prices.own.machine", "prices.currency.source", "prices.energy.watts_source"}
    assert set(defaults) - set(names) == file_only
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
    assert all(fields["title"] for fields in described.values())


def test_cells_have_pythons_figures_in_order():
    records, prices = two_machines()
    cells = priced(records, prices=prices)
    choice = choose(cells)
    data = page_data(cells, choice, Assumptions(), {})
    assert json.loads(json.dumps(data, allow_nan=False)) == json.loads(json.dumps(data))
    for cell, fields in zip(cells, unpacked(data), strict=True):
        assert fields["name"] == cell.summary.cell
        assert fields["train_s"] == cell.summary.train_s
        assert data["machines"][fields["machine"]]["id"] == cell.summary.machine_id
        assert fields["compared"] == any(cell is compared for compared in choice.compared)
        if cell.summary.accuracy is not None:
            assert fields["accuracy"] == [
                cell.summary.accuracy.value,
                cell.summary.accuracy.low,
                cell.summary.accuracy.high,
            ]
    assert unpacked(data)[data["tfidf"]]["classifier"] == "tfidf"
    gpu = next(machine for machine in data["machines"] if machine["id"] == GPU_MACHINE["id"])
    assert gpu["has_gpus"]
    assert [choice["listed"] for choice in gpu["choices"]] == [1.006]


def test_a_machine_without_a_price_says_why():
    (machine,) = page_data(cells := priced(study_records(), None), choose(cells), Assumptions(), {})["machines"]
    assert (machine["choices"], machine["chosen"]) == ([], None)
    assert machine["missing"] == "no price row has this machine; give --usd-per-hour"


def test_a_price_that_contradicts_the_hardware_is_marked_doubtful():
    mismatched = replace(ASSUMED, basis="stated", note="m5.xlarge has 4 logical CPUs; seen: 2")
    (machine,) = page_data(cells := priced(study_records(), mismatched), choose(cells), Assumptions(), {})["machines"]
    assert machine["choices"][0]["doubtful"]


def test_values_from_the_users_files_are_marked_as_given(tmp_path):
    path = tmp_path / "prices.toml"
    rate = '[[rate]]\ninstance = "m5.xlarge"\nusd_per_hour = 0.1\nas_of = 2026-11-02\n'
    path.write_text(f"discount_percent = 7\n{rate}", encoding="utf-8")
    assumed = load_assumptions(path)
    data = page_data(cells := priced(study_records()), choose(cells), assumed, {})
    assert data["given"] == ["prices.discount_percent", "prices.rate"]
    assert data["values"]["prices.discount_percent"] == 7
    (rate,) = data["rates"]
    assert rate == {
        "instance": "m5.xlarge", "region": None, "plan": "on_demand", "usd_per_hour": 0.1, "as_of": "2026-11-02",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["name", "missing", "instance"])
def test_untrusted_text_is_cleaned(name):
    hostile = "\u202e" + "x" * 10_000
    records = [record.model_copy(update={"cell": hostile}) for record in study_records()]
    cells = priced(records, replace(ASSUMED, instance=hostile) if name != "missing" else None)
    cells = [replace(cell, missing=hostile if cell.missing else None) for cell in cells]
    data = page_data(cells, choose(cells), Assumptions(), {})
    machine = data["machines"][0]
    text = {"name": unpacked(data)[0]["name"], "missing": machine["missing"]} | (
        {"instance": machine["choices"][0]["instance"]} if machine["choices"] else {}
    )
    assert "\u202e" not in text[name]
    assert len(text[name]) <= 600
