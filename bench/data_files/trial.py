"""Put one generated file through `inspect`, `plan`, reading as `run` does, and `predict`, and compare what they say."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_files.case import Case

from harness.cli import main as cli
from harness.dataset.rows import read_rows
from harness.dataset.text_stream import read_windows
from harness.errors import UserError
from harness.execution.preparation import Preparations, require_meaningful_accuracy
from harness.machine.describe import describe_machine
from harness.schema.expansion import expand
from harness.schema.host_record import Machine
from harness.schema.inputs_record import DataFacts
from harness.schema.settings import DataSettings
from harness.schema.study_file import load_study
from harness.worker.predict import predict_file
from harness.workflows.predict_file import PredictOptions, plan_job

READ, REFUSED, TRACEBACK = "read", "refused", "traceback"
_SEQ_LEN = 32
_SUFFIXES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Answer:
    """How one command answered: `read`, `refused` or `traceback`, and with what text; `value` is what was read."""

    state: str
    text: str = ""
    value: Any = None


@dataclass
class Trial:
    """All answers to one file, and what is wrong with them."""

    case: Case
    answers: dict[str, Answer] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def try_case(case: Case, folder: Path, model: Path) -> Trial:
    """Write a case's file and put it through all commands.

    Args:
        case: The case.
        folder: An empty folder.
        model: Folder of a trained classifier.
    """
    trial, data, study = Trial(case), folder / "data", folder / "study.toml"
    data.mkdir()
    path = case.write(data)
    columns = ["--text", case.text, "--label", case.label]
    common = ["--results", folder / "none", "--model", model]
    trial.answers["inspect"] = _command("inspect", path, *columns, *common, "--json", "--write", study)
    trial.answers["inspect, columns guessed"] = _command("inspect", path, *common)
    study = study if study.exists() else _write_study(folder / "default.toml", case, path)
    trial.answers["plan"] = _command("plan", study, "--results", folder / "none")
    for name, on_bad_row in (("run", "skip"), ("run, no row skipped", "stop")):
        trial.answers[name] = _call(lambda at=on_bad_row: _prepare(case, study, model, folder / at, at))  # type: ignore[misc]
    trial.answers["predict"] = _call(lambda: _predict(case, path, model, folder))
    _check(trial, path)
    return trial


def _write_study(study: Path, case: Case, path: Path) -> Path:
    """Write a study of a file for which `inspect` wrote none."""
    # A study file can't hold a name that is not UTF-8.
    data = {
        "source": _printable(str(path)),
        "text": case.text,
        "label": case.label,
        "num_train": "all",
        "num_val": 1,
        "num_test": 1,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in data.items()]
    study.write_text("\n".join(["[data]", *lines, ""]), encoding="utf-8")
    return study


def _printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def _command(*arguments: object) -> Answer:
    """Run a command in this process, with output to pipes of ASCII."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True) for _ in range(2))
    before, sys.argv = sys.argv, ["harness", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        texts = [stream.buffer.getvalue().decode("ascii") for stream in (out, err)]  # type: ignore[attr-defined]
        return Answer(REFUSED, texts[1]) if ended.code else Answer(READ, texts[0])
    except BaseException as error:  # noqa: BLE001 - each is a traceback for the user
        return Answer(TRACEBACK, f"{type(error).__name__}: {error}")
    finally:
        sys.argv = before
    raise AssertionError("main() always exits")


def _call(function: Callable[[], object]) -> Answer:
    try:
        return Answer(READ, value=function())
    except UserError as error:
        return Answer(REFUSED, str(error))
    except Exception as error:  # noqa: BLE001 - each is a traceback for the user
        return Answer(TRACEBACK, f"{type(error).__name__}: {error}")


def _prepare(case: Case, study_file: Path, model: Path, folder: Path, on_bad_row: str) -> tuple[DataFacts, str | None]:
    """Prepare all cells of a study as `run` does.

    Args:
        case: The case; only where a label is rare, a split of one label is no refusal of the file.
        study_file: The study.
        model: Folder of a classifier.
        folder: Folder for the prepared data.
        on_bad_row: `stop` or `skip`.

    Returns:
        The data, and why a study of them is refused.
    """
    folder.mkdir()
    study = load_study(study_file, [f"data.on_bad_row={on_bad_row}", f"model.name={json.dumps(str(model))}"])
    preparations = Preparations(folder)
    for cell in expand(study):
        prepared = preparations.prepare(cell)
        try:
            require_meaningful_accuracy(cell, prepared)
        except UserError as error:
            if not case.has_rare_label:
                raise
            return prepared.data, str(error)
    return prepared.data, None


def _predict(case: Case, path: Path, model: Path, folder: Path) -> int:
    """Predict a file's labels, and check that the texts are those that `run` reads; return the number of rows."""
    out = folder / f"out{_SUFFIXES[len(case.name) % len(_SUFFIXES)]}"
    carried = (case.label,) if case.rows is not None else ()
    options = PredictOptions(
        str(model), path, out, text=(case.text,), carried=carried, seq_len=_SEQ_LEN, threads=1, device="cpu"
    )
    num_rows = predict_file(plan_job(options, _machine()), lambda _: None).num_rows
    if case.rows is not None:
        predicted = {text for window in read_windows(path, text=[case.text], num_rows=7) for text in window.texts}
        read = set(read_rows(DataSettings(source=str(path), text=case.text, label=case.label, on_bad_row="skip")).texts)
        assert read <= predicted, f"texts differ: {sorted(read - predicted)[:2]}"
    return num_rows


@functools.cache
def _machine() -> Machine:
    return describe_machine()


def _check(trial: Trial, path: Path) -> None:
    case, answers, problems = trial.case, trial.answers, trial.problems
    problems += [f"{name}: {answer.text[:300]}" for name, answer in answers.items() if answer.state == TRACEBACK]
    inspected, read, stopped = answers["inspect"], answers["run"], answers["run, no row skipped"]
    fields = json.loads(inspected.text) if inspected.state == READ else None
    if case.rows is None:
        for name in ("inspect", "run"):
            _check_refusal(trial, name, case.refusal, path)
    elif fields is None or read.state != READ:
        problems.append(f"not read: {inspected.text}{read.text}"[:600])
    else:
        own_facts, problem = read.value
        facts, own = fields["data"], own_facts.model_dump(mode="json")
        keys = ("num_source_rows", "labels", "bad_rows", "num_duplicates_dropped")
        problems += [f"{key}: inspect says {facts[key]}, run {own[key]}" for key in keys if facts[key] != own[key]]
        counts = (facts["num_source_rows"], sum(facts["bad_rows"].values()))
        if counts != (case.rows, case.bad):
            problems.append(f"rows and bad rows are {counts}, not {(case.rows, case.bad)}")
        told = fields["study_problem"]
        if (
            (problem is None) != (told is None)
            or (told and told not in problem)
            or (told is None) == case.has_rare_label
        ):
            problems.append(f"inspect says {told!r} of a study, and run {problem!r}")
    if case.bad or case.rows is None:
        _check_refusal(trial, "run, no row skipped", case.refusal, path)
    elif stopped.state != READ:
        problems.append(f"run, no row skipped: {stopped.text}")
    if case.predicted is None:
        _check_refusal(trial, "predict", case.predict_refusal, path)
    elif answers["predict"].value != case.predicted:
        problems.append(f"predict: {answers['predict'].text or answers['predict'].value}, not {case.predicted} rows")


def _check_refusal(trial: Trial, name: str, cure: str, path: Path) -> None:
    """Require that a command refused the file, with its name and what to do."""
    answer = trial.answers[name]
    if answer.state != REFUSED:
        trial.problems.append(f"{name}: {answer.state} instead of a refusal: {answer.value or answer.text[:200]}")
    elif not re.search(cure, answer.text, re.DOTALL):
        trial.problems.append(f"{name}: no cure {cure!r} in: {answer.text[:600]}")
    elif not any(shown in answer.text for shown in (path.name, ascii(path.name)[1:-1], _printable(path.name))):
        trial.problems.append(f"{name}: {path.name} is not named in: {answer.text[:300]}")
