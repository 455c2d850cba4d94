"""`harness predict`: label a file with a model in a process of its own, and compute speed and cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harness.dataset.file_formats import find_file, require_utf8_name
from harness.dataset.sources import locate_model
from harness.errors import Unavailable, UserError
from harness.files import PACKAGE_FOLDER, remove_partial_files
from harness.machine.describe import package_version
from harness.machine.private_folders import private_folder
from harness.machine.scrub import scrubbed_tail
from harness.machine.support import unsupported_reason
from harness.machine.variables import environment_without_thread_variables
from harness.pricing import formulas
from harness.pricing.prices import Price
from harness.schema.cells import FineTuneConfig
from harness.schema.host_record import Machine
from harness.schema.predict_job import (
    AnyPredictMessage,
    PredictEnded,
    PredictJob,
    PredictMessage,
    PredictResult,
)
from harness.schema.settings import AttentionKind, Column, Columns, Count, DeviceKind, Precision, SeqLen
from harness.shipped import how_to_install
from harness.store.saved_models import FACTS

WORKER = "import harness.execution.end_with_parent; from harness.worker.predict import main; main()"
_REQUIRED_PACKAGES = ("torch", "transformers", "tokenizers", "pyarrow")
# The keys of a model's metadata that `harness predict` uses. JSON has lists for tuples.
_METADATA: dict[str, TypeAdapter[Any]] = {
    "text": TypeAdapter(Columns), "pair": TypeAdapter(Column | None), "seq_len": TypeAdapter(SeqLen),
    "attention": TypeAdapter(AttentionKind | None), "pad_multiple": TypeAdapter(Count),
}  # fmt: skip
_DEFAULT_SEQ_LEN = 128  # for models without training metadata
_OUTPUT_COLUMNS = ("row", "predicted")
_EXIT_TIMEOUT_S = 5.0
_MESSAGE: TypeAdapter[PredictMessage] = TypeAdapter(AnyPredictMessage)


@dataclass(frozen=True)
class PredictOptions:
    """Options of `harness predict`.

    By default, `text`, `pair` and `seq_len` are as in the model's training, `threads` is every usable CPU, and `device` is
    a GPU if there is one.
    """

    model: str
    file: Path
    out: Path
    text: Sequence[str] | None = None
    pair: str | None = None
    carried: Sequence[str] = ()
    precision: Precision = "fp32"
    batch_size: int = 32
    seq_len: int | None = None
    threads: int | None = None
    device: DeviceKind | None = None


@dataclass(frozen=True)
class Predicted:
    """Result of a run; fields with `now` exclude rows that an earlier, interrupted run labelled.

    Attributes:
        num_unlabelled: Number of rows without text, which get no label.
        seconds: Time from the first row read to the last row written, without loading the model.
        peak_bytes: Peak main memory, loading included.
        peak_cuda_bytes: Peak reserved GPU memory; None on a CPU.
        usd_per_million_rows: Cost of labelling a million rows, from the machine's price and `rows_per_s`; None without a
            price.
        price: Description of the price, or why it is unknown.
    """

    out: str
    num_rows: int
    num_rows_now: int
    num_unlabelled: int
    num_truncated_now: int
    num_tokens_now: int
    padding_fraction: float | None
    load_s: float
    seconds: float
    rows_per_s: float | None
    tokens_per_s: float | None
    peak_bytes: int
    peak_cuda_bytes: int | None
    usd_per_million_rows: float | None
    price: str
    machine: str
    precision: str
    seq_len: int
    batch_size: int
    threads: int
    device: str

    def as_fields(self) -> dict[str, object]:
        """Return the fields of `--json`."""
        return asdict(self)


def plan_job(options: PredictOptions, machine: Machine) -> PredictJob:
    """Build the worker's job; options that are not given follow the model's training.

    Raises:
        UserError: If the model or file does not exist, a package is missing, or this machine doesn't support the options.
    """
    missing = [name for name in _REQUIRED_PACKAGES if package_version(name) == "not installed"]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed: `harness predict` needs the extra `train` ({how_to_install('train')})"
        )
    folder = locate_model(options.model).folder
    find_file(options.file)
    require_utf8_name(str(options.out), f"-o {options.out}")
    metadata = _read_metadata(folder)
    text = options.text or metadata.get("text", "text")
    job = PredictJob(
        model=str(folder.resolve()),
        file=str(options.file.resolve()),
        out=str(options.out.resolve()),
        text=(text,) if isinstance(text, str) else tuple(text),
        pair=options.pair or metadata.get("pair"),
        carried=tuple(options.carried),
        precision=options.precision,
        batch_size=options.batch_size,
        seq_len=options.seq_len or metadata.get("seq_len", _DEFAULT_SEQ_LEN),
        threads=options.threads or machine.cpu.num_usable,
        attention=metadata.get("attention"),
        pad_multiple=metadata.get("pad_multiple", 1),
        device=options.device or ("gpu" if machine.gpus and "+cpu" not in package_version("torch") else "cpu"),
    )
    if taken := [name for name in job.carried if name in _OUTPUT_COLUMNS or name.startswith("p:")]:
        raise UserError(f"--with {taken[0]}: the output already has a column of this name")
    if not options.out.parent.is_dir():
        raise UserError(f"-o {options.out}: no such folder: {options.out.parent}")
    _require_supported(job, machine)
    remove_partial_files(options.out.parent)
    return job


def predict_file(
    job: PredictJob,
    machine: Machine,
    price: Price | Unavailable,
    on_progress: Callable[[PredictMessage], None] = lambda _: None,
) -> Predicted:
    """Run a job in a process of its own; an interrupted job resumes where it stopped.

    Args:
        job: The job to run.
        machine: This machine.
        price: This machine's hourly price, or why it is unknown.
        on_progress: Function to call with each message of the worker.

    Raises:
        UserError: If the worker failed; the output so far is kept, and the next call resumes.
        OSError: If the file system failed, such as a full disk; likewise.
        KeyboardInterrupt: If Ctrl-C stopped the job; the output so far is kept, and the next call resumes.
    """
    ended = PredictEnded()
    for message in _messages(job):
        on_progress(message)
        if isinstance(message, PredictEnded):
            ended = message
    if ended.errno is not None:
        raise OSError(ended.errno, ended.error, ended.file)
    if ended.result is None:
        raise UserError(ended.error or "the worker sent no result")
    return _summarize(job, ended.result, machine, price)


def _messages(job: PredictJob) -> Iterator[PredictMessage]:
    with private_folder("predict") as folder:
        log = folder / "stderr.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                env=_environment(job), text=True, encoding="utf-8",
                start_new_session=True,  # so that the terminal's Ctrl-C reaches this process only
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are PIPE
        ended = False
        try:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                message = _MESSAGE.validate_json(line)
                ended = isinstance(message, PredictEnded)
                yield message
        except BrokenPipeError:
            pass  # the worker failed before reading its job; its stderr says why
        finally:
            _wait_or_kill(process)
        if not ended:
            tail = scrubbed_tail(log)
            last = f": {tail[-1]}" if tail else ""
            raise UserError(
                f"the worker exited with status {process.returncode} and no message{last}; the output so far is kept, and the "
                "same command resumes"
            )


def _wait_or_kill(process: subprocess.Popen[str]) -> None:
    """Close the worker's input, wait for it to exit, and kill it after a time-out."""
    try:
        process.communicate(timeout=_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(job: PredictJob) -> dict[str, str]:
    root = str(PACKAGE_FOLDER.parent)
    return environment_without_thread_variables() | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(job.threads),
        "OMP_NUM_THREADS": str(job.threads),
    }


