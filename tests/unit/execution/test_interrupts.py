"""Interrupts wait while a record is saved, and end what runs before and after."""

from __future__ import annotations

import pytest

from harness.execution.interrupts import hold_interrupts, interrupt, let_interrupts_through


def test_an_interrupt_waits_until_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), hold_interrupts():
        interrupt()
        done.append("saved")
    assert done == ["saved"]
    with pytest.raises(KeyboardInterrupt):
        interrupt()  # is not held any more
    with hold_interrupts():
        pass  # and does not come a second time


def test_an_interrupt_is_let_through_where_a_cell_runs():
    done = []
    with hold_interrupts():
        try:
            with let_interrupts_through():
                interrupt()
                done.append("never")
        except KeyboardInterrupt:
            done.append("ended")
        with pytest.raises(KeyboardInterrupt), let_interrupts_through():
            with hold_interrupts():
                interrupt()
            done.append("never")
    assert done == ["ended"]


def test_one_that_came_before_ends_the_cell_at_once():
    with hold_interrupts():
        interrupt()
        with pytest.raises(KeyboardInterrupt), let_interrupts_through():
            pytest.fail("the cell began")


def test_without_a_hold_an_interrupt_is_raised_as_ever():
    with pytest.raises(KeyboardInterrupt), let_interrupts_through():
        interrupt()
