"""The files that the tests of cluster templates read: one for each cloud, and one for SkyPilot."""

from __future__ import annotations

from pathlib import Path

import yaml

from harness.cluster.templates import TemplateRequest, render_template
from harness.pricing.price_table import load_prices

ROOT = Path(__file__).resolve().parents[3]
TABLE = load_prices(ROOT / "bench")
RAY = {
    "aws": ("g5.xlarge", "c7g.2xlarge", "m7i.xlarge"),
    "gcp": ("g2-standard-4", "n1-standard-4+1xT4", "c4-standard-8"),
    "azure": ("Standard_NC4as_T4_v3", "Standard_D8s_v5"),
}
EVERY = {**RAY, "skypilot": ("g5.xlarge", "g6.xlarge")}


def text_of(on: str, *, machines: tuple[str, ...] | None = None, table=TABLE, **options) -> str:
    return render_template(TemplateRequest(on, EVERY[on] if machines is None else machines, **options), table).text


def config_of(on: str, **options) -> dict:
    return yaml.safe_load(text_of(on, **options))
