"""comparing.js and machine_comparison.js rank as analysis/ranking.py and decision/side_by_side.py do."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
from importlib.resources import files

import pytest
from scipy import special

from harness.analysis.estimate import Estimate, t_quantile
from harness.analysis.ranking import MAX_DEGREES_OF_FREEDOM, rank_all

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is missing")


def in_javascript(expression, data):
    script = files("harness.report.assets").joinpath("comparing.js").read_text(encoding="utf-8")
    script += f"\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify({expression}));"
    completed = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(completed.stdout)


def test_students_p_values_are_scipys():
    cases = [(df, t) for df in (0.7, 1, 1.9, 4, 17.3, 120, 1000) for t in (0, 0.01, 1, 2.5, 8, 40)]
    computed = in_javascript("data.map(([df, t]) => comparing.studentP(df, t))", cases)
    for (df, t), p_value in zip(cases, computed, strict=True):
        assert p_value == pytest.approx(2 * special.stdtr(df, -t), rel=1e-9, abs=1e-300), (df, t)


def test_rankings_are_pythons():
    rng = random.Random(20261127)

    def figure():
        if rng.random() < 0.1:
            return None
        value, df = math.exp(rng.gauss(0, 0.4)), rng.choice([1.5, 2, 4, 9.7, math.inf])
        if rng.random() < 0.1:
            return Estimate(value, None, None, "", df)
        if rng.random() < 0.05:
            return Estimate(0.0, 0.0, 0.0, "")
        factors = [math.exp(rng.uniform(0.0, 0.4)) for _ in range(2)]
        return Estimate(value, value / factors[0], value * factors[1], "", df)

    cases = [[[figure() for _ in range(rng.randint(0, 5))] for _ in range(rng.randint(1, 4))] for _ in range(300)]

    def packed(estimate):
        if estimate is None:
            return None
        df = min(estimate.degrees_of_freedom, MAX_DEGREES_OF_FREEDOM)
        return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "df": df, "t": t_quantile(df)}

    data = [[[packed(estimate) for estimate in figures] for figures in families] for families in cases]
    num_clear = 0
    for most in (True, False):
        found = in_javascript(f"data.map((families) => comparing.rankAll(families, {json.dumps(most)}))", data)
        for families, computed in zip(cases, found, strict=True):
            expected = [[ranking.first, list(ranking.level)] for ranking in rank_all(families, most=most)]
            assert computed == expected
            num_clear += sum(len(ranking.clear) for ranking in rank_all(families, most=most))
    assert num_clear > 100
