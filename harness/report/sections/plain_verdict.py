"""The verdict for someone who decides, in plain sentences, and the alternatives in a short table (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.analysis.estimate import value_of
from harness.decision.choice import Choice
from harness.decision.measure_next import Measurement
from harness.decision.verdict import SERIOUS_LOSS
from harness.decision.ways import Kind, Way
from harness.pricing.cost import Priced
from harness.report.formatting import MoneyFormat, clean, interval, listed, percent, plural, points, seconds
from harness.report.labels import cell_indices
from harness.report.sections.verdict import BASELINE_KINDS, way_text
from harness.report.table import Field, Row, Table, join_lines, table, text_field

PLAIN_NAMES: dict[Kind, str] = {
    "majority": "always the most common answer",
    "tfidf": "counting words",
    "features": "the model without training",
    "hosted": "the hosted model",
}
HEADS = ("way", "texts right", "a training, on the bill", "takes", "more or fewer right than the choice, in points")
MAX_ALTERNATIVES = 6


def plain_sentences(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> list[str]:
    """Write the verdict, what it costs, how good and how sure it is, and what to do next."""
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
        return [lead, *_reasons(choice), *_next_steps(cells, choice, money)]
    return [
        leads[choice.verdict.kind].format(plain_name(way, cells)),
        *_cost(way, choice, money),
        _quality(way, choice),
        *_loss(choice),
        *_reasons(choice),
        *_next_steps(cells, choice, money),
    ]


def plain_name(way: Way, cells: Sequence[Priced]) -> str:
    """Name a way without technical words, where it has such a name."""
    return PLAIN_NAMES[way.kind] if way.kind != "fine_tune" else way_text(way, cells)


def alternatives(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Table:
    """Build a table of the choice, the runner-up, what more money buys, and the baselines; empty without a choice."""
    if choice.way is None:
        return Table(HEADS, ())
    upgrade = choice.upgrade.way if choice.upgrade is not None else None
    shown = [choice.way]
    for way in (choice.runner_up, upgrade, *(choice.best_of(kind) for kind in BASELINE_KINDS)):
        if way is not None and all(way is not other for other in shown):
            shown.append(way)
    if hosted := choice.best_of("hosted"):
        shown.append(hosted)
    indices = cell_indices(cells)
    rows = [
        _row(way, choice, None if way.cell is None else indices[way.cell.key], cells, money)
        for way in shown[:MAX_ALTERNATIVES]
    ]
    return table(HEADS, rows)


def _row(way: Way, choice: Choice, index: int | None, cells: Sequence[Priced], money: MoneyFormat) -> Row:
    name = plain_name(way, cells)
    difference = choice.difference(way)
    if way is choice.way:
        compared = Field("the choice", None)
    elif difference is None:
        compared = Field("not on the same texts", None)
    else:
        low, high = (None if end is None else -100 * end for end in (difference.high, difference.low))
        ends = "" if low is None or high is None else f"{low:+.1f} to {high:+.1f}"
        compared = Field(f"{-100 * difference.value:+.1f}", -difference.value, ends)
    usd = None if way.cell is None else way.cell.usd_billed
    paid = Field("nothing", 0.0) if way.kind == "majority" else Field(money.amount(value_of(usd)), value_of(usd))
    if index is not None and way.kind != "majority":
        paid = Field(paid.text, paid.sort, cell=index, figure="usd_billed")
    score = Field(percent(way.score.value), way.score.value, interval(way.score, "percent"))
    takes = Field("-" if way.seconds is None else seconds(way.seconds), way.seconds)
    return (text_field(name, name), score, paid, takes, compared)


def _cost(way: Way, choice: Choice, money: MoneyFormat) -> Iterator[str]:
    if way.cell is None or way.usd is None:
        missing = "" if way.cell is None else clean(way.cell.missing or "no price was found")
        yield f"A training takes {seconds(way.seconds)}; what it costs is not known ({missing})."
        return
    use, price = choice.use, way.cell.price
    if use.months is not None:
        paid = f"It costs about {money.prose(way.usd.value)} over {use.months:g} months"
    elif use.num_trainings != 1 or use.label_usd:
        paid = f"It costs about {money.prose(way.usd.value)} in all"
    else:
        paid = f"One training costs about {money.prose(way.usd.value)} on the bill"
    yield f"{paid}, and a run takes {seconds(way.seconds)}."
    if price is not None:
        dated = f", of {price.as_of}" if price.as_of else ""
        name = clean(price.instance or "your machine")
        hourly = f"{money.hourly(price.usd_per_hour)} an hour{dated}"
        if price.basis == "assumed":
            yield f"The price of the measured machine is not known: {hourly} for {name} is an example. Enter yours."
        else:
            yield f"That is on {name} at {hourly}."


def _quality(way: Way, choice: Choice) -> str:
    spread = interval(way.score, "percent")
    evidence = []
    if way.scores is not None and way.cell is not None:
        evidence = [plural(way.scores.shape[1], "test text"), plural(len(way.cell.summary.ok_records), "run")]
    rest = "; ".join(filter(None, (spread, ", ".join(evidence))))
    text = f"It labels {percent(way.score.value)} of texts right ({rest})"
    gains = []
    for kind in BASELINE_KINDS:
        other = choice.best_of(kind)
        difference = None if other is way else choice.difference(other)
        if difference is not None:
            gains.append(f"{points(difference.value)} more than {PLAIN_NAMES[kind]}")
    return f"{text}, {listed(gains)}." if gains else f"{text}."


def _loss(choice: Choice) -> Iterator[str]:
    way = choice.way
    if way is None or way.loss is None or choice.goal.target is not None or way.loss.largest <= 0:
        return
    yield (
        f"Of {plural(len(choice.ways), 'measured way')}, another may be better: by {points(way.loss.mean)} as expected, by "
        f"{points(way.loss.largest)} at most (95%)."
    )


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
            "loss_not_excluded": f"More than {points(SERIOUS_LOSS * goal.tolerance)} might be lost against the best.",
            "baseline_missing": f"Not measured: {missing}, which may do as well for less.",
            "alarm": " ".join(reason.details),
        }
        yield texts[reason.kind]


def _next_steps(cells: Sequence[Priced], choice: Choice, money: MoneyFormat) -> Iterator[str]:
    names = {way.name: plain_name(way, cells) for way in choice.ways}
    for step in choice.verdict.measure_next:
        yield f"Next: {_step(step, names)}{_effort(step, money)}."


def _step(step: Measurement, names: dict[str, str]) -> str:
    if step.kind == "accuracy":
        return "another model, more labelled texts, or more passes over them"
    if step.kind == "baselines":
        return f"measure {listed([PLAIN_NAMES[name] for name in step.cells if name in PLAIN_NAMES])}"
    which = listed([names.get(name, name) for name in step.cells])
    tests = f" on {step.num_test:,} test texts" if step.num_test is not None else ""
    return f"train {which} {step.num_seeds} times, each from another seed{tests}"


def _effort(step: Measurement, money: MoneyFormat) -> str:
    parts = [seconds(step.seconds) if step.seconds else "", money.prose(step.usd) if step.usd is not None else ""]
    return f" (about {join_lines(*parts).replace('; ', ', ')})" if any(parts) else ""
