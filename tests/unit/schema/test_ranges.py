"""A record that arithmetic can't bear is no record: it is left aside by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store.record_files import decode_record, load_records

FROZEN = Path(__file__).parents[2] / "fixtures" / "records" / "v5"
# Each was accepted, and stopped at least one of plan, run, report, recommend and compare with a traceback or without end.
BAD = {
    "a start without a zone": (("started_at",), "2026-10-01T08:00:00"),
    "a start in the year 1": (("started_at",), "0001-01-01T00:00:00+14:00"),
    "an infinite duration": (("duration_s",), float("inf")),
    "a negative duration": (("duration_s",), -1.0),
    "no CPUs": (("machine", "cpu", "num_usable"), 0),
    "no memory": (("machine", "memory_bytes"), 0),
    "no predictions": (("training", "test", "predictions"), []),
    "no labels and no predictions": (("training", "test"), {"evaluate_s": 1, "labels": [], "predictions": []}),
    "no seconds": (("training", "steps", "seconds"), [[]]),
    "no ranks": (("training", "steps", "seconds"), []),
    "a short num_padded_tokens": (("training", "steps", "num_padded_tokens"), [1]),
    "a short loss": (("training", "steps", "loss"), [1.0]),
    "1e308 epochs": (("config", "training", "epochs"), 1e308),
    "a batch of 10^30": (("config", "batch_size"), 10**30),
    "an accuracy of 2": (("training", "evaluations", 0, "accuracy"), 2),
    "a label without a name": (("training", "test", "predictions", 0), 99),
    "no names of labels": (("data", "labels"), []),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_does_not_meet_the_schema_is_left_aside_by_name(kind, tmp_path):
    path, value = BAD[kind]
    fields = json.loads((FROZEN / "ok.json").read_text())
    holder = fields
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    (tmp_path / "bad.json").write_text(json.dumps(fields))
    (tmp_path / "good.json").write_text((FROZEN / "ok.json").read_text())
    loaded = load_records([tmp_path])
    assert len(loaded.records) == 1
    (problem,) = loaded.unreadable
    assert "bad.json: not a re" in problem


def test_a_lone_surrogate_is_no_text():
    content = (FROZEN / "ok.json").read_text().replace('"cell": "', '"cell": "\\ud800', 1).encode()
    with pytest.raises(UserError, match=r"not a readable record: 'utf-8' codec"):
        decode_record(content)


def test_a_diverging_loss_and_counters_that_run_backwards_do_not_cost_a_record():
    fields = json.loads((FROZEN / "ok.json").read_text())
    fields["training"]["steps"]["loss"][0] = 3.4e38
    fields["load"]["steal_s"] = -0.01
    assert decode_record(json.dumps(fields).encode()).load.steal_s == -0.01
