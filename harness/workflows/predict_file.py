"""Label a file by a model, in a process of its own, and say what that cost: `harness predict`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.dataset.sources import locate_model
from harness.errors import Unavailable, UserError
from harness.files import PACKAGE_FOLDER
from harness.machine.describe import package_version
from harness.machine.scrub import scrubbed_tail
from harness.machine.support import unsupported_reason
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
from harness.schema.settings import DeviceKind, Precision
from harness.store.saved_models import FACTS

_CHILD = "harness.worker.predict"
_NEEDED = ("torch", "transformers", "tokenizers", "pyarrow")
_DEFAULT_SEQ_LEN = 128  # of a model that does not say what it was trained with
_OWN_COLUMNS = ("row", "predicted")
_END_S = 5.0
_MESSAGE: TypeAdapter[PredictMessage] = TypeAdapter(AnyPredictMessage)


@dataclass(frozen=True)
class PredictOptions:
    """What the user said; None: as the model was trained, or as the machine has it."""

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
    """What a run labelled and what it took; `now` is without what an earlier run of the same output had done.

    Attributes:
        num_unlabelled: Rows without a text.
        seconds: From the first row read to the last one written: reading, tokenising, the model, writing.
        peak_bytes: Of main memory, loading included.
        peak_cuda_bytes: Reserved of the GPU; None on a CPU.
        usd_per_million_rows: At the machine's price and these rows a second, loading left out; None without a price.
        price: How the price is known, or why it is not.
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

    def as_fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan_job(asked: PredictOptions, machine: Machine) -> PredictJob:
    """What the process is to be told: the user's words, else how the model was trained.

    Raises:
        UserError: When there is no such model or file, a package is missing, or this machine can't do it.
    """
    missing = [name for name in _NEEDED if package_version(name) == "not installed"]
    if missing:
        raise UserError(
            f"{', '.join(missing)} not installed: predicting needs the extra `train` (pip install '.[train]')"
        )
    folder = locate_model(asked.model).folder
    if not asked.file.is_file():
        raise UserError(f"{asked.file}: no such file")
    trained = _read_facts(folder)
    text = asked.text or trained.get("text", "text")
    job = PredictJob(
        model=str(folder.resolve()),
        file=str(asked.file.resolve()),
        out=str(asked.out.resolve()),
        text=(text,) if isinstance(text, str) else tuple(text),
        pair=asked.pair or trained.get("pair"),
        carried=tuple(asked.carried),
        precision=asked.precision,
        batch_size=asked.batch_size,
        seq_len=asked.seq_len or trained.get("seq_len", _DEFAULT_SEQ_LEN),
        threads=asked.threads or machine.cpu.num_usable,
        device=asked.device or ("gpu" if machine.gpus and "+cpu" not in package_version("torch") else "cpu"),
    )
    if taken := [name for name in job.carried if name in _OWN_COLUMNS or name.startswith("p:")]:
        raise UserError(f"--with {taken[0]}: the output has a column of this name itself")
    if not asked.out.parent.is_dir():
        raise UserError(f"-o {asked.out}: there is no folder {asked.out.parent}")
    _require_supported(job, machine)
    return job


def predict_file(
    job: PredictJob,
    machine: Machine,
    price: Price | Unavailable,
    on_progress: Callable[[PredictMessage], None] = lambda _: None,
) -> Predicted:
    """Do a job in a process of its own; one that was ended before goes on where it left off.

    Raises:
        UserError: When it did not end well; what is written of the output is kept, and gone on with.
        KeyboardInterrupt: When Ctrl-C ended it; as above.
    """
    ended = PredictEnded()
    for message in _messages(job):
        on_progress(message)
        if isinstance(message, PredictEnded):
            ended = message
    if ended.result is None:
        raise UserError(ended.error or "the labelling process sent no result")
    return _judge(job, ended.result, machine, price)


def _messages(job: PredictJob) -> Iterator[PredictMessage]:
    with tempfile.TemporaryDirectory(prefix="harness-predict-") as folder:
        log = Path(folder) / "stderr.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                env=_environment(job), text=True, encoding="utf-8",
                start_new_session=True,  # the terminal's Ctrl-C is this process's
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - asked for above
        ended = False
        try:
            process.stdin.write(job.model_dump_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                message = _MESSAGE.validate_json(line)
                ended = isinstance(message, PredictEnded)
                yield message
        except BrokenPipeError:
            pass  # it could not even begin, and says why
        finally:
            _end(process)
        if not ended:
            tail = scrubbed_tail(log)
            last = f": {tail[-1]}" if tail else ""
            raise UserError(
                f"the labelling process ended with status {process.returncode} and no word{last}; what is written is kept, and "
                "the same command goes on"
            )


def _end(process: subprocess.Popen[str]) -> None:
    """Let it end by itself, for its input ends; at the latest after some seconds."""
    try:
        process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(job: PredictJob) -> dict[str, str]:
    root = str(PACKAGE_FOLDER.parent)
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": str(job.threads),
        "OMP_NUM_THREADS": str(job.threads),
    }


def _judge(job: PredictJob, result: PredictResult, machine: Machine, price: Price | Unavailable) -> Predicted:
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
        price=price.reason if isinstance(price, Unavailable) else _price_words(price),
        machine=machine.id,
        precision=job.precision,
        seq_len=job.seq_len,
        batch_size=job.batch_size,
        threads=job.threads,
        device=job.device,
    )


def _price_words(price: Price) -> str:
    about = ", ".join(part for part in (price.instance, price.region, price.as_of) if part)
    return f"{price.usd_per_hour:g} USD an hour, {price.basis}" + (f" ({about})" if about else "")


def _read_facts(folder: Path) -> dict[str, Any]:
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _require_supported(job: PredictJob, machine: Machine) -> None:
    tables: dict[str, Any] = {name: {} for name in ("model", "data", "training", "limits")}
    config = FineTuneConfig.model_validate(
        tables
        | {"batch_size": job.batch_size, "seq_len": job.seq_len, "precision": job.precision, "device": job.device}
        | {"padding": "longest", "trainable": "all", "threads": job.threads, "seed": 0}
    )
    reason = unsupported_reason(config, machine)
    if reason is not None:
        raise UserError(f"--precision {job.precision} on {job.device}: {reason.partition('; training.')[0]}")
