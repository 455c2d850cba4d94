"""Every formula between seconds, prices and dollars, once (pure; report/formulas.js says the same to a browser).

Each takes plain numbers and gives one, or None where there is no such figure. The units end the names; `_fraction`
is 0 to 1. tests/fixtures/costs.json holds cases worked out by hand, on which both languages are tested to 1e-9.
"""

from __future__ import annotations

import math

SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8760.0  # 365 days
MONTHS_PER_YEAR = 12
JOULES_PER_KWH = 3.6e6


def usd_of_seconds(usd_per_hour: float, seconds: float | None) -> float | None:
    """USD = USD/h / 3600 s/h x s; None without seconds."""
    return None if seconds is None else usd_per_hour / SECONDS_PER_HOUR * seconds


def usd_per_1000_samples(usd_per_hour: float, samples_per_s: float | None) -> float | None:
    """USD = USD/h / 3600 s/h x 1000 / (samples/s); None without a speed."""
    return usd_per_hour / SECONDS_PER_HOUR * 1000 / samples_per_s if samples_per_s else None


def discounted(usd_per_hour: float, discount_percent: float) -> float:
    """USD/h = list price x (1 - discount / 100)."""
    return usd_per_hour * (1 - discount_percent / 100)


def converted(usd: float, per_usd: float) -> float:
    """An amount in another currency = USD x its units per USD."""
    return usd * per_usd


def share(usd_per_hour: float, num_used: float, num_gpus: float) -> float:
    """USD/h of the GPUs in use = USD/h of the machine x GPUs in use / GPUs of the machine.

    What they would cost if the others earned their own share; nobody rents a machine out that way by itself.
    """
    return usd_per_hour * num_used / num_gpus


def billed_seconds(work_s: float, before_s: float, minimum_s: float, granularity_s: float) -> float:
    """Seconds on the bill: work and what comes before it, at least the minimum, rounded up to whole units of billing."""
    seconds = max(work_s + before_s, minimum_s)
    # A whole number of units must not become one more by the last bit of a sum.
    return math.ceil(seconds / granularity_s - 1e-9) * granularity_s


def spot_seconds(
    work_s: float, interruptions_per_hour: float, checkpoint_every_s: float, checkpoint_s: float, restart_s: float
) -> float | None:
    """Expected seconds of `work_s` on machines that are taken away at random, each loss costing the work since a checkpoint.

    None where they would never end: the sum is beyond any number of seconds.

    Interruptions come as a Poisson process of rate r, in restarts too. A piece of s seconds between two checkpoints
    (its own checkpoint included; the last piece has none) is expected to take e^(r R) (e^(r s) - 1) / r, where R is
    the restart: start-up, set-up and loading the checkpoint.

    Source: J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, Future Generation
    Computer Systems 22 (2006), equation for exponential failures.
    """
    if work_s <= 0:
        return 0.0
    try:
        num_whole = max(math.ceil(work_s / checkpoint_every_s - 1e-9) - 1, 0)
        last_s = work_s - num_whole * checkpoint_every_s
        whole_s = checkpoint_every_s + checkpoint_s
        rate = interruptions_per_hour / SECONDS_PER_HOUR
        if rate <= 0:
            expected = num_whole * whole_s + last_s
        else:
            # Without a whole piece its length is nobody's matter: it may be set so long that no number holds its term.
            pieces = (num_whole * math.expm1(rate * whole_s) if num_whole else 0.0) + math.expm1(rate * last_s)
            expected = math.exp(rate * restart_s) * pieces / rate
    except OverflowError:
        return None
    return expected if math.isfinite(expected) else None


def own_usd_per_hour(fixed_usd_per_hour: float, running_usd_per_hour: float, utilisation_fraction: float) -> float:
    """USD per useful hour of a machine of one's own = fixed / share of all hours in use + running."""
    return fixed_usd_per_hour / utilisation_fraction + running_usd_per_hour


