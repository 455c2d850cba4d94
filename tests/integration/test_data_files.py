"""Some of the generated files of bench/bench_data_files.py, which has all of them, through every command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from bench_data_files import all_cases
from data_files.trial import try_case

CASES = {f"{case.kind}: {case.name}": case for case in all_cases()}


def test_there_are_two_hundred_files_or_more():
    assert len(CASES) == len(all_cases()) >= 200


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.in_ci])
def test_every_command_reads_or_refuses_a_file_as_it_must(name, tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    assert try_case(CASES[name], tmp_path, tiny_bert).problems == []


def test_a_wrong_answer_is_found(tiny_bert, tmp_path, monkeypatch):
    """The checks fail if a file is not read or refused as it must, so that an empty list of problems says something."""
    from dataclasses import replace

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    case = CASES["shape: two rows too short"]
    wrong = {"rows": 41, "predicted": 3, "refusal": "no such cure"}
    problems = json.dumps(try_case(replace(case, **wrong), tmp_path, tiny_bert).problems)
    assert "rows and bad rows are (40, 2), not (41, 2)" in problems
    assert "no cure 'no such cure' in: " in problems
    assert "not 3 rows" in problems
