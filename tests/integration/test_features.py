"""The baseline `features`: encoding, choosing, and whole cells."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import write_checkpoint

from harness.analysis.summarize import summarize
from harness.dataset.tokens import load_tokens
from harness.execution.messages import PhaseStarted
from harness.schema.record import was_fitted_on_part
from harness.schema.settings import ModelSettings
from harness.worker import features
from harness.worker.linear_probe import C_VALUES
from harness.worker.model import build_model

CPU = torch.device("cpu")


def features_cell(bench, **raw):
    (cell,) = [cell for cell in bench.cells(baselines=True, **raw) if cell.name == "baseline-features"]
    return cell


def run(bench, on_message=lambda _: None, **raw):
    cell = features_cell(bench, **raw)
    return bench.runner.run(cell, bench.prepare(cell), bench.environment, on_message)


@pytest.fixture(scope="module")
def record(bench):
    return run(bench)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_states_are_those_of_one_unpadded_text_at_a_time(kind, attention, bench, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_BATCH_TOKENS", 100)  # several batches of several lengths
    job = bench.prepare(features_cell(bench, model={"name": str(write_checkpoint(tmp_path / kind, kind))})).job
    model = build_model(job.model, ModelSettings(attention=attention), ("bad", "good")).base_model.eval()
    tokens = load_tokens(job.tokens_folder, "val")
    rows = np.arange(0, len(tokens.labels), 3)

    states = features.Encoder(model, CPU, job.config.seq_len, pad_multiple=8).encode_all(tokens, rows)

    expected = []
    for row in rows:
        ids = torch.from_numpy(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].astype(np.int64))
        with torch.no_grad():
            hidden = model(input_ids=ids[None], output_hidden_states=True).hidden_states
        expected.append(np.stack([layer[0].mean(dim=0).numpy() for layer in hidden]))
    assert states.shape == (3, len(rows), 32) and states.dtype == np.float32  # the embeddings, and two layers
    np.testing.assert_allclose(states, np.stack(expected, axis=1), atol=1e-5)


def test_16_bit_states_are_averaged_in_32_bits():
    states = torch.full((1, 4096, 1), 1.001, dtype=torch.float16)  # their sum in 16 bits stops at 2,048
    pooled = features.mean_pool([states], torch.ones(1, 4096, dtype=torch.int64))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(float(states[0, 0, 0]), abs=1e-6)


def test_a_real_cell_has_the_figures_of_a_baseline_and_of_its_model(bench, record):
    assert record.outcome == "ok", record.stderr_tail
    learned = bench.run()
    baseline, chosen = record.baseline, record.baseline.features
    assert baseline.test.labels == learned.training.test.labels
    assert record.data == learned.data
    assert (record.model.name, record.model.sha256) == (learned.model.name, learned.model.sha256)
    assert (record.model.architecture, record.model.num_trainable_parameters) == ("BertModel", 0)
    assert [len(accuracies) for accuracies in chosen.val_accuracies] == [len(C_VALUES)] * 3
    assert baseline.val_accuracy == chosen.val_accuracies[chosen.layer][C_VALUES.index(chosen.c)]
    assert baseline.val_accuracy == max(chosen.layer_accuracies) > record.data.val.majority_fraction
    assert baseline.num_fitted == record.data.train.num_rows
    assert (chosen.num_threads, record.training) == (1, None)
    assert [peak.source for peak in baseline.peak_memory] == ["rss"]
    assert 0 < chosen.fit_s < baseline.train_s == record.phases.train_s
    assert record.phases.test_s == baseline.test.evaluate_s
    assert min(record.phases.start_s, record.phases.load_s, record.phases.tokenise_s) > 0
    assert baseline.train_s + baseline.test.evaluate_s < record.duration_s


def test_its_summary_has_training_evaluation_and_accuracy(record):
    (summary,) = summarize([record])
    assert (summary.kind, summary.classifier) == ("baseline", "features")
    assert summary.accuracy.value == record.baseline.test.accuracy
    assert (summary.train_s, summary.evaluate_s) == (record.baseline.train_s, record.baseline.test.evaluate_s)
    assert summary.peak_memory_bytes == record.baseline.peak_memory[0].num_bytes
    assert not [warning for warning in summary.warnings if "fitted on" in warning]


def test_the_test_set_is_read_once_after_the_choice(bench, record, tmp_path):
    """The test split's files appear when the test evaluation begins, with other labels, and nothing else changes."""
    job = bench.prepare(features_cell(bench)).job
    folder, hidden = tmp_path / "tokens", tmp_path / "hidden"
    shutil.copytree(job.tokens_folder, folder)
    hidden.mkdir()
    for path in folder.glob("test-*"):
        path.rename(hidden / path.name)
    phases = []

    def send(message):
        phases.append(message.name)
        if message == PhaseStarted("test"):
            for path in hidden.iterdir():
                shutil.copy(path, folder)
            np.save(folder / "test-labels.npy", 1 - np.load(hidden / "test-labels.npy"))

    result = features.run_features(replace(job, tokens_folder=folder), send, time.perf_counter())

    assert phases == ["train", "test", "after"]
    chosen, as_recorded = result.baseline.features, record.baseline.features
    assert (chosen.layer, chosen.c, chosen.val_accuracies) == (
        as_recorded.layer, as_recorded.c, as_recorded.val_accuracies,
    )  # fmt: skip
    assert result.baseline.test.predictions == record.baseline.test.predictions
    assert result.baseline.test.accuracy == pytest.approx(1 - record.baseline.test.accuracy)


