"""Put generated data files of every kind through `inspect`, `plan`, reading as `run` does, and `predict`.

Run: .venv/bin/python bench/bench_data_files.py [--only KIND] [--out results/reference/data-files.md]
The files (bench/data_files/) differ in encoding, delimiter, line ends, quoting, shape, size, damage, name, types, labels and
texts; each states what reading it must give. Checked: no traceback (with output to ASCII); every refusal names the file and
says what to do; `inspect` and `run` agree on rows, labels and bad rows; `predict` reads the same texts as `run`. Nothing is
trained. Prints Markdown; exit status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_files.arrow_files import arrow_files
from data_files.case import Case
from data_files.contents import contents
from data_files.json_files import json_files
from data_files.shapes import shapes
from data_files.text_files import text_files
from data_files.trial import READ, REFUSED, TRACEBACK, Trial, try_case

COMMANDS = ("inspect", "inspect, columns guessed", "plan", "run", "run, no row skipped", "predict")


def all_cases() -> list[Case]:
    """Return every case; names are unique within a kind."""
    return [*text_files(), *shapes(), *json_files(), *arrow_files(), *contents()]


def write_classifier(folder: Path) -> Path:
    """Write a classifier of random weights (2 layers, hidden size 32) with the packaged tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from harness.dataset.sources import locate_model
    from harness.schema.settings import PACKAGED_MODEL

    torch.manual_seed(0)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(folder)
    shutil.copy(locate_model(PACKAGED_MODEL, weights=False).folder / "tokenizer.json", folder)
    return folder


def run(cases: Iterable[Case]) -> list[Trial]:
    """Try all cases in temporary folders."""
    trials = []
    with tempfile.TemporaryDirectory(prefix="harness-files-") as temporary:
        os.environ["HARNESS_CACHE"] = str(Path(temporary) / "cache")
        model = write_classifier(Path(temporary) / "model")
        for index, case in enumerate(cases):
            folder = Path(temporary) / str(index)
            folder.mkdir()
            trials.append(try_case(case, folder, model))
            shutil.rmtree(folder)
            for problem in trials[-1].problems:
                print(f"{case.kind}: {case.name}: {problem}", file=sys.stderr, flush=True)
    return trials


def report(trials: Sequence[Trial]) -> str:
    """Return the tables: each kind's counts by command, and each case's answers."""
    kinds = list(dict.fromkeys(trial.case.kind for trial in trials))
    lines = [f"| files | number | {' | '.join(f'{name}: read, refused, traceback' for name in COMMANDS)} | wrong |"]
    lines.append(f"|---|---:|{'---:|' * len(COMMANDS)}---:|")
    for kind in [*kinds, "all"]:
        chosen = [trial for trial in trials if kind in ("all", trial.case.kind)]
        counts = [_counts([trial.answers[name].state for trial in chosen]) for name in COMMANDS]
        num_wrong = sum(bool(trial.problems) for trial in chosen)
        lines.append(f"| {kind} | {len(chosen)} | {' | '.join(counts)} | {num_wrong} |")
    lines += ["", "| kind | file | read as | refused with | `predict` |", "|---|---|---|---|---|"]
    lines += [_row(trial) for trial in trials]
    return "\n".join(lines) + "\n"


def _counts(states: Sequence[str]) -> str:
    return ", ".join(str(states.count(state)) for state in (READ, REFUSED, TRACEBACK))


def _row(trial: Trial) -> str:
    case = trial.case
    rows = "-" if case.rows is None else f"{case.rows:,} rows" + (f", {case.bad:,} bad" if case.bad else "")
    predicted = f"refused: {_cell(case.predict_refusal)}" if case.predicted is None else f"{case.predicted:,} rows"
    return f"| {case.kind} | {_cell(case.name)} | {rows} | {_cell(case.refusal) or '-'} | {predicted} |"


def _cell(text: str) -> str:
    return text.replace("\\", "").replace("|", " or ").replace("\n", " ")


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="only cases whose kind or name contains this text")
    parser.add_argument("--out", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    trials = run([case for case in all_cases() if not options.only or options.only in f"{case.kind}: {case.name}"])
    text = report(trials)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    sys.exit(any(trial.problems for trial in trials))


if __name__ == "__main__":
    main()
