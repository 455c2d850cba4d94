"""JSON fields and study file of `harness inspect`."""

from __future__ import annotations

import json

from harness.workflows.inspect_dataset import Inspection
from harness.workflows.seq_len_advice import CandidateLength, SeqLenAdvice


def study_text(inspection: Inspection, advice: SeqLenAdvice, batch_size: int) -> str:
    """Return a study file for the dataset."""
    num_rows, settings = inspection.facts.num_source_rows, inspection.study_settings
    data = settings.model_dump(mode="json", exclude_defaults=True)
    first, last = ("source",), ("num_train", "num_val", "num_test")
    order = [*first, *(key for key in data if key not in (*first, *last)), *last]
    keys = {key: settings.model_dump(mode="json")[key] for key in order}
    lines = [
        f"# Made by `harness inspect` of {num_rows:,} usable rows; run it by `harness run`.",
        "[data]",
        # Written as JSON, whose strings, numbers, booleans and lists are valid TOML.
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()),
        "",
        "[matrix]",
        f"batch_size = [{batch_size}]",
        f"seq_len = [{advice.best.seq_len}]{_note(advice)}",
        'padding = ["grouped"]',
    ]
    return "\n".join(lines) + "\n"


def inspection_fields(inspection: Inspection, advice: SeqLenAdvice) -> dict[str, object]:
    """Return the fields of `--json`."""
    return {
        "settings": inspection.settings.model_dump(mode="json"),
        "guesses": {role: {"column": guess.column, "why": guess.why} for role, guess in inspection.guesses.items()},
        "data": inspection.facts.model_dump(mode="json"),
        "classes": inspection.classes,
        "tokens_at_share": {f"{share:g}": tokens for share, tokens in inspection.tokens_at().items()},
        "mean_tokens": float(inspection.lengths.mean()),
        "unknown_fraction": inspection.unknown_fraction,
        "special_tokens": inspection.special_tokens,
        "study_problem": inspection.study_problem,
        "floor": None if inspection.floor is None else vars(inspection.floor),
        "recommended_seq_len": advice.best.seq_len,
        "lengths": [_length_fields(length) for length in advice.lengths],
    }


def _length_fields(length: CandidateLength) -> dict[str, object]:
    return {
        "seq_len": length.seq_len,
        "cut_texts_fraction": length.cut_texts_fraction,
        "cut_tokens_fraction": length.cut_tokens_fraction,
        "work": {padding: vars(work) for padding, work in length.work.items()},
        "speeds": {padding: vars(speed) for padding, speed in length.speeds.items()},
        "accuracy": None if length.accuracy is None else vars(length.accuracy),
    }


def _note(advice: SeqLenAdvice) -> str:
    return f" # cuts {advice.best.cut_texts_fraction:.1%} of the texts"
