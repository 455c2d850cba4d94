"""A resumed output keeps complete windows only, and only if nothing that determines its rows has changed."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from harness.errors import UserError
from harness.schema.predict_job import PredictJob, progress_paths, restart
from harness.worker.predict_output import PredictOutput, encode_rows, identify

COLUMNS = {"row": pa.int64(), "predicted": pa.string(), "p:a": pa.float64()}
EMPTY = pa.schema(list(COLUMNS.items())).empty_table()


def window(first, num_rows=3):
    rows = range(first, first + num_rows)
    return pa.table(
        {"row": list(rows), "predicted": [None if row % 5 == 4 else f'a, "b" {row}' for row in rows], "p:a": [row / 7 for row in rows]},
        schema=EMPTY.schema,
    )  # fmt: skip


@pytest.fixture
def job(tmp_path):
    def make(name="out.csv", **fields):
        model = tmp_path / "model"
        if not model.exists():
            model.mkdir()
            for file in ("model.safetensors", "config.json", "tokenizer.json"):
                (model / file).write_text(file)
            (tmp_path / "in.csv").write_text("text\na\n")
        paths = {"model": str(model), "file": str(tmp_path / "in.csv"), "out": str(tmp_path / name)}
        return PredictJob.model_validate(paths | {"text": ("text",)} | {"seq_len": 16, "threads": 1} | fields)

    return make


def write(job, num_windows, finish=True):
    with PredictOutput(job, identify(job)) as output:
        for _ in range(num_windows):
            output.append(window(output.progress.num_rows), num_unlabelled=1)
        if finish:
            output.finish(EMPTY)
        return output.progress


def read(path):
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    parse = pa.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
    convert = pa.csv.ConvertOptions(column_types=COLUMNS, strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pa.csv.read_csv(path, parse_options=parse, convert_options=convert).to_pylist()


FILE_NAMES = ["out.csv", "out.tsv", "out.jsonl", "out.parquet"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_resumed_output_equals_an_uninterrupted_one(job, tmp_path, name):
    write(job(f"whole-{name}"), 3)
    write(job(name), 1, finish=False)
    partial, progress_file, _ = progress_paths(tmp_path / name)
    # As a kill leaves it: a half-written window that the progress file doesn't include.
    with partial.open("ab") as file:
        file.write(b'99,"half a wind')
    assert not (tmp_path / name).exists()
    progress = write(job(name), 2)
    assert (progress.num_rows, progress.num_unlabelled) == (9, 3)
    assert (
        read(tmp_path / name)
        == read(tmp_path / f"whole-{name}")
        == [row for first in (0, 3, 6) for row in window(first).to_pylist()]
    )
    assert not partial.exists() and not progress_file.exists()
    if not name.endswith("parquet"):  # Parquet's row groups are the windows
        assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "in.csv", name, f"whole-{name}"}


@pytest.mark.parametrize("name", FILE_NAMES)
def test_an_output_without_rows_has_its_columns(job, tmp_path, name):
    write(job(name), 0)
    assert read(tmp_path / name) == []
    if name.endswith("csv"):
        assert (tmp_path / name).read_text() == '"row","predicted","p:a"\n'


def test_an_incomplete_first_window_is_rewritten(job, tmp_path):
    partial, _, _ = progress_paths(tmp_path / "out.csv")
    partial.write_bytes(b'"row","predi')
    write(job(), 1)
    assert read(tmp_path / "out.csv") == window(0).to_pylist()


def test_a_kill_between_the_last_two_steps_loses_nothing(job, tmp_path):
    progress = write(job(), 2, finish=False)
    partial, progress_file, _ = progress_paths(tmp_path / "out.csv")
    partial.replace(tmp_path / "out.csv")
    assert write(job(), 0) == progress
    assert read(tmp_path / "out.csv") == [row for first in (0, 3) for row in window(first).to_pylist()]
    assert not progress_file.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda job, folder: (folder / "in.csv").write_text("text\nb\n"), "another input file"),
        (lambda job, folder: (folder / "model" / "model.safetensors").write_text("other"), "another model"),
        (lambda job, folder: job.model_copy(update={"seq_len": 8, "precision": "bf16"}), "another --seq-len, --precision"),
        (lambda job, folder: job.model_copy(update={"text": ("a", "b")}), "another --text"),
        (lambda job, folder: job.model_copy(update={"carried": ("id",)}), "another --with"),
        (lambda job, folder: progress_paths(folder / "out.csv")[0].write_bytes(b""), "shorter than the recorded progress"),
        (lambda job, folder: progress_paths(folder / "out.csv")[1].write_text("{}"), "no progress that can be resumed"),
    ],
)  # fmt: skip
def test_another_input_model_or_setting_is_refused_until_restart(job, tmp_path, change, message):
    write(job(), 1, finish=False)
    changed = change(job(), tmp_path)
    again = changed if isinstance(changed, PredictJob) else job()
    with pytest.raises(UserError) as error:
        write(again, 1)
    assert message in str(error.value) and "--restart" in str(error.value)
    restart(tmp_path / "out.csv")
    write(again, 1)
    assert len(read(tmp_path / "out.csv")) == 3


def test_batch_size_and_threads_may_change(job, tmp_path):
    write(job(), 1, finish=False)
    write(job(batch_size=7, threads=3), 1)
    assert len(read(tmp_path / "out.csv")) == 6


def test_unreadable_inputs_are_refused(job, tmp_path):
    valid = job()
    with pytest.raises(UserError, match="must end in one of"):
        identify(job("out.txt"))
    with pytest.raises(UserError, match=r"none\.csv: can't be read"):
        identify(valid.model_copy(update={"file": str(tmp_path / "none.csv")}))
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json can't be read"):
        identify(valid)


def test_columns_whose_type_csv_has_not_are_written_as_text():
    """Lists and string views that --with copied once ended in "ArrowInvalid: Unsupported Type"."""
    table = pa.table({"tags": [["a", "é"], None], "view": pa.array(["b", None], pa.string_view()), "n": [1, None]})
    rows = list(csv.reader(encode_rows(table, ".csv", header=True).decode().splitlines()))
    assert rows == [["tags", "view", "n"], ['["a", "é"]', "b", "1"], ["null", "", ""]]
    lines = encode_rows(table, ".jsonl", header=False).decode().splitlines()
    assert json.loads(lines[0]) == {"tags": ["a", "é"], "view": "b", "n": 1}
