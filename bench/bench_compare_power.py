"""Measure the power and the false positive rate of `harness compare` for a slow-down of 3 %.

Run: python bench/bench_compare_power.py live --out DIR --trial K     one trial of two minutes; K is 1 to 20, odd K: slowed
     python bench/bench_compare_power.py report --out DIR             report the finished trials
     python bench/bench_compare_power.py resample --out DIR           1,000 trials resampled from the same steps
     python bench/bench_compare_power.py cells --out DIR              a study of four cells three times, two cells slowed
(Use .venv/bin/python.) Finished trials are not repeated; interrupted ones start again.

Each trial compares a cell A with itself as B, in rounds A B B A; in slowed trials every step of B takes 3 % longer
(power_workers.py). `--turns runs` alternates runs, each in its own process, like `harness run --interleave`; `--turns steps`
alternates steps of two processes that are alive at once. New rounds start until two minutes are over, whatever the results.
For runs, the verdict is that of `harness compare` on both sides' records. For steps, it is Student's t on the pairs'
logarithms (see `_middle_log_ratio`), which `harness compare` doesn't use.

`resample` builds a round from four consecutive runs of one trial (for steps: from a pair), which preserves drift over runs.
It builds each run from contiguous blocks of the run's steps, which preserves autocorrelation; step times are relative to the
same batch's mean over all runs. The slow-down of the measured trial is divided out, and 3 % is applied again.

`cells` runs one study three times. The first two runs should differ in no cell. In the third run, the cells of 64 tokens are
slowed by 30 %; only these cells should be slower than in the first run.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev, variance

import power_workers
from scipy.stats import trim_mean

from harness.analysis.significance import SIGNIFICANCE_LEVEL, LogRatio, ratio_by_rounds
from harness.analysis.throughput import measure_windows
from harness.decision.compare import CompareOptions, compare
from harness.decision.metric_verdict import CANNOT_TELL, NO_DIFFERENCE, SPEED
from harness.decision.pairing import pair_cells
from harness.execution.jobs import PreparedCell
from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment
from harness.schema.cells import Cell
from harness.schema.expansion import expand
from harness.schema.interleaving import ORDER
from harness.schema.record import Record
from harness.schema.study_file import parse_study
from harness.store.record_files import load_records, save_record
from harness.workflows.priced_records import price_records

NUM_TRIALS, TRIAL_S, SLOWED_BY = 20, 120.0, 0.03
NUM_STEPS = 44  # even, so that both sides end at the same point of a turn
BLOCK_STEPS = 8
FEWEST_ROUNDS = {"runs": 2, "steps": 3}
# Random weights need no evaluation, so more of the two minutes are steps; short steps make short turns.
STUDY = {
    "name": "compare-power",
    "baselines": False,
    "model": {"init": "random"},
    "data": {"num_train": 2 * NUM_STEPS, "num_val": 8, "num_test": 8},
    "training": {"max_steps": NUM_STEPS, "eval_every": 1.0},
    "limits": {"timeout_s": 120},
    "matrix": {"batch_size": [2], "seq_len": [32], "padding": ["max"]},
}

CELLS = STUDY | {"repeats": 5, "matrix": {"batch_size": [2, 4], "seq_len": [32, 64], "padding": ["max"]}}
SETS, CELLS_SLOWED_BY, SLOWED_SEQ_LEN = ("first", "second", "slowed"), 0.30, 64


def is_planted(trial: int) -> bool:
    return trial % 2 == 1


def trial_folder(out: Path, turns: str, trial: int) -> Path:
    return out / turns / f"trial-{trial:02d}"


def run_trial(out: Path, turns: str, trial: int) -> dict:
    folder = trial_folder(out, turns, trial)
    done = folder / "trial.json"
    if done.exists():
        return json.loads(done.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    (cell,) = expand(parse_study(STUDY, "bench_compare_power"))
    began, num_rounds, last_s = time.perf_counter(), 0, 0.0
    with tempfile.TemporaryDirectory(prefix="harness-data-") as data, Runner() as one, Runner() as other:
        needs, around = Preparations(Path(data)).prepare(cell), describe_environment(None)
        one.wait_until_warm()
        while num_rounds < FEWEST_ROUNDS[turns] or time.perf_counter() - began + last_s < TRIAL_S:
            at = time.perf_counter()
            run_round = _round_of_runs if turns == "runs" else _round_of_steps
            for side, record in run_round((one, other), cell, needs, around, num_rounds, is_planted(trial)):
                if record.outcome != "ok":
                    raise SystemExit(f"trial {trial}: {record.outcome}: {record.reason}")
                save_record(record, folder / side)
            num_rounds, last_s = num_rounds + 1, time.perf_counter() - at
    found = judge(folder, turns) | {
        "trial": trial, "planted": is_planted(trial), "rounds": num_rounds, "seconds": time.perf_counter() - began,
    }  # fmt: skip
    done.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def _round_of_runs(runners, cell: Cell, needs: PreparedCell, around, index: int, planted: bool):
    counts = {"A": 2 * index, "B": 2 * index}
    for side in ORDER:
        run = cell.model_copy(update={"repeat": counts[side]})
        counts[side] += 1
        runners[0].worker_entry = _worker(SLOWED_BY if planted and side == "B" else 0.0)
        yield side, runners[0].run(run, needs, around)


def _worker(slowed_by: float):
    return functools.partial(power_workers.slowed, slowed_by) if slowed_by else power_workers.plain


def _round_of_steps(runners, cell: Cell, needs: PreparedCell, around, index: int, planted: bool):
    run, found, has_begun = cell.model_copy(update={"repeat": index}), {}, threading.Event()

    def go(side, runner):
        found[side] = runner.run(run, needs, around, lambda _: has_begun.set())

    with tempfile.TemporaryDirectory(prefix="harness-turns-") as folder:
        power_workers.make_turns(Path(folder))
        threads = []
        for side, runner in zip("AB", runners, strict=True):
            runner.worker_entry = functools.partial(
                power_workers.in_turns, side, folder, NUM_STEPS, SLOWED_BY if planted and side == "B" else 0.0
            )
            threads.append(threading.Thread(target=go, args=(side, runner)))
            threads[-1].start()
            has_begun.wait(60)  # wait for the worker of A's process to start, because B's is set next
        for thread in threads:
            thread.join()
    yield from sorted(found.items())


def judge(folder: Path, turns: str) -> dict:
    """Compare the records of both sides of a trial; return the verdict and the ratio B/A."""
    sides = [load_records([folder / side]).records for side in "AB"]
    if turns == "steps":
        found = by_pairs([_log_ratio(a, b) for a, b in _pairs(*sides)])
        verdict = verdict_of(found)
    else:
        (cell,) = compare(pair_cells(*(price_records(side).cells for side in sides))).cells
        found, verdict = cell.speed.change, cell.speed.verdict
        return {"verdict": verdict, "ratio": found.value, "low": found.low, "high": found.high, "basis": found.basis}
    change = found.estimate()
    return {"verdict": verdict, "ratio": change.value, "low": change.low, "high": change.high, "basis": change.basis}


def verdict_of(found: LogRatio) -> str:
    """Return the verdict that `harness compare` would give for a single cell with this ratio."""
    change, margin = found.estimate(), CompareOptions().margin
    if 1 / (1 + margin) <= change.low and change.high <= 1 + margin:
        return NO_DIFFERENCE
    return CANNOT_TELL if found.p_value() >= SIGNIFICANCE_LEVEL else SPEED.below if found.value < 0 else SPEED.above


def by_pairs(logs: Sequence[float]) -> LogRatio:
    return LogRatio(fmean(logs), variance(logs) / len(logs), len(logs) - 1, f"{len(logs)} pairs of runs")


def _pairs(one: Sequence[Record], other: Sequence[Record]) -> list[tuple[Record, Record]]:
    theirs = {record.repeat: record for record in other}
    return [(record, theirs[record.repeat]) for record in one if record.repeat in theirs]


def _log_ratio(a: Record, b: Record) -> float:
    return _middle_log_ratio(*_steps([a, b]))


def _middle_log_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the mean log-ratio of two runs' alternating steps, trimmed by a fifth at either end.

    The mean is trimmed because another process that wakes up in one of a few dozen steps slows one side alone; the ratio of
    the two sums would mostly show this.

    Source: K. K. Yuen, Biometrika 61 (1974), 165-170, on 20 % trimmed means.
    """
    return float(trim_mean([math.log(a / b) for a, b in zip(one, other, strict=True)], 0.2))


