"""Compare what `harness inspect` predicts for a sequence length with cells measured at this length.

Run: .venv/bin/python bench/bench_length_advice.py [FOLDER ...]      (default: results/reference/*/default)
For every two measured cells that differ only in `seq_len`, the samples per second of one are predicted from the other, in
proportion to their work; with three cells, also by the line through the other two. The batch plan's work and padding are
compared with what the cell itself counted. Prints Markdown.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.analysis.summary import Summary
from harness.dataset.corpus import load_corpus
from harness.dataset.sources import locate_model
from harness.dataset.tokens import load_tokens, tokenize
from harness.schema.cells import FineTuneConfig, hash_config
from harness.schema.model_shapes import load_model_shape
from harness.schema.settings import DataSettings
from harness.store.record_files import load_records
from harness.workflows.seq_len_advice import advise_seq_len, work_of


def cells(folders: Sequence[Path]) -> list[Summary]:
    """Return the cells that trained the whole pretrained model on one device."""
    found = with_mfu(summarize(load_records(folders).records), lambda *_: None)
    return [
        one for one in found
        if isinstance(one.config, FineTuneConfig) and one.compute and one.samples_per_s
        and one.config.trainable == "all" and "ddp" not in one.config.device
    ]  # fmt: skip


def lengths_of(data: DataSettings, model: str) -> np.ndarray:
    """Return the number of tokens of each training row before truncation."""
    corpus, files = load_corpus(data), locate_model(model, weights=False)
    with TemporaryDirectory() as folder:
        tokenize(corpus, files, 8192, Path(folder), store_texts=False)
        return load_tokens(Path(folder), "train").lengths


def told(cell: Summary, others: Sequence[Summary], lengths: np.ndarray) -> float:
    """Predict a cell's samples per second from the other cells."""
    config = cell.config
    shape = load_model_shape(config.model, locate_model(config.model.name, weights=False).folder)
    found = advise_seq_len(lengths, shape, 2, batch_size=config.batch_size, measured=others)
    (one,) = (length for length in found.lengths if length.seq_len == config.seq_len)
    return one.speeds[config.padding].samples_per_s


def lines(found: Sequence[Summary]) -> Iterator[str]:
    """Yield the lines of the two tables."""
    lengths: dict[DataSettings, np.ndarray] = {}
    groups: dict[object, list[Summary]] = defaultdict(list)
    yield "| cell | work a sample, told / counted | padding's share, told | counted |"
    yield "|---|---:|---:|---:|"
    for cell in found:
        config = cell.config
        if config.data not in lengths:
            lengths[config.data] = lengths_of(config.data, config.model.name)
        groups[cell.machine_id, hash_config(config, ignore=("seed", "seq_len"))].append(cell)
        shape = load_model_shape(config.model, locate_model(config.model.name, weights=False).folder)
        work = work_of(lengths[config.data], config.seq_len, config.padding, shape, 2, batch_size=config.batch_size)
        counted = cell.compute.flop_per_s / cell.samples_per_s.value
        yield (
            f"| `{cell.cell}` on {cell.machine_id} | {work.flops_per_sample / counted:.3f} "
            f"| {work.padding_fraction:.1%} | {cell.compute.padding_fraction:.1%} |"
        )
    yield ""
    yield "| cell | told from | samples/s, told | measured | off |"
    yield "|---|---|---:|---:|---:|"
    offs = []
    for group in groups.values():
        for cell in group:
            others = [one for one in group if one.config.seq_len != cell.config.seq_len]
            if not others:
                continue
            expected, measured = told(cell, others, lengths[cell.config.data]), cell.samples_per_s
            offs.append(expected / measured.value - 1)
            seen = ", ".join(str(one.config.seq_len) for one in others)
            yield (
                f"| `{cell.cell}` on {cell.machine_id} | {seen} tokens | {expected:.1f} "
                f"| {measured.value:.1f} ({measured.low:.1f} to {measured.high:.1f}) | {offs[-1]:+.1%} |"
            )
    yield ""
    yield f"{len(offs)} predictions; off by {median(map(abs, offs)):.1%} in the median, by {max(map(abs, offs)):.1%} at most."


def main(folders: Sequence[Path]) -> None:
    """Print both tables."""
    print("\n".join(lines(cells(folders))))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(Path("results/reference").glob("*/default")))
