"""One thing about this machine that would spoil a benchmark, or would not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

Verdict = Literal["good", "warn", "bad", "not known"]
_ORDER: tuple[Verdict, ...] = ("bad", "warn", "not known", "good")


class Finding(BaseModel):
    """What was looked at, what was seen, and what to do.

    Attributes:
        value: What was measured, with its unit.
        why: Why it matters, in a few words.
        mend: The command that mends it, or `none: ` and why there is none; None where nothing is to be mended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    value: str
    verdict: Verdict
    why: str
    mend: str | None = None


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst verdict; what is not known is no fault of a machine, and counts as good."""
    found = {finding.verdict for finding in findings} - {"not known"}
    return next((verdict for verdict in _ORDER if verdict in found), "good")
