"""The search for the largest batch size on a simulated machine; tests/integration runs a real one."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.views.fit import FitView
from harness.errors import UserError
from harness.pricing.price_table import load_prices
from harness.schema.expansion import expand
from harness.schema.study_file import parse_study
from harness.store.record_files import load_record
from harness.workflows.fit import (
    EPOCH_MARGIN,
    MAX_ATTEMPTS,
    PART_MARGIN,
    BatchSizeSearch,
    choose_cell,
    confirm,
    predict_fit,
    run_attempts,
)
from harness.workflows.memory_budget import GIB, MemoryBudget, choose_budget, find_instance_fits
from tests.unit.frozen import RECORDS

RECORD = load_record(RECORDS / "v1" / "ok.json")


def cells_of(**raw):
    raw = {"baselines": False, "model": {"shape": "bert-base", "init": "random"}} | raw
    return expand(parse_study(raw, "s"))


def make_search(**raw):
    return BatchSizeSearch(choose_cell(cells_of(**raw), None, None), RECORD.machine)


def make_runner(search, factor, more=0, outcome="ok"):
    """Simulate runs that need the prediction times `factor` plus `more` bytes; an OOM run reports no peak."""

    def run(batch_size):
        measured = round(search.predict(batch_size).peak_bytes * factor) + more
        if outcome == "oom" and measured > BUDGET.num_bytes:
            return RECORD.model_copy(update={"outcome": "oom", "reason": "killed"}), None
        return RECORD, measured

    return run


BUDGET = MemoryBudget(6 * GIB, "6 GiB", cap=True)


@pytest.mark.parametrize("outcome", ["ok", "oom"])
@pytest.mark.parametrize(
    ("factor", "more"), [(1, 0), (1.02, 0), (0.95, 0), (1, 90 << 20), (1, -70 << 20), (1.3, 0), (0.7, 0)]
)
def test_the_largest_batch_is_found_within_8_attempts(factor, more, outcome):
    search = make_search()
    run = make_runner(search, factor, more, outcome)
    first = search.largest_predicted(BUDGET.num_bytes)
    reported = []
    attempts = run_attempts(search, BUDGET, first, run, reported.append)
    fitting = [attempt.batch_size for attempt in attempts if attempt.fits]
    truth = search.largest(lambda size: round(search.predict(size).peak_bytes * factor) + more <= BUDGET.num_bytes)
    assert max(fitting) == truth
    assert min(attempt.batch_size for attempt in attempts if not attempt.fits) == truth + 1
    assert len(attempts) <= MAX_ATTEMPTS
    assert reported == attempts


def test_no_batch_fits_or_all_rows_fit():
    search = make_search(data={"num_train": 20})
    for num_bytes, first, expected in ((GIB // 4, 1, (1, False)), (99 * GIB, 20, (20, True))):
        budget = MemoryBudget(num_bytes, "", cap=True)
        attempts = run_attempts(search, budget, first, make_runner(search, 1), lambda _: None)
        assert [(attempt.batch_size, attempt.fits) for attempt in attempts] == [expected]


def own_batches(search, growth, *, killed_above=None):
    """Simulate an epoch that takes `growth` times the prediction; above a batch size the kernel ends it."""

    def run(batch_size):
        if killed_above is not None and batch_size > killed_above:
            return RECORD.model_copy(update={"outcome": "oom", "reason": "killed"}), None, True
        return RECORD, round(search.predict(batch_size).peak_bytes * growth), True

    return run


@pytest.mark.parametrize("growth", [1.0, 1.2, 1.45])
def test_a_batch_that_grows_over_an_epoch_is_not_named(growth):
    """In bf16, a batch of 41 passed two padded steps under 1.2 GiB, and the real cell was killed at step 21."""
    search = make_search()
    first = search.largest_predicted(BUDGET.num_bytes)
    confirmed = confirm(search, BUDGET, first, own_batches(search, growth), lambda _: None)
    truth = search.largest(lambda size: search.predict(size).peak_bytes * growth <= BUDGET.num_bytes)
    assert confirmed[-1].fits and [attempt.fits for attempt in confirmed[:-1]] == [False] * (len(confirmed) - 1)
    assert 0.85 * truth <= confirmed[-1].batch_size <= truth
    assert confirmed[-1].measured_bytes * (1 + EPOCH_MARGIN) <= BUDGET.num_bytes


def test_a_killed_epoch_is_followed_by_smaller_batches():
    search = make_search()
    first = search.largest_predicted(BUDGET.num_bytes)
    confirmed = confirm(search, BUDGET, first, own_batches(search, 0.5, killed_above=first - 10), lambda _: None)
    assert [attempt.outcome for attempt in confirmed] == ["oom", "ok"]
    assert confirmed[-1].batch_size == first * 9 // 10


def test_part_of_an_epoch_needs_a_wider_margin():
    search = make_search()

    def run(batch_size):
        return RECORD, round(BUDGET.num_bytes / 1.05), False

    confirmed = confirm(search, BUDGET, 2, run, lambda _: None)
    assert {attempt.margin for attempt in confirmed} == {PART_MARGIN} and not any(each.fits for each in confirmed)


def test_a_crashed_attempt_ends_the_search():
    search = make_search()

    def crash(_):
        return RECORD.model_copy(update={"outcome": "crashed", "reason": "a bug"}), None

    with pytest.raises(UserError, match="batch size 8: the run ended as crashed: a bug"):
        run_attempts(search, BUDGET, 8, crash, lambda _: None)


def test_a_capped_attempt_that_is_not_done_in_minutes_does_not_fit():
    """Near its cap a process read its own code from disk for eight minutes, and was not killed."""
    search = make_search()

    def run(batch_size):
        if batch_size < 7:
            return RECORD, GIB
        config = RECORD.config.model_copy(
            update={"limits": RECORD.config.limits.model_copy(update={"memory_limit_gib": 6.0})}
        )
        return RECORD.model_copy(
            update={"outcome": "timeout", "reason": "not done after 300 s", "config": config}
        ), None

    attempts = run_attempts(search, BUDGET, 8, run, lambda _: None)
    assert {attempt.batch_size: attempt.fits for attempt in attempts}[6] is True
    assert max(attempt.batch_size for attempt in attempts if attempt.fits) == 6
    with pytest.raises(UserError, match="ended as timeout"):
        uncapped = RECORD.model_copy(update={"outcome": "timeout", "reason": "not done after 3600 s"})
        run_attempts(search, BUDGET, 8, lambda _: (uncapped, None), lambda _: None)


def test_the_first_trained_cell_is_chosen_with_the_options_applied():
    cells = cells_of(matrix={"batch_size": [8, 16], "seq_len": [32, 64]})
    assert choose_cell(cells, 64, None).config.seq_len == 64
    assert choose_cell(cells, 128, "bf16").config.model_dump()["precision"] == "bf16"
    assert BatchSizeSearch(choose_cell(cells, 128, None), RECORD.machine).config(5).batch_size == 5
    with pytest.raises(UserError, match="seq_len 513 is beyond this model's 512 positions"):
        BatchSizeSearch(choose_cell(cells, 513, None), RECORD.machine)


def test_the_budget_is_given_or_an_instance_types_or_this_machines():
    def choose(memory_gib=None, instance=None, on_gpu=False):
        return choose_budget(on_gpu=on_gpu, machine=RECORD.machine, memory_gib=memory_gib, instance=instance)

    assert choose(4).num_bytes == 4 * GIB
    assert choose(instance="g4dn.xlarge").num_bytes == 15.5 * GIB
    assert choose(instance="g4dn.xlarge", on_gpu=True).num_bytes == 15 * GIB  # a T4's driver reports 15 GiB
    assert not choose().cap
    with pytest.raises(UserError, match="give only one of them"):
        choose(4, "g4dn.xlarge")
    with pytest.raises(UserError, match=r"did you mean g4dn\.xlarge"):
        choose(instance="g4dn.xlrge")


def test_instance_types_are_cheapest_first_and_have_enough_memory():
    needed = make_search().predict(200).peak_bytes
    fits = find_instance_fits(load_prices(), cpu_bytes=needed, gpu_bytes=8 * GIB)
    assert [fit.usd_per_hour for fit in fits] == sorted(fit.usd_per_hour for fit in fits)
    assert all(fit.memory_gib * GIB >= fit.predicted_bytes for fit in fits)
    assert {fit.predicted_bytes for fit in fits if fit.gpu is None} == {needed}
    assert {fit.predicted_bytes for fit in fits if fit.gpu is not None} == {8 * GIB}
    assert not any(fit.instance.startswith("t3") for fit in fits)


def test_the_command_predicts_as_json(tmp_path):
    study = tmp_path / "s.toml"
    study.write_text('[model]\nshape = "bert-base"\ninit = "random"\n')
    result = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "6", "--predict", "--json"])
    fields = json.loads(result.output)
    assert fields["batch"] is None and fields["tries"] == []
    search, batch_size = make_search(), fields["predicted_batch"]
    assert batch_size == predict_fit(search, BUDGET).predicted_batch
    assert search.predict_default(batch_size) <= 6 * GIB < search.predict_default(batch_size + 1)
    assert search.predict_default(batch_size) > search.predict(batch_size).peak_bytes
    assert fields["rooms"] and fields["limit"] == {"num_bytes": 6 * GIB, "words": "6 GiB", "cap": True}


def test_the_command_prints_instance_types_that_fit(tmp_path):
    study = tmp_path / "s.toml"
    study.write_text('[model]\nshape = "bert-base"\ninit = "random"\n')
    printed = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "6", "--predict"]).output
    assert "bert-base, whole model, 64 tokens a row (all padded), fp32, cpu; to fit 6 GiB" in printed
    assert "predicted: batch size" in printed
    assert "gcp e2-standard-2" in printed and "aws c7g.large" not in printed  # 8 and 4 GiB
    small = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "0.5", "--predict"]).output
    assert "not even batch size 1 fits" in small


def test_an_instance_type_with_a_gpu_is_shown_as_never_checked_on_one():
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    fit = predict_fit(make_search(), BUDGET)
    with_gpu = tuple(instance for instance in fit.instances if instance.instance == "g4dn.xlarge")
    assert len(with_gpu) == 1
    FitView(console).end(replace(fit, instances=with_gpu))
    assert "aws g4dn.xlarge (T4; never checked on a GPU)" in " ".join(console.export_text().split())


def test_every_attempt_is_shown_with_predicted_and_measured_peak():
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    view, search = FitView(console), make_search()
    attempts = run_attempts(search, BUDGET, 100, make_runner(search, 1.02, outcome="oom"), view.on_attempt)
    best = max(attempt.batch_size for attempt in attempts if attempt.fits)
    fit = replace(predict_fit(search, BUDGET), batch=best, smallest_too_large=best + 1, attempts=tuple(attempts))
    view.end(replace(fit, note="ended after 8 tries"))
    printed = console.export_text()
    assert printed.count("predicted ") >= len(attempts)
    assert "no peak: does not fit (oom)" in printed and "measured " in printed
    assert f"measured: batch size {best} fits; {best + 1} does not" in printed
    assert "ended after 8 tries" in printed
