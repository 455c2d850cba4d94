"""A process that labels a file: `python -m harness.predicting`, its job a line of JSON on its standard input.

It answers in lines of JSON on its standard output, each with a `kind`: `begin`, `rows` (at most one a second) and `end`. When
its standard input ends it ends too: whoever ordered the job is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from harness.dataset.text_stream import TextWindow, read_windows
from harness.errors import UserError
from harness.execution.oom_messages import find_oom_message
from harness.schema.predict_job import PredictJob
from harness.worker.meters import peak_rss_bytes
from harness.worker.predict_output import PredictOutput, file_facts, identify

Tell = Callable[[dict[str, Any]], None]
_TELL_EVERY_S = 1.0
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PROBABILITY_DIGITS = 6


@dataclass
class LabelCounts:
    """What one run labelled; tokens without padding."""

    num_rows: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_truncated: int = 0


class Predictor:
    """A model with its tokenizer, and what they are to do."""

    def __init__(self, job: PredictJob) -> None:
        """Load them.

        Raises:
            UserError: When the folder holds no model that was trained to classify, or `seq_len` is beyond its positions.
        """
        self._job = job
        self._device = torch.device("cuda" if job.device == "gpu" else "cpu")
        torch.set_num_threads(job.threads)
        torch.set_float32_matmul_precision("high" if job.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = job.precision == "tf32"
        self._model = _load_model(job)
        self._model.to(self._device)  # type: ignore[arg-type]  # its stub lost the method's self
        self._model.eval()
        self._tokenizer = Tokenizer.from_file(str(Path(job.model) / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(job.seq_len)
        self._types = job.pair is not None and getattr(self._model.config, "type_vocab_size", 1) > 1
        names: Any = self._model.config.id2label
        self.labels = [str(names[index]) for index in range(len(names))]
        self.counts = LabelCounts()

    def label(self, window: TextWindow) -> tuple[pa.Table, int]:
        """A window's rows as they are written, and how many of them have no text and so no label."""
        rows = [row for row, text in enumerate(window.texts) if text is not None]
        inputs: list[Any] = [window.texts[row] for row in rows]
        if window.pairs is not None:
            inputs = [(window.texts[row], window.pairs[row]) for row in rows]
        encodings = self._tokenizer.encode_batch_fast(inputs)
        probabilities = np.full((len(window.texts), len(self.labels)), np.nan)
        if rows:
            probabilities[rows] = self._probabilities(encodings)
        self.counts.num_rows += len(window.texts)
        self.counts.num_tokens += sum(len(encoding.ids) for encoding in encodings)
        self.counts.num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        return as_table(window, probabilities, self.labels), len(window.texts) - len(rows)

    def _probabilities(self, encodings: list[Any]) -> np.ndarray:
        """Of every label for each encoding, `(rows, classes)`; batches hold texts of like length."""
        order = np.argsort([-len(encoding.ids) for encoding in encodings], kind="stable")
        found = []
        for begin in range(0, len(order), self._job.batch_size):
            batch = [encodings[row] for row in order[begin : begin + self._job.batch_size]]
            width = len(batch[0].ids)
            self.counts.num_padded_tokens += width * len(batch)
            given = {
                "input_ids": _padded([encoding.ids for encoding in batch], width),
                "attention_mask": _padded([encoding.attention_mask for encoding in batch], width),
            }
            if self._types:
                given["token_type_ids"] = _padded([encoding.type_ids for encoding in batch], width)
            logits = self._model(**{name: ids.to(self._device) for name, ids in given.items()}).logits
            found.append(logits.float().softmax(dim=-1))
        probabilities = np.empty((len(encodings), len(self.labels)))
        probabilities[order] = torch.cat(found).cpu().numpy()
        return probabilities


