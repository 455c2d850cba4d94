"""The studies and tables that come with the harness, and how to install what it needs; in a checkout or from a wheel."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from harness.files import PACKAGE_FOLDER

_TEMPLATE_SUFFIX = ".example.toml"


def tables_folder() -> Path:
    """Return the folder of the shipped tables and studies: harness/tables in a wheel, bench/ in a checkout."""
    packed = PACKAGE_FOLDER / "tables"
    return packed if packed.is_dir() else PACKAGE_FOLDER.parent / "bench"


def is_checkout() -> bool:
    """Return whether the harness runs from its repository, where `make setup` is available."""
    return (PACKAGE_FOLDER.parent / "Makefile").is_file() and (PACKAGE_FOLDER.parent / "pyproject.toml").is_file()


def shipped_files(*, templates: bool) -> dict[str, Path]:
    """Return the shipped TOML files by name, sorted.

    Args:
        templates: True for the templates of price and value files, False for the studies.
    """
    files = {path.stem: path for path in tables_folder().glob("*.toml")}
    return {name: files[name] for name in sorted(files) if files[name].name.endswith(_TEMPLATE_SUFFIX) == templates}


def find_study(path: Path) -> Path:
    """Return the shipped study of this name; a path that exists, or that is no shipped name, stays as it is."""
    shipped = shipped_files(templates=False).get(str(path))
    return path if shipped is None or path.exists() else shipped


def nearest_study(path: Path) -> str | None:
    """Return the shipped study whose name is most like that of a path; None if none is."""
    return next(iter(difflib.get_close_matches(path.stem, shipped_files(templates=False), n=1)), None)


def describe_file(path: Path) -> str:
    """Return the first comment line of a shipped file."""
    with path.open(encoding="utf-8") as lines:
        return next(lines).removeprefix("#").strip()


def how_to_install(extra: str) -> str:
    """Return the command that installs one of the package's extras, e.g. `train`."""
    package = "." if is_checkout() else "bert-cost-harness"
    return f"pip install '{package}[{extra}]'"


def how_to_install_torch(spec: str) -> str:
    """Return the command that installs another build of PyTorch, e.g. `torch==2.13.0`."""
    return f"make bench TORCH={shlex.quote(spec)}" if is_checkout() else f"pip install {spec}"