def _summarize(job: PredictJob, result: PredictResult, machine: Machine, price: Price | Unavailable) -> Predicted:
    seconds, num_now, num_padded = result.seconds, result.num_rows_now, result.num_padded_tokens_now
    rate = num_now / seconds if num_now and seconds > 0 else None
    hourly = None if isinstance(price, Unavailable) else price.usd_per_hour
    return Predicted(
        out=job.out,
        num_rows=result.num_rows,
        num_rows_now=num_now,
        num_unlabelled=result.num_unlabelled,
        num_truncated_now=result.num_truncated_now,
        num_tokens_now=result.num_tokens_now,
        padding_fraction=1 - result.num_tokens_now / num_padded if num_padded else None,
        load_s=result.load_s,
        seconds=seconds,
        rows_per_s=rate,
        tokens_per_s=result.num_tokens_now / seconds if rate else None,
        peak_bytes=result.peak_rss_bytes,
        peak_cuda_bytes=result.peak_cuda_bytes,
        usd_per_million_rows=formulas.usd_per_million_predictions(hourly, rate, 1.0) if hourly else None,
        price=price.reason if isinstance(price, Unavailable) else _price_text(price),
        machine=machine.id,
        precision=job.precision,
        seq_len=job.seq_len,
        batch_size=job.batch_size,
        threads=job.threads,
        device=job.device,
    )


def _price_text(price: Price) -> str:
    details = ", ".join(part for part in (price.instance, price.region, price.as_of) if part)
    return f"{price.usd_per_hour:g} USD an hour, {price.basis_word} price" + (f" ({details})" if details else "")


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(metadata, dict):
            raise ValueError("not a JSON object")
        return {key: check.validate_python(metadata[key]) for key, check in _METADATA.items() if key in metadata}
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise UserError(f"{path}: one of {', '.join(_METADATA)} is of the wrong kind: {problem}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def _require_supported(job: PredictJob, machine: Machine) -> None:
    tables: dict[str, object] = {name: {} for name in ("model", "data", "training", "limits")}
    config = FineTuneConfig.model_validate(
        tables
        | {"batch_size": job.batch_size, "seq_len": job.seq_len, "precision": job.precision, "device": job.device}
        | {"padding": "longest", "trainable": "all", "threads": job.threads, "seed": 0}
    )
    reason = unsupported_reason(config, machine)
    if reason is not None:
        raise UserError(f"--precision {job.precision} on {job.device}: {reason.partition('; training.')[0]}")