def own_fixed_usd_per_hour(
    purchase_usd: float,
    resale_usd: float,
    years: float,
    idle_watts: float,
    pue: float,
    usd_per_kwh: float,
    hosting_usd_per_year: float,
    staff_usd_per_year: float,
) -> float:
    """USD that an hour of owning costs, used or not.

    ((purchase - resale) / years + hosting + staff) / 8760 h + idle watts / 1000 x PUE x USD/kWh.
    """
    yearly = (purchase_usd - resale_usd) / years + hosting_usd_per_year + staff_usd_per_year
    return yearly / HOURS_PER_YEAR + idle_watts / 1000 * pue * usd_per_kwh


def own_running_usd_per_hour(busy_watts: float, idle_watts: float, pue: float, usd_per_kwh: float) -> float:
    """USD that an hour of use adds to an hour of owning: the watts above idle, / 1000 x PUE x USD/kWh."""
    return (busy_watts - idle_watts) / 1000 * pue * usd_per_kwh


def break_even_utilisation(
    fixed_usd_per_hour: float, running_usd_per_hour: float, rent_usd_per_hour: float
) -> float | None:
    """Share of all hours that must be useful for owning to cost as little as renting those hours alone.

    fixed / (rent - running); above 1 renting is always cheaper, and None where running alone costs the rent.
    """
    margin = rent_usd_per_hour - running_usd_per_hour
    return fixed_usd_per_hour / margin if margin > 0 else None


def commitment_break_even(committed_usd_per_hour: float, on_demand_usd_per_hour: float) -> float:
    """Share of all hours that must be used for a commitment, paid for every hour, to cost as little as on demand."""
    return committed_usd_per_hour / on_demand_usd_per_hour


def committed_usd_per_useful_hour(committed_usd_per_hour: float, utilisation_fraction: float) -> float:
    """USD per useful hour of a commitment that is paid for every hour and used in a share of them."""
    return committed_usd_per_hour / utilisation_fraction


def usd_per_month(usd_per_run: float, runs_per_month: float, trials_per_kept: float, idle_usd: float) -> float:
    """USD/month = USD/run x kept models a month x runs for each kept one + what is paid while nothing runs."""
    return usd_per_run * runs_per_month * trials_per_kept + idle_usd


def usd_per_accuracy_point(usd: float, accuracy: float, baseline_accuracy: float) -> float | None:
    """USD for each hundredth of accuracy above a baseline; None where there is none above."""
    points = (accuracy - baseline_accuracy) * 100
    return usd / points if points > 0 else None


def usd_per_million_predictions(
    usd_per_hour: float, predictions_per_s: float | None, utilisation_fraction: float
) -> float | None:
    """USD = USD/h / 3600 / (predictions/s x share of the time in use) x 1,000,000; None without a speed."""
    if not predictions_per_s:
        return None
    return usd_per_hour / SECONDS_PER_HOUR / (predictions_per_s * utilisation_fraction) * 1e6


def joules_of_watts(watts: float, seconds: float) -> float:
    """J = W x s."""
    return watts * seconds


def kwh(joules: float, pue: float) -> float:
    """Energy at the meter: kWh = J / 3.6e6 x PUE."""
    return joules / JOULES_PER_KWH * pue


def gco2e(energy_kwh: float, gco2e_per_kwh: float) -> float:
    """Grams of CO2 equivalent = kWh x the grid's factor."""
    return energy_kwh * gco2e_per_kwh


def usd_of_kwh(energy_kwh: float, usd_per_kwh: float) -> float:
    """USD = kWh x USD/kWh."""
    return energy_kwh * usd_per_kwh


def invoice_ratio(invoice_usd: float, estimate_usd: float) -> float | None:
    """What was paid over what was estimated; None where the estimate is nothing."""
    return invoice_usd / estimate_usd if estimate_usd > 0 else None


