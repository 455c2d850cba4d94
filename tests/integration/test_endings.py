"""Every outcome gives a record with its reason, and no process is left behind."""

from __future__ import annotations

import contextlib
import os
import signal

import odd_workers
import psutil
import pytest

from harness.execution.messages import Progress
from harness.execution.runner import Runner
from harness.schema.record import to_json

ENDLESS = {"epochs": 100_000, "eval_every": 100_000}


def workers():
    """Return the processes of cells: descendants that lead a session, and their descendants."""
    processes = []
    for child in psutil.Process().children(recursive=True):
        try:
            if os.getsid(child.pid) == child.pid:
                processes += [child, *child.children(recursive=True)]
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return processes


def still_alive(processes):
    """Return the processes that still run; a zombie that init has not collected yet does not."""
    return [process for process in psutil.wait_procs(processes, timeout=0.5)[1] if not is_zombie(process)]


def is_zombie(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


class OnFirstProgress:
    """Calls a function with the cell's processes at its first progress message, and remembers them."""

    def __init__(self, action=lambda processes: None):
        self._action, self.processes = action, []

    def __call__(self, message):
        if not self.processes and isinstance(message, Progress):
            self.processes = workers()
            self._action(self.processes)


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert workers() == []


def left_of(on_message):
    assert on_message.processes  # they were alive before
    return still_alive(on_message.processes)


@pytest.mark.alone
def test_a_cell_over_its_time_limit_is_ended_and_keeps_its_marks(bench):
    on_message = OnFirstProgress()
    record = bench.run(on_message=on_message, training=ENDLESS, limits={"timeout_s": 5})
    assert (record.outcome, record.reason) == ("timeout", "not done after limits.timeout_s = 5 s")
    assert 5 <= record.duration_s < 6.5
    assert len(record.marks) >= 2
    assert record.marks[-1].num_steps > record.marks[0].num_steps == 1
    assert record.phases.first_step_s is None and record.training is None
    assert record.load.cell_s is None  # only a result reports it
    assert left_of(on_message) == []


def test_a_killed_worker_is_a_crash_with_the_name_of_the_signal(bench):
    on_message = OnFirstProgress(lambda processes: processes[0].kill())
    record = bench.run(on_message=on_message, training=ENDLESS)
    assert record.outcome == "crashed"
    assert record.reason.startswith("the process was ended by SIGKILL")
    assert len(record.marks) >= 1
    assert left_of(on_message) == []


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_is_named_and_the_other_is_ended(bench, victim):
    def kill_rank(processes):
        # In the order of their start: process ids may wrap, creation times do not.
        sorted(processes, key=lambda process: process.create_time())[victim].kill()

    on_message = OnFirstProgress(kill_rank)
    record = bench.run(bench.with_cores(2), on_message, training=ENDLESS, matrix={"device": ["cpu-ddp2"]})
    assert len(on_message.processes) == 2
    assert record.outcome == "crashed"
    assert record.reason.startswith(f"rank {victim}: the process was ended by SIGKILL")
    assert len(record.stderr_tail) == 2
    assert left_of(on_message) == []


@pytest.mark.alone
@pytest.mark.parametrize(
    ("worker", "outcome", "reason"),
    [
        (odd_workers.sleeps_forever, "timeout", "rank 1 hung: nothing got on for "),
        (odd_workers.spins_forever, "timeout", "rank 1 hung: nothing got on for "),
        (odd_workers.stops_itself, "timeout", "rank 1 hung: nothing got on for "),
        (odd_workers.runs_out_of_memory, "oom", "rank 1: MemoryError: made by a test"),
    ],
    ids=["sleeping", "spinning", "stopped", "out of memory"],
)
def test_a_rank_that_hangs_or_fails_ends_its_cell_within_10_seconds(worker, outcome, reason, bench, monkeypatch):
    on_message = OnFirstProgress()
    record = run_with(
        worker, bench, monkeypatch, on_message=on_message, training=ENDLESS, matrix={"device": ["cpu-ddp2"]}
    )
    assert record.outcome == outcome
    assert record.reason.startswith(reason)
    assert record.duration_s - record.marks[0].at_s < 10  # the first step came shortly before the fourth
    assert len(record.stderr_tail) == 2
    assert left_of(on_message) == []


def test_a_failed_allocation_is_out_of_memory(bench, monkeypatch):
    record = run_with(odd_workers.asks_for_too_much, bench, monkeypatch)
    assert record.outcome == "oom"
    assert "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1073741824 bytes" in record.reason


def test_a_loss_that_is_not_finite_is_diverged_and_keeps_its_steps(bench):
    record = bench.run(training={"lr": 1e30})
    assert (record.outcome, record.reason) == ("diverged", "the loss is no finite number from update 2 on")
    losses = record.training.steps.loss
    assert losses[0] is not None and losses[1:] == (None,) * (len(losses) - 1)
    assert len(record.training.steps.seconds[0]) == len(losses) < record.training.num_updates_planned
    assert record.training.test is None
    assert record.marks[-1].loss is None
    to_json(record)  # JSON can't hold NaN


def test_ctrl_c_is_interrupted_and_keeps_the_marks(bench):
    on_message = OnFirstProgress(lambda _: os.kill(os.getpid(), signal.SIGINT))
    record = bench.run(on_message=on_message, training=ENDLESS)
    assert (record.outcome, record.reason) == ("interrupted", "stopped by the user")
    assert record.marks
    assert left_of(on_message) == []
    assert bench.run(training={"max_steps": 1}).outcome == "ok"  # the runner still works


def run_with(worker, bench, monkeypatch, **raw):
    monkeypatch.setattr(bench.runner, "worker_entry", worker)
    on_message = raw.pop("on_message", lambda _: None)
    return bench.run(bench.with_cores(2), on_message, **raw)


def test_output_of_the_worker_corrupts_no_message_and_its_tail_is_scrubbed(bench, monkeypatch, capfd):
    record = run_with(odd_workers.noisy, bench, monkeypatch)
    assert record.outcome == "ok"
    assert record.training.steps.loss == bench.run().training.steps.loss
    (tail,) = record.stderr_tail
    text = "\n".join(tail)
    assert "login [token] at [address] from " in text
    assert odd_workers.SECRET not in to_json(record)
    assert os.path.expanduser("~") + "/secrets" not in to_json(record)
    assert capfd.readouterr() == ("", "")  # none of it reaches the parent's terminal


def test_processes_that_a_cell_started_end_with_it(bench, monkeypatch):
    on_message = OnFirstProgress()
    record = run_with(odd_workers.with_child, bench, monkeypatch, on_message=on_message)
    assert record.outcome == "ok"
    assert len(on_message.processes) == 2
    assert left_of(on_message) == []


def test_a_process_that_ends_without_a_result_is_a_crash_with_its_exit_status(bench, monkeypatch):
    record = run_with(odd_workers.leaves, bench, monkeypatch)
    assert (record.outcome, record.reason) == ("crashed", "the process ended with status 7 and no word")


def test_an_error_is_a_crash_with_its_first_line_and_traceback_scrubbed(bench, monkeypatch):
    record = run_with(odd_workers.raises, bench, monkeypatch)
    assert (record.outcome, record.reason) == ("crashed", "RuntimeError: no such layer in ~/model")
    (tail,) = record.stderr_tail
    assert any(line.startswith("Traceback") for line in tail)
    assert any("odd_workers.py" in line for line in tail)
    assert os.path.expanduser("~") not in to_json(record)


def test_ranks_with_different_final_parameters_are_a_crash(bench, monkeypatch):
    record = run_with(odd_workers.diverges_from_others, bench, monkeypatch, matrix={"device": ["cpu-ddp2"]})
    assert record.outcome == "crashed"
    assert "the ranks' parameters differ at the end" in record.reason


def test_all_ranks_skip_the_diagnostics_if_one_is_near_its_cap(bench, monkeypatch):
    """Rank 0 waited alone in all-reduce for rank 1, until the cell was ended as hung and its measurements were lost."""
    record = run_with(odd_workers.nears_its_cap_on_rank_1, bench, monkeypatch, matrix={"device": ["cpu-ddp2"]})
    assert (record.outcome, record.reason) == ("ok", None)
    assert record.training.memory_parts is None and record.training.peak is None
    assert record.training.communication is not None


@pytest.mark.parametrize(
    ("matrix", "reason"), [({"precision": ["tf32"]}, "a CPU has none"), ({"device": ["cpu-ddp64"]}, "64 ranks need")]
)
def test_an_unsupported_cell_starts_no_process(bench, matrix, reason, monkeypatch):
    monkeypatch.setattr(bench.runner, "worker_entry", odd_workers.leaves)  # would be a crash
    record = bench.run(bench.with_cores(2), matrix=matrix)
    assert record.outcome == "unsupported"
    assert reason in record.reason
    assert record.start_method is None and record.stderr_tail == ()


def test_a_spawned_process_measures_the_same(bench):
    with Runner("spawn") as runner:
        record = bench.run(runner=runner)
    assert record.outcome == "ok", record.stderr_tail
    assert record.start_method == "spawn"
    assert record.training.steps.loss == bench.run().training.steps.loss
