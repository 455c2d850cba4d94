"""Warnings about variables and affinities."""

from __future__ import annotations

import pytest

from harness.analysis.environment_warnings import environment_warnings
from harness.analysis.summarize import summarize
from tests.make_records import make_machine, make_record


def record(environment=None, cpus=(), num_threads=2, num_usable=4, device="cpu-ddp2"):
    machine = make_machine(num_usable=num_usable).model_copy(update={"environment": environment})
    one = make_record(machine=machine, axes={"device": device})
    training = one.training.model_copy(update={"cpus": cpus, "threads_per_rank": num_threads})
    return one.model_copy(update={"training": training})


def warned(*records):
    return list(environment_warnings(records))


def test_a_variable_that_spoils_is_told_once_for_all_runs():
    spoiled = record({"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"})
    assert warned(spoiled, spoiled) == [
        "Environment variables: ONEDNN_MAX_CPU_ISA=AVX2 keeps oneDNN from instructions that the CPU may have, without which "
        "bf16 takes many times as long. Unset ONEDNN_MAX_CPU_ISA, and run it with --force."
    ]
    (summary,) = summarize([spoiled])
    assert warned(spoiled)[0] in summary.warnings


def test_a_variable_that_ranks_did_not_get_is_told_as_such():
    assert warned(record({"OMP_PROC_BIND": "true"}, cpus=((0, 1, 2, 3),) * 2)) == [
        "Environment variables: OMP_PROC_BIND=true did not reach the cell's processes. Unset OMP_PROC_BIND, and run it with --force."
    ]


@pytest.mark.parametrize("environment", [None, {}, {"OMP_NUM_THREADS": "1", "NVIDIA_TF32_OVERRIDE": "1"}])
def test_older_records_and_variables_without_effect_are_silent(environment):
    assert warned(record(environment)) == []


@pytest.mark.parametrize(
    ("cpus", "num_threads", "num_usable", "crowded"),
    [
        # Two ranks of one thread each that the OpenMP runtime bound to CPU 0: before, nothing was said.
        (((0,), (0,)), 1, 2, "2 threads had 1 CPU to run on"),
        (((0,), (1,)), 1, 2, None),
        (((0, 1), (0, 1)), 1, 2, None),
        (((0, 1), (0, 1)), 2, 4, "4 threads had 2 CPUs to run on"),
        (((0,), (1, 2, 3)), 2, 4, "2 threads had 1 CPU to run on"),
        # More threads than usable CPUs, as the study asked.
        (((0, 1), (0, 1)), 4, 2, None),
        ((), 1, 2, None),
        (((), ()), 1, 2, None),
    ],
)
def test_threads_that_share_too_few_cpus(cpus, num_threads, num_usable, crowded):
    said = warned(record({}, cpus, num_threads, num_usable))
    assert len(said) == (crowded is not None)
    assert crowded is None or said[0].startswith(crowded)


def test_cpus_of_two_machines_are_not_the_same_although_their_numbers_are():
    machine = make_machine(num_usable=2)
    training = {"cpus": ((0,), (1,), (0,), (1,)), "threads_per_rank": 1}
    two = make_record(axes={"device": "cpu-ddp2x2"}, machine=machine, training=training)
    assert warned(two) == []
    bound = make_record(
        axes={"device": "cpu-ddp2x2"}, machine=machine, training=training | {"cpus": ((0,), (1,), (0,), (0,))}
    )
    assert warned(bound)[0].startswith("2 threads had 1 CPU to run on")
