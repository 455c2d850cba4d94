"""Every measured way to label texts, on one test set: models, baselines, and a hosted model's API (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.analysis.accuracy import Metric, ScoreNoise, estimate_score, example_scores, score_noise, scores_by_seed
from harness.analysis.estimate import Estimate
from harness.analysis.expected_loss import Loss
from harness.analysis.summary import most_common_test_set
from harness.decision.cells import measured
from harness.decision.cost_to_have import Use, usd_to_have
from harness.pricing import durations
from harness.pricing.cost import Priced
from harness.schema.assumptions import Assumptions
from harness.schema.training_record import TestEvaluation

Kind = Literal["fine_tune", "features", "tfidf", "majority", "hosted"]


@dataclass(frozen=True, eq=False)
class Way:
    """A way to label texts.

    Attributes:
        cell: The measured cell; None for a hosted model, and for a majority class that was not run as a baseline.
        score: The metric on the test set, with its interval; a hosted model's is stated and has none.
        scores: Scores of the test examples, shape `(num_seeds, num_examples)`; None for a hosted model.
        usd: Cost of having it (see `cost_to_have`); None without a price.
        seconds: Seconds of a run with set-up and evaluation; 0 for the majority class, None for a hosted model.
        loss: What it loses against the truly best way; None until the ways were compared.
    """

    kind: Kind
    cell: Priced | None
    score: Estimate
    scores: np.ndarray | None
    usd: Estimate | None
    seconds: float | None
    loss: Loss | None = None

    @property
    def name(self) -> str:
        """The cell's name, or the kind."""
        return self.kind if self.cell is None else self.cell.summary.cell

    @property
    def num_seeds(self) -> int:
        """Number of seeds that were trained; 0 for a hosted model."""
        return 0 if self.scores is None else len(self.scores)

    @property
    def has_seed(self) -> bool:
        """Whether another seed could give another model."""
        return self.kind == "fine_tune"


def compared_test_set(cells: Sequence[Priced]) -> str | None:
    """Return the hash of the test set on which most fine-tuned models were evaluated."""
    return most_common_test_set(cell.summary for cell in measured(cells))


def find_ways(cells: Sequence[Priced], use: Use, metric: Metric = "accuracy") -> list[Way]:
    """Return every way that was evaluated on the most common test set; the majority class is always among them."""
    test_set = compared_test_set(cells)
    ways = [
        way
        for cell in cells
        if cell.summary.num_ok and cell.summary.test_sha256 == test_set
        if (way := _way(cell, use, metric)) is not None
    ]
    if ways and all(way.kind != "majority" for way in ways):
        ways.append(_majority(ways, metric))
    return ways


def hosted_way(assumed: Assumptions, use: Use) -> Way | None:
    """Return the hosted model that the user stated; None unless its price, its accuracy and the texts are stated."""
    serving = assumed.prices.serving
    if serving.hosted_accuracy is None or serving.hosted_usd_per_million is None or not use.num_texts:
        return None
    usd = Estimate(use.num_texts * serving.hosted_usd_per_million / 1e6, None, None, "stated price")
    return Way("hosted", None, Estimate(serving.hosted_accuracy, None, None, "stated"), None, usd, None)


def noise_of(ways: Sequence[Way]) -> ScoreNoise:
    """Return the measured ways' scores and their noise."""
    return score_noise([way.scores for way in ways if way.scores is not None], [way.has_seed for way in ways])


def _way(cell: Priced, use: Use, metric: Metric) -> Way | None:
    scores = scores_by_seed(cell.summary.ok_records, metric)
    if scores is None:
        return None
    score = cell.summary.accuracy if metric == "accuracy" else None
    seconds = durations.run_seconds(cell.summary)
    return Way(
        kind=cell.summary.classifier or "fine_tune",
        cell=cell,
        score=score or estimate_score(scores),
        scores=scores,
        usd=usd_to_have(cell, use),
        seconds=0.0 if cell.summary.classifier == "majority" else None if seconds is None else seconds.value,
    )


def _majority(ways: Sequence[Way], metric: Metric) -> Way:
    """Answer every example of the ways' test set with its most common label."""
    labels = next(
        record.test.labels
        for way in ways
        if way.cell is not None
        for record in way.cell.summary.ok_records
        if record.test is not None
    )
    ((most_common, _),) = Counter(labels).most_common(1)
    test = TestEvaluation(evaluate_s=0.0, labels=labels, predictions=(most_common,) * len(labels))
    scores = example_scores(test, metric)[None]
    free = Estimate(0.0, None, None, "nothing to train")
    return Way("majority", None, estimate_score(scores), scores, free, 0.0)
