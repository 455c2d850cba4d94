"""A run of transformers' Trainer on given tokens, with the clock stopped during evaluations.

Run by bench/bench_peers.py in the environment .venv-peers/trainer, with one argument: the job as JSON. Prints one line of JSON.

If a comparison needs the same recipe, the job's `arguments` hold it. The other settings here only save Trainer time: no
reports, no progress bar, no saving, and a plain list of rows, which is read faster than a datasets.Dataset.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.utils import logging


def load_rows(job, split, pad_to):
    """Load rows as a tokenizer returns them; `pad_to` pads them as `padding="max_length"` does."""
    offsets, labels = (np.load(f"{job['tokens']}/{split}-{name}.npy").tolist() for name in ("offsets", "labels"))
    ids = np.fromfile(f"{job['tokens']}/{split}-ids.bin", np.int32).tolist()
    rows = []
    for begin, end, label in zip(offsets, offsets[1:], labels, strict=False):
        blank = [0] * (max(0, pad_to - (end - begin)) if pad_to else 0)
        mask = [1] * (end - begin) + blank
        rows.append({"input_ids": ids[begin:end] + blank, "attention_mask": mask, "labels": label})
    return rows


class Clock(TrainerCallback):
    """A clock of the training time without evaluations; it also ends training at the target.

    The clock starts with the first epoch, so that Trainer's preparation is not counted.
    """

    def __init__(self, target):
        self.target = target
        self.steps_s, self.evaluations = [], []
        self.began = self.mark = self.first_step_at = None
        self.evaluate_s = self.train_s = 0.0

    def on_epoch_begin(self, args, state, control, **_):
        if self.began is None:
            self.began = self.mark = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        now = time.perf_counter()
        self.steps_s.append(now - self.mark)
        self.mark, self.train_s = now, now - self.began - self.evaluate_s

    def evaluated(self, accuracy, began, state, control):
        self.evaluations.append({"train_s": self.train_s, "num_updates": state.global_step, "accuracy": accuracy})
        self.mark = time.perf_counter()
        self.evaluate_s += self.mark - began
        if self.target is not None and accuracy >= self.target:
            control.should_training_stop = True


class Timed(Trainer):
    """Trainer whose evaluations stop the clock."""

    clock = None

    def evaluate(self, *args, **kwargs):
        began = time.perf_counter()
        metrics = super().evaluate(*args, **kwargs)
        self.clock.evaluated(metrics["eval_accuracy"], began, self.state, self.control)
        return metrics


def main(job):
    logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    set_seed(job["seed"])
    folder = job["model"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    padded = job["padding"] == "max"
    collate = default_data_collator if padded else DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder))
    rows = {split: load_rows(job, split, job["seq_len"] if padded else None) for split in ("train", "val")}
    arguments = job["arguments"]
    if job["eval_every"] is not None:
        num_steps = -(-len(rows["train"]) // arguments.get("per_device_train_batch_size", 8))
        arguments |= {"eval_strategy": "steps", "eval_steps": max(1, round(job["eval_every"] * num_steps))}
    clock = Clock(job["target"])
    with tempfile.TemporaryDirectory() as output:
        trainer = Timed(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                save_strategy="no",
                dataloader_pin_memory=False,
                seed=job["seed"],
                train_sampling_strategy="group_by_length" if job["padding"] == "grouped" else "random",
                per_device_eval_batch_size=32,
                **arguments,
            ),
            data_collator=collate,
            train_dataset=rows["train"],
            eval_dataset=rows["val"],
            compute_metrics=lambda found: {"accuracy": float((found[0].argmax(-1) == found[1]).mean())},
            callbacks=[clock],
        )
        trainer.clock = clock
        trainer.train()
        ended = [look["num_updates"] for look in clock.evaluations][-1:] == [trainer.state.global_step]
        if job["eval_every"] is not None and not ended:
            trainer.evaluate()
    report = {
        "steps_s": clock.steps_s,
        "train_s": clock.train_s,
        "num_rows": len(rows["train"]),
        "evaluations": clock.evaluations,
        "threads": torch.get_num_threads(),
        "optimizer": str(trainer.args.optim),
        "attention": model.config._attn_implementation,
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
    }
    print(json.dumps(report, default=str))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
