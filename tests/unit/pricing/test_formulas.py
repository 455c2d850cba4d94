"""Every formula against hand-computed cases in both languages, and spot machines against a simulation."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pricing import formulas
from harness.pricing.formulas_js import formulas_script
from tests.costs import IN_JAVASCRIPT, agrees, load_costs

CASES = load_costs()
FORMULAS = {
    name: value for name, value in vars(formulas).items() if inspect.isfunction(value) and not name.startswith("_")
}
SCRIPT = files("harness.report.assets").joinpath("formulas.js").read_text(encoding="utf-8")
NAMES = [f"{index}-{case['formula']}" for index, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_hand_computed_cases(case):
    found = FORMULAS[case["formula"]](**case["inputs"])
    assert agrees(found, case["expected"]), f"{found} is not {case['expected']}: {case['by_hand']}"


def test_every_formula_has_hand_computed_cases():
    assert {case["formula"] for case in CASES} == set(FORMULAS)
    assert len(CASES) >= 40
    assert all(len(case["by_hand"]) > 5 for case in CASES)


def test_the_script_is_up_to_date():
    assert formulas_script() == SCRIPT, "run `make formulas`"


def test_the_script_has_every_formula_with_its_arguments():
    arguments = {
        name: tuple(re.findall(r"\w+", inside))
        for name, inside in re.findall(r"const (\w+) = \(\{([^}]*)\}\) =>", SCRIPT)
    }
    assert arguments == {name: tuple(inspect.signature(formula).parameters) for name, formula in FORMULAS.items()}
    exported = re.search(r"\n  return \{(.*?)\};", SCRIPT, re.S)[1]
    assert set(re.findall(r"\w+", exported)) == set(FORMULAS)


def test_operator_precedence_is_kept():
    source = 'def ratio(a, b, c):\n    """Docstring."""\n    return a - (b - c) / (a * b) * (c if a > 0 else -b)\n'
    script = formulas_script(source)
    assert "const ratio = ({ a, b, c }) => a - (b - c) / (a * b) * (a > 0 ? c : -b);" in script


@pytest.mark.parametrize("line", ["return a // b", "return abs(a)", "while a:\n        a -= 1", "a += b"])
def test_python_without_a_translation_is_refused(line):
    with pytest.raises(ValueError, match="line 3: no translation of"):
        formulas_script(f'def formula(a, b):\n    """Docstring."""\n    {line}\n')


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node; tests/e2e runs the table in a browser")
def test_hand_computed_cases_in_javascript():
    script = f"{SCRIPT}\nconst cases = {json.dumps(CASES)};\nconsole.log(JSON.stringify(({IN_JAVASCRIPT})(cases)));"
    ran = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(ran.stdout)
    wrong = [(case, one) for case, one in zip(CASES, found, strict=True) if not agrees(one, case["expected"])]
    assert wrong == []


def simulate(work_s, rate, every_s, checkpoint_s, restart_s, *, num_runs=200_000):
    """Simulate many runs, retrying each segment with a restart until it has no interruption; return the mean seconds."""
    random = np.random.default_rng(20261125)
    num_whole = int(np.ceil(work_s / every_s)) - 1
    pieces = [every_s + checkpoint_s] * num_whole + [work_s - num_whole * every_s]
    seconds = np.zeros(num_runs)
    for piece in pieces:
        running = np.arange(num_runs)
        needed = np.full(num_runs, float(piece))
        while running.size:
            until_s = random.exponential(3600 / rate, running.size)
            done = until_s >= needed[running]
            seconds[running] += np.where(done, needed[running], until_s)
            running = running[~done]
            needed[running] = restart_s + piece
    return seconds.mean()


@pytest.mark.parametrize(
    ("work_s", "rate", "every_s", "checkpoint_s", "restart_s"),
    [
        (3600, 0.05, 600, 5, 180),
        (3600, 1.0, 600, 5, 180),
        (3600, 6.0, 600, 5, 180),  # a piece is lost two times of three
        (3600, 4.0, 300, 5, 900),  # and so is a restart
        (250, 2.0, 600, 5, 180),  # shorter than the distance of checkpoints
        (1500, 2.0, 600, 10, 60),  # no multiple of it
        (10_000, 0.5, 3600, 30, 600),
    ],
)
def test_spot_seconds_agree_with_a_simulation(work_s, rate, every_s, checkpoint_s, restart_s):
    expected = simulate(work_s, rate, every_s, checkpoint_s, restart_s)
    found = formulas.spot_seconds(work_s, rate, every_s, checkpoint_s, restart_s)
    assert found == pytest.approx(expected, rel=0.01)


def at_most(most):
    """Draw 0 or a number not too close to it, where rounding errors would dominate."""
    return st.just(0.0) | st.floats(1e-6, most)


MONEY = at_most(1e5)
A_RATE = st.just(0.0) | st.floats(1e-9, 5)


@settings(deadline=None)
@given(at_most(1e7), at_most(1e5), at_most(1e5), st.floats(0.01, 1e5))
def test_a_bill_exceeds_usage_by_less_than_one_unit(work_s, before_s, minimum_s, granularity_s):
    found = formulas.billed_seconds(work_s, before_s, minimum_s, granularity_s)
    least = max(work_s + before_s, minimum_s)
    assert least - 2e-9 * granularity_s - 1e-9 * least <= found < least + granularity_s * (1 + 1e-9)


@settings(deadline=None)
@given(at_most(1e6), A_RATE, st.floats(1, 1e5), at_most(100), at_most(1000))
def test_spot_machines_never_take_less_than_the_work(work_s, rate, every_s, checkpoint_s, restart_s):
    found = formulas.spot_seconds(work_s, rate, every_s, checkpoint_s, restart_s)
    assert found is None or found >= work_s * (1 - 1e-9)


@settings(deadline=None)
@given(st.floats(1e-3, 100), MONEY, st.floats(1e-3, 100))
def test_owning_costs_the_rent_at_break_even(fixed, running, margin):
    rent = running + margin
    share = formulas.break_even_utilisation(fixed, running, rent)
    assert formulas.own_usd_per_hour(fixed, running, share) == pytest.approx(rent, rel=1e-6)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_commitment_costs_the_on_demand_price_at_break_even(committed, on_demand):
    share = formulas.commitment_break_even(committed, on_demand)
    assert formulas.committed_usd_per_useful_hour(committed, share) == pytest.approx(on_demand)


@settings(deadline=None)
@given(
    st.floats(1, 1e6), at_most(10), st.floats(0.01, 10), st.floats(-5, 5), at_most(1e4), MONEY, MONEY,
    st.floats(1, 120), A_RATE,
)  # fmt: skip
def test_net_present_value_is_zero_at_the_break_even_accuracy(
    items, right, wrong, today, serving, upkeep, upfront, months, rate
):
    annuity = formulas.annuity_months(months, rate)
    accuracy = formulas.break_even_accuracy(items, right, wrong, today, serving, upkeep, upfront, annuity)
    item = formulas.usd_per_item(accuracy, right, wrong)
    benefit = formulas.monthly_benefit_usd(items, item, today, serving, upkeep)
    scale = upfront + annuity * (upkeep + items * (abs(item) + abs(today) + right + wrong + serving / 1e6))
    assert abs(formulas.net_present_value_usd(benefit, upfront, annuity)) <= 1e-9 * scale


@settings(deadline=None)
@given(st.floats(0.001, 10), at_most(1e3), MONEY, MONEY, st.floats(1, 120), A_RATE)
def test_net_present_value_is_zero_at_the_break_even_volume(each, serving, upkeep, upfront, months, rate):
    annuity = formulas.annuity_months(months, rate)
    item = each + serving / 1e6
    items = formulas.break_even_items(item, 0.0, serving, upkeep, upfront, annuity)
    benefit = formulas.monthly_benefit_usd(items, item, 0.0, serving, upkeep)
    scale = upfront + annuity * (upkeep + items * item)
    assert abs(formulas.net_present_value_usd(benefit, upfront, annuity)) <= 1e-9 * scale


@settings(deadline=None)
@given(st.floats(1, 360), A_RATE)
def test_an_annuity_is_at_most_the_number_of_months(months, rate):
    found = formulas.annuity_months(months, rate)
    assert 0 < found <= months * (1 + 1e-12)
