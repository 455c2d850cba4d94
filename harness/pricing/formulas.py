"""Every formula between seconds, prices and dollars (pure; formulas_js.py translates this file for the report's page).

Each function takes plain numbers and returns a number, or None if the result is undefined. Names end with their unit;
a `_fraction` is from 0 to 1. Both languages reproduce the hand-computed cases of tests/fixtures/costs.json to 1e-9.
"""

from __future__ import annotations

import math

SECONDS_PER_HOUR = 3600.0
HOURS_PER_YEAR = 8760.0  # 365 days
MONTHS_PER_YEAR = 12
JOULES_PER_KWH = 3.6e6


def usd_of_seconds(usd_per_hour: float, seconds: float | None) -> float | None:
    """Return USD = USD/h / 3600 s/h x s; None without seconds."""
    return None if seconds is None else usd_per_hour / SECONDS_PER_HOUR * seconds


def usd_per_1000_samples(usd_per_hour: float, samples_per_s: float | None) -> float | None:
    """Return USD = USD/h / 3600 s/h x 1000 / (samples/s); None without a throughput."""
    return usd_per_hour / SECONDS_PER_HOUR * 1000 / samples_per_s if samples_per_s else None


def discounted(usd_per_hour: float, discount_percent: float) -> float:
    """Return USD/h = list price x (1 - discount / 100)."""
    return usd_per_hour * (1 - discount_percent / 100)


def usd_per_hour_of_nodes(usd_per_hour: float, num_nodes: float) -> float:
    """Return USD/h of all machines that train together = USD/h of one x machines."""
    return usd_per_hour * num_nodes


def converted(usd: float, per_usd: float) -> float:
    """Return an amount in another currency = USD x its units per USD."""
    return usd * per_usd


def share(usd_per_hour: float, num_used: float, num_gpus: float) -> float:
    """Return USD/h of the GPUs in use = USD/h of the machine x GPUs in use / GPUs of the machine.

    This assumes that other jobs pay for the other GPUs, since providers rent out whole machines only.
    """
    return usd_per_hour * num_used / num_gpus


def billed_seconds(work_s: float, before_s: float, minimum_s: float, granularity_s: float) -> float:
    """Return the seconds on the bill: set-up and work, at least the minimum, rounded up to whole billing units.

    Args:
        work_s: Seconds of work.
        before_s: Seconds of start-up and set-up before the work.
        minimum_s: The provider's minimum, in seconds.
        granularity_s: The provider's billing unit, in seconds.
    """
    seconds = max(work_s + before_s, minimum_s)
    # Without the 1e-9, a rounding error in the sum could add a billing unit.
    return math.ceil(seconds / granularity_s - 1e-9) * granularity_s


def spot_seconds(
    work_s: float, interruptions_per_hour: float, checkpoint_every_s: float, checkpoint_s: float, restart_s: float
) -> float | None:
    """Return the expected seconds of a job on spot machines, where an interruption loses the work since a checkpoint.

    Interruptions are a Poisson process of rate r, during restarts too. The work is cut into segments, each of which
    ends with a checkpoint, except the last. A segment of s seconds, checkpoint included, is expected to take
    e^(r R) (e^(r s) - 1) / r, where the R seconds of a restart cover start-up, set-up and loading the checkpoint.

    Source: J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, Future Generation
    Computer Systems 22 (2006), equation for exponential failures.

    Args:
        work_s: Seconds of work without interruptions.
        interruptions_per_hour: Rate of interruptions.
        checkpoint_every_s: Seconds of work between checkpoints.
        checkpoint_s: Seconds to write a checkpoint.
        restart_s: Seconds of a restart.

    Returns:
        Seconds; None if the work would never end (the sum overflows).
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
            # Without whole segments, leave out their term, which would overflow for a very long checkpoint interval.
            segments = (num_whole * math.expm1(rate * whole_s) if num_whole else 0.0) + math.expm1(rate * last_s)
            expected = math.exp(rate * restart_s) * segments / rate
    except OverflowError:
        return None
    return expected if math.isfinite(expected) else None


def own_usd_per_hour(fixed_usd_per_hour: float, running_usd_per_hour: float, utilisation_fraction: float) -> float:
    """Return USD per useful hour of the user's own machine = fixed USD/h / share of hours in use + running USD/h."""
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
    """Return the cost of owning a machine for an hour, whether in use or not.

    USD/h = ((purchase - resale) / years + hosting + staff) / 8760 h + idle watts / 1000 x PUE x USD/kWh.

    Args:
        purchase_usd: Purchase price.
        resale_usd: Resale value after `years`.
        years: Years of use.
        idle_watts: Power draw while idle.
        pue: Power usage effectiveness of the site.
        usd_per_kwh: Price of electricity.
        hosting_usd_per_year: Hosting cost.
        staff_usd_per_year: Staff cost.
    """
    yearly = (purchase_usd - resale_usd) / years + hosting_usd_per_year + staff_usd_per_year
    return yearly / HOURS_PER_YEAR + idle_watts / 1000 * pue * usd_per_kwh


