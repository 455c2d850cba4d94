"""Compare the predictions of learning curves with measurements.

`tfidf` draws new splits of the packaged reviews for each resample and trains the TF-IDF baseline on their first rows: on
350, 700, 1,400, 2,800 and 5,600 rows for the fit, and on 11,200 rows, twice the largest fitted size, for the true value. It
can run in parts; finished resamples are not repeated:

    .venv/bin/python bench/bench_learning_curve.py tfidf --from 0 --to 25
    .venv/bin/python bench/bench_learning_curve.py tfidf --from 25 --to 100
    .venv/bin/python bench/bench_learning_curve.py judge

`judge` fits what `tfidf` measured, and prints the coverage and width of the prediction interval and the rejected fits. With
`--smallest 100` both use 100 to 1,600 rows, and 3,200 for the true value; at these sizes TF-IDF is hardly better than the
majority class, and no power law holds. `records` does the same with the learning curves of a study's records, leaving the
largest size out of the fit. It also estimates the time of training on all rows from each smaller size, and compares it with
the measured time:

    .venv/bin/python -m harness run bench/data.toml
    .venv/bin/python bench/bench_learning_curve.py records results
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from harness.analysis.measured_errors import MeasuredErrors, measure_errors
from harness.analysis.power_law import fit_power_law
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


def correct_examples(corpus: Corpus, num_train: int) -> np.ndarray:
    """Train TF-IDF on the first rows; return 1 for each correctly classified test example, shape `(1, num_test)`."""
    texts = corpus.texts | {"train": corpus.texts["train"][:num_train]}
    labels = corpus.labels | {"train": corpus.labels["train"][:num_train]}
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Corpus(corpus.facts, texts, labels), Path(folder))
        test = run_baseline("tfidf", Path(folder))["test"]
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
        "run_variance": found.run_variance, "truth": truth,
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
    sizes, twice = sizes_from(smallest)
    covered, gained, widths, gain_widths, misses, refused = [], [], [], [], [], []
    for one in read(out):
        errors = MeasuredErrors(
            *(np.array(one[key]) for key in ("num_train", "error", "covariance")), one["run_variance"]
        )
        law = fit_power_law(errors)
        if isinstance(law, Unavailable):
            refused.append(law.reason)
            continue
        found, gain = law.accuracy(twice), law.gain(sizes[-1], twice)
        covered.append(found.low <= one["truth"] <= found.high)
        widths.append(found.high - found.low)
        misses.append(one["truth"] - found.value)
        gained.append(gain.low <= one["truth"] - 1 + one["error"][-1] <= gain.high)
        gain_widths.append(gain.high - gain.low)
    if not covered:
        raise SystemExit(f"{out}: no resample was fitted: {refused[:1]}")
    print(
        f"TF-IDF, fitted to {sizes[0]:,} to {sizes[-1]:,} rows, the true value at {twice:,}; {NUM_TEST:,} test rows. "
        f"Goal: {WANTED:.0%} of the intervals cover it.\n"
    )
    print(
        "| resamples | no prediction | coverage of the accuracy interval | its width, median | coverage of the gain interval | its width, median | true - predicted, median |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    print(
        f"| {len(covered) + len(refused)} | {len(refused)} | {sum(covered) / len(covered):.1%} | {median(widths):.3f} "
        f"| {sum(gained) / len(gained):.1%} | {median(gain_widths):.3f} | {median(misses):+.4f} |"
    )
    for why in dict.fromkeys(text.partition(" (")[0] for text in refused):
        print(f"\nNo prediction: {sum(text.startswith(why) for text in refused)} x {why}")


def judge_records(folders: Sequence[Path]) -> None:
    cells = load_priced(folders).cells
    curves = learning_curves(cells)
    if not curves:
        raise SystemExit("No cells there differ in the number of training rows alone: run bench/data.toml first.")
    names = curve_names(curves, cells)
    print("| model | fitted to | predicted at | predicted | measured | covered |")
    print("|---|---|---:|---:|---:|---|")
    for curve, name in zip(curves, names, strict=True):
        print(predict_largest(curve, name))
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


def predict_largest(curve: LearningCurve, name: str) -> str:
    """Return a row of the table: the largest size's accuracy, predicted from a curve through the other sizes."""
    errors, end = curve.errors, curve.largest
    others = replace(
        errors, num_train=errors.num_train[:-1], error=errors.error[:-1], covariance=errors.covariance[:-1, :-1]
    )
    law = fit_power_law(others)
    fitted = f"{others.num_train[0]:,} to {others.num_train[-1]:,}"
    found = law if isinstance(law, Unavailable) else law.accuracy(end.num_train)
    if isinstance(found, Unavailable):
        return f"| {name} | {fitted} | {end.num_train:,} | no prediction: {found.reason} | {end.accuracy.value:.3f} | |"
    covered = found.low <= end.accuracy.value <= found.high
    return (
        f"| {name} | {fitted} | {end.num_train:,} | {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) "
        f"| {end.accuracy.value:.3f} | {'yes' if covered else 'no'} |"
    )


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
    options = parser.parse_args()
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
