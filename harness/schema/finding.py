"""The result of one machine check: what was measured, a verdict, and how to fix the problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

Verdict = Literal["good", "warn", "bad", "not known"]
_WORST_FIRST: tuple[Verdict, ...] = ("bad", "warn", "not known", "good")


class Finding(BaseModel):
    """The result of one check.

    Attributes:
        value: The measured value with its unit.
        why: Why the value matters for a benchmark, in a few words.
        fix: The command that fixes the problem, or `none: ` and the reason why no command does; None when nothing needs
            fixing. The key in JSON is `mend`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    name: str
    value: str
    verdict: Verdict
    why: str
    fix: str | None = Field(None, validation_alias=AliasChoices("fix", "mend"), serialization_alias="mend")


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict; `not known` counts as good."""
    verdicts = {finding.verdict for finding in findings} - {"not known"}
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), "good")
