"""What was made of large data, kept for the next run: private, whole or not at all, and checked when it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import UserError
from harness.files import sha256_file

CACHE_VARIABLE = "HARNESS_CACHE"
_MANIFEST = "manifest.json"
_HALF_MADE = ".half-made-"


def digest(*parts: object) -> str:
    """A key of 32 hex digits over parts that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cache_root() -> Path:
    """The folder of the cache: as HARNESS_CACHE says, else in the user's folder of caches; it need not be there."""
    stated = os.environ.get(CACHE_VARIABLE)
    if stated:
        return Path(stated).expanduser()
    own = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    # Path.home() raises where nobody knows a home; the name is then one of no folder.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(own)) / "bert-cost-harness"  # noqa: PTH111


@dataclass(frozen=True)
class CacheEntry:
    """One thing that is kept: what it is of in words, its size, and when it was made; half-made ones have no words."""

    folder: Path
    description: str
    num_bytes: int
    made_at: datetime


class Cache:
    """Folders by key below one root, each with a manifest of its files' sizes and hashes."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()

    def find(self, key: str) -> Path | None:
        """The folder kept under a key; None where there is none, or where a file of it is not as it was written."""
        folder = self.root / key
        try:
            files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
            whole = all(sha256_file(folder / name) == found for name, found in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if whole:
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # what can't be trusted is made anew
        return None

    def begin(self) -> Path:
        """Make a private folder to fill, on the same disk.

        Raises:
            UserError: When it can't be made.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            return Path(tempfile.mkdtemp(prefix=_HALF_MADE, dir=self.root))  # readable by its owner alone
        except OSError as error:
            raise UserError(
                f"{self.root}: large data needs a folder on disk: {error.strerror}; {CACHE_VARIABLE} names another"
            ) from None

    def keep(self, folder: Path, key: str, words: str) -> Path:
        """Put a filled folder under its key in one step; what another run put there meanwhile stays.

        Raises:
            OSError: When it can't be written.
        """
        files = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        told = {"words": words, "made_at": datetime.now(UTC).isoformat(), "files": files}
        with (folder / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(told, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            folder.rename(self.root / key)
        except OSError:
            kept = self.find(key)
            if kept is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return kept
        return self.root / key

    def entries(self) -> list[CacheEntry]:
        """All that is there, the oldest first."""
        found = []
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            try:
                told = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
                words, made_at = str(told["words"]), datetime.fromisoformat(told["made_at"])
            except (OSError, ValueError, KeyError, TypeError):
                words, made_at = "", datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
            found.append(CacheEntry(folder, words, sum(sizes), made_at))
        return sorted(found, key=lambda entry: entry.made_at)

    def clear(self) -> list[CacheEntry]:
        """Delete all that is there; give what was."""
        gone = self.entries()
        for entry in gone:
            shutil.rmtree(entry.folder, ignore_errors=True)
        return gone
