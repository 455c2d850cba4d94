"""A real record for tests to vary."""

from __future__ import annotations

import json

import pytest

from harness.schema.record import Record, upgrade_record
from tests.unit.frozen import RECORDS


@pytest.fixture(scope="session")
def ok_record() -> Record:
    """Return the record of a finished run with two ranks (tests/fixtures/README.md)."""
    return upgrade_record(json.loads((RECORDS / "v1" / "ok.json").read_text(encoding="utf-8")))
