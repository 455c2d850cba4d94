"""The process that predicts the labels of a file.

Reads one `PredictJob` as a line of JSON from standard input, and answers with one `PredictMessage` per line on standard
output. It exits when its standard input ends, since the parent is gone then.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
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
from harness.worker.evaluation import autocast
from harness.worker.meters import peak_rss_bytes
from harness.worker.predict_output import PredictOutput, identify, identify_file
from harness.worker.predictor import Predictor, output_table

Send = Callable[[PredictMessage], None]
_MESSAGE_INTERVAL_S = 1.0


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


def _empty_table(job: PredictJob, labels: list[str]) -> pa.Table:
    carried = pa.table({name: pa.array([], pa.string()) for name in job.carried})
    return output_table(TextWindow(0, [], None, carried), np.empty((0, len(labels))), labels)


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
        send(_failure(error))


def _failure(error: Exception) -> PredictEnded:
    """Describe an unexpected failure in one line."""
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOMEM):
        return PredictEnded(error=error.strerror, errno=error.errno, file=error.filename)
    oom_message = "out of memory" if isinstance(error, MemoryError) else find_oom_message(str(error))
    advice = "; a smaller --batch-size needs less" if oom_message else ""
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    return PredictEnded(error=f"{type(error).__name__}: {oom_message or first_line}{advice}")


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
