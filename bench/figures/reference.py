"""The shipped records, priced, by study."""

from __future__ import annotations

import functools
from pathlib import Path

from harness.workflows.priced_records import Priceable, load_priced

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
AMD, XEON = "amd-epyc-2c-24g-dbbbf2", "intel-xeon-2c-24g-b47fd4"


@functools.cache
def priced(study: str, machine: str = "*") -> Priceable:
    """Return the priced records of a study, of one machine or of all that measured it."""
    return load_priced(sorted(REFERENCE.glob(f"{machine}/{study}")))
