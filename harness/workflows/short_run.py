"""Runs of a few steps for `harness fit` and `harness profile`; their records are not saved."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from harness.dataset.training_plan import updates_per_epoch
from harness.machine.private_folders import private_folder
from harness.schema.cells import MIN_EVALUATION_BATCH, Cell, FineTuneConfig
from harness.schema.record import Record
from harness.workflows.memory_budget import GIB, MemoryBudget

if TYPE_CHECKING:
    from harness.execution.jobs import Environment
    from harness.execution.preparation import Preparations
    from harness.execution.runner import Runner
    from harness.workflows.fit import BatchSizeSearch

NUM_TRIAL_STEPS = 2  # the second step is the first with optimizer state
MAX_CAPPED_S = 300.0  # of a run under a cap
_MAX_OWN_STEPS = 100  # of the study's own batches, at most an epoch
_NUM_STEPS_DDP = 3  # DDP rebuilds its buckets after the first step and touches them in the second backward pass


class TrialRunner:
    """Context manager that runs batch sizes of a search for a few steps, each in a process of its own."""

    def __init__(self, search: BatchSizeSearch, budget: MemoryBudget) -> None:
        self._search, self._budget = search, budget
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(private_folder("fit"))
        self._runner: Runner
        self._preparations: Preparations
        self._environment: Environment

    def __enter__(self) -> TrialRunner:
        from harness.execution.preparation import Preparations
        from harness.execution.runner import Runner
        from harness.execution.sweep import describe_environment

        self._preparations, self._environment = Preparations(self._folder), describe_environment(None)
        # Spawned, because a process forked from the warm forkserver maps fewer pages of its own than a fresh process.
        self._runner = Runner("spawn").__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.__exit__(*exception)
        self._stack.close()

    def run(self, batch_size: int) -> tuple[Record, int | None]:
        """Run a batch size for a few steps on padded rows, and return the record and the peak in bytes."""
        num_steps = NUM_TRIAL_STEPS if self._search.num_ranks == 1 else _NUM_STEPS_DDP
        record = self._run_capped(self._search.config(batch_size), num_steps)
        return record, measured_peak(record)

    def run_own_batches(self, batch_size: int) -> tuple[Record, int | None, bool]:
        """Run a batch size on the study's own batches, for an epoch or 100 steps.

        Returns:
            The record, the peak in bytes, and whether the steps are an epoch.
        """
        config = self._search.own_config(batch_size)
        prepared = self._preparations.prepare(self._cell(self._shorten(config, num_steps=1)))
        epoch = updates_per_epoch(config, prepared.data.train.num_rows, self._search.num_ranks)
        record = self._run_capped(config, min(epoch, _MAX_OWN_STEPS))
        return record, measured_peak(record), epoch <= _MAX_OWN_STEPS

    def _run_capped(self, config: FineTuneConfig, num_steps: int) -> Record:
        cap_gib = self._budget.num_bytes / GIB if self._budget.cap else None
        record = self._run(config, num_steps, cap_gib)
        if record.outcome == "unsupported" and cap_gib is not None:
            # This machine can't set a cap: the measured peak alone decides.
            record = self._run(config, num_steps, None)
        return record

    def _run(self, config: FineTuneConfig, num_steps: int, cap_gib: float | None) -> Record:
        cell = self._cell(self._shorten(config, num_steps, cap_gib))
        return self._runner.run(cell, self._preparations.prepare(cell), self._environment)

    def _shorten(self, config: FineTuneConfig, num_steps: int, cap_gib: float | None = None) -> FineTuneConfig:
        return shorten(
            config,
            # Evaluation memory depends on the batch alone; more rows than one batch would only take longer.
            max_rows=max(config.named_batch_size, MIN_EVALUATION_BATCH) * self._search.num_ranks,
            training={"max_steps": num_steps},
            memory_limit_gib=cap_gib,
            # Near its cap, a process reads its own code from disk again and again, for minutes, instead of being killed.
            timeout_s=None if cap_gib is None else min(config.limits.timeout_s, MAX_CAPPED_S),
        )

    def _cell(self, config: FineTuneConfig) -> Cell:
        return Cell(study=self._search.cell.study, name=f"fit-b{config.batch_size}", repeat=0, config=config)


def shorten(
    config: FineTuneConfig, *, max_rows: int, training: dict[str, object], memory_limit_gib: float | None = None,
    timeout_s: float | None = None,
) -> FineTuneConfig:  # fmt: skip
    """Return a configuration for a short run: other `[training]` keys, few evaluation rows, no time limit.

    Args:
        config: The cell's configuration.
        max_rows: Maximum number of rows of the validation split, and of the test split.
        training: Keys of `[training]` to replace.
        memory_limit_gib: Memory cap of the run; None for no cap.
        timeout_s: Seconds after which it is ended; None for those of the configuration.
    """
    data = config.data
    rows = {"num_val": min(data.num_val, max_rows), "num_test": min(data.num_test, max_rows)}
    limits = {"memory_limit_gib": memory_limit_gib, "max_train_s": None}
    limits |= {} if timeout_s is None else {"timeout_s": timeout_s}
    return config.model_copy(
        update={
            "data": data.model_copy(update=rows),
            "training": config.training.model_copy(update=training),
            "limits": config.limits.model_copy(update=limits),
        }
    )


def measured_peak(record: Record) -> int | None:
    """Return the peak that a budget is compared with, in bytes.

    The peak is the control group's if known. Else it is the fullest GPU's, or on CPUs the sum of all ranks' RSS.
    """
    if record.cap is not None and record.cap.peak_bytes is not None:
        return record.cap.peak_bytes
    peaks = record.training.peak_memory if record.training else ()
    reserved = [peak.num_bytes for peak in peaks if peak.source == "cuda_reserved"]
    if reserved:
        process = [peak.num_bytes for peak in peaks if peak.source == "nvml_process"]
        return max(process or reserved)
    return sum(peak.num_bytes for peak in peaks if peak.source == "rss") or None
