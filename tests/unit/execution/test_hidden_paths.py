"""No record names a user by the path of a home."""

from __future__ import annotations

import pytest

from harness.execution.hidden_paths import hide_home, hide_homes
from harness.schema.record import to_json
from harness.schema.settings import PACKAGED_DATA
from harness.store.record_files import save_record


def test_a_record_keeps_its_hash_and_loses_the_user_s_name(ok_record, tmp_path):
    source = "/home/alice/customers/mails.csv"
    data = ok_record.config.data.model_copy(update={"source": source, "test_source": "/Users/alice/test.csv"})
    model = ok_record.config.model.model_copy(update={"name": "/home/alice/bert"})
    config = ok_record.config.model_copy(update={"data": data, "model": model})
    facts = ok_record.data.model_copy(update={"source": source})
    model_facts = ok_record.model.model_copy(update={"name": "/home/alice/bert"})  # was left as it is
    record = ok_record.model_copy(update={"config": config, "data": facts, "model": model_facts})
    hidden = hide_homes(record)
    written = save_record(hidden, tmp_path).read_text()
    assert "alice" not in written and "customers" not in written  # both stood in every record and archive
    assert "mails.csv" in written
    assert hidden.config_hash == record.config_hash
    assert hidden.config.data.source == hidden.data.source


def test_a_record_without_homes_stays_as_it_is(ok_record):
    assert to_json(hide_homes(ok_record)) == to_json(ok_record)


@pytest.mark.parametrize("path", [PACKAGED_DATA, "~/x.csv", "data/home/x.csv", "/mnt/team/x.csv", "org/name", "/homes"])
def test_other_names_stay(path):
    assert hide_home(path) == path


def test_files_of_one_folder_have_one_hash():
    a, b, c = (hide_home(f"/home/{name}") for name in ("alice/a.csv", "alice/b.csv", "bob/a.csv"))
    assert a[:10] == b[:10] != c[:10]
    assert (a[-6:], c[-6:]) == ("/a.csv", "/a.csv")
