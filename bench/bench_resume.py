"""Check that a training killed at random moments computes the same bits as an unbroken one.

Run: .venv/bin/python bench/bench_resume.py [--kills 20] [--ranks 1 2]
Each training writes a checkpoint after every step. A trial kills a rank by SIGKILL at a random moment, resumes from the newest
checkpoint, and compares losses, validations and test predictions with the unbroken run's, bit for bit. The model is a small
BERT with stored weights and dropout, with one thread per rank. The last lines say how many trials agreed, and how long a
checkpoint took.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tests" / "integration")]

from conftest import Bench
from resumable_runs import computed_values, run_segment, train_through_kills
from test_endings import workers
from tiny import write_checkpoint, write_reviews

from harness.execution.preparation import Preparations
from harness.execution.runner import Runner
from harness.execution.sweep import describe_environment

NUM_UPDATES = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-resume-") as folder, Runner() as runner:
        place = Path(folder)
        defaults = {
            "name": "resume",
            "model": {"name": str(write_checkpoint(place / "bert", "bert"))},
            "data": {
                "source": str(write_reviews(place / "reviews.csv")),
                "num_train": 256,
                "num_val": 64,
                "num_test": 64,
            },
            "training": {"max_steps": NUM_UPDATES, "lr": 3e-3},
            "matrix": {"seq_len": [24], "threads": [1]},
        }
        bench = Bench(defaults, Preparations(place / "prepared"), describe_environment(None), runner)
        runner.wait_until_warm()
        lines = [try_kills(bench, place, num_ranks, asked.kills, asked.seed) for num_ranks in asked.ranks]
    print("\n".join(lines))
    sys.exit(any(" 0 differed" not in line for line in lines))


def try_kills(bench: Bench, place: Path, num_ranks: int, num_kills: int, seed: int) -> str:
    """Run trials of one kill each until `num_kills` hit training; return a line with the results."""
    around = bench.with_cores(max(2, num_ranks))
    raw = {"matrix": {"device": ["cpu" if num_ranks == 1 else f"cpu-ddp{num_ranks}"]}}
    whole = bench.run(around, **raw)
    assert whole.outcome == "ok", whole.reason
    every = run_segment(bench, place / f"timed-{num_ranks}", environment=around, save_interval_s=1e-9, **raw)
    longest_s = every.phases.train_s + sum(one.seconds for one in every.training.pieces[0].checkpoints)
    seconds = [one.seconds for one in every.training.pieces[0].checkpoints]
    rng, came, trial = random.Random(seed), {"agreed": 0, "differed": 0}, 0
    while sum(came.values()) < num_kills:
        trial += 1
        record, found = train_through_kills(
            bench, place / f"trial-{num_ranks}-{trial}", workers, 1, longest_s, rng, num_ranks=num_ranks, environment=around,
            **raw,
        )  # fmt: skip
        if not found:
            continue  # training had ended before the kill, so this trial doesn't count
        how = "agreed" if computed_values(record) == computed_values(whole) else "differed"
        came[how] += 1
        print(f"{num_ranks} ranks, kill {sum(came.values())}: gone on with after update {found[0]}: {how}", flush=True)
    size = every.training.pieces[0].checkpoints[0].num_bytes / 2**20
    return (
        f"{num_ranks} ranks: of {num_kills} kills {came['agreed']} agreed to the last bit, {came['differed']} differed; "
        f"a checkpoint of {size:.1f} MiB took "
        f"{median(seconds) * 1000:.0f} ms (median of {len(seconds)}), at most {max(seconds) * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
