"""The shipped table of published throughputs."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.errors import UserError
from harness.prediction.gpu_records import measured_steps
from harness.prediction.published_rows import load_published
from harness.prediction.step_work import HARNESS_LOOP
from harness.shipped import tables_folder
from tests.make_records import make_machine, make_record
from tests.unit.prediction.gpu_cells import published_speed, tables

HEADER = "hardware,model,precision,seq_len,batch_size,samples_per_s,protocol,measured_on,as_of,source\n"
ROW = "NVIDIA A10,bert-base,fp16,384,80,135.34,squad-apex,2023-02-11,2025-12-17,a file\n"


def test_the_shipped_rows():
    rows = load_published(tables())
    assert len(rows) == 68
    assert set(Counter(row.hardware for row in rows).values()) == {4}
    assert {row.seq_len for row in rows} == {384}
    a10 = next(row for row in rows if (row.hardware, row.model, row.precision) == ("NVIDIA A10", "bert-large", "tf32"))
    assert (a10.batch_size, a10.samples_per_s, a10.measured_on) == (12, 19.35, "2023-02-11")
    assert a10.seconds == pytest.approx(12 / 19.35)


def test_a_row_is_a_step_of_the_whole_model():
    (row,) = [row for row in load_published(tables()) if row.hardware == "NVIDIA A10" and row.batch_size == 80]
    work = row.work()
    layer = 80 * 384 * 24 * 768**2 + 4 * 768 * 80 * 384**2
    assert work.flops == pytest.approx(3 * 12 * layer, rel=1e-3)
    assert (work.num_layers, work.num_rows) == (12, 80)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("NVIDIA A10,", "A10,", "hardware: found 'A10'"),
        ("squad-apex", "mine", "protocol: found 'mine'"),
        ("2023-02-11", "in spring", "measured_on: found 'in spring'"),
        ("135.34", "0", "samples_per_s: found '0'"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, problem):
    path = tmp_path / "published.csv"
    path.write_text(HEADER + ROW.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=problem):
        load_published(tables(), path)


def test_it_ships_with_the_package():
    pyproject = (tables_folder().parent / "pyproject.toml").read_text(encoding="utf-8")
    assert '"/bench/published_gpu_throughput.csv"' in pyproject


def test_four_constants_are_physical():
    fitted = published_speed().constants
    assert 0.5 < fitted.peak_fraction < 1
    assert 0.5 < fitted.bandwidth_fraction < 1
    assert 5e-4 < fitted.layer_s < 5e-3
    assert 1e-5 < fitted.row_s < 1e-3


def on_gpu(name, **fields):
    seconds, pairs = [0.5] * 40, [16 * 64**2] * 40
    return make_record(
        axes={"device": "gpu", "precision": "bf16"}, machine=make_machine(machine_id="gpu", gpus=[name]),
        training={"seconds": seconds, "num_token_pairs": pairs}, **fields,
    )  # fmt: skip


def test_own_records_are_steps_too():
    (step,) = measured_steps((), [on_gpu("NVIDIA A10G")], tables())
    assert step.gpu.hardware == "NVIDIA A10G"
    assert step.gpu.flop_per_s == 70e12
    assert step.loop == HARNESS_LOOP
    # The measured steps together: none is warm-up, since all take equally long.
    num_steps = step.seconds / 0.5
    layer = 16 * 64 * (8 * 384**2 + 4 * 384 * 1536) + 4 * 384 * 16 * 64**2
    assert step.work.flops == pytest.approx(num_steps * 3 * 6 * layer, rel=0.01)
    assert step.work.num_layers == 6 * num_steps


def test_records_of_parts_and_of_unknown_gpus_are_left_out():
    records = [on_gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), on_gpu("NVIDIA GeForce RTX 9090"), make_record()]
    assert measured_steps((), [*records, on_gpu("NVIDIA A10G", outcome="oom")], tables()) == []
