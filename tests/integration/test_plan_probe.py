"""`harness plan --probe` and `harness run` on a tiny model: figures before anything ran, and in the records."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.store.record_files import load_records

PREDICTED = ("predicted_s", "predicted_usd", "predicted_peak_bytes", "predicted_samples_per_s")


def invoke(*arguments):
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def planned(tiny_bert, reviews, tmp_path_factory):
    """A study, its results folder, and the rows of `plan` before, by, and after a probe."""
    folder = tmp_path_factory.mktemp("planned")
    study = folder / "study.toml"
    study.write_text(
        f'name = "planned"\nbaselines = true\n[model]\nname = "{tiny_bert}"\n[data]\nsource = "{reviews}"\n'
        "num_train = 256\nnum_val = 64\nnum_test = 64\n[training]\nepochs = 1\n"
        "[matrix]\nbatch_size = [8, 16]\nseq_len = [24]\nthreads = [1]\n"
    )
    results = folder / "results"
    plan = ("plan", study, "--results", results, "--usd-per-hour", "0.36", "--json")
    before = json.loads(invoke(*plan))
    probed = json.loads(invoke(*plan, "--probe"))
    after = json.loads(invoke(*plan))
    return study, results, before, probed, after


def test_nothing_is_predicted_before_a_probe(planned):
    before = planned[2]
    assert all(row["basis"] is None and row["predicted_s"] is None for row in before)


def test_a_probe_predicts_every_cell_that_trains(planned):
    trained = [row for row in planned[3] if not row["cell"].startswith("baseline")]
    assert len(trained) == 2
    for row in trained:
        assert row["basis"] == "probe" and row["state"] == "to do"
        for name in PREDICTED:
            low, value, high = row[f"{name}_low"], row[name], row[f"{name}_high"]
            # Bills of short runs are rounded up alike.
            assert 0 < low <= value <= high and (low < high or name == "predicted_usd")
        # A bill covers starting and setting up a machine, and is rounded up: never below the seconds at the hourly price.
        assert row["predicted_usd"] >= row["predicted_s"] * 0.36 / 3600


def test_plain_plan_recalls_the_probe_without_reading_data(planned):
    _, _, _, probed, after = planned
    assert after == probed


def test_a_table_shows_figures_with_intervals(planned):
    study, results, *_ = planned
    text = invoke("plan", study, "--results", results)
    assert "predicted by a probe" in text and "95% intervals" in text and "MiB" in text


def test_records_keep_what_was_predicted(planned):
    study, results, _, probed, _ = planned
    invoke("run", study, "--results", results, "--quiet")
    records = {record.cell: record for record in load_records([results]).records}
    for row in probed:
        predicted = records[row["cell"]].predicted
        if row["cell"].startswith("baseline"):
            assert predicted is None
        else:
            assert predicted.basis == "probe"
            assert (predicted.seconds, predicted.seconds_low) == (row["predicted_s"], row["predicted_s_low"])
            assert predicted.peak_bytes == pytest.approx(row["predicted_peak_bytes"], rel=0.1)


def test_a_short_study_is_not_probed_by_run(tiny_bert, reviews, tmp_path):
    study = tmp_path / "short.toml"
    study.write_text(
        f'baselines = false\n[model]\nname = "{tiny_bert}"\n[data]\nsource = "{reviews}"\nnum_train = 64\nnum_val = 64\n'
        "num_test = 64\n[training]\nmax_steps = 2\n[matrix]\nseq_len = [24]\nthreads = [1]\n"
    )
    invoke("run", study, "--results", tmp_path / "results", "--quiet")
    loaded = load_records([tmp_path / "results"])
    assert loaded.probes == () and loaded.records[0].predicted is None
