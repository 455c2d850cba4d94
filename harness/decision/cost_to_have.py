"""What it costs to have a way to label texts: trainings, serving and labels, as far as the user stated them (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.analysis.estimate import Estimate, map_estimate, value_of
from harness.pricing import durations, formulas
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions


@dataclass(frozen=True)
class Use:
    """What the user stated about the use of a model; by default one training, and nothing else.

    Attributes:
        num_trainings: Trainings over the horizon: one, or models made anew a month x months, times runs for each model
            kept.
        num_texts: Texts to label over the horizon; 0 if not stated.
        num_labels: Labelled examples to buy; None for the number of training rows.
        label_usd: Price of a labelled example; 0 if not stated.
        months: The horizon, if anything above depends on it; else None.
    """

    num_trainings: float = 1.0
    num_texts: float = 0.0
    num_labels: float | None = None
    label_usd: float = 0.0
    months: float | None = None


def stated_use(assumed: Assumptions) -> Use:
    """Collect what the user's files state; examples do not count. The page's recompute.js does the same."""
    months, stated = assumed.value.horizon_months, assumed.set_by_user
    retraining = assumed.prices.retraining
    anew = retraining.per_month * months if "prices.retraining.per_month" in stated else 1.0
    trials = retraining.trials_per_kept if "prices.retraining.trials_per_kept" in stated else 1.0
    has_texts = "value.items_per_month" in stated
    return Use(
        num_trainings=max(1.0, anew) * trials,
        num_texts=assumed.value.items_per_month * months if has_texts else 0.0,
        num_labels=assumed.value.num_labels if "value.num_labels" in stated else None,
        label_usd=assumed.value.label_usd if "value.label_usd" in stated else 0.0,
        months=months if has_texts or "prices.retraining.per_month" in stated else None,
    )


def usd_to_have(cell: Priced, use: Use) -> Estimate | None:
    """Return the cost of having a cell's model; None without a price. The majority class costs nothing."""
    if cell.summary.classifier == "majority":
        return Estimate(0.0, None, None, "nothing to train")
    num_labels = use.num_labels if use.num_labels is not None else durations.num_train(cell.summary) or 0
    return map_estimate(
        cell.usd_billed,
        lambda usd: formulas.usd_to_have(
            billed_usd=usd,
            num_trainings=use.num_trainings,
            num_texts=use.num_texts,
            usd_per_million=value_of(cell.usd_per_million_predictions) or 0.0,
            num_labels=num_labels,
            label_usd=use.label_usd,
        ),
    )
