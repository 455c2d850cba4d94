"""Compare the forecasts of learning curves with the truth: simulated, resampled and measured.

`simulate` draws curves of known families and what a study would measure of them, and prints coverage and width of the
forecasts' intervals, and how often each verdict is right. The results go to results/reference/learning-curve-coverage.md:

    .venv/bin/python bench/bench_learning_curve.py simulate --curves 2000

`tfidf` draws new splits of the packaged reviews for each resample and trains the TF-IDF baseline on their first rows: on
350, 700, 1,400, 2,800 and 5,600 rows for the fit, and on 11,200 rows, twice the largest fitted size, for the true value. It
can run in parts; finished resamples are not repeated:

    .venv/bin/python bench/bench_learning_curve.py tfidf --from 0 --to 25
    .venv/bin/python bench/bench_learning_curve.py tfidf --from 25 --to 100
    .venv/bin/python bench/bench_learning_curve.py judge

`judge` fits what `tfidf` measured, and prints how many intervals contain the mean gain over all resamples. With
`--smallest 100` both use 100 to 1,600 rows, and 3,200 for the true value. `records` forecasts each size of a study's learning
curves that is at most twice the one before, from the sizes below it. It also estimates the time of training on all rows
from each smaller size, and compares it with the measured time:

    .venv/bin/python -m harness run bench/data.toml
    .venv/bin/python bench/bench_learning_curve.py records results
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import curve_coverage
import numpy as np
import simulated_curves

from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import MIN_SIZES, PowerLaw, fit_power_law
from harness.dataset.corpus import Corpus, load_corpus, write_texts
from harness.decision.learning_curve import LearningCurve, learning_curves, whole_error
from harness.errors import Unavailable
from harness.execution.baselines import run_baseline
from harness.files import atomic_write_text
from harness.report.sections.learning import curve_names
from harness.schema.settings import DataSettings
from harness.workflows.priced_records import load_priced

SMALLEST, NUM_SIZES = 350, 5
NUM_VAL, NUM_TEST = 50, 1000
RESULTS = Path("results")
WANTED, WITHIN = 0.90, 0.10
SEED = 20261126


def correct_examples(corpus: Corpus, num_train: int) -> np.ndarray:
    """Train TF-IDF on the first rows; return 1 for each correctly classified test example, shape `(1, num_test)`."""
    texts = corpus.texts | {"train": corpus.texts["train"][:num_train]}
    labels = corpus.labels | {"train": corpus.labels["train"][:num_train]}
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Corpus(corpus.facts, texts, labels), Path(folder))
        test = run_baseline("tfidf", Path(folder)).test
    return (np.array(test.labels) == np.array(test.predictions)).astype(float)[None]


def sizes_from(smallest: int) -> tuple[list[int], int]:
    """Return the sizes to fit, each twice the previous one, and the size for the true value."""
    return [smallest * 2**power for power in range(NUM_SIZES)], smallest * 2**NUM_SIZES


def resample(seed: int, smallest: int) -> dict:
    """Draw the splits once; return the errors by size to fit, and the true accuracy at twice the largest size."""
    sizes, twice = sizes_from(smallest)
    corpus = load_corpus(DataSettings(num_train=twice, num_val=NUM_VAL, num_test=NUM_TEST, seed=seed))
    correct = {size: correct_examples(corpus, size) for size in (*sizes, twice)}
    truth = float(correct.pop(twice).mean())
    found = measure_errors(correct)
    return {
        "num_train": found.num_train.tolist(), "error": found.error.tolist(), "covariance": found.covariance.tolist(),
        "truth": truth,
    }  # fmt: skip


def measure(out: Path, smallest: int, first: int, last: int) -> None:
    """Run resamples that are not done yet, and write one line per resample."""
    done = {one["seed"]: one for one in read(out)} if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(first, last):
        if seed not in done:
            done[seed] = {"seed": seed} | resample(seed, smallest)
            atomic_write_text(out, "".join(f"{json.dumps(done[one])}\n" for one in sorted(done)))
    print(f"{len(done)} resamples in {out}")


def read(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def judge(out: Path, smallest: int) -> None:
    """Print the coverage of the mean gain over all resamples by the forecasts from single resamples."""
    sizes, twice = sizes_from(smallest)
    resamples = read(out)
    truth = fmean(one["truth"] - 1 + one["error"][-1] for one in resamples)
    gains = []
    for one in resamples:
        num_train, error, covariance = (np.array(one[key]) for key in ("num_train", "error", "covariance"))
        single = np.ones(len(sizes), int)
        law = fit_power_law(MeasuredErrors(num_train, error, covariance, np.zeros(len(sizes)), single, NUM_TEST))
        if isinstance(law, PowerLaw):
            gains.append(law.gain(twice))
    covered = [gain.low <= truth <= gain.high for gain in gains]
    half_width = median((gain.high - gain.low) / 2 for gain in gains)
    print(
        f"TF-IDF, fitted to {sizes[0]:,} to {sizes[-1]:,} rows, {NUM_TEST:,} test rows; the truth is the gain from "
        f"{sizes[-1]:,} to {twice:,} rows, {truth:+.4f}, a mean over {len(resamples)} resamples. Goal: {WANTED:.0%} covered.\n"
    )
    print("| resamples | no forecast | coverage | half-width, median | forecast, median |")
    print("|---:|---:|---:|---:|---:|")
    print(
        f"| {len(resamples)} | {len(resamples) - len(gains)} | {fmean(covered):.1%} | {half_width:.4f} "
        f"| {median(gain.value for gain in gains):+.4f} |"
    )


def judge_records(folders: Sequence[Path]) -> None:
    cells = load_priced(folders).cells
    curves = learning_curves(cells)
    if not curves:
        raise SystemExit("No cells there differ in the number of training rows alone: run bench/data.toml first.")
    names = curve_names(curves, cells)
    print("| model | fitted to | gain up to | forecast | measured | forecast contains it |")
    print("|---|---|---:|---:|---:|---|")
    for curve, name in zip(curves, names, strict=True):
        for size in range(MIN_SIZES, len(curve.points)):
            print(forecast_size(curve, name, size))
    print(f"\nTraining on all rows, estimated from a part; goal: within {WITHIN:.0%}.\n")
    print("| model | from | estimated, s | measured, s | off by | within |")
    print("|---|---:|---:|---:|---:|---|")
    for curve, name in zip(curves, names, strict=True):
        for point in curve.points:
            error = whole_error(curve, point)
            if error is not None and curve.whole is not None and point.whole_s is not None:
                ends = f" ({point.whole_s.low:.1f} to {point.whole_s.high:.1f})" if point.whole_s.low else ""
                print(
                    f"| {name} | {point.num_train:,} | {point.whole_s.value:.1f}{ends} | {curve.whole.train_s:.1f} | {error:+.1%} "
                    f"| {'yes' if abs(error) <= WITHIN else 'no'} |"
                )


def forecast_size(curve: LearningCurve, name: str, size: int) -> str:
    """Return a row of the table: the gain of one size over the one before, forecast from the sizes below it."""
    law = fit_power_law(curve.errors.select(np.arange(size)))
    end = curve.points[size].num_train
    forecast = law if isinstance(law, Unavailable) else law.gain(end)
    measured = curve.errors.gain(size - 1, size)
    fitted = f"{curve.points[0].num_train:,} to {curve.points[size - 1].num_train:,}"
    shown = f"{measured.value:+.3f} ({measured.low:.3f} to {measured.high:.3f})"
    if isinstance(law, Unavailable) or isinstance(forecast, Unavailable):
        return f"| {name} | {fitted} | {end:,} | no forecast: {forecast.reason} | {shown} | |"
    fitted = f"{law.smallest:,} to {law.largest:,}"
    covered = forecast.low <= measured.value <= forecast.high
    return (
        f"| {name} | {fitted} | {end:,} | {forecast.value:+.3f} ({forecast.low:.3f} to {forecast.high:.3f}) "
        f"| {shown} | {'yes' if covered else 'no'} |"
    )


def simulate(num_curves: int) -> None:
    """Print coverage, width and verdicts over simulated curves."""
    trials = [
        simulated_curves.run_trial(kind, np.random.default_rng([SEED, index, trial]))
        for index, kind in enumerate((*simulated_curves.KINDS, *simulated_curves.EXTRA_KINDS))
        for trial in range(num_curves)
    ]
    print("\n\n".join(curve_coverage.tables(trials)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("tfidf", "judge"):
        command = commands.add_parser(name)
        command.add_argument("--smallest", type=int, default=SMALLEST)
        command.add_argument("--out", type=Path)
    commands.choices["tfidf"].add_argument("--from", dest="first", type=int, default=0)
    commands.choices["tfidf"].add_argument("--to", dest="last", type=int, default=100)
    commands.add_parser("records").add_argument("folders", type=Path, nargs="+")
    commands.add_parser("simulate").add_argument("--curves", type=int, default=2000)
    options = parser.parse_args()
    if options.command == "simulate":
        simulate(options.curves)
        return
    if options.command == "records":
        judge_records(options.folders)
        return
    out = options.out or RESULTS / f"learning-curve-tfidf-{options.smallest}.jsonl"
    if options.command == "tfidf":
        measure(out, options.smallest, options.first, options.last)
    else:
        judge(out, options.smallest)


if __name__ == "__main__":
    main()
