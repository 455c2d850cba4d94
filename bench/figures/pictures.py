"""Pictures of the report for the documents; each file holds the hash of the figures that it shows."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from figures.reference import ROOT, priced
from figures.values import data, default, ladder

from harness.analysis.estimate import Estimate
from harness.pricing.cost import Priced
from harness.report import write_report
from harness.report.formatting import number

_FOLDER = ROOT / "docs"
_SIZE, _SCALE, _MARGIN = {"width": 1280, "height": 860}, 1.5, 16
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 25  # of the first chunk, IHDR, which must come first
_KEY = b"data-sha256\0"


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: File name in docs/.
        study: The study whose report is shown, with the records of every machine.
        section: Id of the section whose charts are shown; None for the first screen of the view to decide by.
        derived: Figures shown besides those of the cells.
    """

    name: str
    study: str
    section: str | None
    derived: Callable[[], dict[str, str]]


PICTURES = (
    Picture("report.png", "default", None, default),
    Picture("ladder.png", "ladder", "ladder", ladder),
    Picture("learning.png", "data", "learning", data),
    Picture("machines.png", "default", "machines", dict),
)


def make() -> None:
    """Make every picture anew."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for picture in PICTURES:
            found = priced(picture.study)
            report = write_report(
                found.cells,
                Path(folder) / picture.name,
                generated_at=datetime.now(UTC),
                assumptions=found.assumed,
                choices=found.choices,
                records=found.records,
                differences=found.differences,
            )
            page = browser.new_page(viewport=_SIZE, device_scale_factor=_SCALE)
            page.goto(f"{report.as_uri()}#view={'engineer' if picture.section else 'decide'}")
            page.wait_for_load_state()
            clip = _charts_of(page, picture.section) if picture.section else None
            png = page.screenshot(clip=clip, full_page=clip is not None)
            (_FOLDER / picture.name).write_bytes(with_digest(png, digest(picture)))
            print(f"docs/{picture.name}: {len(png) / 1024:,.0f} KiB")
        browser.close()


def _charts_of(page, section: str) -> dict[str, float]:
    """Open a section, wait until its charts are drawn, and return the rectangle that holds them."""
    return page.evaluate(
        """async ([section, margin]) => {
            document.querySelectorAll(`#${section} details, #${section}`).forEach((fold) => { fold.open = true; });
            const charts = [...document.querySelectorAll(`#${section} figure.chart`)];
            const drawn = (chart) => chart.querySelector(".plot .main-svg");
            while (!charts.every(drawn)) await new Promise(requestAnimationFrame);
            const boxes = charts.map((chart) => chart.getBoundingClientRect());
            const edge = (pick, side) => pick(...boxes.map((box) => box[side]));
            const [left, top] = [edge(Math.min, "left") - margin, edge(Math.min, "top") - margin];
            const [right, bottom] = [edge(Math.max, "right") + margin, edge(Math.max, "bottom") + margin];
            return { x: left + scrollX, y: top + scrollY, width: right - left, height: bottom - top };
        }""",
        [section, _MARGIN],
    )


def digest(picture: Picture) -> str:
    """Return the hash of the figures that a picture shows, rounded as people read them."""
    shown = [list(_shown(cell)) for cell in priced(picture.study).cells]
    return hashlib.sha256(json.dumps([shown, picture.derived()], sort_keys=True).encode()).hexdigest()


def _shown(cell: Priced) -> Iterator[str]:
    summary = cell.summary
    yield from (summary.machine_id, summary.cell, summary.outcome, number(summary.peak_memory_bytes))
    for estimate in (
        summary.samples_per_s,
        summary.accuracy,
        cell.usd_per_1000_samples,
        cell.usd_per_run,
        cell.usd_billed,
    ):
        ends = (estimate.value, estimate.low, estimate.high) if isinstance(estimate, Estimate) else (None,)
        yield from map(number, ends)


def held_digest(png: bytes) -> str | None:
    """Return the hash that a picture holds; None if it holds none."""
    at = len(_SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"tEXt" and content.startswith(_KEY):
            return content.removeprefix(_KEY).decode()
        at += length + 12
    return None


def with_digest(png: bytes, held: str) -> bytes:
    """Add a text chunk (PNG specification, 11.3.3.3) after the header."""
    content = b"tEXt" + _KEY + held.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    at = len(_SIGNATURE) + _HEADER_BYTES
    return png[:at] + chunk + png[at:]
