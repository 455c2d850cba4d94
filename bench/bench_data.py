"""Measure data larger than memory: rows per second and peak memory of each stage, compared with `datasets.map` and pandas.

Run: .venv/bin/python bench/bench_data.py [--rows 10000000] [--folder FOLDER] [--without-peers]
Every stage is a fresh process under its own memory cap (a cgroup; approximate if none can be created): 1 GiB for stages
of the parent process; for the cell, 2 GiB more than the same cell needs with 2,000 rows. The peers have no cap and are
killed after --minutes. The file is written once (about 300 MB per million rows) and kept in FOLDER, with the cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path

from harness.dataset.cache import CACHE_VARIABLE
from harness.execution.memory_cap import MemoryCap

GIB = 2**30
PARENT_GIB, WORKER_GIB = 1, 2
SEQ_LEN, NUM_STEPS = 64, 20
_BATCH = 5_000


def make_file(path: Path, num_rows: int) -> None:
    """Write distinct rows of about 300 bytes: two or three snippets of the packaged reviews, and the row number."""
    from harness.dataset.rows import read_rows
    from harness.schema.settings import DataSettings

    snippets, rng = list(read_rows(DataSettings()).texts), random.Random(0)
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for row in range(num_rows):
            batch = " ".join(rng.choices(snippets, k=2 + row % 2))
            writer.writerow((f"{batch} {row}", "good" if rng.random() < 0.5 else "bad"))
    unfinished.rename(path)


def settings_of(path: Path, num_train: int | str = "all"):
    from harness.schema.settings import DataSettings

    return DataSettings(source=str(path), num_train=num_train, num_val=100, num_test=100, store_texts=False)


def read(path: Path) -> int:
    """Hash and check the file and write an Arrow file; or find the Arrow file in the cache and verify its hashes."""
    from harness.dataset.rows import read_rows

    return len(read_rows(settings_of(path)).labels)


def draw(path: Path) -> int:
    """Open the cached rows, draw splits, look for near-duplicates in a sample, and hash every split's texts."""
    from harness.dataset.corpus import load_corpus

    return load_corpus(settings_of(path)).facts.num_source_rows


def tokenise_all(path: Path) -> int:
    """Do what `draw` does and tokenise every row; or find the tokens in the cache and verify their hashes."""
    from harness.dataset.corpus import load_corpus
    from harness.dataset.sources import locate_model
    from harness.dataset.tokens import tokenize
    from harness.schema.settings import PACKAGED_MODEL

    corpus = load_corpus(settings_of(path))
    model = locate_model(PACKAGED_MODEL, weights=False)
    return tokenize(corpus, model, SEQ_LEN, path.parent, store_texts=False).facts.train.num_rows


