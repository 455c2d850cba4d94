"""Read hostile archives, each in a process of its own: how each ends, with its CPU seconds and peak memory.

Run: .venv/bin/python bench/bench_archives.py [MUTATIONS]   prints a table (300 mutations: some minutes)

The mutations are of an archive of four records: changed headers with good checksums, changed bytes, cuts, repeats, and
changed bytes of the compression.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.errors import UserError
from harness.store.archive import unpack_records
from tests.make_archives import ATTACKS, mutations, real_record, record_archive

SEED = 20261130
TIMEOUT_S = 120
LIMIT_MIB = 1024
CHILD = """
import sys, tempfile, time
from pathlib import Path
from harness.errors import UserError
from harness.store.archive import read_records, unpack_records
start = time.process_time()
try:
    if sys.argv[2] == "read":
        loaded = read_records([Path(sys.argv[1])])
        result = f"{len(loaded.records)} read, {len(loaded.unreadable)} left aside"
    else:
        with tempfile.TemporaryDirectory() as folder:
            unpacked = unpack_records(Path(sys.argv[1]), Path(folder))
        result = f"{len(unpacked.new) + unpacked.num_known} unpacked, {len(unpacked.refused)} left out"
except UserError as error:
    result = "refused: " + str(error).partition("archive: ")[2]
peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(f"{time.process_time() - start:.2f};{peak_kib / 1024:.0f};{result}")
"""


def open_archive(content: bytes, way: str) -> tuple[float, int, str]:
    """Return CPU seconds, peak MiB, and how it ended."""
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(content)
        file.flush()
        child = subprocess.run(
            [sys.executable, "-c", CHILD, file.name, way],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    if child.returncode:
        return 0.0, 0, f"TRACEBACK {child.stderr[-200:]}"
    cpu_s, peak_mib, result = child.stdout.strip().split(";", 2)
    return float(cpu_s), int(peak_mib), result


def unpack_mutations(count: int) -> tuple[int, float]:
    """Unpack mutated archives; return how many were refused, and the most CPU seconds of one. A traceback ends the bench."""
    refused, worst_s = 0, 0.0
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name) / "a.tar.gz"
        for content in mutations(SEED, count):
            archive.write_bytes(content)
            start = time.process_time()
            try:
                unpack_records(archive, Path(name) / "results")
            except UserError:
                refused += 1
            worst_s = max(worst_s, time.process_time() - start)
    return refused, worst_s


def main(arguments: Sequence[str]) -> None:
    """Print the table, and exit with status 1 if an archive crashed or took more than 1 GiB."""
    num_mutations = int(arguments[0]) if arguments else 300
    print(f"# Hostile archives\n\nMade by bench/bench_archives.py {num_mutations}.\n")
    print("| archive | bytes | way | CPU s | peak MiB | ends |\n|---|---:|---|---:|---:|---|")
    failed = False
    for name, make in ATTACKS.items():
        content = make()
        for way in ("read", "import"):
            cpu_s, peak_mib, result = open_archive(content, way)
            failed |= "TRACEBACK" in result or peak_mib > LIMIT_MIB
            print(f"| {name} | {len(content):,} | {way} | {cpu_s:.2f} | {peak_mib:,} | {result} |", flush=True)
    results = [open_archive(content, "import") for content in mutations(SEED, num_mutations)]
    refused = sum(result.startswith("refused") for _, _, result in results)
    crashed = sum("TRACEBACK" in result for _, _, result in results)
    worst_s, worst_mib = max(cpu_s for cpu_s, _, _ in results), max(peak for _, peak, _ in results)
    print(
        f"\n{len(results)} mutations: {refused} refused, {len(results) - refused - crashed} read with what could be read,"
    )
    print(f"{crashed} tracebacks; at most {worst_s:.2f} s of CPU and {worst_mib:,} MiB.\n")
    print(
        "Linear in size: the pax header of 333 bytes that took 43 s is refused before it is read; the same record many times:\n"
    )
    print("| records | CPU s |\n|---:|---:|")
    for count in (1000, 2000, 4000, 8000):
        cpu_s, _, _ = open_archive(record_archive(*[real_record()] * count), "import")
        print(f"| {count:,} | {cpu_s:.2f} |", flush=True)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main(sys.argv[1:])