def _steps(records: Sequence[Record]) -> list[list[float]]:
    """Return each run's measured step times without the last step, during which the other process may exit."""
    return [list(window.seconds[:-1]) for window in measure_windows([record.training for record in records])]


def report(out: Path, turns: str) -> str:
    paths = sorted((out / turns).glob("trial-*/trial.json"))
    found = [json.loads(path.read_text()) | judge(path.parent, turns) for path in paths]
    lines = [f"Turns by {turns}; {NUM_STEPS} steps a run.", ""]
    lines += ["| trial | planted | rounds | B/A, 95 % | verdict | seconds |", "|---:|---|---:|---:|---|---:|"]
    for one in found:
        spread = f"{one['ratio']:.3f}" + (f" ({one['low']:.3f} to {one['high']:.3f})" if one["low"] else "")
        lines.append(
            f"| {one['trial']} | {'3 %' if one['planted'] else 'no'} | {one['rounds']} | {spread} | {one['verdict']} "
            f"| {one['seconds']:.0f} |"
        )
    counts = []
    for planted, name in ((True, "planted"), (False, "null")):
        some = [one["verdict"] for one in found if one["planted"] is planted]
        counts.append(f"{len(some)} {name}: " + ", ".join(f"{some.count(word)} {word}" for word in dict.fromkeys(some)))
    return "\n".join([*lines, "", *counts])


