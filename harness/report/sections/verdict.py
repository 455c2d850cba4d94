"""The verdict on the chosen way, what it rests on, and what to measure next, in sentences (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.estimate import Estimate, value_of
from harness.decision.choice import Choice
from harness.decision.measure_next import Measurement
from harness.decision.verdict import SERIOUS_LOSS, Reason
from harness.decision.ways import Kind, Way
from harness.pricing.cost import Priced
from harness.report.formatting import (
    MoneyFormat,
    clean,
    interval,
    listed,
    percent,
    plural,
    points,
    seconds,
    with_interval,
)
from harness.report.labels import basis_word, common_values, describe, disagrees, machine_labels

BASELINE_KINDS: tuple[Kind, ...] = ("features", "tfidf", "majority")
BASELINE_NAMES = {
    "majority": "the most common class",
    "tfidf": "TF-IDF with logistic regression",
    "features": "the frozen encoder's features with logistic regression",
    "hosted": "the hosted model",
}
# By plan, the text after the hourly price; on demand is the default and not mentioned.
PLAN_TEXTS = {"on_demand": "", "spot": " on spot machines", "committed": " in use of a commitment", "own": " in use"}


def verdict_sentences(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """Write the verdict, then its reasons, the alternatives, the baselines, the evidence, and what to measure next."""
    return [
        _lead(cells, choice, money),
        *_reasons(choice),
        *_loss(choice),
        *_unranked_costs(choice),
        *_alternatives(cells, choice, money),
        *_against_baselines(choice),
        *_evidence(choice),
        *(_next_step(step, cells, choice, money) for step in choice.verdict.measure_next),
    ]


def way_text(way: Way, cells: Sequence[Priced]) -> str:
    """Name a way: a baseline, a hosted model, or a configuration with its machine if there are several."""
    if way.kind != "fine_tune" or way.cell is None:
        return BASELINE_NAMES[way.kind]
    machines = machine_labels(cells)
    where = f" on {machines[way.cell.summary.machine_id]}" if len(machines) > 1 else ""
    return f"{describe(way.cell, common_values(cells))}{where}"


def _lead(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> str:
    way, kind = choice.way, choice.verdict.kind
    if way is None:
        return {"do not use yet": "Do not use any of these yet.", "measure more": "Measure more before you decide."}[
            kind
        ]
    name = way_text(way, cells)
    figures = f"{_cost(way, choice, money)}, for {_score(way.score)} {_metric(choice)}"
    if kind == "use":
        return f"Use {name}: {figures}."
    if kind == "measure more":
        return f"Measure more before you decide. So far the choice is {name}: {figures}."
    if way.kind == "majority":
        return f"Do not use any of these yet. {name.capitalize()} costs nothing and gets {_score(way.score)}."
    return f"Do not use it yet: {name}: {figures}."


def _cost(way: Way, choice: Choice, money: MoneyFormat) -> str:
    """State what having the way costs and its hourly price, or its duration and why the cost is not known."""
    if way.cell is None:
        return money.amount(value_of(way.usd))
    if way.usd is None:
        missing = clean(way.cell.missing or "no price was found")
        return f"{seconds(way.seconds)} a run; dollars are not known ({missing})"
    each = "billed for a training" if choice.use.num_trainings == 1 and not choice.use.num_texts else "in all"
    months = f" over {choice.use.months:g} months" if choice.use.months is not None else ""
    return f"{money.amount(way.usd.value)} {each}{months}{price_clause(way.cell, money)}"


def price_clause(cell: Priced, money: MoneyFormat) -> str:
    """State the hourly price and how it is known, in brackets; the clause follows an amount."""
    price = cell.price
    if price is None:
        return ""
    article = "an" if basis_word(price)[0] in "aeiou" else "a"
    name = f", {clean(price.instance)}" if price.instance else ""
    doubt = "; the stated and the seen hardware disagree" if disagrees(price) else ""
    hourly = f"{money.hourly(price.usd_per_hour)} an hour{each_machine(cell.num_nodes)}{PLAN_TEXTS[price.plan]}"
    return f" (at {article} {basis_word(price)} {hourly}{name}{doubt})"


def each_machine(num_nodes: int) -> str:
    """Say that an hourly price is paid for each of several machines; empty for one."""
    return f" for each of {num_nodes} machines" if num_nodes > 1 else ""


def _metric(choice: Choice) -> str:
    return "test accuracy" if choice.goal.metric == "accuracy" else "macro F1"


def _score(score: Estimate) -> str:
    return with_interval(percent(score.value), interval(score, "percent"))


def _reasons(choice: Choice) -> Iterator[str]:
    for reason in choice.verdict.reasons:
        yield _reason(reason, choice)


def _reason(reason: Reason, choice: Choice) -> str:
    goal, best = choice.goal, choice.best
    target = percent(goal.target)
    texts = {
        "no_accuracy": "No accuracy was measured.",
        "requirements_missed": "Nothing that was measured meets all requirements.",
        "majority_not_beaten": f"Nothing is shown to beat always answering with the most common class ({percent(choice.majority)}).",
        "loses_money": "By the values that you gave it loses money.",
        "target_missed": f"Nothing reaches {target}: the best gets {_score(best.score) if best else ''}.",
        "target_uncertain": f"Whether it reaches {target} is not certain: its interval reaches below.",
        "loss_not_excluded": (
            f"A loss of more than {points(SERIOUS_LOSS * goal.tolerance)}, twice what is tolerated, is not excluded."
        ),
        "baseline_missing": f"Missing: {listed([BASELINE_NAMES[name] for name in reason.details if name in BASELINE_NAMES])}, "
        "which may do as well for less.",
        "alarm": " ".join(reason.details),
    }
    return texts[reason.kind]


def _loss(choice: Choice) -> Iterator[str]:
    """State what the chosen way loses against the best, and the largest loss that is not excluded."""
    way, num_ways = choice.way, len(choice.ways)
    if way is None or way.loss is None or choice.goal.target is not None or num_ways < 2:  # noqa: PLR2004
        return
    tolerance, least = points(choice.goal.tolerance), "cheapest" if choice.in_dollars else "fastest"
    if len(choice.admitted) == 1:
        others = "The other way is not" if num_ways == 2 else f"No other of the {num_ways} ways is"  # noqa: PLR2004
        yield f"{others} expected to come within {tolerance} of it."
    else:
        yield f"It is the {least} of the {len(choice.admitted)} ways (of {num_ways}) that are expected to lose at most {tolerance}."
    if way.loss.largest > 0:
        yield f"Its own expected loss against the best is {points(way.loss.mean)}, and at most {points(way.loss.largest)} (95% confidence)."


def _unranked_costs(choice: Choice) -> Iterator[str]:
    """State that time decided although costs are known, because machines are not ranked by example prices."""
    if choice.way is not None and choice.way.usd is not None and not choice.in_dollars:
        yield "Prices are examples, so machines are ranked by the time of a run, not by cost. State your prices."


def _alternatives(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Iterator[str]:
    """Name the runner-up, and what more money buys."""
    way, runner_up, upgrade = choice.way, choice.runner_up, choice.upgrade
    if way is None:
        return
    if runner_up is not None:
        cost = money.amount(runner_up.usd.value) if runner_up.usd else seconds(runner_up.seconds)
        level = ", with no significant difference in cost" if runner_up.cell in choice.level else ""
        yield f"Runner-up: {way_text(runner_up, cells)}, {cost}, {_score(runner_up.score)}{level}."
    if upgrade is not None:
        more = f"for {money.amount(upgrade.usd)} more" if upgrade.usd is not None else "for more time"
        price = upgrade.usd_per_point
        each = ""
        if price is not None:
            least = f", at least {money.amount(price.low)}" if price.low is not None else ""
            end = f" ({money.interval(price)})" if price.high is not None else least
            each = f", {money.amount(price.value)} a point{end}"
        name = "the runner-up" if upgrade.way is runner_up else way_text(upgrade.way, cells)
        yield f"What more money buys: {_gain(upgrade.gain)} with {name}, {more}{each}."


def _gain(gain: Estimate) -> str:
    low, high = gain.low, gain.high
    ends = "" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
    return with_interval(points(gain.value), ends)


def _against_baselines(choice: Choice) -> Iterator[str]:
    """Compare the chosen way with the baselines on the same test examples."""
    way = choice.way
    if way is None or way.kind in ("majority", "hosted"):
        return
    compared = []
    for kind in BASELINE_KINDS:
        other = choice.best_of(kind)
        difference = choice.difference(other)
        if other is not None and other is not way and difference is not None:
            compared.append(f"{_gain(difference)} over {BASELINE_NAMES[kind]} ({percent(other.score.value)})")
    if compared:
        yield f"It gets {listed(compared)}."


def _evidence(choice: Choice) -> Iterator[str]:
    """State how much was measured: test examples, runs, seeds and hosts."""
    way = choice.way
    if way is None or way.cell is None or way.scores is None:
        return
    runs = way.cell.summary.ok_records
    hosts = {run.machine.host for run in runs}
    whose = ""
    if way.has_seed:
        whose = ", so it is about this trained model" if way.num_seeds == 1 else ", so it is about the recipe"
    seeds = f", {plural(way.num_seeds, 'seed')}" if way.has_seed else ""
    yield (
        f"It rests on {plural(way.scores.shape[1], 'test example')}, {plural(len(runs), 'run')}{seeds} and "
        f"{plural(len(hosts), 'host')}{whose}."
    )


def _next_step(step: Measurement, cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> str:
    """Say what to measure, and what that takes."""
    cost = money.amount(step.usd) if step.usd is not None else ""
    takes = [part for part in (seconds(step.seconds) if step.seconds else "", cost) if part]
    effort = f" (about {' and '.join(takes)})" if takes else ""
    names = {way.name: way_text(way, cells) for way in choice.ways if way.name in step.cells}
    which = listed([names.get(name, name) for name in step.cells])
    if step.kind == "baselines":
        names_of = [BASELINE_NAMES.get(name, name) for name in step.cells]
        limit = f" (at most {' and '.join(takes)})" if takes else ""
        return f"Measure next: {listed(names_of)}, on the same data{limit}."
    if step.kind == "accuracy":
        return "Measure next: another model, more training rows or more epochs; more seeds or test examples of these would not help."
    settings = f" with {' and '.join(step.settings)}" if step.settings else ""
    return f"Measure next: {which}{settings}{effort}."


def tfidf_cost(choice: Choice, money: MoneyFormat) -> str:
    """State what the TF-IDF baseline costs; empty if that is not known."""
    cell = choice.tfidf
    if cell is None or cell.usd_per_run is None:
        return ""
    basis = f" ({basis_word(cell.price)} price)" if cell.price is not None else ""
    return f"TF-IDF with logistic regression, {money.amount(cell.usd_per_run.value)} a run{basis}"
