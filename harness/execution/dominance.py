"""Which cells need not be tried, since a smaller one ran out of memory (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from harness.machine.describe import num_ranks
from harness.schema.cells import BaselineConfig, FineTuneConfig, hash_config
from harness.schema.host_record import Machine
from harness.schema.record import Record

_SIZES = ("batch_size", "global_batch_size", "seq_len")
# Another seed draws other batches of the same sizes.
_IGNORED = (*_SIZES, "seed")


def find_oom_bound(config: FineTuneConfig | BaselineConfig, records: Iterable[Record], machine: Machine) -> str | None:
    """Say which of the records makes a cell needless: one that ran out of memory, was no larger and had no less of it.

    Compared are the examples of one device and micro-batch and the sequence length, all else being equal.
    """
    if not isinstance(config, FineTuneConfig):
        return None
    batch = config.device_batch(num_ranks(config, machine))
    for record in records:
        other = record.config
        if (
            record.outcome != "oom"
            or not isinstance(other, FineTuneConfig)
            or _config_without_size(other) != _config_without_size(config)
        ):
            continue
        other_batch = other.device_batch(num_ranks(other, machine))
        if batch >= other_batch and config.seq_len >= other.seq_len and _memory_cap(config) <= _memory_cap(other):
            larger = batch > other_batch or config.seq_len > other.seq_len
            return f"{'larger than' if larger else 'no smaller than'} {record.cell}, which ran out of memory"
    return None


def _config_without_size(config: FineTuneConfig) -> str:
    limits = config.limits.model_copy(update={"memory_limit_gib": None, "max_train_s": None})
    return hash_config(config.model_copy(update={"limits": limits}), ignore=_IGNORED)


def _memory_cap(config: FineTuneConfig) -> float:
    limit = config.limits.memory_limit_gib
    return math.inf if limit is None else limit