def resample(out: Path, turns: str, *, num_trials: int, num_rounds: int | None, seed: int) -> dict:
    """Return the power and the false positive rate over resampled trials."""
    sessions, seen = _sessions(out, turns)
    rng, rounds = random.Random(seed), num_rounds or round(fmean(seen))
    counts = {True: [], False: []}
    for _ in range(num_trials):
        for planted, verdicts in counts.items():
            draw = _draw_round if turns == "runs" else _draw_pair
            drawn = [draw(rng, sessions, planted) for _ in range(rounds)]
            verdicts.append(verdict_of(ratio_by_rounds(drawn) if turns == "runs" else by_pairs(drawn)))
    return {
        "turns": turns, "trials": num_trials, "rounds": rounds, "block_steps": BLOCK_STEPS, "seed": seed,
        "num_sessions": len(sessions), "num_runs": sum(map(len, sessions)),
        "sd_of_runs": stdev(math.log(fmean(run)) for runs in sessions for run in runs),
        "found": counts[True].count(SPEED.below) / num_trials,
        "found_faster": counts[True].count(SPEED.above) / num_trials,
        "false_alarms": sum(counts[False].count(word) for word in (SPEED.below, SPEED.above)) / num_trials,
    }  # fmt: skip


def _sessions(out: Path, turns: str) -> tuple[list[list[list[float]]], list[int]]:
    """Return each trial's runs by start time (for steps: A, B, A, B, ...), and each trial's number of rounds.

    Step times are relative to the mean over all runs of the same batch.
    """
    trials, seen = [], []
    for path in sorted((out / turns).glob("trial-*/trial.json")):
        told = json.loads(path.read_text())
        seen.append(told["rounds"])
        runs = []
        for side in "AB":
            slowed = 1 + SLOWED_BY if told["planted"] and side == "B" else 1.0
            for record in load_records([path.parent / side]).records:
                key = (record.repeat, side) if turns == "steps" else record.started_at
                runs.append((key, slowed, record))
        trials.append(sorted(runs, key=lambda run: run[0]))
    steps = iter(_steps([record for runs in trials for _, _, record in runs]))
    raw = [[[step_s / slowed for step_s in next(steps)] for _, slowed, _ in runs] for runs in trials]
    if not raw:
        raise SystemExit(f"{out / turns}: no trial that ended")
    means = [fmean(column) for column in zip(*(run for runs in raw for run in runs), strict=True)]
    return [[[step_s / mean for step_s, mean in zip(run, means, strict=True)] for run in runs] for runs in raw], seen