def own_running_usd_per_hour(busy_watts: float, idle_watts: float, pue: float, usd_per_kwh: float) -> float:
    """Return the cost that an hour of use adds to the fixed cost: USD/h = watts above idle / 1000 x PUE x USD/kWh.

    Args:
        busy_watts: Power draw while in use.
        idle_watts: Power draw while idle.
        pue: Power usage effectiveness of the site.
        usd_per_kwh: Price of electricity.
    """
    return (busy_watts - idle_watts) / 1000 * pue * usd_per_kwh


def break_even_utilisation(
    fixed_usd_per_hour: float, running_usd_per_hour: float, rent_usd_per_hour: float
) -> float | None:
    """Return the share of hours in use from which owning costs no more than renting: fixed / (rent - running).

    A share above 1 means that renting is always cheaper. None if running alone costs as much as renting or more.
    """
    margin = rent_usd_per_hour - running_usd_per_hour
    return fixed_usd_per_hour / margin if margin > 0 else None


def commitment_break_even(committed_usd_per_hour: float, on_demand_usd_per_hour: float) -> float:
    """Return the share of hours in use from which a commitment, paid for every hour, costs no more than on demand."""
    return committed_usd_per_hour / on_demand_usd_per_hour


def committed_usd_per_useful_hour(committed_usd_per_hour: float, utilisation_fraction: float) -> float:
    """Return USD per useful hour of a commitment = USD/h / share of hours in use."""
    return committed_usd_per_hour / utilisation_fraction


def usd_per_month(usd_per_run: float, runs_per_month: float, trials_per_kept: float, idle_usd: float) -> float:
    """Return USD/month = USD/run x models kept per month x runs per kept model + idle cost.

    Args:
        usd_per_run: Cost of a run.
        runs_per_month: Models kept per month.
        trials_per_kept: Runs per kept model.
        idle_usd: Cost of idle hours per month.
    """
    return usd_per_run * runs_per_month * trials_per_kept + idle_usd


def usd_to_have(
    billed_usd: float,
    num_trainings: float,
    num_texts: float,
    usd_per_million: float,
    num_labels: float,
    label_usd: float,
) -> float:
    """Return the cost of having a model = bill of a training x trainings + texts x price of a label + labels to buy.

    Args:
        billed_usd: Bill of one training.
        num_trainings: Trainings over the period.
        num_texts: Texts that are labelled over the period.
        usd_per_million: Cost of a million predictions.
        num_labels: Labelled examples to buy.
        label_usd: Price of a labelled example.
    """
    return billed_usd * num_trainings + num_texts * usd_per_million / 1e6 + num_labels * label_usd


def usd_per_accuracy_point(usd: float, accuracy: float, baseline_accuracy: float) -> float | None:
    """Return USD per percentage point of accuracy above a baseline; None if accuracy is not above it."""
    points = (accuracy - baseline_accuracy) * 100
    return usd / points if points > 0 else None


def usd_per_million_predictions(
    usd_per_hour: float, predictions_per_s: float | None, utilisation_fraction: float
) -> float | None:
    """Return USD = USD/h / 3600 / (predictions/s x share of time in use) x 1,000,000; None without a speed."""
    if not predictions_per_s:
        return None
    return usd_per_hour / SECONDS_PER_HOUR / (predictions_per_s * utilisation_fraction) * 1e6


def joules_of_watts(watts: float, seconds: float) -> float:
    """Return J = W x s."""
    return watts * seconds


def kwh(joules: float, pue: float) -> float:
    """Return energy at the site's meter: kWh = J / 3.6e6 x PUE."""
    return joules / JOULES_PER_KWH * pue


def gco2e(energy_kwh: float, gco2e_per_kwh: float) -> float:
    """Return grams of CO2 equivalent = kWh x the grid's emission factor."""
    return energy_kwh * gco2e_per_kwh


def usd_of_kwh(energy_kwh: float, usd_per_kwh: float) -> float:
    """Return USD = kWh x USD/kWh."""
    return energy_kwh * usd_per_kwh


def invoice_ratio(invoice_usd: float, estimate_usd: float) -> float | None:
    """Return the amount paid divided by the amount estimated; None if the estimate is 0."""
    return invoice_usd / estimate_usd if estimate_usd > 0 else None