def predict_file(job: PredictJob, tell: Tell) -> dict[str, Any]:
    """Do a job, or what of it an earlier run left.

    Returns:
        Rows of the whole output and of this run, seconds from the first row read to the last one written, and peak memory.

    Raises:
        UserError: When input, model or output are not as they should be, or the input changed while it was read.
    """
    began = time.perf_counter()
    identity = identify(job)
    labeller = Predictor(job)
    load_s = time.perf_counter() - began
    with PredictOutput(job, identity) as output, torch.inference_mode(), _autocast(job):
        tell({"kind": "begin", "num_rows": output.progress.num_rows, "load_s": load_s})
        began = told_at = time.perf_counter()
        windows = read_windows(
            Path(job.file), text=job.text, pair=job.pair, carried=job.carried,
            num_rows=job.window_rows, skip=output.progress.num_rows,
        )  # fmt: skip
        empty = None
        for window in windows:
            table, num_unlabelled = labeller.label(window)
            output.append(table, num_unlabelled)
            empty = table.schema.empty_table()
            if (now := time.perf_counter()) - told_at >= _TELL_EVERY_S:
                told_at = now
                tell({"kind": "rows", "num_rows": output.progress.num_rows, "seconds": now - began})
        seconds = time.perf_counter() - began
        if file_facts(Path(job.file)) != identity.file:
            raise UserError(f"{job.file}: it changed while it was read; --restart labels it anew")
        output.finish(_no_rows(job, labeller.labels) if empty is None else empty)
        counts, whole = labeller.counts, output.progress
    return {
        "num_rows": whole.num_rows,
        "num_unlabelled": whole.num_unlabelled,
        "num_rows_now": counts.num_rows,
        "num_tokens_now": counts.num_tokens,
        "num_padded_tokens_now": counts.num_padded_tokens,
        "num_truncated_now": counts.num_truncated,
        "num_labels": len(labeller.labels),
        "load_s": load_s,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_cuda_bytes": torch.cuda.max_memory_reserved() if job.device == "gpu" else None,
    }


def as_table(window: TextWindow, probabilities: np.ndarray, labels: list[str]) -> pa.Table:
    """Row numbers, copied columns, the likeliest label and what each label was given; nothing where there was no text."""
    missing = np.isnan(probabilities[:, 0])
    likeliest = np.where(missing, 0, np.nan_to_num(probabilities).argmax(axis=1))
    names = pa.array([None if gone else labels[index] for index, gone in zip(likeliest, missing, strict=True)], pa.string())  # fmt: skip
    columns: dict[str, Any] = {"row": pa.array(range(window.first_row, window.first_row + len(missing)), pa.int64())}
    columns |= {name: window.carried.column(name) for name in window.carried.column_names}
    columns["predicted"] = names
    rounded = np.round(probabilities, _PROBABILITY_DIGITS)
    for index, label in enumerate(labels):
        columns[f"p:{label}"] = pa.array(rounded[:, index], pa.float64(), from_pandas=True)
    return pa.table(columns)


def _no_rows(job: PredictJob, labels: list[str]) -> pa.Table:
    """The columns of an output without a row."""
    carried = pa.table({name: pa.array([], pa.string()) for name in job.carried})
    return as_table(TextWindow(0, [], None, carried), np.empty((0, len(labels))), labels)


def _load_model(job: PredictJob) -> PreTrainedModel:
    model, told = AutoModelForSequenceClassification.from_pretrained(
        job.model, local_files_only=True, use_safetensors=True, dtype=torch.float32, attn_implementation="sdpa",
        output_loading_info=True,
    )  # fmt: skip
    if missing := sorted(told["missing_keys"]):
        raise UserError(
            f"model {job.model}: it was not trained to classify: {', '.join(missing[:4])} are not in its weights; "
            "training.keep_model = true keeps one that was"
        )
    positions = model.config.max_position_embeddings
    if job.seq_len > positions:
        raise UserError(f"--seq-len {job.seq_len}: this model has {positions} positions")
    return model  # type: ignore[no-any-return]


def _padded(rows: list[list[int]], width: int) -> torch.Tensor:
    padded = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def _autocast(job: PredictJob) -> contextlib.AbstractContextManager[Any]:
    dtype = _AUTOCAST.get(job.precision)
    kind = "cuda" if job.device == "gpu" else "cpu"
    return torch.autocast(kind, dtype=dtype) if dtype is not None else contextlib.nullcontext()


def main() -> None:
    """Read the job, do it, and tell how it ended."""
    job = PredictJob.model_validate_json(sys.stdin.readline())
    tell = _take_stdout()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        tell({"kind": "end", "error": None, **predict_file(job, tell)})
    except UserError as error:
        tell({"kind": "end", "error": str(error)})
    except Exception as error:  # noqa: BLE001 - every ending is told
        traceback.print_exc()
        sign = "out of memory" if isinstance(error, MemoryError) else find_oom_message(str(error))
        lower = "; a smaller --batch-size needs less" if sign else ""
        first = (str(error).strip().splitlines() or ["no message"])[0]
        tell({"kind": "end", "error": f"{type(error).__name__}: {sign or first}{lower}"})


def _take_stdout() -> Tell:
    """Keep standard output for messages; what libraries print goes to standard error."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(message: dict[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    return tell


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
