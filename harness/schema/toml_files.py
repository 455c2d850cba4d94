"""Read TOML from files and options that others wrote, within bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_MAX_BYTES = 2**22  # a study of 10,000 values takes 100 KB


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: It is not TOML, has numbers of thousands of digits, or is nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ValueError: It is not TOML, or too large.
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES:,} bytes")
    return parse_toml(content.decode())
