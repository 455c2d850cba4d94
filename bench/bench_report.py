"""Time and peak memory of a report of 5,000 records; the goals are 10 s and 1 GiB.

Run: .venv/bin/pytest bench/bench_report.py -s
`harness report` runs in a process of its own, imports included. Its peak is the kernel's high-water mark of its resident set.
The records are made up, and marked so: 1,000 cells of 5 runs each, with 125 steps and 1,000 test examples per run.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from replay_clock import ReplayClock, replay

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.schema.record import to_json
from harness.store.record_files import record_folder
from tests.make_records import make_record

NUM_CELLS, NUM_RUNS, NUM_STEPS = 1000, 5, 125
ROUNDS = 3
# The process itself reads its high-water mark, because the peak from wait4 starts at the parent's size.
REPORT = """
import re, sys, time
from pathlib import Path
began = time.perf_counter()
try:
    from harness.cli.main import main
    main()
finally:
    seconds = time.perf_counter() - began
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    print(f"\\n{seconds} {int(peak[1]) * 1024}")
"""
CLOCK = ReplayClock()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    results, rng = tmp_path_factory.mktemp("results"), random.Random(0)
    for cell in range(NUM_CELLS):
        batch_size, seq_len = 1 + cell % 100, 32 * (1 + cell // 100)
        step_s = 1e-4 * batch_size * seq_len
        for repeat in range(NUM_RUNS):
            seconds = [step_s * rng.uniform(0.9, 1.1) for _ in range(NUM_STEPS)]
            record = make_record(
                axes={"batch_size": batch_size, "seq_len": seq_len}, repeat=repeat, minutes=cell + 2000 * repeat,
                training={"seconds": seconds, "accuracy": rng.uniform(0.7, 0.8), "memory_parts": {}},
            )  # fmt: skip
            assert record.is_made_up
            folder = record_folder(record, results)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{repeat}.json").write_text(to_json(record), encoding="utf-8")
    return results


@pytest.mark.benchmark(timer=CLOCK)
def test_report_of_five_thousand_records(benchmark, records, tmp_path):
    seconds, peaks = [], []
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", REPORT, "report", records, "--out", tmp_path / "report"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"{NUM_CELLS * NUM_RUNS} records, {NUM_CELLS} cells" in done.stdout
        told = done.stdout.splitlines()[-1].split()
        seconds.append(float(told[0]))
        peaks.append(int(told[1]))
    replay(benchmark, CLOCK, seconds)
    benchmark.extra_info["peak_rss_bytes"] = max(peaks)
    print(
        f"peak of {max(peaks) / 2**20:,.0f} MiB; the page has {(tmp_path / 'report/report.html').stat().st_size:,} bytes"
    )
