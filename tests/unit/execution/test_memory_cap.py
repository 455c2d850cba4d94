"""Memory caps with and without a control group, in a folder that stands for one."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from harness.execution.memory_cap import GIB, MemoryCap
from harness.execution.memory_cgroup import MemoryCgroup


@pytest.mark.parametrize(
    ("peak", "kills", "reason"),
    [
        (2 * GIB, 1, "the control group's limit of 2 GiB was reached"),
        (GIB, 1, "memory ran out around it, below the control group's limit of 2 GiB"),
        (2 * GIB, 0, None),
        (None, 1, "the control group's limit of 2 GiB was reached"),
    ],
)
def test_a_kill_inside_the_group_is_explained_by_its_peak(peak, kills, reason, tmp_path):
    (tmp_path / "memory.events").write_text(f"oom_kill {kills}")
    if peak is not None:
        (tmp_path / "memory.peak").write_text(str(peak))
    cap = MemoryCap(2 * GIB, 1, tmp_path, lambda *_: MemoryCgroup(tmp_path, 2))
    assert cap.oom_reason() == reason
    assert (cap.facts().num_oom_kills, cap.facts().peak_bytes, cap.exact) == (kills, peak, True)


def test_without_a_group_each_rank_gets_its_share_and_the_executable_is_restored(tmp_path):
    cap = MemoryCap(GIB, 2, tmp_path, lambda *_: None)
    before = multiprocessing.spawn.get_executable()
    with cap.spawn_inside(tmp_path / "rank0.log"):
        script = Path(multiprocessing.spawn.get_executable().decode()).read_text()
        assert "ulimit -d 524288 && exec " in script and "rank0.log" in script
    assert multiprocessing.spawn.get_executable() == before
    assert (cap.exact, cap.facts().method, cap.oom_reason()) == (False, "rlimit_data", None)
