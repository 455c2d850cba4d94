"""Repricing measured seconds for machines with the same cards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.analysis.summarize import summarize
from harness.decision.elsewhere import NOT_MEASURED, card_names, price_elsewhere
from harness.errors import Unavailable, UserError
from harness.pricing import cost
from harness.pricing.price_rows import HardwareRow, PriceRow
from harness.pricing.price_table import PriceTable
from harness.pricing.prices import Price
from harness.schema.assumptions import Assumptions, PriceBook
from tests.make_records import make_machine, make_record

A10G, T4 = "NVIDIA A10G", "NVIDIA Tesla T4"
GPUS = make_machine(machine_id="a10g-4c-16g-00000c", gpus=["NVIDIA A10G"])
CPUS = make_machine(machine_id="epyc-4c-16g-00000a", host="host-b")
PAID = Price(1.0, "g5.xlarge", "aws", "us-east-1", "stated", "2026-07", "list", None, usd_per_hour_on_demand=1.0)


def row(provider, name, usd_per_hour, hardware=None, count=0, region="us-east-1"):
    return PriceRow.model_construct(
        provider=provider, instance_type=name, region=region, accelerator=hardware, hardware=hardware,
        accelerator_count=count, accelerator_memory_gib=None, vcpus=4, memory_gib=16.0,
        usd_per_hour_on_demand=usd_per_hour, usd_per_hour_spot=None, as_of="2026-07", source="list",
    )  # fmt: skip


TABLE = PriceTable(
    (
        row("aws", "g5.xlarge", 1.0, A10G, 1),
        row("aws", "g5.2xlarge", 1.8, A10G, 1),
        row("aws", "g5.2xlarge", 1.44, A10G, 1, "us-west-2"),
        row("aws", "g5.12xlarge", 5.7, A10G, 4),
        row("aws", "g4dn.xlarge", 0.5, T4, 1),
        row("aws", "m5.xlarge", 0.192),
        row("other", "a10-1", 0.72, A10G, 1),
    ),
    tuple(
        HardwareRow.model_construct(name=name, match=match)
        for name, match in ((A10G, r"\ba10g\b"), (T4, r"\bt4\b"))
    ),
)  # fmt: skip


def priced(*records, found=PAID):
    return cost.price(summarize(records), lambda one: found if one.machine_id == GPUS.id else Unavailable("no row"))


def on_gpu(train_s=40, **axes):
    training = {"seconds": [train_s / 40] * 40}
    return make_record(
        machine=GPUS, axes={"device": "gpu"} | axes, training=training, phases={"train_s": float(train_s)}
    )


def test_only_machines_with_the_same_cards_and_count_are_repriced():
    answer = price_elsewhere(priced(on_gpu()), TABLE, Assumptions())
    # 16 samples a second, 54 s a run
    assert [
        (one.repriced.price.instance, one.repriced.price.region, one.repriced.usd_per_run.value) for one in answer.found
    ] == [
        ("a10-1", "us-east-1", pytest.approx(0.0108)),
        ("g5.2xlarge", "us-west-2", pytest.approx(0.0216)),
    ]
    assert answer.found[0].repriced.usd_per_1000_samples.value == pytest.approx(0.0125)
    assert all(one.repriced.price.note == NOT_MEASURED for one in answer.found)
    assert all(one.measured.price is PAID for one in answer.found)
    assert answer.refused == ()


def test_the_cheapest_run_of_a_machine_is_repriced():
    answer = price_elsewhere(priced(on_gpu(40), on_gpu(20, seq_len=32)), TABLE, Assumptions())
    assert {one.measured.summary.config.seq_len for one in answer.found} == {32}


def test_cpu_cells_are_never_repriced():
    on_cpu = [make_record(machine=CPUS), make_record(machine=GPUS)]
    assert price_elsewhere(priced(*on_cpu), TABLE, Assumptions()).found == ()


def test_a_requested_machine_is_shown_or_refused():
    cells = priced(on_gpu(), make_record(machine=CPUS))
    answer = price_elsewhere(
        cells, TABLE, Assumptions(), ["a10-1", "m5.xlarge", "g5.12xlarge", "g4dn.xlarge", "g5.xlarge"]
    )
    assert [one.repriced.price.instance for one in answer.found] == ["a10-1"]
    assert answer.refused == (
        "m5.xlarge has no GPU: a CPU machine must be measured, its seconds follow from no other's",
        "g5.12xlarge has 4 x NVIDIA A10G, and measured was 1 x NVIDIA A10G: another card or number must be measured",
        "g4dn.xlarge has 1 x NVIDIA Tesla T4, and measured was 1 x NVIDIA A10G: another card or number must be measured",
        "g5.xlarge is what was measured, or is paid as one's own: it stands in the table above",
    )
    with pytest.raises(UserError, match=r"--elsewhere g5\.3xlarge"):
        price_elsewhere(cells, TABLE, Assumptions(), ["g5.3xlarge"])


def test_an_assumed_price_does_not_exclude_its_instance():
    cells = priced(on_gpu(), found=replace(PAID, basis="assumed"))
    assert "g5.xlarge" in {one.repriced.price.instance for one in price_elsewhere(cells, TABLE, Assumptions()).found}


def test_discounts_apply_and_own_hardware_does_not():
    off = Assumptions(prices=PriceBook(discount_percent=50))
    assert price_elsewhere(priced(on_gpu()), TABLE, off).found[0].repriced.usd_per_run.value == pytest.approx(0.0054)
    own = Assumptions(prices=PriceBook(plan="own"))
    assert price_elsewhere(priced(on_gpu()), TABLE, own).found == ()


@pytest.mark.parametrize(
    ("gpus", "names"),
    [
        ([], ()),
        (["NVIDIA A10G"], (A10G,)),
        (["Tesla T4", "NVIDIA A10G"], (A10G, T4)),
        (["NVIDIA A10G", "Unheard-of GPU"], ()),
        (["NVIDIA A10G MIG 1g.5gb"], ()),
    ],
)
def test_cards_by_the_names_of_the_table(gpus, names):
    assert card_names(TABLE, make_machine(gpus=gpus)) == names
