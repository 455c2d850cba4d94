"""Warn about everything that limits trust in a summary's figures; each warning also says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from harness.analysis.environment_warnings import environment_warnings
from harness.analysis.memory_growth import memory_warnings, settled_memory_bytes
from harness.analysis.predictions import prediction_warnings
from harness.analysis.steady_state import MIN_STEPS, MIN_STEPS_FOR_WARMUP
from harness.analysis.summary import Summary
from harness.schema.cells import FineTuneConfig
from harness.schema.record import was_fitted_on_part

MAX_SKIPPED_FRACTION = 0.05
MAX_UNKNOWN_FRACTION = 0.01
_FITTED = {"tfidf": "TF-IDF", "features": "The frozen encoder's classifier"}


def result_warnings(summary: Summary) -> Iterator[str]:
    """Yield all warnings except those about MFU, which `mfu.with_mfu` adds."""
    yield from _speed_warnings(summary)
    yield from learning_warnings(summary)
    yield from _target_warnings(summary)
    yield from _fitting_warnings(summary)
    yield from _ngram_warnings(summary)
    yield from _skip_warnings(summary)
    yield from environment_warnings(summary.ok_records)
    yield from _token_warnings(summary)
    yield from summary.noise
    yield from prediction_warnings(summary.ok_records)
    yield from memory_warnings(summary.records, [settled_memory_bytes(record) for record in summary.records])


def _speed_warnings(summary: Summary) -> Iterator[str]:
    num_steps = summary.num_measured_steps
    if num_steps is not None and num_steps < MIN_STEPS_FOR_WARMUP and summary.num_warmup_steps == 0:
        yield (
            f"Only {num_steps} steps ran, too few to leave warm-up out, so that throughput is understated: "
            f"raise training.max_steps or data.num_train until {MIN_STEPS} or more are measured."
        )
    elif num_steps is not None and num_steps < MIN_STEPS:
        yield (
            f"Only {num_steps} steps were measured after warm-up: raise training.max_steps or data.num_train "
            f"until {MIN_STEPS} or more are."
        )


def learning_warnings(summary: Summary) -> Iterator[str]:
    """Yield the warnings that the model may not have learned what it could; these also stop a verdict to use it."""
    accuracy, majority, config = summary.accuracy, summary.majority_accuracy, summary.config
    if not isinstance(config, FineTuneConfig):
        return
    if any(record.data is not None and record.data.test.has_one_label for record in summary.ok_records):
        yield (
            "All test rows have the same label, so that test accuracy is that label's recall, and always predicting it gives "
            "1.000: test on rows of all labels (data.test_source)."
        )
    elif accuracy is not None and majority is not None and accuracy.value <= majority:
        yield (
            f"Test accuracy {accuracy.value:.3f} is not above the {majority:.3f} of always answering the "
            "commonest label: train longer, or try another training.lr."
        )
    trainings = [record.training for record in summary.ok_records if record.training is not None]
    # Cells with random weights measure speed only, so their loss does not matter.
    if config.model.init == "pretrained" and any(_loss_did_not_fall(training.steps.loss) for training in trainings):
        yield (
            "The training loss did not fall from its first quarter to its last: "
            "try another training.lr, or train longer."
        )
    stopped = next((training for training in trainings if training.stopped_early), None)
    if stopped is not None and config.measure == "all" and not config.training.stop_at_target:
        yield (
            f"Training stopped after {len(stopped.steps.num_samples)} of {stopped.num_updates_planned} "
            f"updates ({stopped.stopped_early}): raise limits.max_train_s before comparing its accuracy."
        )


def _target_warnings(summary: Summary) -> Iterator[str]:
    if summary.target_lost:
        yield (
            f"Validation reached the target {summary.target_accuracy:g} and later fell below it: "
            "confirm its time with more training.seeds."
        )


def _fitting_warnings(summary: Summary) -> Iterator[str]:
    part = next(filter(was_fitted_on_part, summary.ok_records), None)
    if part is not None and part.baseline and part.data and summary.classifier in _FITTED:
        yield (
            f"{_FITTED[summary.classifier]} was fitted on {part.baseline.num_fitted:,} of the {part.data.train.num_rows:,} training rows, evenly spaced, "
            "since it holds all it sees in memory: with more it might be more accurate. Compare it with a model that was trained "
            "on as many (data.num_train)."
        )


def _ngram_warnings(summary: Summary) -> Iterator[str]:
    if any(record.baseline is not None and record.baseline.ngrams == "characters" for record in summary.ok_records):
        yield "TF-IDF counts characters, not words: the texts have no words, or no blanks between them."


def _loss_did_not_fall(losses: Sequence[float | None]) -> bool:
    known = [loss for loss in losses if loss is not None]
    quarter = len(known) // 4
    return quarter > 0 and fmean(known[-quarter:]) >= fmean(known[:quarter])


def _token_warnings(summary: Summary) -> Iterator[str]:
    """Warn if the tokenizer does not know many tokens, as one of another language, case or script does not."""
    fractions = [record.data.unknown_fraction or 0.0 for record in summary.ok_records if record.data is not None]
    unknown = max(fractions, default=0.0)
    if unknown > MAX_UNKNOWN_FRACTION:
        yield (
            f"{unknown:.1%} of the texts' tokens are not in the model's vocabulary ([UNK]), so that it can't tell them apart: "
            "take a model of the texts' language, or check do_lower_case in its tokenizer_config.json."
        )


def _skip_warnings(summary: Summary) -> Iterator[str]:
    """Warn if fp16's gradient scaler skipped many updates; a few are normal, because its initial scale is too high."""
    steps = [record.training.steps for record in summary.ok_records if record.training is not None]
    skipped = max((run.num_skipped / len(run.num_samples) for run in steps if run.num_samples), default=0.0)
    if skipped > MAX_SKIPPED_FRACTION:
        yield (
            f"The fp16 gradient scaler skipped {skipped:.0%} of the updates, which were timed and taught nothing: "
            "take bf16, or lower training.lr."
        )
