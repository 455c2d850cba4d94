"""Check that `harness predict` needs no more memory for longer files: `python bench/bench_predict.py`.

A model of random weights (2 layers, hidden 128) labels files of made-up rows, each file in a fresh process. Printed are rows
and tokens per second, peak memory, and the ratio of the last file's peak to the first's. Exit status 1 if the peaks differ by
more than 5 %.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import sys
import tempfile
from pathlib import Path

from harness.cli.lookups import MachineOptions
from harness.dataset.sources import locate_model
from harness.machine.describe import describe_machine
from harness.schema.settings import PACKAGED_MODEL
from harness.workflows.predict_file import Predicted, PredictOptions, plan_job, predict_file

MIB = 2**20
MOST_GROWTH = 0.05
WORDS = [
    "a",
    "quietly",
    "moving",
    "film",
    "that",
    "never",
    "begs",
    "for",
    "its",
    "tears",
    "and",
    "is",
    "far",
    "too",
    "long",
    "to",
    "be",
    "called",
    "tedious",
    "or",
    "dreadful",
    "by",
    "anyone",
]


def main() -> int:
    """Label each file, print the figures, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000], help="rows of each file")
    parser.add_argument("--words", type=int, default=24, help="words of a row at most")
    parser.add_argument("--model", help="instead of random weights: a folder that `keep_model` wrote")
    parser.add_argument("--seq-len", type=int, default=64)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, help="default: all usable cores")
    asked = parser.parse_args()
    machine = describe_machine()
    price = MachineOptions().price(machine)
    found: list[Predicted] = []
    with tempfile.TemporaryDirectory(prefix="bench-predict-") as temporary:
        folder = Path(temporary)
        model = asked.model or str(write_model(folder / "model"))
        print("| rows | rows/s | tokens/s | seconds | to load, s | peak, MiB | USD per million rows |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for num_rows in asked.rows:
            path = write_rows(folder / f"{num_rows}.csv", num_rows, asked.words)
            job = plan_job(
                PredictOptions(
                    model, path, folder / f"{num_rows}.out.csv", text=["text"], seq_len=asked.seq_len,
                    precision=asked.precision, threads=asked.threads,
                ),
                machine,
            )  # fmt: skip
            one = predict_file(job, machine, price)
            found.append(one)
            usd = "not known" if one.usd_per_million_rows is None else f"{one.usd_per_million_rows:.4g}"
            print(
                f"| {one.num_rows:,} | {one.rows_per_s:,.0f} | {one.tokens_per_s:,.0f} | {one.seconds:.1f} | {one.load_s:.1f} "
                f"| {one.peak_bytes / MIB:,.1f} | {usd} |",
                flush=True,
            )
    growth = found[-1].peak_bytes / found[0].peak_bytes - 1
    print(f"\nThe last peak is {growth:+.1%} of the first; {price if isinstance(price, str) else found[-1].price}.")
    return int(abs(growth) > MOST_GROWTH)


def write_model(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    BertForSequenceClassification(BertConfig(**shape)).save_pretrained(folder)
    shutil.copyfile(locate_model(PACKAGED_MODEL, weights=False).folder / "tokenizer.json", folder / "tokenizer.json")
    return folder


def write_rows(path: Path, num_rows: int, num_words: int) -> Path:
    rng = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([" ".join(rng.choices(WORDS, k=rng.randint(1, num_words)))] for _ in range(num_rows))
    return path


if __name__ == "__main__":
    sys.exit(main())
