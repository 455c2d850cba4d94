"""Documents name only files, tests and functions that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "bench/*.md", "tests/*.md", "tests/fixtures/*.md", "results/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it names what was, too
)
FOLDERS = ("harness", "tests", "bench", "docs", "results/reference", "requirements")
BARE_FILE = re.compile(r"`((?:test|bench)_\w+\.py)")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*\w)(?:::(\w+))?(?:: ([\w., ]+))?`")
MODULE_IN_CODE_MAP = re.compile(r"`([a-z_]+/[\w/]+\.py)(?:: ([\w.]+))?`")


def named_paths(document: str) -> list[tuple[str, str | None]]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found = [(match[1], match[2]) for match in PATH.finditer(text)]
    if document == "docs/CODE.md":  # its paths are relative to harness/
        found += [
            (f"harness/{match[1]}", match[2])
            for match in MODULE_IN_CODE_MAP.finditer(text)
            if not match[1].startswith(FOLDERS)
        ]
    return found


def defined_names(path: Path) -> set[str]:
    """Names of functions, classes and `Class.method` in a module."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_path_exists(document):
    missing = [path for path, _ in named_paths(document) if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_function_exists(document):
    missing = [
        f"{path}: {name}"
        for path, name in named_paths(document)
        if name and path.endswith(".py") and name not in defined_names(ROOT / path)
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_named_without_its_folder_exists(document):
    files = {path.name for folder in ("tests", "bench") for path in (ROOT / folder).rglob("*.py")}
    assert set(BARE_FILE.findall((ROOT / document).read_text(encoding="utf-8"))) - files == set()


def test_the_map_of_the_code_shows_every_package():
    text = (ROOT / "docs" / "CODE.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert packages == set(re.findall(r"^\| `([a-z]+)` \|", text, re.M))


def test_every_promise_of_security_names_a_test():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\| (?!promise)([^|]+) \| (.*) \|$", text, re.M)
    assert len(promises) >= 15
    assert [promise for promise, held_by in promises if "`tests/" not in held_by] == []


def anchors_of(document: str) -> set[str]:
    """Anchors as GitHub makes them of headings, and those that are written out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document):
    folder = (ROOT / document).parent
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text(encoding="utf-8")):
        if target.startswith(("http", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else ROOT / document
        if not path.exists() or (anchor and anchor not in anchors_of(path.relative_to(ROOT).as_posix())):
            broken.append(target)
    assert broken == []


def test_the_glossary_defines_twenty_words_with_an_anchor_each():
    text = (ROOT / "docs" / "METHOD.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\| <a id="word-([a-z-]+)"></a>([^|]+?) \| [^|]+ \| \[[^\]]+\]\(#[^)]+\) \|$', text, re.M)
    assert len(rows) == 20
    assert [anchor for anchor, _ in rows] == [word.lower().replace(" ", "-") for _, word in rows]


def test_one_version_is_named_everywhere():
    version = re.search(r'__version__ = "(.+)"', (ROOT / "harness" / "__init__.py").read_text(encoding="utf-8"))[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1]
    assert newest == f"[Unreleased] {version}" or newest.startswith(f"[{version}] - ")
