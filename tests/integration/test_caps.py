"""Caps on memory, out of memory made for real, and who else held some: real cells in real groups."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import odd_workers
import psutil
import pytest

from harness.analysis.summarize import summarize
from harness.execution import memory_cgroup
from harness.execution.jobs import Environment
from harness.execution.memory_cap import MemoryCap
from harness.execution.memory_sampler import pss_bytes
from harness.execution.messages import Progress
from harness.execution.sweep import NullListener, run_cells
from harness.machine import memory_users
from harness.machine.cgroups import find_cgroup
from harness.machine.memory_users import find_memory_users
from harness.pricing.cost import price
from harness.pricing.price_table import load_prices
from harness.pricing.prices import price_finder
from harness.report import write_report
from harness.schema.settings import PACKAGED_MODEL
from harness.store.record_files import load_records

GIB, MIB = 2**30, 2**20
ENDLESS = {"epochs": 100_000, "eval_every": 100_000}
REAL = {
    "model": {"name": PACKAGED_MODEL},
    "data": {"num_train": 256, "num_val": 16, "num_test": 16},
    "training": {"max_steps": 2},
}


@pytest.fixture(scope="module")
def groups_can_be_made(tmp_path_factory):
    cap = MemoryCap(GIB, 1, tmp_path_factory.mktemp("cap"))
    is_made = cap.group is not None
    cap.close()
    if not is_made:
        pytest.skip("no memory control group can be made here (root, or a delegated version 2 group, is needed)")


@pytest.fixture
def no_groups(monkeypatch):
    """Offer no parent for a control group, as for a user without the permission."""
    monkeypatch.setattr(memory_cgroup, "candidate_parents", lambda own: iter(()))


@pytest.fixture(autouse=True)
def no_group_is_left():
    yield
    assert groups() == []


def groups():
    own = find_cgroup("memory")
    return [path for path in own[0].glob(f"harness-{os.getpid()}-*") if path.is_dir()] if own else []


def real(bench, gib, *, batch_size, seq_len=128, **raw):
    return bench.run(
        **REAL,
        limits={"memory_limit_gib": gib},
        matrix={"batch_size": [batch_size], "seq_len": [seq_len], "padding": ["max"]} | raw.pop("matrix", {}),
        **raw,
    )


@pytest.mark.usefixtures("groups_can_be_made")
class TestControlGroup:
    def test_a_capped_cell_runs_in_a_fresh_process_in_its_own_group_and_measures_the_same(self, bench):
        record = bench.run(limits={"memory_limit_gib": 2})
        assert (record.outcome, record.start_method) == ("ok", "fresh"), record.reason
        assert record.training.steps.loss == bench.run().training.steps.loss
        facts = record.cap
        assert (facts.limit_bytes, facts.exact, facts.num_oom_kills) == (2 * GIB, True, 0)
        assert facts.method.startswith("control_group_v")
        (own,) = [peak for peak in record.training.peak_memory if peak.source == "control_group"]
        assert own.rank is None
        assert 100 * MIB < own.num_bytes <= facts.peak_bytes < 2 * GIB
        (summary,) = summarize([record])
        assert (summary.peak_memory_source, summary.peak_memory_bytes) == ("control_group", own.num_bytes)
        assert not any("approximate" in warning for warning in summary.warnings)

    def test_ranks_share_one_group(self, bench):
        record = bench.run(bench.with_cores(2), matrix={"device": ["cpu-ddp2"]}, limits={"memory_limit_gib": 3})
        assert (record.outcome, record.start_method) == ("ok", "fresh"), record.reason
        sources = [(peak.rank, peak.source) for peak in record.training.peak_memory]
        assert sources == [(0, "rss"), (1, "rss"), (None, "control_group")]

    def test_a_cap_too_small_for_torch_is_out_of_memory(self, bench):
        record = bench.run(limits={"memory_limit_gib": 0.05})
        assert record.outcome == "oom"
        assert record.marks == ()

    def test_a_kill_by_another_process_is_a_crash(self, bench):
        def kill(message):
            if isinstance(message, Progress):
                for child in psutil.Process().children():
                    if "multiprocessing-fork" in " ".join(child.cmdline()):
                        child.kill()

        record = bench.run(on_message=kill, training=ENDLESS, limits={"memory_limit_gib": 2})
        assert record.outcome == "crashed"
        assert record.reason.startswith("the process was ended by SIGKILL")

    def test_a_baseline_is_capped_too(self, bench, tmp_path):
        cells = [cell for cell in bench.cells(baselines=True, limits={"memory_limit_gib": 1}) if "tfidf" in cell.name]
        (record,) = run_cells(cells, tmp_path, bench.environment, NullListener())
        assert (record.outcome, record.start_method, record.cap.exact) == ("ok", "fresh", True)
        assert [peak.source for peak in record.baseline.peak_memory] == ["rss", "control_group"]

    def test_a_cell_within_the_cap_uses_no_more_and_one_that_ran_out_needs_more(self, bench, tmp_path):
        """Rising batch sizes end in `oom`, then `skipped`; other cells are unaffected, and the report explains both."""
        raw = REAL | {"limits": {"memory_limit_gib": 0.9}}
        axes = {"seq_len": [128], "padding": ["max"]}
        # The largest comes before one that fits, because the order must not matter.
        rising = bench.cells(**raw, matrix=axes | {"batch_size": [2, 32, 64, 1]})
        other = bench.cells(**raw, matrix=axes | {"batch_size": [32], "seq_len": [8]})
        records = run_cells([*rising, *other], tmp_path / "r", bench.environment, NullListener())
        assert [record.outcome for record in records] == ["ok", "oom", "skipped", "ok", "ok"], [
            r.reason for r in records
        ]
        small, large, skipped = records[:3]
        assert small.cap.peak_bytes <= 0.9 * GIB
        assert large.reason == "the kernel killed rank 0: the control group's limit of 0.9 GiB was reached"
        assert large.cap.num_oom_kills == 1
        roomy = real(bench, 6, batch_size=32)
        assert roomy.outcome == "ok", roomy.reason
        assert roomy.cap.peak_bytes > 0.9 * GIB
        assert skipped.reason == f"larger than {large.cell}, which ran out of memory"
        assert (skipped.start_method, skipped.duration_s, skipped.cap) == (None, 0.0, None)
        page, summary = reported(records, tmp_path)
        for text in (page, summary):
            assert "which ran out of memory" in text
            assert "limit of 0.9 GiB was reached" in text

    def test_without_skipping_every_cell_is_tried(self, bench, tmp_path):
        cells = bench.cells(limits={"memory_limit_gib": 0.05}, matrix={"batch_size": [8, 16]})
        skipping = run_cells(cells, tmp_path / "a", bench.environment, NullListener())
        assert [record.outcome for record in skipping] == ["oom", "skipped"]
        trying = run_cells(cells, tmp_path / "b", bench.environment, NullListener(), skip=False)
        assert [record.outcome for record in trying] == ["oom", "oom"]
        later = run_cells(cells[1:], tmp_path / "c", bench.environment, NullListener(), known_oom=skipping)
        assert [record.outcome for record in later] == ["skipped"]

    def test_a_second_run_has_nothing_to_do_without_no_skip(self, study_file, tmp_path):
        study = study_file("[matrix]\nbatch_size = [8, 16]\n", limits="memory_limit_gib = 0.05")

        def harness(*options):
            command = [sys.executable, "-m", "harness", "run", study, "--results", tmp_path / "r", *options]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            outcomes = [record.outcome for record in load_records([tmp_path / "r"]).records]
            return done.stdout, outcomes

        assert harness()[1] == ["oom", "skipped"]
        stdout, outcomes = harness()
        assert "All 2 cells are done" in stdout and outcomes == ["oom", "skipped"]
        assert harness("--no-skip")[1] == ["oom", "skipped", "oom"]

    def test_a_kill_in_the_harness_own_group_is_out_of_memory(self, bench, tmp_path):
        """As in a container with a limit: neither the cell nor the harness sets a cap."""
        cap = MemoryCap(900 * MIB, 1, tmp_path)
        if cap.group.version == 2:
            (cap.group.path / "memory.oom.group").write_text("0")  # kill the cell, not the harness with it
        try:
            done = subprocess.run(
                ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', cap.group.path, sys.executable, "-m", "harness"]  # noqa: RUF005
                + ["run", study(tmp_path), "--results", tmp_path / "r"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            cap.close()
        assert "oom" in done.stderr, done.stdout + done.stderr
        assert "the kernel killed rank 0: the control group that the harness itself runs in was out of memory" in (
            " ".join(done.stderr.split())
        )


def study(folder):
    path = folder / "large.toml"
    path.write_text(
        "baselines = false\n[data]\nnum_train = 256\nnum_val = 16\nnum_test = 64\n[training]\nmax_steps = 2\n"
        '[matrix]\nbatch_size = [64]\nseq_len = [128]\npadding = ["max"]\n'
    )
    return path


@pytest.mark.usefixtures("no_groups")
class TestWithoutPermission:
    def test_a_cell_that_fits_is_ok_and_its_cap_approximate(self, bench):
        record = bench.run(limits={"memory_limit_gib": 2})
        assert (record.outcome, record.start_method) == ("ok", "fresh"), record.reason
        assert (record.cap.method, record.cap.exact, record.cap.peak_bytes) == ("rlimit_data", False, None)
        (summary,) = summarize([record])
        assert any("cap of 2 GiB is approximate (RLIMIT_DATA)" in warning for warning in summary.warnings)
        assert summary.peak_memory_source == "rss"

    def test_a_refused_allocation_is_out_of_memory_under_an_approximate_cap(self, bench):
        record = real(bench, 0.7, batch_size=64)
        assert record.outcome == "oom", (record.outcome, record.reason, record.stderr_tail)
        assert "an approximate cap of 0.7 GiB: RLIMIT_DATA" in record.reason

    def test_each_rank_gets_an_equal_share(self, bench):
        record = bench.run(bench.with_cores(2), matrix={"device": ["cpu-ddp2"]}, limits={"memory_limit_gib": 0.1})
        assert record.outcome == "oom", (record.outcome, record.reason, record.stderr_tail)
        assert "RLIMIT_DATA, 2 ranks with an equal share each" in record.reason


def test_a_cap_above_the_memory_of_the_machine_is_unsupported(bench):
    record = bench.run(limits={"memory_limit_gib": 100_000})
    assert record.outcome == "unsupported"
    assert "limits.memory_limit_gib = 100000 is more than this machine has" in record.reason
    assert record.cap is None


class TestFailedAllocations:
    """Every kind of out-of-memory failure on a CPU, besides those of TestControlGroup."""

    @pytest.mark.parametrize(
        ("worker", "reason"),
        [
            (odd_workers.asks_python_for_too_much, "MemoryError: "),
            (odd_workers.asks_for_too_much, "DefaultCPUAllocator: can't allocate memory"),
            (odd_workers.maps_too_much, "OSError: [Errno 12] Cannot allocate memory"),
            (odd_workers.wraps_a_memory_error, "MemoryError: "),
            (odd_workers.aborts_out_of_memory, "std::bad_alloc"),
        ],
        ids=["Python", "torch", "the kernel's ENOMEM", "wrapped", "C++, in a thread of its own"],
    )
    def test_it_is_out_of_memory(self, worker, reason, bench, monkeypatch):
        monkeypatch.setattr(bench.runner, "worker_entry", worker)
        record = bench.run()
        assert record.outcome == "oom", record.reason
        assert reason in record.reason


@pytest.mark.alone
class TestMemoryOfAllRanks:
    def test_ranks_without_a_cap_are_measured_by_pss_and_the_parent_stays_idle(self, bench):
        record = bench.run(
            bench.with_cores(2), training=ENDLESS, matrix={"device": ["cpu-ddp2"]}, limits={"max_train_s": 12}
        )
        assert record.outcome == "ok", record.reason
        by_source = {peak.source: peak for peak in record.training.peak_memory}
        of_ranks = sum(peak.num_bytes for peak in record.training.peak_memory if peak.source == "rss")
        assert by_source["pss"].rank is None
        assert of_ranks / 4 < by_source["pss"].num_bytes < of_ranks  # shared pages count once
        (summary,) = summarize([record])
        assert (summary.peak_memory_source, summary.peak_memory_bytes) == ("pss", by_source["pss"].num_bytes)
        assert (
            record.load.parent_s < 0.03 * record.duration_s
        )  # 0.8 to 1.6 % by the speed of the machine; a polling parent takes tens of percent

    def test_one_rank_is_not_summed(self, bench):
        assert [peak.source for peak in bench.run().training.peak_memory] == ["rss"]

    def test_pss_is_read_from_the_kernel(self):
        assert 5 * MIB < pss_bytes(os.getpid()) <= psutil.Process().memory_info().rss * 1.1
        assert pss_bytes(2**22 + 1) is None


@pytest.fixture
def start_holder():
    """Start an orphan process that holds memory, such as a forgotten notebook."""
    processes = []

    def hold(num_bytes):
        code = (
            "import os, signal\nfrom pathlib import Path\nPath('/proc/self/comm').write_text('forgotten')\n"
            f"held = b'x' * {num_bytes}\nprint(os.getpid(), flush=True)\nsignal.pause()"
        )
        # The shell ends at once, which makes the process an orphan instead of a descendant of this one.
        with subprocess.Popen(
            ["sh", "-c", '"$@" &', "sh", sys.executable, "-c", code], stdout=subprocess.PIPE
        ) as shell:
            processes.append(psutil.Process(int(shell.stdout.readline())))
        return processes[-1]

    yield hold
    for process in processes:
        process.kill()


@pytest.mark.alone
class TestMemoryUsers:
    def test_a_large_process_is_found_and_the_harness_own_are_not(self, start_holder):
        assert all(memory_users.is_own_process(child.pid) for child in psutil.Process().children(recursive=True))
        assert not memory_users.is_own_process(os.getppid())
        start_holder(700 * MIB)
        (user,) = [user for user in find_memory_users() if user.name == "forgotten"]
        assert 700 * MIB <= user.num_bytes < 720 * MIB and user.gpu is None

    def test_a_leak_and_another_process_are_named_in_the_report(self, bench, monkeypatch, start_holder, tmp_path):
        machine = bench.environment.machine
        # As on a machine with 4 GiB, so that the test need not fill a tenth of this machine's memory.
        small = machine.model_copy(update={"memory_limit_bytes": 4 * GIB})
        start_holder(700 * MIB)
        monkeypatch.setattr(bench.runner, "worker_entry", odd_workers.leaks)
        record = bench.run(
            Environment(small, None, None, bench.environment.packages),
            training={"max_steps": 45, "eval_every": 100},
        )
        assert record.outcome == "ok", record.reason
        (summary,) = summarize([record])
        # Within 1 %: the allocator adds pages to each block, and the interval of a quiet run is narrower than that.
        assert summary.memory_growth.low < 1.01 * odd_workers.LEAK_BYTES
        assert summary.memory_growth.high > 0.99 * odd_workers.LEAK_BYTES
        for text in reported([record], tmp_path):
            assert re.search(r"Memory grew by (3\.\d|2\.9) MiB a step", text)
            assert "Another process (forgotten) held 0.7 GiB of main memory" in text

    @pytest.mark.usefixtures("groups_can_be_made")
    def test_both_are_named_for_a_cell_that_ran_out_of_memory(self, bench, monkeypatch, start_holder, tmp_path):
        small = bench.environment.machine.model_copy(update={"memory_limit_bytes": 4 * GIB})
        start_holder(700 * MIB)
        monkeypatch.setattr(bench.runner, "worker_entry", odd_workers.leaks_until_killed)
        record = bench.run(
            Environment(small, None, None, bench.environment.packages), training=ENDLESS, limits={"memory_limit_gib": 1}
        )
        assert record.outcome == "oom", record.reason
        assert record.training is None and len(record.held_bytes) >= 30
        for text in reported([record], tmp_path):
            assert "Memory grew by " in text
            assert "Another process (forgotten) held 0.7 GiB of main memory" in text
            assert "limit of 1 GiB was reached" in text

    def test_an_ordinary_run_does_not_grow(self, bench):
        (summary,) = summarize([bench.run(training={"max_steps": 60, "eval_every": 100})])
        assert summary.memory_growth is not None
        assert not any("Memory grew" in warning for warning in summary.warnings)


def reported(records, folder):
    """Return the texts of report.html and summary.md."""
    summaries = summarize(records)
    cells = price(summaries, price_finder(load_prices(), summaries, usd_per_hour=1.0))
    page = write_report(cells, folder / "report", generated_at=datetime(2026, 1, 1, tzinfo=UTC))
    return page.read_text(), (folder / "report" / "summary.md").read_text()
