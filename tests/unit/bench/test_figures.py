"""Pictures, tables and figures of the documents show what the shipped records say; `make figures` makes them anew."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = ("README.md", "docs/RESULTS.md")
PICTURES = ("report.png", "ladder.png", "learning.png", "machines.png")
MAX_README_WORDS = 900


@pytest.fixture
def figures(monkeypatch):
    """Return a function that imports a module of bench/figures."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return lambda name: importlib.import_module(f"figures.{name}")


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_marked_figure_is_that_of_the_records(document, figures):
    texts, values = figures("texts"), figures("values")
    marked = texts.marked(read(document))
    assert len(marked) >= 20
    assert len(marked) == read(document).count("<!--f:") == read(document).count("<!--/f-->")
    assert {name: content for name, content in marked if content != values.figure(name)} == {}, "run: make figures"


def test_a_stale_figure_is_written_anew(figures):
    stale = "at <!--f:ladder.target-->0.5<!--/f-->, not <!--f:data.accuracy-all--><!--/f-->"
    assert figures("texts").filled(stale) == (
        "at <!--f:ladder.target-->0.78<!--/f-->, not <!--f:data.accuracy-all-->0.848<!--/f-->"
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_line_of_text_begins_with_a_marker(document):
    # Markdown would take the line as HTML, and the paragraph as ended.
    assert re.findall(r"^[ ]*(?:[-*] )?<!--f:[\w.-]+-->(?!\n).*", read(document), re.M) == []


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_shows_the_figures_of_the_records(name, figures):
    pictures = figures("pictures")
    (picture,) = [each for each in pictures.PICTURES if each.name == name]
    assert pictures.held_digest((ROOT / "docs" / name).read_bytes()) == pictures.digest(picture), "run: make figures"


def test_a_picture_without_the_hash_of_its_figures_is_stale(figures):
    pictures = figures("pictures")
    png = (ROOT / "docs" / "ladder.png").read_bytes()
    length = png.index(b"tEXt") - 4
    bare = png[:length] + png[length + 12 + int.from_bytes(png[length : length + 4], "big") :]
    assert pictures.held_digest(bare) is None
    assert pictures.with_digest(bare, pictures.held_digest(png)) == png


def test_every_picture_of_the_documents_is_made(figures):
    assert {path.name for path in (ROOT / "docs").glob("*.png")} == {each.name for each in figures("pictures").PICTURES}
    shown = [name for document in DOCUMENTS for name in re.findall(r"!\[.*?\]\((?:docs/)?(\S+\.png)\)", read(document))]
    assert sorted(shown) == sorted(PICTURES)


def test_the_readme_is_short():
    assert len(re.sub(r"<!--.*?-->", "", read("README.md")).split()) <= MAX_README_WORDS
