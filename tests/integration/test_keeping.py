"""`training.keep_model` saves the model of the best validation without changing steps or memory of the run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from resumable_runs import run_segment
from safetensors.torch import load_file

from harness.dataset.tokens import load_tokens
from harness.execution import sweep
from harness.execution.messages import ModelUnsaved, Progress
from harness.execution.sweep import NullListener
from harness.pricing.prices import Price
from harness.schema.record import to_json
from harness.store.record_files import load_records
from harness.store.saved_models import CARD, FACTS, MODELS, is_model_missing, save_model, staging_folder
from harness.worker.collate import attention_mask, collate
from harness.worker.meters import MemoryMeter, memory_in_use, peak_rss_bytes
from harness.worker.safetensors_io import read_weights, write_weights
from harness.workflows.model_card import card_writer

PRICE = Price(3.6, "m5.xlarge", "aws", "us-east-1", "stated", "2026-10", "a list", None)
KEEPS = {"epochs": 3, "lr": 5e-3, "keep_model": True}


def run(bench, results, environment=None, **study):
    """Run a study's one cell; return its record, the record's path and the folder of its model."""
    (cell,) = bench.cells(**study)
    record, path = sweep.run_and_save(
        bench.runner,
        cell,
        bench.prepare(cell),
        environment or bench.environment,
        NullListener(),
        results,
        card_writer(PRICE),
    )
    return record, path, next((results / MODELS).glob("*/[!.]*"), None) if (results / MODELS).is_dir() else None


def loaded(folder):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def predictions_of(model, bench, study):
    (cell,) = bench.cells(**study)
    tokens = load_tokens(bench.prepare(cell).job.tokens_folder, "test")
    ids, mask, _, _ = collate(tokens, range(len(tokens.labels)), pad_to=None)
    with torch.inference_mode():
        logits = model.eval()(input_ids=ids, attention_mask=attention_mask(mask, model.config, padded=True)).logits
    return tuple(logits.argmax(-1).tolist()), logits.softmax(-1).max(-1).values


@pytest.fixture(scope="module")
def kept(bench, tmp_path_factory):
    return run(bench, tmp_path_factory.mktemp("results"), training=KEEPS)


def test_the_saved_model_is_that_of_the_first_best_validation_and_the_tested_one(kept, bench):
    record, _, folder = kept
    training = record.training
    assert record.outcome == "ok", record.stderr_tail
    best = max(training.evaluations, key=lambda validation: validation.accuracy)
    assert training.kept.num_updates == best.num_updates
    assert training.kept.num_bytes == (folder / "model.safetensors").stat().st_size
    assert training.kept.keep_s > 0
    model, _ = loaded(folder)
    predicted, probabilities = predictions_of(model, bench, {"training": KEEPS})
    assert predicted == training.test.predictions
    assert training.test.probabilities == pytest.approx(probabilities.tolist(), abs=1e-4)
    assert all(round(value, 4) == value for value in training.test.probabilities)


def test_the_saved_model_has_label_names_and_the_tokenizer_of_its_training(kept, reviews):
    record, path, folder = kept
    model, tokenizer = loaded(folder)
    assert model.config.id2label == {0: "bad", 1: "good"} and model.config.label2id == {"bad": 0, "good": 1}
    example = record.training.example
    assert tuple(tokenizer(example.text, truncation=True)["input_ids"]) == example.input_ids
    assert tokenizer.model_max_length == 24
    facts = json.loads((folder / FACTS).read_text())
    assert (facts["seq_len"], facts["text"], facts["labels"]) == (24, "text", ["bad", "good"])
    assert (facts["attention"], facts["pad_multiple"]) == (None, 1)
    assert facts["record"] == path.name and folder.name == f"{record.cell}-{path.stem}"
    assert facts["weights_sha256"] == record.training.kept.sha256


def test_the_card_has_the_figures_of_the_record(kept):
    record, _, folder = kept
    card = (folder / CARD).read_text()
    training = record.training
    best = max(validation.accuracy for validation in training.evaluations)
    assert f"| accuracy, validation | {best:.3f} of 64 rows, after update {training.kept.num_updates}:" in card
    assert f"| accuracy, test | {training.test.accuracy:.3f} (" in card
    seconds = sum(value for name, value in record.phases if name in ("start_s", "load_s", "tokenise_s", "train_s", "evaluate_s", "test_s"))  # fmt: skip
    assert (
        f"| {seconds / 1000:.5f}, at 3.6000 USD an hour, stated price (m5.xlarge, us-east-1, 2026-10, a list) |" in card
    )
    assert record.data.train.sha256 in card and record.data.sha256 in card
    assert record.machine.cpu.model in card and record.packages["torch"] in card
    assert "licence: not told by its files" in card and "license:" not in card


def test_saved_models_are_not_taken_for_records(kept):
    _, _, folder = kept
    results = folder.parents[2]
    assert [entry.name for entry in (results / MODELS / "tiny").iterdir()] == [folder.name]
    assert not list((results / MODELS).glob(".*"))
    loaded_records = load_records([results])
    assert (len(loaded_records.records), loaded_records.unreadable) == (1, ())


def test_saving_a_model_changes_no_step(kept, bench, tmp_path):
    record, _, folder = run(bench, tmp_path, training=KEEPS | {"keep_model": False})
    assert folder is None and record.training.kept is None
    assert record.training.steps.loss == kept[0].training.steps.loss
    assert record.training.evaluations[-1].accuracy == kept[0].training.evaluations[-1].accuracy
    assert record.config_hash != kept[0].config_hash


def test_the_most_confident_mistakes_are_stored_with_their_texts(kept, bench, reviews):
    training = kept[0].training
    wrong = [
        row
        for row, pair in enumerate(zip(training.test.labels, training.test.predictions, strict=True))
        if pair[0] != pair[1]
    ]
    assert {mistake.row for mistake in training.mistakes} <= set(wrong) and len(training.mistakes) == min(
        10, len(wrong)
    )
    table = reviews.read_text().splitlines()
    for mistake in training.mistakes:
        assert f"{mistake.text},{('bad', 'good')[mistake.label]}" in table
    assert bench.run(training=KEEPS, data={"store_texts": False}).training.mistakes == ()


def test_two_ranks_save_one_model_and_test_it(bench, tmp_path):
    study = {"training": KEEPS | {"epochs": 2}, "matrix": {"device": ["cpu-ddp2"], "batch_size": [8]}}
    record, _, folder = run(bench, tmp_path, bench.with_cores(2), **study)
    assert record.outcome == "ok", (record.reason, record.stderr_tail)
    predicted, _ = predictions_of(loaded(folder)[0], bench, study)
    assert predicted == record.training.test.predictions


def test_a_partly_trained_model_is_saved_whole(bench, tmp_path):
    study = {"training": KEEPS, "matrix": {"trainable": ["top1"]}}
    record, _, folder = run(bench, tmp_path, **study)
    assert record.outcome == "ok", record.stderr_tail
    assert predictions_of(loaded(folder)[0], bench, study)[0] == record.training.test.predictions
    best = max(record.training.evaluations, key=lambda validation: validation.accuracy)
    assert record.training.kept.num_updates == best.num_updates
    assert record.training.kept.num_bytes == (folder / "model.safetensors").stat().st_size
    assert not list(folder.glob("trained*"))


@pytest.mark.parametrize("trainable", ["all", "top1"])
def test_the_best_weights_survive_from_segment_to_segment(trainable, bench, tmp_path):
    study = {"training": KEEPS | {"lr": 0.05}, "matrix": {"trainable": [trainable]}}
    whole, _, kept = run(bench, tmp_path / "whole", **study)
    num_updates = whole.training.kept.num_updates
    assert num_updates < whole.training.num_updates_planned  # otherwise the last segment has the best weights itself
    rows = sum(whole.training.steps.num_samples[:num_updates])
    records = []
    for name, more in (("one", {"max_rows": rows}), ("two", {"max_rows": 1}), ("three", {})):
        to = tmp_path / name
        to.mkdir()
        records.append(run_segment(bench, tmp_path / "checkpoints", save_model_to=str(to), **more, **study))

    assert [record.training.kept is None for record in records] == [True, True, False]
    assert records[-1].training.kept.num_updates == num_updates
    # The files' headers contain the seconds of the validation, which differ.
    there, here = (load_file(folder / "model.safetensors") for folder in (tmp_path / "three", kept))
    assert there.keys() == here.keys() and all(there[name].equal(here[name]) for name in here)
    assert records[-1].training.test.predictions == whole.training.test.predictions
    assert not list((tmp_path / "three").glob("*.partial"))


def test_a_model_with_random_weights_has_no_validation_and_is_saved_at_the_end(bench, tmp_path):
    model = bench.defaults["model"] | {"init": "random"}
    record, _, folder = run(bench, tmp_path, model=model, training={"max_steps": 2, "keep_model": True})
    assert record.training.kept.num_updates == 2 and record.training.test is None
    assert "| accuracy, validation | not measured |" in (folder / CARD).read_text()


def test_an_interrupted_training_saves_the_best_so_far(bench, tmp_path):
    (cell,) = bench.cells(training=KEEPS | {"epochs": 100_000})
    prepared = bench.prepare(cell)

    def stop(message):
        if isinstance(message, Progress) and message.accuracy is not None:
            raise KeyboardInterrupt

    with staging_folder(cell, tmp_path) as folder:
        prepared = replace(prepared, job=replace(prepared.job, save_model_to=str(folder)))
        record = bench.runner.run(cell, prepared, bench.environment, stop)
        target = save_model(
            folder, record, Path("20261001T080000Z-0123.json"), prepared.job.model, tmp_path, card_writer(PRICE)
        )
    assert record.outcome == "interrupted"
    loaded(target)
    card = (target / CARD).read_text()
    assert "**Its cell ended as interrupted: stopped by the user.**" in card
    assert "| accuracy, test | not measured |" in card and "| accuracy, validation | 0." in card
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_fails_ends_no_training(bench, tmp_path):
    (cell,) = bench.cells(training=KEEPS | {"epochs": 1})
    prepared = bench.prepare(cell)
    (tmp_path / "file").write_text("no folder")
    job = replace(prepared.job, save_model_to=str(tmp_path / "file" / "inside"))
    messages = []
    record = bench.runner.run(cell, replace(prepared, job=job), bench.environment, messages.append)
    assert record.outcome == "ok" and record.training.kept is None and record.training.test is not None
    assert [message.reason for message in messages if isinstance(message, ModelUnsaved)] == ["Not a directory"]
    assert is_model_missing(record)
    assert json.loads(to_json(record))["training"]["kept"] is None


def test_files_left_by_a_killed_run_are_removed(bench, tmp_path):
    (cell,) = bench.cells(training=KEEPS)
    leftover = tmp_path / MODELS / ".staging-00000000"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors.partial").write_bytes(b"half")
    with staging_folder(cell, tmp_path) as folder:
        assert [path for path in (tmp_path / MODELS).iterdir()] == [folder]
    assert list((tmp_path / MODELS).iterdir()) == []


class TestWeights:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4000, 4000), torch.nn.LayerNorm(4000), torch.nn.Linear(4000, 3))
        model.register_buffer("counted", torch.arange(5))
        model.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))
        return model

    def test_the_file_is_a_safetensors_file_and_is_read_back_whole(self, model, tmp_path):
        sha256, num_bytes = write_weights(model, tmp_path / "w.safetensors", {"key": "value"})
        found = load_file(tmp_path / "w.safetensors")
        expected = model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
        before = {name: tensor.clone() for name, tensor in expected.items()}
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()
        read_weights(model, tmp_path / "w.safetensors")
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert num_bytes == (tmp_path / "w.safetensors").stat().st_size
        assert sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()

    def test_a_file_of_another_model_is_refused(self, model, tmp_path):
        write_weights(model, tmp_path / "w.safetensors", {})
        with pytest.raises(ValueError, match=r"0\.weight doesn't match this model"):
            read_weights(torch.nn.Sequential(torch.nn.Linear(3, 3)), tmp_path / "w.safetensors")

    @pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no high-water mark that can be reset")
    def test_neither_writing_nor_reading_holds_a_second_copy(self, model, tmp_path):
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        for act in (lambda: write_weights(model, tmp_path / "w", {}), lambda: read_weights(model, tmp_path / "w")):
            held = memory_in_use(torch.device("cpu"))
            MemoryMeter(torch.device("cpu"), 0).reset()
            act()
            assert peak_rss_bytes() - held < size / 4
        assert size > 60 * 2**20
