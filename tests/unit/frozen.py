"""Where the frozen records lie."""

from pathlib import Path

RECORDS = Path(__file__).resolve().parent.parent / "fixtures" / "records"
