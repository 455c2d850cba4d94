"""Waiting for a quiet machine, with usages and a clock of the test's own."""

from __future__ import annotations

import pytest

from harness.execution.quiet import wait_for_quiet
from harness.machine.cpu_usage import CpuUsage, usable_cores
from harness.schema.settings import LimitSettings


def wait(limits, shares, seconds_each=2.0):
    """Wait with these shares of the CPU taken by others; return the result and the times at which it was still busy."""
    now, left, busy_at = [0.0], list(shares), []

    def measure():
        now[0] += seconds_each
        return CpuUsage((), left.pop(0) * len(usable_cores()), None, None, None)

    waited = wait_for_quiet(
        limits, lambda usage, waited_s: busy_at.append(waited_s), measure=measure, clock=lambda: now[0]
    )
    return waited, busy_at


def test_without_the_setting_nothing_is_measured():
    assert wait(LimitSettings(), []) == (None, [])


def test_a_quiet_machine_is_waited_for_no_longer_than_one_look():
    assert wait(LimitSettings(wait_for_quiet_s=60), [0.04]) == (2.0, [])


def test_the_cell_begins_when_others_are_done_or_the_time_is_up():
    assert wait(LimitSettings(wait_for_quiet_s=60), [0.9, 0.06, 0.04, 0.0]) == (6.0, [2.0, 4.0])
    assert wait(LimitSettings(wait_for_quiet_s=5), [0.9] * 9) == (6.0, [2.0, 4.0, 6.0])


def test_the_share_is_the_users():
    assert wait(LimitSettings(wait_for_quiet_s=60, quiet_below=0.3), [0.31, 0.29]) == (4.0, [2.0])


def test_the_settings_make_no_other_cell():
    from harness.schema.expansion import expand
    from harness.schema.study_file import parse_study

    (plain,), (waiting,) = (
        expand(parse_study({"baselines": False, "limits": limits}, "s"))
        for limits in ({}, {"wait_for_quiet_s": 60, "quiet_below": 0.1})
    )
    assert plain.config_hash == waiting.config_hash
    with pytest.raises(ValueError, match="quiet_below"):
        LimitSettings(quiet_below=0.0)
