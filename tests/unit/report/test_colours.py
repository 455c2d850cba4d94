"""Colours of charts: far enough apart for readers who do not see red or green, and from the page."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import combinations
from math import copysign, dist

import pytest

from harness.report.charts.base import INK, MACHINES, MEASURE, MODELS, PARTS, PICK, PRECISIONS, QUIET, SERIES

# Roles that one chart may show together.
TOGETHER = [
    (PICK, MEASURE, QUIET, INK),
    (PICK, QUIET, *MODELS),
    (PICK, *MACHINES),
    (QUIET, *PARTS),
    PRECISIONS,
    (INK, QUIET, *SERIES),
]
LEAST_DISTANCE = 0.06  # in OKLab, where about 0.02 is just noticeable
LEAST_CONTRAST = 3.0  # WCAG 2.2, 1.4.11
# Machado, Oliveira and Fernandes, IEEE Transactions on Visualization and Computer Graphics 15 (2009), severity 1.0.
VISION = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


def schemes():
    """Return each scheme's colours by role."""
    css = files("harness.report.assets").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root[^{]*\{([^}]*--page[^}]*)\}", css)[:2]
    read = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def linear(colour):
    channels = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]


def seen(colour, vision):
    """Return a colour as seen, in OKLab (Ottosson 2020)."""
    red, green, blue = (
        min(1.0, max(0.0, sum(weight * value for weight, value in zip(row, linear(colour), strict=True))))
        for row in VISION[vision]
    )
    cones = (
        0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue,
        0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue,
        0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue,
    )
    long, medium, short = (copysign(abs(cone) ** (1 / 3), cone) for cone in cones)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def contrast(one, other):
    bright, dark = sorted(
        (sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(c), strict=True)) for c in (one, other)),
        reverse=True,
    )
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("roles", TOGETHER, ids=lambda roles: roles[-1])
def test_colours_of_one_chart_are_told_apart(scheme, vision, roles):
    colours = schemes()[scheme]
    near = {
        (one, other): round(distance, 3)
        for one, other in combinations(roles, 2)
        if (distance := dist(seen(colours[one], vision), seen(colours[other], vision))) < LEAST_DISTANCE
    }
    assert near == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_stands_out_from_the_page(scheme):
    colours = schemes()[scheme]
    roles = {role for together in TOGETHER for role in together}
    assert {role for role in roles if contrast(colours[role], colours["page"]) < LEAST_CONTRAST} == set()


def test_no_role_shares_its_colour_with_another():
    for colours in schemes().values():
        roles = sorted({role for together in TOGETHER for role in together})
        assert len({colours[role] for role in roles}) == len(roles)
