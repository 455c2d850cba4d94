"""What a probe measured, a few steps at a few batch shapes, and what cells compute, known before they run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from harness.schema.ranges import Positive, PositiveSeconds, PositiveTally, Tally
from harness.schema.settings import Many, Settings


class Work(Settings):
    """Passes over batches, and what they hold in all; padding counts, and of each batch the slowest rank's part.

    Attributes:
        num_batches: Optimizer updates, or batches of an evaluation.
        num_tokens: Padded tokens.
        num_pairs: Token pairs of attention: the sum of each row's padded length squared.
        num_shapes: Different shapes of batches, each of which costs extra the first time.
    """

    num_batches: PositiveTally
    num_tokens: PositiveTally
    num_pairs: PositiveTally
    num_shapes: PositiveTally


class CellWork(Settings):
    """What a cell computes.

    Attributes:
        num_rows: Rows trained on, repetitions included.
        training: All optimizer updates.
        validations: All validations during training; None if the cell has none.
        test: The test evaluation; None if the cell has none.
        longest: Padded tokens a row of the micro-batch with most token pairs.
    """

    num_rows: PositiveTally
    training: Work
    validations: Work | None
    test: Work | None
    longest: PositiveTally


class Predicted(Settings):
    """What a run was predicted to take before it began; `low` and `high` are the ends of 95 % intervals.

    Attributes:
        seconds: From submission to the end of its processes.
        peak_bytes: Peak memory of all ranks; None where memory is not predicted.
        basis: From a probe, or from earlier records, of cells that compute alike.
    """

    seconds: PositiveSeconds
    seconds_low: PositiveSeconds
    seconds_high: PositiveSeconds
    samples_per_s: Positive
    samples_per_s_low: Positive
    samples_per_s_high: Positive
    peak_bytes: Tally | None = None
    peak_bytes_low: Tally | None = None
    peak_bytes_high: Tally | None = None
    basis: Literal["probe", "records"]


class ProbedShape(Settings):
    """The steps of one batch shape; seconds are those of the slowest rank.

    Attributes:
        num_rows: Rows of one micro-batch of one rank.
        num_tokens: Tokens of its longest row, to which all are padded.
        first_step_s: Seconds of the first step, which also prepares kernels for the shape.
        step_s: Seconds of each further step.
        evaluate_s: Seconds of forward passes in evaluation mode; the first of them is left out.
        peak_bytes: The highest memory of all ranks together so far, in bytes.
    """

    num_rows: PositiveTally
    num_tokens: PositiveTally
    first_step_s: PositiveSeconds
    step_s: Many[PositiveSeconds] = Field(min_length=1)
    evaluate_s: Many[PositiveSeconds] = Field(min_length=1)
    peak_bytes: Tally


class Probe(Settings):
    """The measurements of a probe.

    Attributes:
        world_size: Number of ranks.
        threads_per_rank: CPU threads of each rank.
        shapes: The shapes in the order of running.
        planned: What each cell computes for which the probe was made, by the hash of its configuration.
    """

    world_size: PositiveTally
    threads_per_rank: PositiveTally
    shapes: Many[ProbedShape]
    planned: dict[str, CellWork] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_shape(self) -> Self:
        if not self.shapes:
            raise ValueError("at least one shape")
        return self
