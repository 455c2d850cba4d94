"""Simulated learning curves with a known truth, for bench_learning_curve.py and its tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from harness.analysis.curve_planning import more_needed
from harness.analysis.estimate import Estimate
from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import fit_power_law
from harness.decision.curve_verdict import Trend, is_settled, trend_of
from harness.decision.learning_curve import TWICE
from harness.errors import Unavailable

SIZES = (
    (250, 500, 1000, 2000, 4000, 11517),
    (250, 500, 1000, 2000, 4000),
    (250, 500, 1000, 2000),
    (500, 1000, 4000, 11517),
)
TEST_SIZES = (300, 1000, 5000)
SEEDS = (1, 2, 3, 5)
SEED_SDS = (0.0, 0.005, 0.01, 0.02)
KINDS = {
    "floor": "power law with a floor, exponent 0.25 to 1",
    "no floor": "power law without a floor, exponent 0.1 to 0.4",
    "slow": "power law, exponent 0.05 to 0.2, half of them with a floor",
    "log-linear": "linear in log n, 0.4 to 5.6 points a doubling",
}
FLAT, ACCELERATING = "flat", "accelerating"
EXTRA_KINDS = {FLAT: "no gain at all", ACCELERATING: "each doubling gains 1.1 times what the one before does"}
_FIRST = 250
_SHARED = 0.7  # share of the variance of a run's answer to an example that all runs have in common
_CUT = 3.841458820694124


@dataclass(frozen=True)
class Setting:
    """What is measured of a curve.

    Attributes:
        seed_sd: Standard deviation of accuracy between seeds, beyond what the test examples explain.
    """

    sizes: Sequence[int]
    num_examples: int
    num_seeds: int
    seed_sd: float


def draw_setting(random: np.random.Generator) -> Setting:
    sizes, examples, seeds, sd = (random.integers(len(each)) for each in (SIZES, TEST_SIZES, SEEDS, SEED_SDS))
    return Setting(SIZES[sizes], TEST_SIZES[examples], SEEDS[seeds], SEED_SDS[sd])


def draw_curve(kind: str, random: np.random.Generator) -> Callable[[float], float]:
    """Draw a curve of a kind; it returns the mean error at a training set size. At 250 it is 0.25 to 0.45."""
    first = random.uniform(0.25, 0.45)
    if kind == FLAT:
        return lambda _: first
    if kind == ACCELERATING:
        last = random.uniform(0.02, 0.05)  # gained from 5,600 to 11,200
        return lambda n: (
            first - last * (1.1 ** np.log2(n / 5600) - 1.1 ** np.log2(_FIRST / 5600)) / np.log(1.1) * np.log(2)
        )
    if kind == "log-linear":
        step = random.uniform(0.004, first / 8)
        return lambda n: first - step * np.log2(n / _FIRST)
    low, high = {"floor": (0.25, 1.0), "no floor": (0.1, 0.4), "slow": (0.05, 0.2)}[kind]
    exponent = random.uniform(low, high)
    floor = {
        "floor": random.uniform(0.05, 0.8 * first),
        "no floor": 0.0,
        "slow": random.choice([0.0, random.uniform(0, 0.6 * first)]),
    }[kind]
    return lambda n: floor + (first - floor) * (n / _FIRST) ** -exponent


def simulate(
    random: np.random.Generator, error: Callable[[float], float], setting: Setting, baseline_error: float = 0.3
):
    """Simulate which test examples each run and a baseline classify correctly.

    Returns:
        Arrays of shape `(num_seeds, num_examples)` by training set size, and one of shape `(num_examples,)`.
    """
    hard = _SHARED**0.5 * random.standard_normal(setting.num_examples)

    def run(errors: np.ndarray) -> np.ndarray:
        own = (1 - _SHARED) ** 0.5 * random.standard_normal((len(errors), setting.num_examples))
        return (hard + own < special.ndtri(1 - np.clip(errors, 0.002, 0.998))[:, None]).astype(float)

    by_size = {
        size: run(error(size) + setting.seed_sd * random.standard_normal(setting.num_seeds)) for size in setting.sizes
    }
    return by_size, run(np.array([baseline_error]))[0]


def oracle_half_width(kind: str, measured: MeasuredErrors, seed_sd: float) -> float:
    """Return half the width of the profile likelihood interval of a doubling's gain, given the family and the noise."""
    covariance = measured.covariance - np.diag(measured.seed_variance - seed_sd**2 / measured.num_seeds)
    inverse = np.linalg.inv(covariance + np.eye(len(covariance)) / measured.num_examples**2)
    x = measured.num_train / measured.num_train[-1]
    low, high = {"floor": (0.05, 2.0), "no floor": (0.05, 1.0), "slow": (0.05, 0.2)}.get(kind, (0.0, 0.0))
    gains = np.linspace(0, 0.25, 2501)
    deviances = []
    for exponent in np.linspace(low, high, 1 if high == low else 60):
        shape, twice = (x**-exponent, 2.0**-exponent) if exponent else (-np.log2(x), -1.0)
        design = shape[:, None] if kind == "no floor" else np.stack([shape, np.ones(len(x))], axis=1)
        information = design.T @ inverse @ design
        solution = np.linalg.solve(information, design.T @ inverse @ measured.error)
        rest = measured.error - design @ solution
        steepness = shape[-1] - twice
        gain, variance = solution[0] * steepness, np.linalg.inv(information)[0, 0] * steepness**2
        deviances.append(rest @ inverse @ rest + (gains - gain) ** 2 / variance)
    best = np.min(deviances, axis=0)
    inside = gains[best <= best.min() + _CUT]
    return float(inside[-1] - inside[0]) / 2


