"""What `make setup LOCKED=1` and `make bench-peers` install is pinned by version and hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {match[1].lower().replace("_", "-"): match[2] for match in PIN.finditer(text)}


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_pin_with_its_hashes_or_a_comment(name):
    """torch and the peers had versions only."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    rest = [line for line in PIN.sub("", text).splitlines() if not line.lstrip().startswith("#")]
    assert (rest, len(pins(name)) >= 1) == ([], True)


def test_torch_is_the_version_that_the_makefile_names():
    version = re.search(r"^TORCH_VERSION := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert pins("torch.txt") == {"torch": version}
    assert {"nvidia-cublas", "triton"} <= pins("torch-cuda.txt").keys()


def test_what_torch_needs_has_the_versions_of_the_lock():
    lock, cuda = pins("lock.txt"), pins("torch-cuda.txt")
    shared = lock.keys() & cuda.keys()
    assert shared
    assert {name: cuda[name] for name in shared} == {name: lock[name] for name in shared}
