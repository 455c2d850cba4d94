"""What checkpoints took, as spot machines' price assumes it (pure)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from harness.schema.assumptions import Assumptions
from harness.schema.record import Record
from harness.schema.training_record import Checkpoint

_ASSUMED = "prices.spot.checkpoint_s"


def with_measured_checkpoints(assumed: Assumptions, records: Iterable[Record]) -> Assumptions:
    """Put the measured seconds of a checkpoint in the place of the example, unless the reader's file states them."""
    seconds = checkpoint_seconds(records)
    if seconds is None or _ASSUMED in assumed.set_by_user:
        return assumed
    spot = assumed.prices.spot.model_copy(update={"checkpoint_s": seconds})
    prices = assumed.prices.model_copy(update={"spot": spot})
    return assumed.model_copy(update={"prices": prices, "measured": assumed.measured | {_ASSUMED}})


def checkpoint_seconds(records: Iterable[Record]) -> float | None:
    """Mean seconds of a configuration's checkpoints on one machine; of several the highest, the safe side.

    None where none was measured.
    """
    # A run's later records hold its earlier pieces again.
    measured: defaultdict[tuple[str, str], dict[tuple[object, ...], Checkpoint]] = defaultdict(dict)
    for record in records:
        for piece in record.training.pieces if record.training else ():
            for one in piece.checkpoints:
                if one.seconds is not None:
                    key = (piece.started_at, piece.host, one.num_updates)
                    measured[record.config_hash, piece.machine][key] = one
    means = [fmean(one.seconds or 0.0 for one in known.values()) for known in measured.values()]
    return max(means, default=None)
