"""Read hostile archives: how each ends, with its CPU seconds and peak memory, and whether time is linear in size.

Run: .venv/bin/python bench/bench_archives.py [MUTATIONS]   prints a table (300 mutations: some minutes)

Each attack is opened in a process of its own, by `report`'s way (read) and by `import`'s. The mutations are of an archive of
four records: changed headers with good checksums, changed bytes, cuts, repeats, and changed bytes of the compression. One
process opens them all, and resets its peak before each. Exit status 1 at a traceback, above 1 GiB, or if twice the size
takes over three times as long.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.make_archives import ATTACKS, NAME, mutations, pax, real_record, record_archive, tar_gz, ustar

SEED = 20261130
TIMEOUT_S = 600
LIMIT_MIB = 1024
MAX_GROWTH = 3.0  # of seconds at twice the size
CHILD = """
import sys, tempfile, time, traceback
from itertools import pairwise
from pathlib import Path
from harness.errors import UserError
from harness.store.archive import read_records, unpack_records

def open_archive(file, way):
    if way == "read":
        loaded = read_records([file])
        return f"{len(loaded.records)} read, {len(loaded.unreadable)} left aside"
    with tempfile.TemporaryDirectory() as folder:
        unpacked = unpack_records(file, Path(folder))
    return f"{len(unpacked.new) + unpacked.num_known} unpacked, {len(unpacked.refused)} left out"

for file in map(Path, sys.argv[2:]):
    Path("/proc/self/clear_refs").write_text("5")
    start = time.process_time()
    try:
        result = open_archive(file, sys.argv[1])
    except UserError as error:
        result = "refused: " + str(error).partition("archive: ")[2]
    except Exception:
        result = "TRACEBACK " + traceback.format_exc().splitlines()[-1]
    peak_kib = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(f"{time.process_time() - start:.3f};{peak_kib // 1024};{result}", flush=True)
"""
# Archives of a size that doubles, by what they have more of.
FAMILIES: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "records": (1000, lambda count: record_archive(*[real_record()] * count)),
    "members that are no records": (5000, lambda count: tar_gz(ustar("a.txt", 0) * count)),
    "pax headers": (1000, lambda count: tar_gz((pax("path", "a" * 900) + ustar("a.txt", 0)) * count)),
    "gzip streams": (2000, lambda count: gzip.compress(b"") * count),
    "MiB of one member": (16, lambda count: tar_gz(ustar(NAME, count * 2**20, content=bytes(count * 2**20)))),
}
NUM_DOUBLINGS = 3


class Opened(NamedTuple):
    """How opening an archive ended."""

    cpu_s: float
    peak_mib: int
    result: str

    @property
    def is_bad(self) -> bool:
        return "TRACEBACK" in self.result or self.peak_mib > LIMIT_MIB


def open_archives(contents: Sequence[bytes], way: str) -> list[Opened]:
    """Open archives one after the other in one process."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index}.tar.gz" for index in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        child = subprocess.run(
            [sys.executable, "-c", CHILD, way, *files], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    lines = (line.split(";", 2) for line in child.stdout.splitlines())
    return [Opened(float(cpu_s), int(peak_mib), result) for cpu_s, peak_mib, result in lines]


def attack_rows() -> Iterator[tuple[str, bool]]:
    """Yield a row of each attack and way, and whether it is bad."""
    for name, make in ATTACKS.items():
        content = make()
        for way in ("read", "import"):
            (opened,) = open_archives([content], way)
            row = f"| {name} | {len(content):,} | {way} | {opened.cpu_s:.2f} | {opened.peak_mib:,} | {opened.result} |"
            yield row, opened.is_bad


def growth_rows() -> Iterator[tuple[str, bool]]:
    """Yield a row of each family, and whether its time grows faster than its size."""
    for name, (count, make) in FAMILIES.items():
        seconds = [
            min(one.cpu_s for one in open_archives([make(count * 2**i)] * 3, "import"))
            for i in range(NUM_DOUBLINGS + 1)
        ]
        growth = [later / max(earlier, 0.01) for earlier, later in pairwise(seconds)]
        yield f"| {count:,} {name} | {' | '.join(f'{one:.2f}' for one in seconds)} |", max(growth) > MAX_GROWTH


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    num_mutations = int(arguments[0]) if arguments else 300
    num_bad = 0
    print(f"# Hostile archives\n\nMade by bench/bench_archives.py {num_mutations}.\n")
    print("| archive | bytes | way | CPU s | peak MiB | ends |\n|---|---:|---|---:|---:|---|")
    for row, is_bad in attack_rows():
        num_bad += is_bad
        print(row, flush=True)
    opened = open_archives(list(mutations(SEED, num_mutations)), "import")
    num_bad += sum(one.is_bad for one in opened)
    refused = sum(one.result.startswith("refused") for one in opened)
    crashed = sum("TRACEBACK" in one.result for one in opened)
    print(
        f"\n{len(opened)} mutations: {refused} refused, {len(opened) - refused - crashed} read with what could be read, "
        f"{crashed} tracebacks; at most {max(one.cpu_s for one in opened):.2f} s of CPU and "
        f"{max(one.peak_mib for one in opened):,} MiB.\n"
    )
    print("CPU seconds of `import` at a size, and at 2, 4 and 8 times that size (the best of three):\n")
    print("| archive of | 1 | 2 | 4 | 8 |\n|---|---:|---:|---:|---:|")
    for row, is_bad in growth_rows():
        num_bad += is_bad
        print(row, flush=True)
    raise SystemExit(int(num_bad > 0))


if __name__ == "__main__":
    main(sys.argv[1:])