def test_sentence_pairs_are_told_apart(bench, tmp_path):
    job = bench.prepare(features_cell(bench)).job
    encoder, _ = features._load(job)
    tokens = load_tokens(job.tokens_folder, "val")
    pairs = replace(tokens, first_segment_lengths=np.full(len(tokens.labels), 4, np.int32))
    rows = np.arange(8)
    assert not np.allclose(encoder.encode_all(tokens, rows), encoder.encode_all(pairs, rows), atol=1e-3)


def test_large_data_is_fitted_on_evenly_spaced_rows(bench, monkeypatch):
    assert features.fitted_rows(7, bytes_per_row=1).tolist() == list(range(7))
    assert len(features.fitted_rows(1_000_000, bytes_per_row=7 * 384 * 4)) == 90_910  # every 11th
    assert len(features.fitted_rows(1_000_000, bytes_per_row=25 * 1024 * 4)) == 10_417  # every 96th
    job = bench.prepare(features_cell(bench)).job
    monkeypatch.setattr(features, "MAX_STATE_BYTES", 100 * 3 * 32 * 4)
    baseline = features.run_features(job, lambda _: None, time.perf_counter()).baseline
    assert baseline.num_fitted == 86  # every third of 256 rows
    part = run(bench).model_copy(update={"baseline": baseline})
    assert was_fitted_on_part(part)
    (warning,) = [warning for warning in summarize([part])[0].warnings if "fitted on" in warning]
    assert warning.startswith("The frozen encoder's classifier was fitted on 86 of the 256 training rows")


def test_a_cell_that_ends_early_has_a_record_too(bench, tiny_bert, tmp_path):
    def interrupt(message):
        if message == PhaseStarted("test"):
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    config = json.loads((broken / "config.json").read_text()) | {"hidden_act": "no such function"}
    (broken / "config.json").write_text(json.dumps(config))
    endings = {
        "interrupted": run(bench, interrupt),
        "timeout": run(bench, limits={"timeout_s": 0.01}),
        "oom": run(bench, limits={"memory_limit_gib": 0.05}),
        "unsupported": run(bench, matrix={"seq_len": [1024]}),
        "crashed": run(bench, model={"name": str(broken)}),
    }
    assert {name: (one.outcome, one.baseline) for name, one in endings.items()} == {
        name: (name, None) for name in endings
    }
    assert endings["unsupported"].reason == "seq_len 1024 is beyond this model's 512 positions"
    assert "no such function" in endings["crashed"].reason


def test_it_is_capped_like_any_cell(bench):
    record = run(bench, limits={"memory_limit_gib": 2})
    assert (record.outcome, record.start_method) == ("ok", "fresh"), record.reason
    if record.cap.exact:
        assert [peak.source for peak in record.baseline.peak_memory] == ["rss", "control_group"]
