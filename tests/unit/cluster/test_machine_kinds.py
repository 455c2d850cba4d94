"""Which kinds of machines a cluster has, and what each still has to run."""

from __future__ import annotations

import pytest

from harness.cluster.machine_kinds import (
    NodeFacts,
    cells_to_do,
    choose_kinds,
    kind_of,
    predicted_seconds,
    version_differences,
)
from harness.errors import UserError
from harness.execution.jobs import Environment
from harness.schema.cells import Cell
from harness.schema.host_record import DetectedInstance
from tests.make_records import make_record

RECORD = make_record()
CELL = Cell(study=RECORD.study, name=RECORD.cell, repeat=RECORD.repeat, config=RECORD.config)
AWS = DetectedInstance(vendor="aws", instance="g5.xlarge", region="us-east-1", is_spot=True)


def environment(detected=None, packages=None, **machine):
    changed = RECORD.machine.model_copy(update=machine)
    return Environment(changed, None, None, RECORD.packages if packages is None else packages, detected)


def node(kind="a", env=None):
    return NodeFacts(f"node of {kind}", kind, env or environment(), None)


def test_a_kind_is_the_label_else_the_instance_else_what_the_machine_has():
    assert kind_of(environment(AWS), {"machine": "mine", "other": "x"}) == "mine"
    assert kind_of(environment(AWS), {"other": "x"}) == "g5.xlarge"
    cpu = RECORD.machine.cpu.model_copy(update={"model": "CPU X", "num_usable": 1})
    plain = environment(cpu=cpu, gpus=(), memory_bytes=8 * 2**30, memory_limit_bytes=None, cloud_product=None)
    assert kind_of(plain, {}) == "CPU X, 1 core, 8 GiB"
    capped = environment(cpu=cpu, gpus=(), memory_bytes=8 * 2**30, memory_limit_bytes=4 * 2**30, cloud_product=None)
    assert kind_of(capped, {}) == "CPU X, 1 core, 4 GiB"


def test_a_study_without_machines_runs_on_every_kind():
    assert choose_kinds(["b", "a", "b"], None) == ["a", "b"]


def test_machines_are_taken_in_the_studys_order_and_a_missing_one_is_named_with_those_there():
    assert choose_kinds(["a", "b", "c"], ("c", "a", "c")) == ["c", "a"]
    with pytest.raises(UserError, match=r"not in the cluster: d; there is: a; b"):
        choose_kinds(["a", "b"], ("a", "d"))


def test_a_cluster_without_nodes_is_an_error():
    with pytest.raises(UserError, match="no node with CPUs"):
        choose_kinds([], None)


def test_versions_that_differ_are_said_and_equal_ones_are_not():
    newer = environment(packages=RECORD.packages | {"torch": "9.9"})
    (sentence,) = version_differences([node("a"), node("b", newer)])
    assert sentence == f"torch differs between nodes: {RECORD.packages['torch']} on a; 9.9 on b"
    assert version_differences([node("a"), node("b")]) == []


def test_a_cell_is_done_if_any_host_of_the_kind_measured_it_with_the_same_versions():
    elsewhere = RECORD.model_copy(update={"machine": RECORD.machine.model_copy(update={"host": "another"})})
    other_machine = RECORD.model_copy(update={"machine": RECORD.machine.model_copy(update={"id": "another"})})
    assert cells_to_do([CELL], [node()], [RECORD], skip=True) == []
    assert cells_to_do([CELL], [node()], [elsewhere], skip=True) == []
    assert cells_to_do([CELL], [node()], [other_machine], skip=True) == [CELL]
    newer = node(env=environment(packages=RECORD.packages | {"torch": "9.9"}))
    assert cells_to_do([CELL], [newer], [RECORD], skip=True) == [CELL]


def test_a_cell_is_predicted_to_take_what_it_took_here_before_what_it_took_elsewhere():
    other = RECORD.model_copy(
        update={"machine": RECORD.machine.model_copy(update={"id": "another"}), "duration_s": 500.0}
    )
    assert predicted_seconds([CELL], [node()], [RECORD, other]) == {CELL.config_hash: RECORD.duration_s}
    assert predicted_seconds([CELL], [node()], [other]) == {CELL.config_hash: 500.0}
    assert predicted_seconds([CELL], [node()], []) == {CELL.config_hash: 60.0}
