"""Data larger than memory: rows a second and peak memory of each stage, beside plain `datasets.map` and pandas.

Run: .venv/bin/python bench/bench_data.py [--rows 10000000] [--folder FOLDER] [--without-peers]
Every stage is a fresh process under a memory cap of its own (a control group; approximate where none can be made): those
of the parent under 1 GiB, the cell's under 2 GiB more than the same cell needs with 2,000 rows; the peers have no cap, and
are ended at --minutes. The file is made once (about 300 MB a million rows) and kept in FOLDER, with the cache.
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
    """Rows of about 300 bytes, of the packaged reviews' words: two or three snippets and a number, no row twice."""
    from harness.dataset.rows import read_rows
    from harness.schema.settings import DataSettings

    snippets, rng = list(read_rows(DataSettings()).texts), random.Random(0)
    half_made = path.with_suffix(".part")
    with half_made.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for row in range(num_rows):
            some = " ".join(rng.choices(snippets, k=2 + row % 2))
            writer.writerow((f"{some} {row}", "good" if rng.random() < 0.5 else "bad"))
    half_made.rename(path)


def settings_of(path: Path, num_train: int | str = "all"):
    from harness.schema.settings import DataSettings

    return DataSettings(source=str(path), num_train=num_train, num_val=100, num_test=100, store_texts=False)


def read(path: Path) -> int:
    """Hash, check, part by part, to an Arrow file; or find that in the cache, and hold it to its hashes."""
    from harness.dataset.rows import read_rows

    return len(read_rows(settings_of(path)).labels)


def draw(path: Path) -> int:
    """Find the rows, draw splits, look for near-duplicates in a sample, hash every split's texts."""
    from harness.dataset.corpus import load_corpus

    return load_corpus(settings_of(path)).facts.num_source_rows


def tokenise_all(path: Path) -> int:
    """What `draw` does, and every row to tokens; or find these in the cache, and hold them to their hashes."""
    from harness.dataset.corpus import load_corpus, tokenize
    from harness.dataset.sources import locate_model
    from harness.schema.settings import PACKAGED_MODEL

    corpus = load_corpus(settings_of(path))
    model = locate_model(PACKAGED_MODEL, weights=False)
    return tokenize(corpus, model, SEQ_LEN, path.parent, store_texts=False).facts.train.num_rows


def by_datasets(path: Path) -> int:
    """`load_dataset("csv")` and a batched `map`, in one process, as its documentation shows it."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from harness.dataset.sources import locate_model
    from harness.schema.settings import PACKAGED_MODEL

    tokenizer = AutoTokenizer.from_pretrained(locate_model(PACKAGED_MODEL, weights=False).folder)
    rows = load_dataset("csv", data_files=str(path), cache_dir=str(path.parent / "datasets"))["train"]
    encode = lambda some: tokenizer(some["text"], truncation=True, max_length=SEQ_LEN)  # noqa: E731
    return len(rows.map(encode, batched=True, remove_columns=["text"]))


def by_pandas(path: Path) -> int:
    """The whole file as a frame, every row's tokens in a list."""
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


def _in_child(stage, path: Path, told: Path) -> None:
    """Run a stage, with its highest anonymous memory seen: what can't be given back to the disk."""
    most, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            most[0] = max(
                most[0], *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
            )

    threading.Thread(target=look, daemon=True).start()
    began = time.perf_counter()
    num_rows = stage(path)
    seconds = time.perf_counter() - began
    ended.set()
    told.write_text(json.dumps({"num_rows": num_rows, "seconds": seconds, "anonymous_bytes": 1024 * most[0]}))


def run_stage(name: str, stage, path: Path, limit_gib: float | None, minutes: float) -> str:
    """One row of the table."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        folder = Path(temporary)
        cage = MemoryCap(int((limit_gib or 1000) * GIB), 1, folder)
        process = multiprocessing.get_context("spawn").Process(target=_in_child, args=(stage, path, folder / "told"))
        try:
            with cage.spawn_inside(folder / "log"):
                process.start()
            process.join(60 * minutes)
            if process.is_alive():
                process.kill()
                process.join()
                return f"| {name} | more than {minutes:g} minutes | | | | |"
            cap = cage.cap()
            if process.exitcode:
                why = cage.oom_reason() or (folder / "log").read_text().strip().splitlines()[-1:]
                return f"| {name} | ended with {process.exitcode}: {why} | | | | |"
            told = json.loads((folder / "told").read_text())
        finally:
            cage.close()
    capped = f"{limit_gib:g} GiB{'' if cap.exact else ', approximate'}" if limit_gib else "none"
    peak = "not known" if cap.peak_bytes is None else f"{cap.peak_bytes / 2**20:,.0f}"
    rate = told["num_rows"] / told["seconds"]
    return f"| {name} | {told['seconds']:,.1f} | {rate:,.0f} | {told['anonymous_bytes'] / 2**20:,.0f} | {peak} | {capped} |"


def train(path: Path, num_train: int | str, limit_gib: float | None):
    """A cell of NUM_STEPS updates, with its record."""
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
    """The cell with all rows, under what the same one needs with 2,000 rows and 2 GiB more."""
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
    parser.add_argument("--minutes", type=float, default=60, help="at most, of each stage")
    parser.add_argument("--without-peers", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    path = asked.folder / f"rows-{asked.rows}.csv"
    os.environ[CACHE_VARIABLE] = str(asked.folder / "cache")
    shutil.rmtree(asked.folder / "cache", ignore_errors=True)
    shutil.rmtree(asked.folder / "datasets", ignore_errors=True)
    if not path.exists():
        make_file(path, asked.rows)
    print(f"{asked.rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB; {SEQ_LEN} tokens at most\n")
    print(
        "| stage | s | rows/s | anonymous memory, MiB | control group's peak, MiB | cap |\n|---|---:|---:|---:|---:|---:|"
    )
    for name, stage in OURS.items():
        print(run_stage(name, stage, path, PARENT_GIB, asked.minutes), flush=True)
    for name, stage in {} if asked.without_peers else PEERS.items():
        print(run_stage(name, stage, path, None, asked.minutes), flush=True)
    show_training(path)


if __name__ == "__main__":
    main()
