"""Records that nodes send are saved once, under the name that they have on the node."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from harness.cluster.record_home import Attempt, bring_home, save_lost
from harness.cluster.waiting_records import forget_waiting, keep_waiting, read_waiting, results_key
from harness.errors import UnwritableError, UserError
from harness.execution.jobs import Environment
from harness.schema.cells import Cell
from harness.schema.host_record import ClusterRun
from harness.schema.record import to_json
from harness.store.record_files import load_record
from tests.make_records import make_record

RUN = ClusterRun(run="r", node="n", driver_host="h", code_sha256="c", attempt=1)
RECORD = make_record().model_copy(update={"cluster": RUN})
INTERRUPTED = RECORD.model_copy(update={"outcome": "interrupted", "reason": "lost", "training": None})
NAME = "20260101T000000Z-0a1b.json"


def content(record):
    return to_json(record).encode()


def test_a_record_that_is_sent_twice_is_saved_once(tmp_path):
    first, second = (bring_home(NAME, content(RECORD), tmp_path) for _ in range(2))
    assert (first.is_new, second.is_new, first.path) == (True, False, second.path)
    assert first.path.name == NAME and load_record(first.path) == RECORD
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_an_attempt_that_was_recorded_as_lost_is_not_recorded_again_when_its_node_comes_back(tmp_path):
    cell = Cell(study=RECORD.study, name=RECORD.cell, repeat=RECORD.repeat, config=RECORD.config)
    environment = Environment(RECORD.machine, None, None, RECORD.packages)
    lost, path = save_lost(
        Attempt(cell, environment, RUN, datetime(2026, 1, 1, tzinfo=UTC), 5.0), "preempted", "gone", tmp_path
    )
    assert (lost.outcome, lost.reason, lost.duration_s, lost.cluster) == ("preempted", "gone", 5.0, RUN)
    assert bring_home(NAME, content(INTERRUPTED), tmp_path).path is None
    assert list(tmp_path.rglob("*.json")) == [path]
    assert bring_home(NAME, content(RECORD), tmp_path).is_new  # its cell had ended after all
    later = INTERRUPTED.model_copy(update={"cluster": RUN.model_copy(update={"attempt": 2})})
    assert bring_home("20260101T000000Z-0a1c.json", content(later), tmp_path).is_new


@pytest.mark.parametrize("name", ["../../x.json", "record.json", "20260101T000000Z-0a1b.json/../x"])
def test_what_is_no_name_of_a_record_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="no record's file"):
        bring_home(name, content(RECORD), tmp_path)


def test_a_folder_that_can_not_be_written_is_said_with_where_the_record_is(tmp_path):
    (tmp_path / "r").write_text("a file")
    with pytest.raises(UnwritableError, match="it waits on its node"):
        bring_home(NAME, content(RECORD), tmp_path / "r")


def test_records_wait_until_they_are_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    key = results_key(tmp_path / "results", "host")
    names = [keep_waiting(record, key) for record in (RECORD, INTERRUPTED)]
    assert {name: text for name, text in read_waiting(key)} == {
        names[0]: content(RECORD),
        names[1]: content(INTERRUPTED),
    }
    forget_waiting(key, names[:1])
    assert [name for name, _ in read_waiting(key)] == names[1:]
    forget_waiting(key, names)
    assert read_waiting(key) == [] and not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_records_for_another_results_folder_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    keys = {results_key(tmp_path / "a", "h"), results_key(tmp_path / "b", "h"), results_key(tmp_path / "a", "g")}
    assert len(keys) == 3
    first, *others = keys
    keep_waiting(RECORD, first)
    assert all(read_waiting(key) == [] for key in others)
