"""Figures and tables in the documents, each between markers that name it: `<!--f:NAME-->...<!--/f-->`."""

from __future__ import annotations

import re
from pathlib import Path

from figures.reference import ROOT
from figures.values import figure

DOCUMENTS = ("README.md", "docs/RESULTS.md", "docs/FAQ.md")
_MARKED = re.compile(r"<!--f:([\w.-]+)-->(.*?)<!--/f-->", re.DOTALL)


def marked(text: str) -> list[tuple[str, str]]:
    """Return the name and the content of each marked figure of a document."""
    return _MARKED.findall(text)


def filled(text: str) -> str:
    """Return a document with all marked figures computed anew."""
    return _MARKED.sub(lambda match: f"<!--f:{match[1]}-->{figure(match[1])}<!--/f-->", text)


def rewrite(root: Path = ROOT) -> None:
    """Write the figures into the documents, and say which of these have changed."""
    for name in DOCUMENTS:
        path = root / name
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
        print(f"{name}: {len(marked(after))} figures, {'changed' if after != before else 'as they were'}")
