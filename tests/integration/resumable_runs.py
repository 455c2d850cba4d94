"""Segments of a resumable training by a warm runner, and what two runs of one training must have in common."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import psutil

from harness.execution.jobs import ResumePlan
from harness.execution.messages import PhaseStarted
from harness.execution.resumable import identify_training
from harness.execution.stop_flag import StopReason
from harness.store.checkpoint_files import find_newest, list_checkpoints

NEVER_S = 1e9


def run_segment(
    bench, folder, *, environment=None, on_message=lambda _: None, keep_flag=False, save_model_to="",
    save_interval_s=NEVER_S, max_rows=None, **study,
):  # fmt: skip
    """Train the study's one cell from its newest checkpoint in `folder`, without diagnostics.

    Args:
        bench: The tiny bench.
        folder: Folder of the checkpoints.
        environment: Replaces the bench's.
        on_message: Called with each message of rank 0.
        keep_flag: Obey a stop flag that exists already.
        save_model_to: Folder for the best weights; empty: don't save them.
        save_interval_s: Seconds between two checkpoints.
        max_rows: Stop after training on this many rows.
        study: Keys of the study.
    """
    (cell,) = bench.cells(**study)
    environment = environment or bench.environment
    prepared = bench.prepare(cell)
    plan = plan_to(cell, prepared, folder, environment.machine, save_interval_s, max_rows)
    if not keep_flag:
        plan.stop_flag.unlink(missing_ok=True)
    job = replace(prepared.job, resume=plan, run_diagnostics=False, save_model_to=save_model_to)
    prepared = replace(prepared, job=job, limit_texts={StopReason.ROW_LIMIT: f"--max-rows {max_rows}"})
    return bench.runner.run(cell, prepared, environment, on_message)


def plan_to(cell, prepared, folder, machine, save_interval_s=NEVER_S, max_rows=None):
    """Plan a segment that resumes from the newest checkpoint in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = identify_training(cell, prepared, machine)
    return ResumePlan(
        folder=folder, identity=identity, resume_from=find_newest(folder, identity).path,
        stop_flag=folder.with_name(f"{folder.name}-stop"), save_interval_s=save_interval_s, timeout_s=120,
        machine=machine.id, host=machine.host, max_rows=max_rows,
    )  # fmt: skip


def computed_values(record):
    """Return every value that a training computed, without its times."""
    training = record.training
    evaluations = [
        (evaluation.num_updates, evaluation.num_samples_seen, evaluation.accuracy, evaluation.macro_f1)
        for evaluation in training.evaluations
    ]
    steps = training.steps
    counts = (steps.num_samples, steps.num_real_tokens, steps.num_padded_tokens, steps.num_token_pairs)
    return steps.loss, counts, evaluations, training.test.predictions if training.test else None


class KillLater:
    """Kills a rank by SIGKILL some time after training began, as when a machine is taken away."""

    def __init__(self, workers, delay_s, victim):
        self._workers, self._delay_s, self._victim = workers, delay_s, victim
        self._timer = None

    def __call__(self, message):
        if self._timer is None and isinstance(message, PhaseStarted) and message.name == "train":
            self._timer = threading.Timer(self._delay_s, self._kill)
            self._timer.start()

    def _kill(self):
        ranks = sorted(self._workers(), key=lambda process: process.create_time())
        for process in ranks[self._victim : self._victim + 1]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                return

    def cancel(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


def train_through_kills(bench, folder, workers, num_kills, longest_s, rng: random.Random, **options):
    """Kill a training `num_kills` times at random moments, then let it finish.

    Args:
        bench: The tiny bench.
        folder: Folder of the checkpoints.
        workers: Returns the ranks' processes.
        num_kills: Kills to try; one that comes after the end of training ends the trial.
        longest_s: Latest moment of a kill after training began.
        rng: Draws moments and victims.
        options: `num_ranks`, and options of `run_segment`.

    Returns:
        The final record, and for each kill the number of updates in the newest checkpoint (0 without one).
    """
    num_ranks, num_updates_saved = options.pop("num_ranks", 1), []
    for _ in range(num_kills):
        killer = KillLater(workers, rng.uniform(0, longest_s), rng.randrange(num_ranks))
        record = run_segment(bench, folder, on_message=killer, save_interval_s=1e-9, **options)
        killer.cancel()
        if record.outcome == "ok":
            return record, num_updates_saved
        # "oom" if another process on this machine raised the kernel's count of OOM kills meanwhile.
        assert record.outcome in ("crashed", "oom"), record.reason
        num_updates_saved.append(max((int(path.name[-8:]) for path in list_checkpoints(folder)), default=0))
    return run_segment(bench, folder, **options), num_updates_saved