def mean_cost_of_wrong_usd(
    false_positive_fraction: float, false_negative_fraction: float, false_positive_usd: float, false_negative_usd: float
) -> float:
    """Return the mean cost of a wrong label in the measured mix of errors; the plain mean if there are no errors.

    Args:
        false_positive_fraction: False positives as a share of all examples.
        false_negative_fraction: False negatives as a share of all examples.
        false_positive_usd: Cost of a false positive.
        false_negative_usd: Cost of a false negative.
    """
    wrong = false_positive_fraction + false_negative_fraction
    if wrong <= 0:
        return (false_positive_usd + false_negative_usd) / 2
    return (false_positive_fraction * false_positive_usd + false_negative_fraction * false_negative_usd) / wrong


def usd_per_item(accuracy: float, right_usd: float, wrong_usd: float) -> float:
    """Return the value of a labelled item: accuracy x value if right - (1 - accuracy) x cost if wrong."""
    return accuracy * right_usd - (1 - accuracy) * wrong_usd


def monthly_benefit_usd(
    items_per_month: float,
    usd_an_item: float,
    today_usd_an_item: float,
    serving_usd_per_million: float,
    upkeep_usd_per_month: float,
) -> float:
    """Return USD/month = items x (value per item - today's value per item - serving) - upkeep.

    Args:
        items_per_month: Items to label per month.
        usd_an_item: Value of an item with the model's label.
        today_usd_an_item: Value of an item as it is labelled today.
        serving_usd_per_million: Cost of a million predictions.
        upkeep_usd_per_month: Cost of retraining per month.
    """
    each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1e6
    return items_per_month * each - upkeep_usd_per_month


def upfront_usd(
    training_usd: float, num_labels: float, label_usd: float, engineering_hours: float, engineering_usd_per_hour: float
) -> float:
    """Return the cost before the first item = first training + labels to buy + engineering.

    Args:
        training_usd: Cost of the first training with its trials.
        num_labels: Labels to buy.
        label_usd: Price of a label.
        engineering_hours: Hours of engineering.
        engineering_usd_per_hour: Cost of an engineering hour.
    """
    return training_usd + num_labels * label_usd + engineering_hours * engineering_usd_per_hour


def annuity_months(horizon_months: float, discount_fraction_per_year: float) -> float:
    """Return the present value of one dollar at the end of each month of the horizon.

    (1 - (1 + i)^-n) / i with the monthly rate i = (1 + yearly rate)^(1/12) - 1; n if the rate is 0.
    """
    # expm1 and log1p keep the digits that 1 - (1 + i)^-n would lose for a small i.
    log_monthly = math.log1p(discount_fraction_per_year) / MONTHS_PER_YEAR
    if log_monthly == 0:
        return horizon_months
    return -math.expm1(-log_monthly * horizon_months) / math.expm1(log_monthly)


def net_present_value_usd(benefit_usd_per_month: float, upfront: float, annuity: float) -> float:
    """Return the present value = monthly benefit x annuity - upfront cost."""
    return benefit_usd_per_month * annuity - upfront


def payback_months(benefit_usd_per_month: float, upfront: float) -> float | None:
    """Return the months until benefits equal the upfront cost, undiscounted; None without a benefit."""
    return upfront / benefit_usd_per_month if benefit_usd_per_month > 0 else None


def return_fraction(benefit_usd_per_month: float, upfront: float, horizon_months: float) -> float | None:
    """Return (benefits over the horizon - upfront cost) / upfront cost, undiscounted; None without an upfront cost."""
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
    """Return the accuracy at which the net present value is 0, with an unchanged mix of errors.

    Args:
        items_per_month: Items to label per month.
        right_usd: Value of a right label.
        wrong_usd: Cost of a wrong label.
        today_usd_an_item: Value of an item as it is labelled today.
        serving_usd_per_million: Cost of a million predictions.
        upkeep_usd_per_month: Cost of retraining per month.
        upfront: Upfront cost, in USD.
        annuity: Present value of a dollar a month (see `annuity_months`).

    Returns:
        The accuracy: above 1, no model pays; at or below 0, every model pays. None without items, or if right and wrong
        labels are worth the same.
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
    """Return the items per month at which the net present value is 0; None if an item has no positive net value.

    Args:
        usd_an_item: Value of an item with the model's label.
        today_usd_an_item: Value of an item as it is labelled today.
        serving_usd_per_million: Cost of a million predictions.
        upkeep_usd_per_month: Cost of retraining per month.
        upfront: Upfront cost, in USD.
        annuity: Present value of a dollar a month (see `annuity_months`).
    """
    each = usd_an_item - today_usd_an_item - serving_usd_per_million / 1e6
    if each <= 0 or annuity <= 0:
        return None
    return (upfront / annuity + upkeep_usd_per_month) / each
