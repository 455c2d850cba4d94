"""Cache rows and tokens of large data for later runs: private to the user, written atomically, verified when read."""

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

from harness.errors import UnwritableError
from harness.files import expand_user, sha256_file

CACHE_VARIABLE = "HARNESS_CACHE"
_MANIFEST = "manifest.json"
_STAGING_PREFIX = ".half-made-"


def digest(*parts: object) -> str:
    """Return a key of 32 hex digits for JSON-serialisable parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cache_root() -> Path:
    """Return the cache folder: HARNESS_CACHE, or one in the user's cache directory; the folder may not exist."""
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return expand_user(configured)
    user_cache = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    # os.path.expanduser, because Path.home() raises if the user has no home directory.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(user_cache)) / "bert-cost-harness"  # noqa: PTH111


@dataclass(frozen=True)
class CacheEntry:
    """One cached folder; `description` is empty for a staging folder that was not committed."""

    folder: Path
    description: str
    num_bytes: int
    made_at: datetime


class Cache:
    """A cache of folders by key; each folder has a manifest with the SHA-256 hashes of its files."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_root()

    def find(self, key: str) -> Path | None:
        """Return the folder of a key; None if the key has no folder, or if a file differs from the manifest."""
        folder = self.root / key
        try:
            hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
            is_intact = all(sha256_file(folder / name) == sha256 for name, sha256 in hashes.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_intact = False
        if is_intact:
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # so that a damaged entry is made again
        return None

    def create_staging_folder(self) -> Path:
        """Create a private folder in the cache, which the caller fills and commits.

        Raises:
            UnwritableError: If the folder can't be created.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)
            return Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=self.root))  # mkdtemp sets mode 0700
        except OSError as error:
            raise UnwritableError(
                f"{self.root}: can't create the cache folder for large data: {error.strerror}; set {CACHE_VARIABLE} to "
                "another folder"
            ) from None

    def commit(self, folder: Path, key: str, description: str) -> Path:
        """Rename a staging folder to its key; if another run committed the same key meanwhile, keep that one.

        Raises:
            OSError: If the cache can't be written.
        """
        hashes = {path.name: sha256_file(path) for path in sorted(folder.iterdir())}
        manifest = {"description": description, "made_at": datetime.now(UTC).isoformat(), "files": hashes}
        with (folder / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        try:
            folder.rename(self.root / key)
        except OSError:
            existing = self.find(key)
            if existing is None:
                raise
            shutil.rmtree(folder, ignore_errors=True)
            return existing
        return self.root / key

    def entries(self) -> list[CacheEntry]:
        """Return all entries, oldest first."""
        entries = []
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            try:
                manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
                description, made_at = str(manifest["description"]), datetime.fromisoformat(manifest["made_at"])
            except (OSError, ValueError, KeyError, TypeError):
                description, made_at = "", datetime.fromtimestamp(folder.stat().st_mtime, UTC)
            sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
            entries.append(CacheEntry(folder, description, sum(sizes), made_at))
        return sorted(entries, key=lambda entry: entry.made_at)

    def clear(self) -> list[CacheEntry]:
        """Delete all entries and return them."""
        deleted = self.entries()
        for entry in deleted:
            shutil.rmtree(entry.folder, ignore_errors=True)
        return deleted
