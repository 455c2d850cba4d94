"""Ranges of what a record holds: wide enough for any real run, and narrow enough that arithmetic on them is safe."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

_MAX_COUNT = 2**62  # of bytes, rows, tokens
_MAX_SECONDS = 1e10  # 300 years
_MAX_VALUE = 1e24  # FLOP/s of 10^6 exaflop machines
_FIRST_YEAR, _LAST_YEAR = 2000, 2200

Tally = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
PositiveTally = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
BigTally = Annotated[int, Field(ge=0, le=int(_MAX_VALUE))]  # of operations
Index = Annotated[int, Field(ge=0, le=2**31)]
Seconds = Annotated[float, Field(ge=0, le=_MAX_SECONDS)]
PositiveSeconds = Annotated[float, Field(ge=1e-9, le=_MAX_SECONDS)]
# Differences of the system's counters, which some kernels let run backwards; a cell is not lost for that.
SignedSeconds = Annotated[float, Field(ge=-_MAX_SECONDS, le=_MAX_SECONDS)]
Temperature = Annotated[int, Field(ge=-300, le=10**6)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=_MAX_VALUE)]
Positive = Annotated[float, Field(ge=1e-12, le=_MAX_VALUE)]
# Of a training that diverges, up to the largest fp32.
Loss = Annotated[float, Field(ge=-1e39, le=1e39)]


def require_equal_lengths(**lists: Sequence[object]) -> None:
    """Check that lists have as many items as the first of them.

    Raises:
        ValueError: They don't.
    """
    lengths = {name: len(items) for name, items in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("lists of equal length: " + ", ".join(f"{length} {name}" for name, length in lengths.items()))


def _check_year(time: datetime) -> datetime:
    if not _FIRST_YEAR <= time.year < _LAST_YEAR:
        raise ValueError(f"a year from {_FIRST_YEAR} to {_LAST_YEAR - 1}")
    return time


# A time with its zone, because records are put in the order of their times.
Moment = Annotated[AwareDatetime, AfterValidator(_check_year)]