def _draw_round(rng: random.Random, sessions, planted: bool) -> tuple[float, float, float, float]:
    runs = rng.choice(sessions)
    first = rng.randrange(len(runs) - len(ORDER) + 1)
    logs = []
    for side, run in zip(ORDER, runs[first : first + len(ORDER)], strict=True):
        slow = 1 + SLOWED_BY if planted and side == "B" else 1.0
        logs.append(-math.log(slow * fmean(run[index] for index in _blocks(rng, len(run)))))
    return tuple(logs)


def _draw_pair(rng: random.Random, sessions, planted: bool) -> float:
    """Resample a pair of runs, and draw which run is A.

    Both sides have the same blocks, because these were measured at the same time.
    """
    runs = rng.choice(sessions)
    first = 2 * rng.randrange(len(runs) // 2)
    a, b = rng.sample(runs[first : first + 2], 2)
    where = _blocks(rng, len(a))
    slow = 1 + SLOWED_BY if planted else 1.0
    return _middle_log_ratio([a[index] for index in where], [slow * b[index] for index in where])


def _blocks(rng: random.Random, num_steps: int) -> list[int]:
    """Draw step indices of a circular moving-block bootstrap (H. R. Kuensch, Annals of Statistics 17 (1989), 1217-1241)."""
    firsts = [rng.randrange(num_steps) for _ in range(-(-num_steps // BLOCK_STEPS))]
    return [(first + step) % num_steps for first in firsts for step in range(BLOCK_STEPS)][:num_steps]


def run_cells(out: Path) -> None:
    """Run the study of four cells three times; a complete set is not repeated."""
    cells = expand(parse_study(CELLS, "bench_compare_power"))
    with tempfile.TemporaryDirectory(prefix="harness-data-") as data, Runner() as runner:
        preparations, around = Preparations(Path(data)), describe_environment(None)
        runner.wait_until_warm()
        for name in SETS:
            folder = out / "cells" / name
            if len(list(folder.rglob("*.json"))) == len(cells):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            for cell in cells:
                is_slowed = name == "slowed" and cell.config.seq_len == SLOWED_SEQ_LEN
                runner.worker_entry = _worker(CELLS_SLOWED_BY if is_slowed else 0.0)
                record = runner.run(cell, preparations.prepare(cell), around)
                if record.outcome != "ok":
                    raise SystemExit(f"{cell.name}: {record.outcome}: {record.reason}")
                save_record(record, folder)


def report_cells(out: Path) -> str:
    """Compare the second and the slowed set with the first."""
    first, *others = (price_records(load_records([out / "cells" / name]).records).cells for name in SETS)
    lines = ["| cell | against the first run | B/A, 95 % | verdict |", "|---|---|---:|---|"]
    for name, cells in zip(SETS[1:], others, strict=True):
        for cell in compare(pair_cells(first, cells)).cells:
            change = cell.speed.change
            lines.append(
                f"| `{cell.a.summary.cell}` | {name} | {change.value:.3f} ({change.low:.3f} to {change.high:.3f}) | {cell.speed.verdict} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("live", "report", "resample", "cells"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trial", type=int, choices=range(1, NUM_TRIALS + 1), help="live: run only this trial")
    parser.add_argument("--turns", choices=("runs", "steps"), default="runs")
    parser.add_argument("--trials", type=int, default=1000, help="resample: number of trials")
    parser.add_argument("--rounds", type=int, help="resample: rounds per trial (default: as in the measured trials)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.what == "live":
        for trial in [options.trial] if options.trial else range(1, NUM_TRIALS + 1):
            print(json.dumps(run_trial(options.out, options.turns, trial), sort_keys=True), flush=True)
    elif options.what == "cells":
        run_cells(options.out)
        print(report_cells(options.out))
    elif options.what == "report":
        print(report(options.out, options.turns))
    else:
        found = resample(
            options.out, options.turns, num_trials=options.trials, num_rounds=options.rounds, seed=options.seed
        )  # fmt: skip
        (options.out / f"resampled-{options.turns}.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        print(json.dumps(found, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
