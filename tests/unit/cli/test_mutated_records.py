"""No record that is accepted stops a command that reads records."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.errors import UserError
from harness.store.record_files import decode_record, load_record, save_record
from tests.mutate_records import FROZEN, find_traceback, frozen_records, mutated_records

BATCH = 12


def test_three_hundred_mutated_records_stop_no_command(tmp_path):
    """About 17 places did, e.g. a start without a zone, 0 CPUs, no predictions; bench/bench_records.py tries 5,000."""
    accepted: dict[bytes, None] = {}

    @seed(20261130)
    @settings(
        max_examples=300, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(mutated_records(frozen_records()))
    def mutate(content: bytes) -> None:
        try:
            decode_record(content)
        except UserError:
            return
        accepted[content] = None

    mutate()
    good, study = tmp_path / "good", tmp_path / "mine.toml"
    for path in sorted(FROZEN.glob("v5/*.json")):
        save_record(load_record(path), good)
    study.write_text("[matrix]\nbatch_size = [8, 16]\n")
    contents = list(accepted)
    assert len(contents) > BATCH
    for start in range(0, len(contents), BATCH):
        assert find_traceback(tmp_path / f"{start}", contents[start : start + BATCH], good, study) is None