@dataclass(frozen=True)
class Trial:
    """A simulated curve, and what was said of it.

    Attributes:
        gain: True gain of twice the largest size.
        lead: True lead of that over the baseline.
        forecast, forecast_lead: What was forecast; None without a fit.
        oracle: Half-width of the interval of an oracle; None for the extra kinds.
        settled: Whether new data with the seeds, the test examples, or both, that an unclear verdict asks for, settle
            it; None where not asked for.
    """

    kind: str
    setting: Setting
    gain: float
    lead: float
    forecast: Estimate | None
    forecast_lead: Estimate | None
    oracle: float | None
    settled: tuple[bool | None, ...]


def run_trial(kind: str, random: np.random.Generator) -> Trial:
    """Draw a curve and a setting, measure and forecast."""
    error, setting, baseline_error = draw_curve(kind, random), draw_setting(random), random.uniform(0.2, 0.4)
    measured = measure_errors(*simulate(random, error, setting, baseline_error))
    largest = setting.sizes[-1]
    law, twice = fit_power_law(measured), TWICE * largest
    gain, lead = error(largest) - error(twice), baseline_error - error(twice)
    oracle = oracle_half_width(kind, measured, setting.seed_sd) if kind in KINDS else None
    if isinstance(law, Unavailable):
        return Trial(kind, setting, gain, lead, None, None, oracle, (None, None, None))
    forecast = law.gain(twice)
    settled: tuple[bool | None, ...] = (None, None, None)
    if trend_of(forecast) is Trend.UNCLEAR:
        settled = _settled(law, error, setting, random)
    return Trial(kind, setting, gain, lead, forecast, law.lead(twice), oracle, settled)


def _settled(law, error, setting: Setting, random: np.random.Generator) -> tuple[bool | None, ...]:
    """Follow the advice of an unclear verdict: measure anew with more seeds, and with more test examples."""
    twice = TWICE * setting.sizes[-1]
    more = more_needed(law, twice, is_settled)
    settled = []
    for seeds, examples in ((more.seeds, 1), (1, more.examples), (more.both, more.both)):
        if seeds is None or examples is None:
            settled.append(None)
            continue
        larger = replace(setting, num_seeds=setting.num_seeds * seeds, num_examples=setting.num_examples * examples)
        again = fit_power_law(measure_errors(simulate(random, error, larger)[0]))
        settled.append(not isinstance(again, Unavailable) and is_settled(again.gain(twice)))
    return tuple(settled)
