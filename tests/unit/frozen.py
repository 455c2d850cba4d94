"""The folder of the frozen records."""

from pathlib import Path

RECORDS = Path(__file__).resolve().parent.parent / "fixtures" / "records"
