"""The process that predicts the labels of a file: `python -m harness.worker.predict`.

Reads one `PredictJob` as a line of JSON from standard input, and answers with one `PredictMessage` per line on standard
output. It exits when its standard input ends, since the parent is gone then.
"""

from __future__ import annotations

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
from harness.schema.predict_job import (
    PredictEnded,
    PredictJob,
    PredictMessage,
    PredictResult,
    PredictStarted,
    RowsPredicted,
)
from harness.worker.device import set_matmul_precision
from harness.worker.evaluation import autocast
from harness.worker.meters import peak_rss_bytes
from harness.worker.predict_output import PredictOutput, identify, identify_file

Send = Callable[[PredictMessage], None]
_MESSAGE_INTERVAL_S = 1.0
_PROBABILITY_DIGITS = 6


@dataclass
class PredictCounts:
    """Counts of what one run has predicted so far.

    Attributes:
        num_tokens: Tokens, excluding padding.
        num_padded_tokens: Tokens, including padding.
        num_truncated: Texts that were cut to `seq_len` tokens.
    """

    num_rows: int = 0
    num_tokens: int = 0
    num_padded_tokens: int = 0
    num_truncated: int = 0


class Predictor:
    """A model and its tokenizer, ready to predict."""

    def __init__(self, job: PredictJob) -> None:
        """Load model and tokenizer.

        Raises:
            UserError: If the folder holds no trained classifier, or `seq_len` exceeds the model's positions.
        """
        self._job = job
        self.device = torch.device("cuda" if job.device == "gpu" else "cpu")
        torch.set_num_threads(job.threads)
        set_matmul_precision(job.precision)
        self._model = _load_model(job)
        self._model.to(self.device)  # type: ignore[arg-type]  # the type stub lacks the method's `self`
        self._model.eval()
        self._tokenizer = Tokenizer.from_file(str(Path(job.model) / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(job.seq_len)
        self._uses_types = job.pair is not None and getattr(self._model.config, "type_vocab_size", 1) > 1
        names: Any = self._model.config.id2label
        self.labels = [str(names[index]) for index in range(len(names))]
        self.counts = PredictCounts()

    def predict(self, window: TextWindow) -> tuple[pa.Table, int]:
        """Predict a window of rows; return the output's rows, and how many of them had no text."""
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
        return output_table(window, probabilities, self.labels), len(window.texts) - len(rows)

    def _probabilities(self, encodings: list[Any]) -> np.ndarray:
        """Return each label's probability, `(rows, labels)`; batches hold texts of similar length."""
        order = np.argsort([-len(encoding.ids) for encoding in encodings], kind="stable")
        outputs = []
        for begin in range(0, len(order), self._job.batch_size):
            batch = [encodings[row] for row in order[begin : begin + self._job.batch_size]]
            width = len(batch[0].ids)
            self.counts.num_padded_tokens += width * len(batch)
            inputs = {
                "input_ids": _padded([encoding.ids for encoding in batch], width),
                "attention_mask": _padded([encoding.attention_mask for encoding in batch], width),
            }
            if self._uses_types:
                inputs["token_type_ids"] = _padded([encoding.type_ids for encoding in batch], width)
            logits = self._model(**{name: ids.to(self.device) for name, ids in inputs.items()}).logits
            outputs.append(logits.float().softmax(dim=-1))
        probabilities = np.empty((len(encodings), len(self.labels)))
        probabilities[order] = torch.cat(outputs).cpu().numpy()
        return probabilities


def predict_file(job: PredictJob, send: Send) -> PredictResult:
    """Predict every row of a file, except for those that an earlier, interrupted run wrote.

    Raises:
        UserError: If input, model or output are unusable, or the input changed while it was read.
    """
    began = time.perf_counter()
    identity = identify(job)
    predictor = Predictor(job)
    load_s = time.perf_counter() - began
    inference = autocast(job.precision, predictor.device)
    with PredictOutput(job, identity) as output, torch.inference_mode(), inference:
        send(PredictStarted(num_rows=output.progress.num_rows, load_s=load_s))
        began = sent_at = time.perf_counter()
        windows = read_windows(
            Path(job.file), text=job.text, pair=job.pair, carried=job.carried,
            num_rows=job.window_rows, skip=output.progress.num_rows,
        )  # fmt: skip
        empty = None
        for window in windows:
            table, num_unlabelled = predictor.predict(window)
            output.append(table, num_unlabelled)
            empty = table.schema.empty_table()
            if (now := time.perf_counter()) - sent_at >= _MESSAGE_INTERVAL_S:
                sent_at = now
                send(RowsPredicted(num_rows=output.progress.num_rows, seconds=now - began))
        seconds = time.perf_counter() - began
        if identify_file(Path(job.file)) != identity.file:
            raise UserError(f"{job.file}: the file changed while it was read; --restart starts over")
        output.finish(_empty_table(job, predictor.labels) if empty is None else empty)
    counts = predictor.counts
    return PredictResult(
        num_rows=output.progress.num_rows,
        num_unlabelled=output.progress.num_unlabelled,
        num_rows_now=counts.num_rows,
        num_tokens_now=counts.num_tokens,
        num_padded_tokens_now=counts.num_padded_tokens,
        num_truncated_now=counts.num_truncated,
        load_s=load_s,
        seconds=seconds,
        peak_rss_bytes=peak_rss_bytes(),
        peak_cuda_bytes=torch.cuda.max_memory_reserved() if job.device == "gpu" else None,
    )


def output_table(window: TextWindow, probabilities: np.ndarray, labels: list[str]) -> pa.Table:
    """Build the output's rows: row number, copied columns, predicted label, and each label's probability.

    Args:
        window: The rows' texts and copied columns.
        probabilities: `(rows, labels)`; NaN in rows without a text, which get no label.
        labels: The labels' names.
    """
    missing = np.isnan(probabilities[:, 0])
    likeliest = np.where(missing, 0, np.nan_to_num(probabilities).argmax(axis=1))
    predicted = [None if is_missing else labels[index] for index, is_missing in zip(likeliest, missing, strict=True)]
    columns: dict[str, Any] = {"row": pa.array(range(window.first_row, window.first_row + len(missing)), pa.int64())}
    columns |= {name: window.carried.column(name) for name in window.carried.column_names}
    columns["predicted"] = pa.array(predicted, pa.string())
    rounded = np.round(probabilities, _PROBABILITY_DIGITS)
    for index, label in enumerate(labels):
        columns[f"p:{label}"] = pa.array(rounded[:, index], pa.float64(), from_pandas=True)
    return pa.table(columns)


def _empty_table(job: PredictJob, labels: list[str]) -> pa.Table:
    carried = pa.table({name: pa.array([], pa.string()) for name in job.carried})
    return output_table(TextWindow(0, [], None, carried), np.empty((0, len(labels))), labels)


def _load_model(job: PredictJob) -> PreTrainedModel:
    model, loading_info = AutoModelForSequenceClassification.from_pretrained(
        job.model, local_files_only=True, use_safetensors=True, dtype=torch.float32, attn_implementation="sdpa",
        trust_remote_code=False, output_loading_info=True,
    )  # fmt: skip
    if missing := sorted(loading_info["missing_keys"]):
        raise UserError(
            f"model {job.model}: not trained to classify: its weights lack {', '.join(missing[:4])}; "
            "training.keep_model = true saves a model that is"
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


def main() -> None:
    """Read the job, run it, and send how it ended."""
    job = PredictJob.model_validate_json(sys.stdin.readline())
    send = _reserve_stdout()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        send(PredictEnded(result=predict_file(job, send)))
    except UserError as error:
        send(PredictEnded(error=str(error)))
    except Exception as error:  # noqa: BLE001 - every failure is reported to the parent
        traceback.print_exc()
        oom_message = "out of memory" if isinstance(error, MemoryError) else find_oom_message(str(error))
        advice = "; a smaller --batch-size needs less" if oom_message else ""
        first_line = (str(error).strip().splitlines() or ["no message"])[0]
        send(PredictEnded(error=f"{type(error).__name__}: {oom_message or first_line}{advice}"))


def _reserve_stdout() -> Send:
    """Reserve standard output for messages, and redirect the libraries' prints to standard error."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: PredictMessage) -> None:
        messages.write(message.model_dump_json() + "\n")
        messages.flush()

    return send


def _exit_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
