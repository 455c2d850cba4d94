"""Workers of bench_compare_power.py: started in place of `harness.execution.runner.run_worker`, each in a process of its own.

A slowed worker spins for a share of each step's own seconds before the step's clock stops. As with a slower program, whatever
else slows the machine lengthens the step and the spin. Two workers that take turns are alive at once; one is blocked while the
other computes steps, in the order A, B B, A A, B B, ..., A.
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def plain(job, pipe, stderr):
    from harness.worker import main as worker

    worker.run(job, pipe, stderr)


def slowed(by, job, pipe, stderr):
    _slow_down(by)
    plain(job, pipe, stderr)


def in_turns(side, folder, num_steps, slowed_by, job, pipe, stderr):
    if slowed_by:
        _slow_down(slowed_by)
    _take_turns(side, Path(folder), num_steps)
    plain(job, pipe, stderr)


def make_turns(folder: Path) -> None:
    for side in "AB":
        os.mkfifo(folder / side)


def _slow_down(by):
    from harness.worker.meters import StepTimer

    stop = StepTimer.stop

    def stop_late(timer):
        until = timer.began + (time.perf_counter() - timer.began) * (1 + by)
        while time.perf_counter() < until:
            pass
        stop(timer)

    StepTimer.stop = stop_late


def _take_turns(side, folder, num_steps):
    from harness.worker.meters import StepTimer

    mine, theirs = (os.open(folder / one, os.O_RDWR) for one in (side, "B" if side == "A" else "A"))
    start, stop, num_done = StepTimer.start, StepTimer.stop, 0

    def start_in_turn(timer):
        # A's turns begin at its steps 0, 1, 3, 5, ..., and B's at 0, 2, 4, ...
        if num_done % 2 == (side == "A"):
            if num_done:
                os.write(theirs, b".")
            os.read(mine, 1)
        start(timer)

    def stop_and_count(timer):
        nonlocal num_done
        stop(timer)
        num_done += 1
        if num_done == num_steps:  # hand over now, since no next step will
            os.write(theirs, b".")

    StepTimer.start, StepTimer.stop = start_in_turn, stop_and_count
