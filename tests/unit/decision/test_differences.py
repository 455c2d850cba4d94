"""Differences between compared records, and refusing them."""

from __future__ import annotations

import pytest

from harness.analysis.summarize import summarize
from harness.decision.differences import describe_difference, differences, require_same, slice_words, work_key
from harness.errors import UserError
from tests.make_records import GIB, make_machine, make_record

HERE, THERE = make_machine(), make_machine(machine_id="xeon-2c-8g-000002", host="host-b")


def found(*records):
    return differences(summarize(records))


def told(*records):
    return [describe_difference(one, {HERE.id: "A", THERE.id: "B"}) for one in found(*records)]


def with_rows(record, split, sha256):
    data = record.data
    changed = getattr(data, split).model_copy(update={"sha256": sha256})
    return record.model_copy(update={"data": data.model_copy(update={split: changed})})


def with_model(record, sha256):
    return record.model_copy(update={"model": record.model.model_copy(update={"sha256": sha256})})


def packages(torch="2.13.0", transformers="5.23.0"):
    return {"torch": torch, "transformers": transformers}


def test_the_same_work_on_two_machines_differs_in_nothing():
    builds = [make_record(machine=HERE, packages=packages("2.13.0+cpu"))]
    builds += [make_record(machine=THERE, packages=packages("2.13.0+cu130"), axes={"device": "gpu"})]
    assert told(*builds) == []


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        (packages("2.12.1+cpu"), packages("2.13.0+cpu"), "torch: 2.12.1 on A; 2.13.0 on B"),
        (packages(), packages(transformers="5.24.0"), "transformers: 5.23.0 on A; 5.24.0 on B"),
        ({"torch": "2.13.0"}, packages(), None),  # what was not recorded differs from nothing
    ],
)
def test_releases_of_packages(mine, theirs, said):
    assert told(make_record(packages=mine), make_record(machine=THERE, packages=theirs)) == ([said] if said else [])


def test_releases_are_compared_over_all_cells():
    one, other = make_record(packages=packages("2.12.1")), make_record(axes={"batch_size": 32}, machine=THERE)
    assert told(one, other) == ["torch: 2.12.1 on A; 2.13.0 on B"]


def test_versions_of_the_measuring_code():
    assert told(make_record(measuring_version=1), make_record(machine=THERE, measuring_version=2)) == [
        "measuring version: 1 on A; 2 on B"
    ]


@pytest.mark.parametrize(("split", "key"), [("train", "training rows"), ("test", "test rows")])
def test_rows_of_the_same_work(split, key):
    changed = with_rows(make_record(machine=THERE), split, "1" * 64)
    assert told(make_record(), changed) == [f"{key}: 000000000000 on A; 111111111111 on B"]


def test_other_work_may_have_other_rows():
    assert told(make_record(), with_rows(make_record(axes={"seq_len": 32}, machine=THERE), "test", "1" * 64)) == []


def test_the_model_file_of_the_same_work():
    mine, theirs = with_model(make_record(), "a" * 64), with_model(make_record(machine=THERE), "b" * 64)
    assert told(mine, theirs) == [f"model: {'a' * 12} on A; {'b' * 12} on B"]
    assert told(mine, with_model(make_record(machine=THERE), None)) == []


def test_cells_of_one_name_with_other_settings():
    theirs = make_record(machine=THERE, sections={"training": {"epochs": 3, "lr": 1e-3}})
    mine = make_record(sections={"training": {"epochs": 2, "lr": 1e-3}})
    assert mine.cell == theirs.cell
    assert told(mine, theirs) == ["training.epochs of study study: 2.0 on A; 3.0 on B"]
    assert told(mine, theirs.model_copy(update={"study": "another"})) == []
    assert told(mine, make_record(sections={"training": {"epochs": 3, "lr": 1e-3}}, minutes=5)) == []


def test_limits_and_seeds_are_no_differences():
    theirs = make_record(machine=THERE, seed=7, sections={"limits": {"timeout_s": 5}, "training": {"seeds": [7]}})
    assert told(make_record(), theirs) == []


def test_a_cell_that_never_ran_differs_in_nothing():
    lost = make_record(machine=THERE, outcome="unsupported", reason="no GPU", packages=packages("2.12.0"))
    assert told(make_record(), lost) == []


def test_a_difference_counts_its_cells_and_names_every_machine():
    third = make_machine(machine_id="arm-4c-8g-000003")
    records = [
        *(make_record(axes={"batch_size": size}) for size in (8, 16)),
        *(make_record(axes={"batch_size": size}, machine=THERE, packages=packages("2.12.0")) for size in (8, 16)),
        make_record(axes={"batch_size": 8}, machine=third),
    ]
    (one,) = found(*records)
    assert (one.key, one.num_cells) == ("torch", 2)
    assert {value.shown: set(value.machine_ids) for value in one.values} == {
        "2.12.0": {THERE.id},
        "2.13.0": {HERE.id, third.id},
    }


def test_strict_names_key_values_and_machines():
    require_same([])
    records = [make_record(packages=packages("2.12.0")), make_record(machine=THERE, packages=packages("2.13.0"))]
    with pytest.raises(UserError) as caught:
        require_same(found(*records))
    assert f"torch: 2.12.0 on {HERE.id}; 2.13.0 on {THERE.id}" in str(caught.value)
    assert "without --strict" in str(caught.value)


def test_the_same_work_whatever_the_kind_of_device_or_seed():
    def of(**axes):
        return work_key(make_record(axes=axes).config)

    assert of(device="cpu") == of(device="gpu")
    assert of(device="cpu-ddp2") == of(device="gpu-ddp2")
    assert work_key(make_record(seed=3).config) == of()
    assert len({of(), of(device="cpu-ddp2"), of(precision="bf16"), of(threads=1), of(batch_size=32)}) == 5


@pytest.mark.parametrize(
    ("num_usable", "limit", "said"),
    [
        (4, None, None),
        (1, None, "1 of 4 CPUs"),
        (4, GIB * 3 // 2, "1.5 GiB"),
        (2, 2 * GIB, "2 of 4 CPUs, 2 GiB"),
    ],
)
def test_the_measured_part_of_a_machine(num_usable, limit, said):
    machine = make_machine(num_usable=num_usable).model_copy(update={"memory_limit_bytes": limit})
    assert slice_words(machine) == said


def with_variables(environment, machine=HERE, **fields):
    return make_record(machine=machine.model_copy(update={"environment": environment}), **fields)


def test_variables_that_move_a_figure():
    one = with_variables({"OMP_NUM_THREADS": "2", "ONEDNN_MAX_CPU_ISA": "AVX2"})
    other = with_variables({"OMP_NUM_THREADS": "2"}, THERE)
    # Before, records differed in nothing while one's bf16 was 27 to 75 times slower.
    assert told(one, other) == ["variable ONEDNN_MAX_CPU_ISA: AVX2 on A; not set on B"]
    assert told(one, with_variables(None, THERE)) == []  # an older record holds no variables
    assert told(one, with_variables({}, THERE)) == [
        "variable OMP_NUM_THREADS: 2 on A; not set on B",
        "variable ONEDNN_MAX_CPU_ISA: AVX2 on A; not set on B",
    ]
