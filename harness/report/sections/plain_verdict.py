"""The verdict for someone who decides, in plain sentences, and the alternatives in a short table (pure).

assets/decision.js writes the same sentences for the reader's prices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.estimate import value_of
from harness.decision.choice import Choice
from harness.decision.measure_next import Measurement
from harness.decision.verdict import SERIOUS_LOSS
from harness.decision.ways import Kind, Way
from harness.pricing.cost import Priced
from harness.pricing.prices import Price
from harness.report.formatting import (
    MoneyFormat,
    clean,
    date_text,
    interval,
    listed,
    percent,
    plural,
    points,
    seconds,
    with_interval,
)
from harness.report.labels import cell_indices, common_values, machine_labels, plain_description
from harness.report.sections.verdict import BASELINE_KINDS, PLAN_TEXTS, each_machine
from harness.report.table import Field, Row, Table, join_lines, table, text_field

PLAIN_NAMES: dict[Kind, str] = {
    "majority": "always the most common answer",
    "tfidf": "counting words",
    "features": "the model without training",
    "hosted": "the hosted model",
}
HEADS = ("way", "texts right", "a training, on the bill", "takes", "points against the choice")
MAX_ALTERNATIVES = 5
_NAMED_BASELINES: tuple[Kind, ...] = ("features", "tfidf")
_SECONDS_DECIDED = "Example prices rank no machines, so the fastest was chosen. "
_DONE = "Next: train it. The choice needs no more measurements."
_NOTHING_TO_MEASURE = "Next: check the values that you gave. No measurement would change this."


def plain_sentences(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """Write what to use and where, what it costs, how good and how certain it is, and what to do next."""
    leads = {
        "use": "Use {}.",
        "do not use yet": "Do not use it yet: {}.",
        "measure more": "Measure more before you decide. So far the choice is {}.",
    }
    way = choice.way
    if way is None or way.kind == "majority":
        lead = (
            "Do not use any of these yet."
            if choice.verdict.kind == "do not use yet"
            else "Measure more before you decide."
        )
        return [lead, *_best(cells, choice, money), *_reasons(choice), *_next_steps(cells, choice, money)]
    return [
        leads[choice.verdict.kind].format(f"{plain_name(way, cells)}{_place(way, cells, money)}"),
        *_cost(way, choice, money),
        _quality(way, choice),
        *_loss(choice),
        *_reasons(choice),
        *_next_steps(cells, choice, money),
    ]


def plain_name(way: Way, cells: Sequence[Priced]) -> str:
    """Name a way without technical words, where it has such a name."""
    if way.kind != "fine_tune" or way.cell is None:
        return PLAIN_NAMES[way.kind]
    return plain_description(way.cell, common_values(cells))


def alternatives(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Table:
    """Build a table of the choice, its most useful alternatives and the baselines; empty without a choice."""
    if choice.way is None:
        return Table(HEADS, ())
    baselines = [choice.best_of(kind) for kind in BASELINE_KINDS]
    upgrade = choice.upgrade.way if choice.upgrade is not None else None
    useful = [choice.way, choice.best_of("hosted"), choice.runner_up, *baselines, upgrade]
    kept = _distinct(useful)[:MAX_ALTERNATIVES]
    ordered = _distinct([choice.way, choice.runner_up, upgrade, *baselines, choice.best_of("hosted")])
    indices = cell_indices(cells)
    rows = [
        _row(way, choice, None if way.cell is None else indices[way.cell.key], cells, money)
        for way in ordered
        if any(way is each for each in kept)
    ]
    return table(HEADS, rows)


def _distinct(ways: Sequence[Way | None]) -> list[Way]:
    shown: list[Way] = []
    for way in ways:
        if way is not None and all(way is not other for other in shown):
            shown.append(way)
    return shown


def _row(way: Way, choice: Choice, index: int | None, cells: Sequence[Priced], money: MoneyFormat) -> Row:
    machines = machine_labels(cells)
    where = machines[way.cell.summary.machine_id] if way.cell is not None and len(machines) > 1 else ""
    name = plain_name(way, cells)
    difference = choice.difference(way)
    if way is choice.way:
        compared = Field("the choice", None)
    elif difference is None:
        compared = Field("not on the same texts", None)
    else:
        low, high = (None if end is None else -100 * end for end in (difference.high, difference.low))
        ends = "" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"
        compared = Field(f"{0.0 - 100 * difference.value:+.1f}".replace("-0.0", "0.0"), -difference.value, ends)
    usd = None if way.cell is None else way.cell.usd_billed
    paid = Field("nothing", 0.0) if way.kind == "majority" else Field(money.amount(value_of(usd)), value_of(usd))
    if index is not None and way.kind != "majority":
        paid = Field(paid.text if usd else "not known", paid.sort, cell=index, figure="usd_billed")
    score = Field(percent(way.score.value), way.score.value, interval(way.score, "percent"))
    takes = Field("-" if way.seconds is None else seconds(way.seconds), way.seconds)
    return (text_field(name, name, where), score, paid, takes, compared)


def price_text(price: Price, money: MoneyFormat, num_nodes: int = 1) -> str:
    """State an hourly price with its plan, region and date; an example names its instance."""
    hourly = f"{money.hourly(price.usd_per_hour)} an hour{each_machine(num_nodes)}{PLAN_TEXTS[price.plan]}"
    if price.basis == "given":
        return f"{hourly}, your price"
    if price.plan == "own":
        return hourly
    name = f", {clean(price.instance)}" if price.is_example and price.instance else ""
    region = f" in {clean(price.region)}" if price.region else ""
    dated = f"price of {date_text(price.as_of)}" if price.as_of else "price without a date"
    return f"{hourly}{name}{region}, {dated}"


def _place(way: Way, cells: Sequence[Priced], money: MoneyFormat) -> str:
    """Name the machine of a way, with its hourly price if that is known."""
    if way.cell is None:
        return ""
    price = way.cell.price
    known = price is not None and not price.is_example
    machine = f" on {machine_labels(cells)[way.cell.summary.machine_id]}"
    return with_interval(machine, price_text(price, money, way.cell.num_nodes) if price is not None and known else "")


def _cost(way: Way, choice: Choice, money: MoneyFormat) -> Iterator[str]:
    use = choice.use
    if way.cell is None:
        yield f"It costs about {money.prose(value_of(way.usd))} over {use.months:g} months."
        return
    price = way.cell.price
    if way.usd is None:
        missing = clean(way.cell.missing or "no price was found")
        yield (
            f"A training takes {seconds(way.seconds)}. The price of this machine is not known ({missing}): enter yours."
        )
        return
    if price is not None and price.is_example:
        yield (
            "The price of this machine is not known: enter yours. "
            f"{_SECONDS_DECIDED if not choice.in_dollars else ''}An example price stands in ({price_text(price, money, way.cell.num_nodes)})."
        )
    amount = money.prose(way.usd.value)
    if use.months is not None:
        paid = f"It costs about {amount} over {use.months:g} months"
    elif use.num_trainings != 1 or use.label_usd:
        paid = f"It costs about {amount} in all"
    else:
        paid = f"One training costs about {amount} on the bill"
    measured = value_of(way.cell.usd_per_run)
    part = (
        f", {money.prose(measured)} of it for the run and the rest for starting a machine"
        if measured and use.months is None
        else ""
    )
    yield f"{paid}{part}; a run takes {seconds(way.seconds)}."


def _quality(way: Way, choice: Choice) -> str:
    spread = interval(way.score, "percent")
    evidence = [f"95% confidence interval {spread}"] if spread else []
    if way.scores is not None and way.cell is not None:
        runs = plural(len(way.cell.summary.ok_records), "run")
        evidence.append(f"{plural(way.scores.shape[1], 'test text')}, {runs}")
    text = with_interval(f"It labels {percent(way.score.value)} of texts right", "; ".join(evidence))
    gains = []
    for kind in _NAMED_BASELINES:
        other = choice.best_of(kind)
        difference = None if other is way else choice.difference(other)
        if difference is not None:
            gains.append(f"{_more_or_fewer(difference.value)} than {PLAIN_NAMES[kind]}")
    return f"{text}: {listed(gains)}." if gains else f"{text}."


def _more_or_fewer(gain: float) -> str:
    return f"{points(abs(gain))} {'more' if gain >= 0 else 'fewer'}"


def _loss(choice: Choice) -> Iterator[str]:
    way = choice.way
    if way is None or way.loss is None or choice.goal.target is not None or way.loss.largest <= 0:
        return
    yield (
        f"Another of the {len(choice.ways)} measured ways may label up to {points(min(way.loss.largest, 1 - way.score.value))} more right "
        f"(95% confidence; expected: {points(way.loss.mean)})."
    )


def _best(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Iterator[str]:
    """State what the best measured model gets and costs, where there is no choice."""
    cell = choice.pick
    if cell is None or cell.summary.accuracy is None:
        return
    machine = machine_labels(cells)[cell.summary.machine_id]
    yield (
        f"The best measured model, {plain_description(cell, common_values(cells))} on {machine}, labels "
        f"{percent(cell.summary.accuracy.value)} of texts right."
    )
    if cell.usd_billed is not None and cell.price is not None:
        known = "" if not cell.price.is_example else "example price: "
        yield (
            f"One training costs about {money.prose(cell.usd_billed.value)} on the bill "
            f"({known}{price_text(cell.price, money, cell.num_nodes)})."
        )
    else:
        yield "The price of this machine is not known: enter yours."


def _reasons(choice: Choice) -> Iterator[str]:
    goal, best = choice.goal, choice.best
    for reason in choice.verdict.reasons:
        missing = listed([PLAIN_NAMES[name] for name in ("tfidf", "features") if name in reason.details])
        texts = {
            "no_accuracy": "How many texts it gets right was not measured.",
            "requirements_missed": "Nothing that was measured meets all requirements.",
            "majority_not_beaten": (
                f"Nothing is shown to beat always giving the most common answer, which is right for {percent(choice.majority)}."
            ),
            "loses_money": "By the values that you gave, it loses money.",
            "target_missed": f"Nothing gets {percent(goal.target)} right: the best gets {percent(best.score.value if best else None)}.",
            "target_uncertain": f"Whether it gets {percent(goal.target)} right on other texts is not certain.",
            "loss_not_excluded": f"A loss of more than {points(SERIOUS_LOSS * goal.tolerance)} is too much to decide on.",
            "baseline_missing": f"Not measured: {missing}, which may do as well for less.",
            "alarm": " ".join(reason.details),
        }
        yield texts[reason.kind]


def next_steps(cells: Sequence[Priced], choice: Choice, money: MoneyFormat | None) -> list[str]:
    """Say what to do next, and what it takes; without `money`, in time alone."""
    return list(_next_steps(cells, choice, money))


def _next_steps(cells: Sequence[Priced], choice: Choice, money: MoneyFormat | None) -> Iterator[str]:
    if not choice.verdict.measure_next:
        yield _DONE if choice.verdict.kind == "use" else _NOTHING_TO_MEASURE
    asked = {name for step in choice.verdict.measure_next for name in step.cells}
    names = {way.name: plain_name(way, cells) for way in choice.ways if way.name in asked}
    for index, step in enumerate(choice.verdict.measure_next):
        yield f"{'Then' if index else 'Next'}: {_step(step, names)}{_effort(step, money)}."


def _step(step: Measurement, names: dict[str, str]) -> str:
    if step.kind == "accuracy":
        return "measure another model, more labelled texts, or more passes over them"
    if step.kind == "baselines":
        return f"measure {listed([PLAIN_NAMES[name] for name in step.cells if name in PLAIN_NAMES])}"
    which = listed([names.get(name, name) for name in step.cells])
    tests = f" and test on {step.num_test:,} texts" if step.num_test is not None else ""
    return f"train {which} {step.num_seeds} times, each from another seed,{tests}".rstrip(",")


def _effort(step: Measurement, money: MoneyFormat | None) -> str:
    paid = money.prose(step.usd) if money is not None and step.usd is not None else ""
    parts = [seconds(step.seconds) if step.seconds else "", paid]
    bound = (
        "at most" if step.kind == "baselines" else "about"
    )  # baselines cost less than the training that they are priced as
    return f" ({bound} {join_lines(*parts).replace('; ', ', ')})" if any(parts) else ""
