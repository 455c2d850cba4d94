"""Comparison of the harness with its alternatives: a bare PyTorch loop, transformers' Trainer, optimum-benchmark.

Run: make bench-peers                                                   environments, all parts, the table
     .venv/bin/python bench/bench_peers.py run --out DIR [--part PART] [--round K]   parts and rounds not measured yet
     .venv/bin/python bench/bench_peers.py report --out DIR                          only the table

Contenders take turns within a round; every second round runs them in reverse order. Each round is one JSON file under DIR,
with every step's seconds; the harness's own records are in DIR/records. A finished round is never measured again, so that a
stopped run goes on where it was. Peers run in .venv-peers/, on the rows that the harness tokenised, with the same number of
threads.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from peers.contenders import Contenders, machine_facts
from peers.parts import PARTS, Choices
from peers.table import write_report

from harness.files import atomic_write_text
from harness.machine.describe import harness_checkout

DEFAULT_OUT = Path("results/peers")
REPORT = "peers.md"
# Choices for a quick check that everything runs here; too few steps for good measurements.
QUICK = {"steps": 4, "rows": 64, "train_rows": 64, "val_rows": 32, "epochs": 1.0, "cell_steps": 3, "cell_warmup": 1, "best_rows": 64}  # fmt: skip


def main() -> None:
    arguments = _parser().parse_args()
    # Exit by an exception, so that the processes of peers are killed too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if arguments.command == "run":
        picked = {field.name: getattr(arguments, field.name) for field in fields(Choices)}
        choices = Choices(**((QUICK if arguments.quick else {}) | {k: v for k, v in picked.items() if v is not None}))
        measure(arguments.out, arguments.part or list(PARTS), arguments.round, choices)
    text = write_report(arguments.out)
    atomic_write_text(arguments.out / REPORT, text)
    print(text)


def measure(out: Path, parts: list[str], only_round: int | None, choices: Choices) -> None:
    """Run every round that has no file yet."""
    out.mkdir(parents=True, exist_ok=True)
    with Contenders(out) as bench:
        for name in parts:
            for turn in range(PARTS[name].num_rounds) if only_round is None else [only_round]:
                _measure_round(bench, out, name, turn, choices)


def _measure_round(bench: Contenders, out: Path, name: str, turn: int, choices: Choices) -> None:
    path, part = out / f"{name}-{turn}.json", PARTS[name]
    settings = part.settings_of(choices)
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))["settings"]
        if found != settings:
            sys.exit(f"{path}: was measured with {found}, not with {settings}; name another folder, or remove it")
        print(f"{name}, round {turn}: done")
        return
    print(f"{name}, round {turn}", flush=True)
    began, started_at = time.perf_counter(), datetime.now(UTC)
    runs = part.run(bench, choices, turn)
    seconds = time.perf_counter() - began
    git = harness_checkout()
    told = {
        "part": name, "round": turn, "settings": settings, "started_at": started_at.isoformat(timespec="seconds"),
        "duration_s": seconds, "commit": git and git.commit, "machine": machine_facts(), "runs": runs,
    }  # fmt: skip
    atomic_write_text(path, json.dumps(_rounded(told), sort_keys=True) + "\n")
    print(f"  {seconds:.0f} s", flush=True)


def _rounded(value: object) -> object:
    """Round all floats in a JSON value to 6 digits, since microseconds are enough."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run, report = commands.add_parser("run"), commands.add_parser("report")
    for command in (run, report):
        command.add_argument("--out", type=Path, default=DEFAULT_OUT)
    run.add_argument("--part", action="append", choices=list(PARTS), help="one or more parts (default: all)")
    run.add_argument("--round", type=int, help="one round alone, from 0; of engine and recipe it is the seed")
    run.add_argument("--quick", action="store_true", help="a few steps of everything")
    run.add_argument("--best", help="study whose last cell is our best recipe (default: bench/peers/best.toml)")
    for name in ("steps", "rows", "train_rows", "val_rows", "cell_steps", "cell_warmup", "best_rows"):
        run.add_argument(f"--{name.replace('_', '-')}", type=int)
    for name in ("epochs", "target"):
        run.add_argument(f"--{name}", type=float)
    return parser


if __name__ == "__main__":
    main()