def mean_cost_of_wrong_usd(
    false_positive_fraction: float, false_negative_fraction: float, false_positive_usd: float, false_negative_usd: float
) -> float:
    """USD of one wrong label on average, in the mix of errors that was measured; without errors, the plain mean."""
    wrong = false_positive_fraction + false_negative_fraction
    if wrong <= 0:
        return (false_positive_usd + false_negative_usd) / 2
    return (false_positive_fraction * false_positive_usd + false_negative_fraction * false_negative_usd) / wrong


def usd_per_item(accuracy: float, right_usd: float, wrong_usd: float) -> float:
    """USD that one labelled item is worth = accuracy x value of a right label - (1 - accuracy) x cost of a wrong one."""
    return accuracy * right_usd - (1 - accuracy) * wrong_usd


def monthly_benefit_usd(
    items_per_month: float,
    usd_an_item: float,
    today_usd_an_item: float,
    serving_usd_per_million: float,
    upkeep_usd_per_month: float,
) -> float:
    """USD/month = items x (worth of its label - worth of today's - serving) - upkeep (re-training)."""
    each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1e6
    return items_per_month * each - upkeep_usd_per_month


def upfront_usd(
    training_usd: float, num_labels: float, label_usd: float, engineering_hours: float, engineering_usd_per_hour: float
) -> float:
    """USD before the first item = first training + labels to buy + engineering."""
    return training_usd + num_labels * label_usd + engineering_hours * engineering_usd_per_hour


def annuity_months(horizon_months: float, discount_fraction_per_year: float) -> float:
    """Today's worth of a dollar at the end of each month of the horizon, in dollars.

    (1 - (1 + i)^-n) / i with the monthly rate i = (1 + yearly rate)^(1/12) - 1; n without a discount.
    """
    # expm1 and log1p, since 1 - (1 + i)^-n of a small i keeps few digits.
    log_monthly = math.log1p(discount_fraction_per_year) / MONTHS_PER_YEAR
    if log_monthly == 0:
        return horizon_months
    return -math.expm1(-log_monthly * horizon_months) / math.expm1(log_monthly)


def net_present_value_usd(benefit_usd_per_month: float, upfront: float, annuity: float) -> float:
    """USD today = monthly benefit x annuity - what is paid before."""
    return benefit_usd_per_month * annuity - upfront


def payback_months(benefit_usd_per_month: float, upfront: float) -> float | None:
    """Months until the benefits have paid what was paid before, undiscounted; None where there is no benefit."""
    return upfront / benefit_usd_per_month if benefit_usd_per_month > 0 else None


def return_fraction(benefit_usd_per_month: float, upfront: float, horizon_months: float) -> float | None:
    """(Benefits of the horizon - what was paid before) / what was paid before, undiscounted; None if nothing was."""
    return (benefit_usd_per_month * horizon_months - upfront) / upfront if upfront > 0 else None


def break_even_accuracy(
    items_per_month: float,
    right_usd: float,
    wrong_usd: float,
    today_usd_an_item: float,
    serving_usd_per_million: float,
    upkeep_usd_per_month: float,
    upfront: float,
    annuity: float,
) -> float | None:
    """The accuracy at which the net present value is 0, the mix of errors unchanged.

    Above 1 no model pays, at or below 0 any does; None where a right label is worth no more than a wrong one, or
    there are no items.
    """
    spread = items_per_month * (right_usd + wrong_usd)
    if spread <= 0 or annuity <= 0:
        return None
    needed = upfront / annuity + upkeep_usd_per_month
    return (needed + items_per_month * (today_usd_an_item + serving_usd_per_million / 1e6 + wrong_usd)) / spread


def break_even_items(
    usd_an_item: float,
    today_usd_an_item: float,
    serving_usd_per_million: float,
    upkeep_usd_per_month: float,
    upfront: float,
    annuity: float,
) -> float | None:
    """Items a month at which the net present value is 0; None where an item brings nothing."""
    each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1e6
    if each <= 0 or annuity <= 0:
        return None
    return (upfront / annuity + upkeep_usd_per_month) / each
