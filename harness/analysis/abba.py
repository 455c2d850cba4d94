"""Runs that took turns, A B B A: what drifts on the machine between rounds is in no interval of theirs (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from statistics import fmean

from harness.analysis.log_ratio import LogRatio
from harness.analysis.throughput import measure_windows
from harness.schema.interleaving import FEWEST_ROUNDS, ORDER
from harness.schema.record import Record

Round = tuple[float, float, float, float]


def find_abba_rounds(one: Iterable[Record], other: Iterable[Record]) -> list[Round] | None:
    """Logarithms of samples a second, round by round in the order A B B A; None where the runs did not take turns so.

    All runs of both sides, on one computer, in the order of time must fall into rounds, of one seed each, and no round
    may pause for longer than its longest run: one that was stopped in its middle and gone on with later holds what
    changed meanwhile on one side more than on the other.
    """
    runs = sorted([("A", run) for run in one] + [("B", run) for run in other], key=lambda run: run[1].started_at)
    fours = [runs[first : first + len(ORDER)] for first in range(0, len(runs), len(ORDER))]
    computers = {(run.machine.id, run.machine.host) for _, run in runs}
    if len(fours) < FEWEST_ROUNDS or len(computers) != 1 or not all(map(_is_round, fours)):
        return None
    rounds = []
    for four in fours:
        windows = measure_windows([run.training for _, run in four if run.training])
        rates = [math.log(window.samples_per_s) for window in windows]
        if len(rates) != len(ORDER):
            return None
        rounds.append((rates[0], rates[1], rates[2], rates[3]))
    return rounds


def _is_round(four: Sequence[tuple[str, Record]]) -> bool:
    if "".join(side for side, _ in four) != ORDER:
        return False
    if any(len({run.config_hash for side, run in four if side == which}) != 1 for which in "AB"):
        return False
    seconds = [timedelta(seconds=run.duration_s) for _, run in four]
    pauses = [
        later.started_at - (earlier.started_at + took)
        for (_, earlier), (_, later), took in zip(four, four[1:], seconds, strict=False)
    ]
    return max(pauses) <= max(seconds)


def ratio_by_rounds(rounds: Sequence[Round]) -> LogRatio:
    """log(B / A), each round held against its own mean: of 4 R runs, 3 R - 1 degrees of freedom are left.

    What changes from round to round drops out, and a steady drift within one too: A's places in it and B's have the same
    mean. Noise that is alike in neighbouring runs makes the interval rather too wide: with covariances that fall with
    distance, g0 > g1 > g2 > g3 > 0, a round's contrast has variance g0 - g1/2 - g2 + g3/2, of which the runs' spread
    within it shows g0 - g1/2 - g2/3 - g3/6.

    Source: randomised blocks, W. G. Cochran and G. M. Cox, Experimental Designs, 2nd edition (1957), chapter 4.
    """
    contrasts = [(b1 + b2 - a1 - a2) / 2 for a1, b1, b2, a2 in rounds]
    value = fmean(contrasts)
    squares = 0.0
    for four in rounds:
        middle = fmean(four)
        squares += sum((rate - middle - sign * value / 2) ** 2 for rate, sign in zip(four, (-1, 1, 1, -1), strict=True))
    freedom = (len(ORDER) - 1) * len(rounds) - 1
    return LogRatio(value, squares / freedom / len(rounds), freedom, f"{len(rounds)} rounds of A B B A")
