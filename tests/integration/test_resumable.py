"""A resumed training computes bit for bit what an uninterrupted one does, however it was stopped."""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from resumable_runs import computed_values, plan_to, run_segment, train_through_kills
from test_endings import workers
from test_run_command import Started, harness

from harness.execution.messages import Progress
from harness.execution.stop_flag import graceful_stop
from harness.store.checkpoint_files import list_checkpoints
from harness.store.record_files import load_record
from harness.worker.best_model import BestModelSaver
from harness.worker.checkpointer import Checkpointer
from harness.worker.distributed import DistributedContext
from harness.worker.meters import Meters
from harness.worker.model import build_model
from harness.worker.train_loop import TrainHooks, build_train_state, train
from harness.worker.train_state import SplitTokens, TrainContext

CPU = DistributedContext(torch.device("cpu"), 0, 1)

# Dropout is on in all of them: the tiny model has BERT's 0.1.
STUDIES = {
    "bf16": {
        "matrix": {"precision": ["bf16"]},
        "training": {"allow_slow_precision": True, "chunks": 3, "chunk_order": "arrival"},
    },
    "two ranks": {"matrix": {"device": ["cpu-ddp2"], "padding": ["grouped"]}},
    "two ranks in bf16": {
        "matrix": {"device": ["cpu-ddp2"], "precision": ["bf16"]},
        "training": {"allow_slow_precision": True, "grad_accum": 2},
    },
}


class SendOnce:
    """Sends a signal to this process at the first progress message."""

    def __init__(self, number):
        self._number, self._is_sent = number, False

    def __call__(self, message):
        if isinstance(message, Progress) and not self._is_sent:
            self._is_sent = True
            os.kill(os.getpid(), self._number)


@pytest.fixture
def two_cores(bench):
    return bench.with_cores(2)


