"""What a run does, read by another command: only while the run holds the lock of its results."""

from __future__ import annotations

import json
import os

from typer.testing import CliRunner

from harness.cli.main import app
from harness.cluster.cluster_options import NodeState
from harness.cluster.run_status import StatusFile, read_status
from harness.execution.sweep import exclusive_lock

NODE = NodeState("4e", "g5.xlarge", "training", "b16-s64", 0.25, 90.0, 0.03)


def test_the_status_is_there_while_the_run_is_and_gone_with_it(tmp_path):
    file = StatusFile(tmp_path, budget_usd=5.0)
    with exclusive_lock(tmp_path):
        file.write(60.0, (3, 12), [NODE], 0.42)
        file.write(61.0, (4, 12), [], 0.43)  # a moment later: not written again
        status = read_status(tmp_path)
        assert (status.pid, status.seconds, status.num_ended, status.num_cells) == (os.getpid(), 60.0, 3, 12)
        assert (status.held_usd, status.budget_usd, status.nodes) == (0.42, 5.0, (NODE,))
    assert read_status(tmp_path) is None  # the run was killed: nothing holds the lock
    file.remove()
    assert not list(tmp_path.glob(".cluster*"))


def test_the_command_prints_a_line_a_node_and_the_dollars_of_all(tmp_path):
    with exclusive_lock(tmp_path):
        StatusFile(tmp_path, budget_usd=5.0).write(60.0, (3, 12), [NODE], 0.42)
        shown = CliRunner().invoke(app, ["cluster", "status", "--results", str(tmp_path)])
        fields = CliRunner().invoke(app, ["cluster", "status", "--results", str(tmp_path), "--json"])
    assert shown.exit_code == 0
    assert all(word in shown.output for word in ("g5.xlarge", "b16-s64", "25%", "1:30", "$0.0300"))
    assert "3/12 cells in 1:00, $0.4200 of a budget of $5" in shown.output
    assert json.loads(fields.output)["nodes"][0]["kind"] == "g5.xlarge"


def test_without_a_run_the_command_says_so(tmp_path):
    done = CliRunner().invoke(app, ["cluster", "status", "--results", str(tmp_path)])
    assert done.exit_code == 0 and "No run on a cluster" in done.output
