"""`harness predict`: predictions of a saved model, resuming after a kill at any moment, and refusals."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.torch import load_file, save_file
from tiny import FILLING
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.errors import UserError
from harness.machine.describe import describe_machine
from harness.schema.predict_job import PredictJob, PredictStarted, progress_paths
from harness.worker import predict_output
from harness.worker.predict import predict_file
from harness.worker.predict_output import PredictOutput, identify
from harness.workflows.predict_file import WORKER, PredictOptions, plan_job

NUM_ROWS = 6000


@pytest.fixture(scope="module")
def model(tiny_bert, tmp_path_factory):
    """`tiny_bert` as `keep_model` saves a model, with its seq_len and columns."""
    folder = tmp_path_factory.mktemp("kept") / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny_bert / name).read_bytes())
    tensors = load_file(tiny_bert / "model.safetensors")
    tensors["classifier.weight"] *= 100  # so that predictions differ by more than rounding
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "harness.json").write_text(json.dumps({"seq_len": 16, "text": "body"}))
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Rows of 1 to 30 words; every hundredth row has none."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "texts.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body"])
        for row in range(NUM_ROWS):
            words = [] if row % 100 == 99 else [rng.choice(FILLING) for _ in range(rng.randint(1, 30))]
            writer.writerow([f"n{row}", " ".join(words)])
    return path


def job_of(model, texts, out, **fields):
    paths = {"model": str(model), "file": str(texts), "out": str(out)}
    return PredictJob.model_validate(
        paths | {"text": ("body",), "carried": ("id",)} | {"seq_len": 16, "threads": 1, "window_rows": 500} | fields
    )


@pytest.fixture(scope="module")
def whole(model, texts, tmp_path_factory):
    """The output of an uninterrupted run, and its result."""
    out = tmp_path_factory.mktemp("whole") / "out.parquet"
    result = predict_file(job_of(model, texts, out), lambda _: None)
    return pa.parquet.read_table(out).to_pylist(), result


def test_every_row_has_its_prediction_in_the_files_order(whole, model, texts):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    rows, result = whole
    assert [row["row"] for row in rows] == list(range(NUM_ROWS))
    assert [row["id"] for row in rows] == [f"n{row}" for row in range(NUM_ROWS)]
    assert list(rows[0]) == ["row", "id", "predicted", "p:bad", "p:good"]
    with texts.open(newline="") as file:
        bodies = [row["body"] for row in csv.DictReader(file)]
    tokenizer, reference = (
        AutoTokenizer.from_pretrained(model),
        AutoModelForSequenceClassification.from_pretrained(model),
    )
    for at in (0, 1, 498, 500, 501, 5998):
        with torch.inference_mode():
            output = reference.eval()(**tokenizer(bodies[at], truncation=True, max_length=16, return_tensors="pt"))
        expected = output.logits.softmax(-1)[0].tolist()
        assert [rows[at]["p:bad"], rows[at]["p:good"]] == pytest.approx(expected, abs=2e-6)
        assert rows[at]["predicted"] == ("bad", "good")[expected[1] > expected[0]]
    assert len({row["p:bad"] for row in rows}) > NUM_ROWS / 4  # rows differ by more than rounding
    assert [row for row in rows if row["predicted"] is None] == [row for row in rows if row["row"] % 100 == 99]
    assert result.num_unlabelled == NUM_ROWS // 100 and result.num_rows == result.num_rows_now == NUM_ROWS
    assert 0 < result.num_truncated_now < NUM_ROWS
    assert result.num_tokens_now <= result.num_padded_tokens_now < 1.1 * result.num_tokens_now


def test_the_attention_and_multiple_of_the_training_change_padding_alone(whole, model, texts, tmp_path):
    rows, plain = whole
    out = tmp_path / "out.parquet"
    result = predict_file(job_of(model, texts, out, attention="eager", pad_multiple=8, seq_len=16), lambda _: None)
    padded = pa.parquet.read_table(out).to_pylist()
    assert [row["p:bad"] for row in padded if row["predicted"]] == pytest.approx(
        [row["p:bad"] for row in rows if row["predicted"]], abs=2e-6
    )
    assert plain.num_padded_tokens_now < result.num_padded_tokens_now
    assert result.num_padded_tokens_now % 8 == 0 and result.num_tokens_now == plain.num_tokens_now


def test_the_command_resumes_a_killed_run(whole, model, texts, tmp_path):
    out = tmp_path / "out.csv"
    job = job_of(model, texts, out, batch_size=1)
    process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(job.model_dump_json() + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if json.loads(line)["kind"] == "rows":
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not out.exists()
    num_written = json.loads(progress_paths(out)[1].read_text())["num_rows"]
    assert 0 < num_written < NUM_ROWS
    command = ["predict", model, texts, "-o", out, "--with", "id", "--threads", 1, "--usd-per-hour", 3.6, "--json"]
    done = CliRunner().invoke(cli.app, [str(part) for part in command])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["num_rows"], summary["num_rows_now"]) == (NUM_ROWS, NUM_ROWS - num_written)
    assert summary["usd_per_million_rows"] == pytest.approx(1000 / summary["rows_per_s"])
    assert summary["rows_per_s"] == pytest.approx(summary["num_rows_now"] / summary["seconds"])
    assert summary["peak_bytes"] > 50 * 2**20 and summary["peak_cuda_bytes"] is None
    with out.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [(row["row"], row["id"]) for row in written] == [(str(row["row"]), row["id"]) for row in whole[0]]
    for row, expected in zip(written, whole[0], strict=True):
        assert (row["predicted"] or None) == expected["predicted"]
        if row["predicted"]:
            assert float(row["p:good"]) == pytest.approx(expected["p:good"], abs=2e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]
    again = CliRunner().invoke(cli.app, [str(part) for part in command])
    assert "exists; --restart replaces it" in str(again.exception)


def test_kills_between_any_two_writes_lose_nothing(model, texts, tmp_path):
    """Each child process appends windows, and kills itself before one of the calls that write."""
    job = job_of(model, texts, tmp_path / "out.jsonl")
    identity, rng = identify(job), random.Random(1)
    schema = pa.schema([("row", pa.int64())])

    def work(num_calls):
        calls = iter(range(num_calls))

        def killing(call):
            def counted(*args, **kwargs):
                if next(calls, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        predict_output.atomic_write_text = killing(predict_output.atomic_write_text)
        predict_output.encode_rows = killing(predict_output.encode_rows)
        os.fsync = killing(os.fsync)
        with PredictOutput(job, identity) as output:
            while (first := output.progress.num_rows) < 200:
                rows = range(first, min(200, first + rng.randint(1, 9)))
                output.append(pa.table({"row": list(rows)}, schema=schema), 0)
            output.finish(schema.empty_table())

    statuses = []
    while not statuses or statuses[-1] != 0:
        num_calls = rng.randint(1, 12) if len(statuses) < 20 else 10_000
        child = os.fork()
        if child == 0:
            try:
                work(num_calls)
            finally:
                os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert statuses[:-1].count(-signal.SIGKILL) >= 15
    assert [json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == list(range(200))


def test_a_file_that_changes_during_the_run_is_refused(model, texts, tmp_path):
    copy = tmp_path / "copy.csv"
    copy.write_bytes(texts.read_bytes())
    job = job_of(model, copy, tmp_path / "out.csv")

    def change(message):
        if isinstance(message, PredictStarted):
            with copy.open("a") as file:
                file.write("n6000,teapot\n")

    with pytest.raises(UserError, match="changed while it was read"):
        predict_file(job, change)
    assert not (tmp_path / "out.csv").exists()


def test_a_model_without_a_classifier_is_refused(tiny_bert, texts, tmp_path):
    from transformers import BertModel

    BertModel.from_pretrained(tiny_bert).save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").write_bytes((tiny_bert / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=r"not trained to classify: its weights lack classifier\.bias"):
        predict_file(job_of(tmp_path / "bare", texts, tmp_path / "out.csv"), lambda _: None)
    with pytest.raises(UserError, match="is beyond this model's 512 positions"):
        predict_file(job_of(tiny_bert, texts, tmp_path / "out.csv", seq_len=600), lambda _: None)


def test_defaults_come_from_the_models_training(model, texts, tmp_path):
    job = plan_job(PredictOptions(str(model), texts, tmp_path / "out.csv"), describe_machine())
    assert (job.text, job.pair, job.seq_len, job.device) == (("body",), None, 16, "cpu")
    assert (job.attention, job.pad_multiple) == (None, 1)  # those of a model from before there were any
    copy = shutil.copytree(model, tmp_path / "copy")
    facts = {"seq_len": 16, "text": "body", "attention": "eager", "pad_multiple": 8}
    (copy / "harness.json").write_text(json.dumps(facts))
    job = plan_job(PredictOptions(str(copy), texts, tmp_path / "out.csv"), describe_machine())
    assert (job.attention, job.pad_multiple) == ("eager", 8)
    options = PredictOptions(str(model), texts, tmp_path / "out.csv", text=["id", "body"], seq_len=8, threads=3)
    job = plan_job(options, describe_machine())
    assert (job.text, job.seq_len, job.threads) == (("id", "body"), 8, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "--precision fp16 on cpu: fp16 on a CPU is not accelerated"),
        ({"carried": ["predicted"]}, "--with predicted: the output already has a column of this name"),
        ({"file": "none.csv"}, "none.csv: no such file"),
        ({"out": "nowhere/out.csv"}, "no such folder"),
        ({"model": "./none"}, "no such folder"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(model, texts, tmp_path, options, message):
    fields = {"model": str(model), "file": texts, "out": tmp_path / "out.csv", "device": "cpu"} | options
    fields |= {key: tmp_path / fields[key] for key in ("file", "out")}
    with pytest.raises(UserError) as error:
        plan_job(PredictOptions(**fields), describe_machine())
    assert message in str(error.value)