def by_datasets(path: Path) -> int:
    """Run `load_dataset("csv")` and a batched `map` in one process, as in its documentation."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from harness.dataset.sources import locate_model
    from harness.schema.settings import PACKAGED_MODEL

    tokenizer = AutoTokenizer.from_pretrained(locate_model(PACKAGED_MODEL, weights=False).folder)
    rows = load_dataset("csv", data_files=str(path), cache_dir=str(path.parent / "datasets"))["train"]
    encode = lambda batch: tokenizer(batch["text"], truncation=True, max_length=SEQ_LEN)  # noqa: E731
    return len(rows.map(encode, batched=True, remove_columns=["text"]))


def by_pandas(path: Path) -> int:
    """Read the whole file into a data frame, and collect every row's tokens in a list."""
    import pandas as pd
    from tokenizers import Tokenizer

    from harness.dataset.sources import locate_model
    from harness.schema.settings import PACKAGED_MODEL

    tokenizer = Tokenizer.from_file(str(locate_model(PACKAGED_MODEL, weights=False).folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(SEQ_LEN)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    texts = frame["text"].tolist()
    kept = [
        encoding.ids
        for begin in range(0, len(texts), _BATCH)
        for encoding in tokenizer.encode_batch(texts[begin : begin + _BATCH])
    ]
    return len(kept)


OURS = {"read and check": read, "read again, from the cache": read, "draw": draw, "tokenise": tokenise_all, "tokenise again, from the cache": tokenise_all}  # fmt: skip
PEERS = {"datasets.map": by_datasets, "pandas": by_pandas}


def _run_in_child(stage, path: Path, result: Path) -> None:
    """Run a stage; write its result and its peak anonymous memory, which the kernel can't drop as it drops file pages."""
    peak_kib, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            peak_kib[0] = max(
                peak_kib[0], *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
            )

    threading.Thread(target=sample, daemon=True).start()
    began = time.perf_counter()
    num_rows = stage(path)
    seconds = time.perf_counter() - began
    ended.set()
    result.write_text(json.dumps({"num_rows": num_rows, "seconds": seconds, "anonymous_bytes": 1024 * peak_kib[0]}))


def run_stage(name: str, stage, path: Path, limit_gib: float | None, minutes: float) -> str:
    """Run one stage under a cap; return its row of the table."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        folder = Path(temporary)
        memory_cap = MemoryCap(int((limit_gib or 1000) * GIB), 1, folder)
        process = multiprocessing.get_context("spawn").Process(
            target=_run_in_child, args=(stage, path, folder / "result")
        )
        try:
            with memory_cap.spawn_inside(folder / "log"):
                process.start()
            process.join(60 * minutes)
            if process.is_alive():
                process.kill()
                process.join()
                return f"| {name} | more than {minutes:g} minutes | | | | |"
            cap = memory_cap.cap()
            if process.exitcode:
                why = memory_cap.oom_reason() or (folder / "log").read_text().strip().splitlines()[-1:]
                return f"| {name} | ended with {process.exitcode}: {why} | | | | |"
            result = json.loads((folder / "result").read_text())
        finally:
            memory_cap.close()
    capped = f"{limit_gib:g} GiB{'' if cap.exact else ', approximate'}" if limit_gib else "none"
    peak = "not known" if cap.peak_bytes is None else f"{cap.peak_bytes / 2**20:,.0f}"
    rate = result["num_rows"] / result["seconds"]
    return f"| {name} | {result['seconds']:,.1f} | {rate:,.0f} | {result['anonymous_bytes'] / 2**20:,.0f} | {peak} | {capped} |"


def train(path: Path, num_train: int | str, limit_gib: float | None):
    """Train a cell for NUM_STEPS updates and return its record."""
    from harness.execution.sweep import NullListener, describe_environment, run_cells
    from harness.schema.expansion import expand
    from harness.schema.study_file import parse_study

    study = {
        "name": "bench-data",
        "baselines": False,
        "data": settings_of(path, num_train).model_dump(exclude_none=True),
        "training": {"max_steps": NUM_STEPS},
        "limits": {} if limit_gib is None else {"memory_limit_gib": limit_gib},
        "matrix": {"batch_size": [16], "seq_len": [SEQ_LEN], "padding": ["grouped"]},
    }
    (record,) = run_cells(
        expand(parse_study(study, "bench_data")), path.parent / "results", describe_environment(None), NullListener()
    )
    return record


def show_training(path: Path) -> None:
    """Train on all rows, capped at 2 GiB more than the same cell needs with 2,000 rows."""
    few = train(path, 2000, None)
    base = max(peak.num_bytes for peak in few.training.peak_memory)
    record = train(path, "all", (base + WORKER_GIB * GIB) / GIB)
    print(f"\n{NUM_STEPS} updates on 2,000 rows: peak {base / 2**20:,.0f} MiB.")
    print(f"{NUM_STEPS} updates on all rows: {record.outcome} {record.reason or ''}")
    if record.training is not None and record.cap is not None:
        peak = max(peak.num_bytes for peak in record.training.peak_memory)
        group = "not known" if record.cap.peak_bytes is None else f"{record.cap.peak_bytes / 2**20:,.0f} MiB"
        limit = f"{record.cap.limit_bytes / 2**20:,.0f} MiB{'' if record.cap.exact else ', approximate'}"
        print(f"Its peak: {peak / 2**20:,.0f} MiB; of its control group, file pages included: {group}, of {limit}.")
        print(f"Loading model and data: {record.phases.load_s:.2f} s (2,000 rows: {few.phases.load_s:.2f} s).")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench-data")
    parser.add_argument("--minutes", type=float, default=60, help="limit for each stage")
    parser.add_argument("--without-peers", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = options.folder / f"rows-{options.rows}.csv"
    os.environ[CACHE_VARIABLE] = str(options.folder / "cache")
    shutil.rmtree(options.folder / "cache", ignore_errors=True)
    shutil.rmtree(options.folder / "datasets", ignore_errors=True)
    if not path.exists():
        make_file(path, options.rows)
    print(f"{options.rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB; {SEQ_LEN} tokens at most\n")
    print(
        "| stage | s | rows/s | anonymous memory, MiB | control group's peak, MiB | cap |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, stage in OURS.items():
        print(run_stage(name, stage, path, PARENT_GIB, options.minutes), flush=True)
    for name, stage in {} if options.without_peers else PEERS.items():
        print(run_stage(name, stage, path, None, options.minutes), flush=True)
    show_training(path)


if __name__ == "__main__":
    main()
