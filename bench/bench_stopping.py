"""How often the interval of a run's speed holds the true speed if the run ends as soon as that interval is narrow.

Run: .venv/bin/python bench/bench_stopping.py [TRIALS]   prints results/reference/stopping.md (400 trials a row: 3 minutes)

Simulated steps take time in proportion to their padded tokens, which vary by 15 % from batch to batch, with lognormal noise that
is correlated from step to step; the first two steps take twice as long. A run ends as `limits.until` ends it, or after 400 steps.
"""

from __future__ import annotations

import sys

import numpy as np

from harness.analysis.steady_state import warmup_steps
from harness.analysis.stopping import is_known_within, is_look, within_run_rate
from harness.analysis.throughput import ThroughputWindow
from harness.schema.training_record import PlannedStep

SEED = 20261201
BATCH, TOKENS, TOKENS_SD, MAX_STEPS, NUM_WARMUP = 16, 640, 0.15, 400, 2


def simulate(random: np.random.Generator, noise: float, correlation: float) -> tuple[list[float], list[int]]:
    """Return the seconds and padded tokens of a run's steps; the true speed is BATCH samples a second."""
    innovations = noise * np.sqrt(1 - correlation**2) * random.standard_normal(MAX_STEPS)
    logs = np.empty(MAX_STEPS)
    logs[0] = noise * random.standard_normal()
    for index in range(1, MAX_STEPS):
        logs[index] = correlation * logs[index - 1] + innovations[index]
    tokens = np.maximum(1, np.rint(TOKENS * (1 + TOKENS_SD * random.standard_normal(MAX_STEPS)))).astype(int)
    seconds = tokens / TOKENS * np.exp(logs - noise**2 / 2)
    seconds[:NUM_WARMUP] *= 2
    return seconds.tolist(), tokens.tolist()


def window_of(seconds: list[float], tokens: list[int]) -> ThroughputWindow:
    """Return a run's steps without warm-up, as a report has them; the plan's mean step has TOKENS tokens."""
    cut = warmup_steps([(seconds, tokens)])
    sizes = [tuple(part[cut:]) for part in (seconds, [BATCH] * len(tokens), tokens, tokens)]
    return ThroughputWindow(cut, *sizes, PlannedStep(num_samples=BATCH, num_padded_tokens=TOKENS))


def measure(random: np.random.Generator, noise: float, correlation: float, until: float) -> tuple[bool, float, int]:
    """Return whether a run's interval holds the true speed, how far it is off, and after how many steps the run ended."""
    seconds, tokens = simulate(random, noise, correlation)
    for num_steps in range(1, MAX_STEPS + 1):
        if num_steps < MAX_STEPS and not is_look(num_steps):
            continue
        if is_known_within(within_run_rate([seconds[:num_steps]], tokens[:num_steps]), until) or num_steps == MAX_STEPS:
            rate = window_of(seconds[:num_steps], tokens[:num_steps]).log_rate
            assert rate is not None
            error = rate.value - np.log(BATCH)
            return abs(error) <= rate.half_width, abs(error), num_steps
    raise AssertionError("a run ends")


def main() -> None:
    """Print the table."""
    num_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print(f"{num_trials:,} simulated runs a row; `off` is the distance of the measured from the true speed.\n")
    print("| until | noise | correlation | interval holds the true speed | off, median | off, 95 % | steps, median |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for until in (0.02, 0.03, 0.05, 0.10):
        for noise in (0.02, 0.05, 0.10):
            for correlation in (0.0, 0.3, 0.7):
                random = np.random.default_rng(
                    [SEED, round(1000 * until), round(1000 * noise), round(10 * correlation)]
                )
                runs = [measure(random, noise, correlation, until) for _ in range(num_trials)]
                held, errors, steps = (np.array(part) for part in zip(*runs, strict=True))
                print(
                    f"| {until:.0%} | {noise:.0%} | {correlation:g} | {held.mean():.1%} | {np.median(errors):.1%} | "
                    f"{np.quantile(errors, 0.95):.1%} | {np.median(steps):.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
