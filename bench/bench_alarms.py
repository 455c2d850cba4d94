"""Simulate the alarms that are statistical: how often clean runs raise them, and how often planted faults do.

Run: .venv/bin/python bench/bench_alarms.py [TRIALS]   prints results/reference/alarms.md (1,000 trials a row: 2 minutes)

Steps have lognormal noise with a lag-1 correlation of 0.3, as those of results/reference/*/coverage have. Memory has a
random walk of pages that come and go around a level, as an allocator's has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from harness.analysis.memory_growth import MAX_GROWTH_FRACTION, fit_memory_growth
from harness.analysis.steady_state import find_drift, find_modes

SEED = 20261130
CORRELATION = 0.3
MIB = 2**20


def steps(random: np.random.Generator, num_steps: int, noise: float) -> np.ndarray:
    """Return seconds of steps around 1 s."""
    innovations = noise * np.sqrt(1 - CORRELATION**2) * random.standard_normal(num_steps)
    logs = np.empty(num_steps)
    logs[0] = noise * random.standard_normal()
    for index in range(1, num_steps):
        logs[index] = CORRELATION * logs[index - 1] + innovations[index]
    return np.exp(logs)


def drifts(random: np.random.Generator, num_steps: int, noise: float, planted: float) -> bool:
    """Whether a drift is reported of steps that slow down evenly by `planted` from the first third to the last."""
    slower = 1 + planted * 1.5 * np.linspace(0, 1, num_steps)
    return find_drift(tuple(steps(random, num_steps, noise) * slower), np.ones(num_steps)) is not None


def has_modes(random: np.random.Generator, num_steps: int, noise: float, planted: float) -> bool:
    """Whether two kinds of step are reported if 30 % of the steps, at random, take longer by `planted`."""
    slower = 1 + planted * (random.random(num_steps) < 0.3)
    return find_modes(tuple(steps(random, num_steps, noise) * slower), np.ones(num_steps)) is not None


def grows(random: np.random.Generator, num_steps: int, noise: float, planted: float) -> bool:
    """Whether growth is reported of 1 GiB that wanders by `noise` and grows by `planted` over the run."""
    level = 1024 * MIB
    wander = level * noise * steps(random, num_steps, 1.0) / 3
    held = level + wander + level * planted * np.linspace(0, 1, num_steps)
    growth = fit_memory_growth([int(size) for size in held])
    return growth is not None and growth.min_total_bytes > MAX_GROWTH_FRACTION * float(held.max())


ALARMS: dict[str, tuple[Callable[[np.random.Generator, int, float, float], bool], tuple[float, ...]]] = {
    "drift": (drifts, (0.0, 0.05, 0.1, 0.2)),
    "two kinds of step": (has_modes, (0.0, 0.1, 0.3, 0.6)),
    "memory growth": (grows, (0.0, 0.05, 0.1, 0.3)),
}


def main() -> None:
    """Print the table."""
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(
        f"Share of {num_trials:,} simulated runs with the alarm; the first figure of a row is the false-alarm rate.\n"
    )
    print("| alarm | steps | noise | planted: raised |")
    print("|---|---:|---:|---|")
    for name, (alarm, planted) in ALARMS.items():
        for num_steps in (40, 100, 300):
            for noise in (0.02, 0.05, 0.1):
                random = np.random.default_rng([SEED, num_steps, round(1000 * noise)])
                shares = [
                    sum(alarm(random, num_steps, noise, effect) for _ in range(num_trials)) / num_trials
                    for effect in planted
                ]
                text = ", ".join(
                    f"{100 * effect:g} %: {100 * share:.1f} %" for effect, share in zip(planted, shares, strict=True)
                )
                print(f"| {name} | {num_steps} | {100 * noise:g} % | {text} |", flush=True)


if __name__ == "__main__":
    main()
