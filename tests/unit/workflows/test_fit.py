"""The search for the largest batch, over a machine that is a formula; the real one stands in tests/integration."""

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
    GIB,
    MOST_TRIES,
    BatchSizeSearch,
    MemoryBudget,
    choose_cell,
    choose_limit,
    find_instance_fits,
    predict_fit,
    search,
)
from tests.unit.frozen import RECORDS

RECORD = load_record(RECORDS / "v1" / "ok.json")


def cells_of(**raw):
    raw = {"baselines": False, "model": {"shape": "bert-base", "init": "random"}} | raw
    return expand(parse_study(raw, "s"))


def question_of(**raw):
    return BatchSizeSearch(choose_cell(cells_of(**raw), None, None), RECORD.machine)


def machine_that_needs(question, factor, more=0, outcome="ok"):
    """What a try measures: the prediction times a factor, and more; above the cap there is no peak."""

    def run(batch_size):
        measured = round(question.predict(batch_size).peak_bytes * factor) + more
        if outcome == "oom" and measured > LIMIT.num_bytes:
            return RECORD.model_copy(update={"outcome": "oom", "reason": "killed"}), None
        return RECORD, measured

    return run


LIMIT = MemoryBudget(6 * GIB, "6 GiB", cap=True)


@pytest.mark.parametrize("outcome", ["ok", "oom"])
@pytest.mark.parametrize(
    ("factor", "more"), [(1, 0), (1.02, 0), (0.95, 0), (1, 90 << 20), (1, -70 << 20), (1.3, 0), (0.7, 0)]
)
def test_the_largest_batch_is_found_within_8_tries(factor, more, outcome):
    question = question_of()
    run = machine_that_needs(question, factor, more, outcome)
    first = question.largest(lambda size: question.predict(size).peak_bytes <= LIMIT.num_bytes)
    told = []
    tries = search(question, LIMIT, first, run, told.append)
    fitting = [one.batch_size for one in tries if one.fits]
    truth = question.largest(lambda size: round(question.predict(size).peak_bytes * factor) + more <= LIMIT.num_bytes)
    assert max(fitting) == truth
    assert min(one.batch_size for one in tries if not one.fits) == truth + 1
    assert len(tries) <= MOST_TRIES
    assert told == tries


def test_none_fits_and_all_rows_fit():
    question = question_of(data={"num_train": 20})
    assert [(one.batch_size, one.fits) for one in
            search(question, MemoryBudget(GIB // 4, "", cap=True), 1, machine_that_needs(question, 1), lambda _: None)] == [(1, False)]  # fmt: skip
    large = search(question, MemoryBudget(99 * GIB, "", cap=True), 20, machine_that_needs(question, 1), lambda _: None)
    assert [(one.batch_size, one.fits) for one in large] == [(20, True)]


def test_a_try_that_crashes_ends_the_search():
    question = question_of()

    def crash(_):
        return RECORD.model_copy(update={"outcome": "crashed", "reason": "a bug"}), None

    with pytest.raises(UserError, match="batch size 8: the try ended as crashed: a bug"):
        search(question, LIMIT, 8, crash, lambda _: None)


def test_the_question_is_the_first_cell_that_trains_with_what_was_asked():
    cells = cells_of(matrix={"batch_size": [8, 16], "seq_len": [32, 64]})
    assert choose_cell(cells, 64, None).config.seq_len == 64
    assert choose_cell(cells, 128, "bf16").config.model_dump()["precision"] == "bf16"
    assert BatchSizeSearch(choose_cell(cells, 128, None), RECORD.machine).config(5).batch_size == 5
    with pytest.raises(UserError, match="beyond this model's 512 positions"):
        BatchSizeSearch(choose_cell(cells, 513, None), RECORD.machine)


def test_a_limit_is_given_or_a_machines_or_this_ones():
    config = cells_of()[0].config
    gpu = cells_of(matrix={"device": ["gpu"]})[0].config
    assert choose_limit(config, RECORD.machine, 4, None).num_bytes == 4 * GIB
    assert choose_limit(config, RECORD.machine, None, "g4dn.xlarge").num_bytes == 15.5 * GIB
    assert choose_limit(gpu, RECORD.machine, None, "g4dn.xlarge").num_bytes == 15 * GIB  # a T4 tells the driver 15
    assert not choose_limit(config, RECORD.machine, None, None).cap
    with pytest.raises(UserError, match="give one of them"):
        choose_limit(config, RECORD.machine, 4, "g4dn.xlarge")
    with pytest.raises(UserError, match=r"did you mean g4dn\.xlarge"):
        choose_limit(config, RECORD.machine, None, "g4dn.xlrge")


def test_rooms_are_cheapest_first_and_hold_the_batch():
    question = question_of()
    need = question.predict(200).peak_bytes
    rooms = find_instance_fits(load_prices(), question, 200, need)
    assert [room.usd_per_hour for room in rooms] == sorted(room.usd_per_hour for room in rooms)
    assert all(room.memory_gib * GIB >= room.predicted_bytes for room in rooms)
    assert {room.predicted_bytes for room in rooms if room.gpu is None} == {need}
    assert not any(room.instance.startswith("t3") for room in rooms)


def test_the_command_predicts_as_json(tmp_path):
    study = tmp_path / "s.toml"
    study.write_text('[model]\nshape = "bert-base"\ninit = "random"\n')
    done = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "6", "--predict", "--json"])
    found = json.loads(done.output)
    assert found["batch"] is None and found["tries"] == []
    question = question_of()
    assert found["predicted_batch"] == predict_fit(question, LIMIT).predicted_batch
    assert question.predict(found["predicted_batch"]).peak_bytes <= 6 * GIB < question.predict(found["predicted_batch"] + 1).peak_bytes  # fmt: skip


def test_the_command_tells_a_person_where_else_it_fits(tmp_path):
    study = tmp_path / "s.toml"
    study.write_text('[model]\nshape = "bert-base"\ninit = "random"\n')
    told = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "6", "--predict"]).output
    assert "bert-base, whole model, 64 tokens a row (all padded), fp32, cpu; to fit 6 GiB" in told
    assert "predicted: batch size" in told
    assert "never checked" in told
    small = CliRunner().invoke(cli.app, ["fit", str(study), "--memory-gib", "0.5", "--predict"]).output
    assert "not even batch size 1 fits" in small


def test_every_try_is_shown_with_what_was_predicted_and_measured():
    console = Console(width=120, record=True, quiet=False, file=io.StringIO())
    screen, question = FitView(console), question_of()
    tries = search(question, LIMIT, 100, machine_that_needs(question, 1.02, outcome="oom"), screen.tried)
    best = max(one.batch_size for one in tries if one.fits)
    found = replace(predict_fit(question, LIMIT), batch=best, smallest_that_did_not=best + 1, tries=tuple(tries))
    screen.end(replace(found, note="ended after 8 tries"))
    told = console.export_text()
    assert told.count("predicted ") >= len(tries)
    assert "no peak: does not fit (oom)" in told and "measured " in told
    assert f"measured: batch size {best} fits; {best + 1} does not" in told
    assert "ended after 8 tries" in told