@pytest.mark.parametrize("name", STUDIES)
def test_a_training_in_three_segments_equals_the_uninterrupted_one_bit_for_bit(name, bench, two_cores, tmp_path):
    whole = bench.run(two_cores, **STUDIES[name])
    assert whole.outcome == "ok", whole.reason
    folder = tmp_path / "checkpoints"
    first = run_segment(bench, folder, environment=two_cores, max_rows=70, **STUDIES[name])
    second = run_segment(bench, folder, environment=two_cores, max_rows=33, **STUDIES[name])
    last = run_segment(bench, folder, environment=two_cores, **STUDIES[name])
    assert computed_values(last) == computed_values(whole)
    assert all(loss is not None for loss in last.training.steps.loss)
    assert len(last.training.steps.seconds[0]) == len(last.training.steps.loss)

    ended = [record.outcome for record in (first, second, last)]
    assert ended == ["interrupted", "interrupted", "ok"], [(one.reason, one.stderr_tail) for one in (first, second)]
    global_batch, planned = whole.training.global_batch_size, whole.training.num_updates_planned
    ends = [-(-70 // global_batch), -(-70 // global_batch) - (-33 // global_batch), planned]
    assert first.reason == f"--max-rows 70: stopped after {ends[0]} of {planned} updates"
    assert [len(record.training.steps.loss) for record in (first, second, last)] == ends
    assert first.training.steps.loss == whole.training.steps.loss[: ends[0]]
    # No evaluation on the test set before the end, and each segment is recorded.
    assert first.training.test is None and second.training.test is None
    segments = last.training.pieces
    assert [segment.first_update for segment in segments] == [0, *ends[:2]]
    assert [segment.first_update + segment.num_updates for segment in segments] == ends
    assert [segment.restore_s is None for segment in segments] == [True, False, False]
    assert [[one.num_updates for one in segment.checkpoints] for segment in segments] == [[end] for end in ends]
    assert all(one.seconds > 0 and one.num_bytes > 100_000 for segment in segments for one in segment.checkpoints)
    # The training clock continues where it stopped.
    clock = [record.training.evaluations[-1].train_s for record in (second, last) if record.training.evaluations]
    assert clock == sorted(clock)
    assert last.phases.train_s >= sum(last.training.steps.seconds[0])
    assert len(list_checkpoints(folder)) == 2


def test_chunks_of_a_shuffled_run_change_no_loss_and_arriving_chunks_are_another_training(bench):
    whole, shuffled, arrived = (
        bench.run(training={"epochs": 2, "eval_every": 100} | more)
        for more in ({}, {"chunks": 5}, {"chunks": 5, "chunk_order": "arrival"})
    )
    assert shuffled.training.steps.loss == whole.training.steps.loss
    assert shuffled.training.test.predictions == whole.training.test.predictions
    assert shuffled.config_hash != whole.config_hash
    # 256 rows in batches of 16, twice: 32 updates; of 51 or 52 rows, four batches, twice.
    assert [(one.num_updates, one.chunk) for one in shuffled.training.evaluations] == [
        (6, 1), (12, 2), (19, 3), (25, 4), (32, 5),
    ]  # fmt: skip
    assert [(one.num_updates, one.chunk) for one in arrived.training.evaluations] == [
        (8, 1), (16, 2), (24, 3), (32, 4), (40, 5),
    ]  # fmt: skip
    assert [one.num_samples_seen for one in arrived.training.evaluations] == [102, 204, 306, 408, 512]
    assert [(one.chunk, one.test_accuracy) for one in whole.training.evaluations] == [(None, None)]
    # The evaluation after the last chunk equals the final one.
    for record in (shuffled, arrived):
        assert all(0 <= one.test_accuracy <= 1 for one in record.training.evaluations)
        assert record.training.evaluations[-1].test_accuracy == record.training.test.accuracy


@pytest.mark.parametrize(("num_ranks", "seed"), [(1, 0), (2, 1)])
def test_a_training_killed_at_random_moments_equals_the_uninterrupted_one(num_ranks, seed, bench, two_cores, tmp_path):
    raw = {"training": {"max_steps": 48}, "matrix": {"device": ["cpu" if num_ranks == 1 else "cpu-ddp2"]}}
    whole = bench.run(two_cores, **raw)
    record, _ = train_through_kills(
        bench, tmp_path / "checkpoints", workers, 2, 1.0, random.Random(seed), num_ranks=num_ranks, environment=two_cores,
        **raw,
    )  # fmt: skip
    assert record.outcome == "ok", record.reason
    assert computed_values(record) == computed_values(whole)


def test_sigterm_writes_a_checkpoint_that_the_next_segment_resumes(bench, tmp_path):
    raw = {"training": {"max_steps": 120, "eval_every": 50}}
    folder = tmp_path / "checkpoints"
    whole = bench.run(**raw)
    send = SendOnce(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with graceful_stop(tmp_path / "checkpoints-stop"):
        record = run_segment(bench, folder, on_message=send, keep_flag=True, **raw)
    assert signal.getsignal(signal.SIGTERM) is before
    assert record.outcome == "preempted"
    done = len(record.training.steps.loss)
    assert record.reason == f"SIGTERM: stopped after {done} of 120 updates" and 1 <= done < 120
    record = run_segment(bench, folder, **raw)
    assert computed_values(record) == computed_values(whole)


def test_ctrl_c_and_a_notice_of_the_cloud_write_a_checkpoint(bench, tmp_path):
    raw = {"training": {"epochs": 100_000, "eval_every": 100_000}}
    send = SendOnce(signal.SIGINT)

    with graceful_stop(tmp_path / "one-stop"):
        record = run_segment(bench, tmp_path / "one", on_message=send, keep_flag=True, **raw)
    assert (record.outcome, record.reason.partition(":")[0]) == ("interrupted", "stopped by the user")
    assert len(list_checkpoints(tmp_path / "one")) == 1
    with graceful_stop(tmp_path / "two-stop", preemption_notice=lambda: True, poll_interval_s=0.01):
        record = run_segment(bench, tmp_path / "two", keep_flag=True, **raw)
    assert (record.outcome, record.reason.partition(":")[0]) == ("preempted", "the cloud takes this machine back")
    assert len(list_checkpoints(tmp_path / "two")) == 1


def test_a_disk_that_fails_ends_no_training(bench, tmp_path):
    folder = tmp_path / "checkpoints"
    run_segment(bench, folder, max_rows=32)
    (good,) = list_checkpoints(folder)
    folder.joinpath("update-00000004").write_text("a file in place of the folder")
    record = run_segment(bench, folder, max_rows=32)
    assert record.outcome == "interrupted"
    assert "stopped after 4 of 16 updates; no checkpoint could be written: " in record.reason
    assert len(record.training.steps.loss) == 4  # the measurement is kept
    assert list_checkpoints(folder) == [good]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_scaler_and_its_skipped_updates_are_restored(optimizer, bench, tmp_path):
    """The CPU refuses fp16 only because it is slow; the code is the same as on a GPU."""
    raw = {"matrix": {"precision": ["fp16"]}, "training": {"max_steps": 12, "optimizer": optimizer, "eval_every": 0.25}}

    def run(folder=None, max_rows=None):
        (cell,) = bench.cells(**raw)
        prepared = bench.prepare(cell)
        torch.manual_seed(0)
        model = build_model(prepared.job.model, cell.config.model, ("bad", "good"))
        context = TrainContext(cell.config, CPU, SplitTokens.load(prepared.job.tokens_folder))
        # 2^22 overflows fp16 until it is halved often enough.
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
        state = replace(build_train_state(model, cell.config, CPU, 12), scaler=scaler)
        meters, checkpointer = Meters.create(CPU.device, 0), None
        if folder:
            plan = plan_to(cell, prepared, folder, bench.environment.machine, max_rows=max_rows)
            best, job = BestModelSaver(model, None, context), replace(prepared.job, resume=plan)
            checkpointer = Checkpointer(job, state, context, meters, best)
            checkpointer.resume(0.0)
        history = train(state, context, meters, TrainHooks(checkpointer=checkpointer))
        return history, scaler.state_dict(), state.schedule.get_last_lr(), len(meters.timer.seconds())

    whole = run()
    history, scale, _, _ = run(tmp_path / "c", max_rows=80)
    assert len(history.num_samples) == 5 and history.num_skipped > 0 and scale["scale"] < 2.0**22
    history, *others = run(tmp_path / "c")
    assert others == list(whole[1:])
    assert (history.loss_sums, history.num_skipped) == (whole[0].loss_sums, whole[0].num_skipped)
    assert history.num_skipped < 12


def test_the_command_survives_sigterm_to_all_its_processes_and_resumes_from_a_moved_folder(study_file, tmp_path):
    study, results = study_file("[matrix]\nseq_len = [24]\nthreads = [1]\n", training="max_steps = 300"), tmp_path / "r"
    command = ("train", study, "--results", results)
    run = Started(*command)
    with run.process:
        run.wait_for_worker()
        # As at shutdown: the forkserver and the worker receive it as well.
        for process in [run.process, *run.all]:
            process.send_signal(signal.SIGTERM)
        out, err = run.process.communicate(timeout=60)
    assert run.process.returncode == 75, out + err
    assert "SIGTERM: stopped after " in err and "the same command goes on" in out
    first = newest(results)
    assert load_record(first).outcome == "preempted"
    (folder,) = (results / "checkpoints" / "tiny").iterdir()
    shutil.move(folder, tmp_path / "moved")
    done = harness(*command, "--checkpoints", tmp_path / "moved")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " of 300 updates are done" in done.stdout
    record = load_record(newest(results))
    assert (record.outcome, len(record.training.pieces), record.training.test is None) == ("ok", 2, False)
    assert newest(results) != first and not (tmp_path / "moved").exists()
    again = harness(*command)
    assert again.returncode == 0 and "is trained; nothing to do" in again.stdout


def newest(results):
    return max(
        (path for path in results.rglob("*Z-*.json") if "checkpoints" not in path.parts), key=lambda path: path.name
    )
