"""A study on machines that nobody rented: fit, cell, bill, basis, and what to measure first."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.analysis.summarize import summarize
from harness.errors import UserError
from harness.pricing.price_search import PriceQuery
from harness.schema.expansion import expand
from harness.schema.probe_record import Probe, ProbedShape
from harness.schema.study_file import load_study, parse_study
from harness.store.record_files import save_record
from harness.workflows.shortlist import ShortlistOptions, make_shortlist
from tests.make_records import make_machine, make_record

BENCH = Path(__file__).parents[3] / "bench"
ON_CPU = {"matrix": {"device": ["cpu"], "batch_size": [16], "seq_len": [64], "padding": ["max"]}, "baselines": False}


def shortlist(cells, **options):
    query = PriceQuery(**{key: options.pop(key) for key in list(options) if key in PriceQuery.__annotations__})
    return make_shortlist(cells, ShortlistOptions(query, **options))


def gpu_study(*overrides):
    return expand(load_study(BENCH / "gpu.toml", overrides))


def cpu_study(**tables):
    return expand(parse_study({**ON_CPU, **tables}, "mine"))


def by_type(found, *, region=None):
    return {row.price.instance_type: row for row in found.rows if region in (None, row.price.region)}


def on_instance(instance, num_logical, results, **fields):
    """Save the record of 40 steps of 16 rows in 1 s each, with 2 s of set-up and 10 s of evaluations."""
    machine = make_machine(machine_id=f"cpu-{instance}", num_logical=num_logical)
    axes = {"padding": "max"}
    record = make_record(machine=machine, axes=axes, stated={"instance": instance, "region": None}, **fields)
    save_record(record, results)
    return record


class TestGpus:
    def test_every_row_of_the_table_is_judged(self):
        found = shortlist(gpu_study())
        bases = {row.basis for row in found.rows if row.price.accelerator_count}
        assert bases == {"datasheet"}
        assert all(row.basis is None and row.usd is None for row in found.rows if not row.price.accelerator_count)
        bills = [row.usd.value for row in found.rows if row.usd]
        assert bills == sorted(bills)
        assert found.num_samples == 60 * 64

    def test_the_bill_is_the_hourly_price_of_set_up_and_run(self):
        (row,) = shortlist(gpu_study(), instance="g5.xlarge", region="us-east-1").rows
        run_s = 60 * 64 / row.samples_per_s.value
        assert row.hours.value == pytest.approx((180 + run_s) / 3600)
        assert row.usd.value == pytest.approx(
            row.price.usd_per_hour_on_demand * math.ceil(180 + run_s) / 3600, rel=1e-3
        )
        assert row.usd_spot.value < row.usd.value
        assert row.usd.low < row.usd.value < row.usd.high
        assert row.samples_per_s.low < row.samples_per_s.value < row.samples_per_s.high

    def test_the_cell_is_the_cheapest_that_the_gpu_can_run(self):
        rows = by_type(shortlist(gpu_study(), provider="aws", region="us-east-1"))
        assert rows["g5.xlarge"].cell == "b64-s128-bf16-gpu-max-all"
        assert rows["g4dn.xlarge"].cell == "b64-s128-fp16-gpu-max-all"  # a T4 only emulates bf16
        assert "-gpu-ddp-" in rows["g5.12xlarge"].cell  # all four GPUs are paid for

    def test_more_samples_cost_more_at_the_same_speed(self):
        one, two = (
            shortlist(gpu_study(), instance="g5.xlarge", region="us-east-1", num_samples=n).rows[0]
            for n in (10**6, 2 * 10**6)
        )
        assert two.samples_per_s == one.samples_per_s
        assert two.hours.value * 3600 - 180 == pytest.approx(2 * (one.hours.value * 3600 - 180))

    def test_a_model_that_is_too_large_does_not_fit(self):
        large = (
            "model.shape=bert-large",
            "matrix.batch_size=[128]",
            "matrix.seq_len=[512]",
            "matrix.precision=['fp16']",
            "data.num_train=4096",
        )
        study = [cell for cell in gpu_study(*large) if cell.config.batch_size == 128]
        rows = by_type(shortlist(study))
        assert rows["g4dn.xlarge"].fits is False
        assert 0 < rows["g4dn.xlarge"].largest_batch < 128
        assert rows["g4dn.xlarge"].reasons == ("no cell fits its memory",)
        assert rows["p6-b200.48xlarge"].fits is True
        assert rows["p6-b200.48xlarge"].largest_batch > rows["g4dn.xlarge"].largest_batch

    def test_an_unnamed_board_may_be_any_of_its_name(self):
        row = by_type(shortlist(gpu_study()))["1x-Tesla_V100-32-65536"]
        assert row.basis == "datasheet"
        assert "it may have any of 3 boards" in row.reasons

    def test_the_three_to_measure_are_good_value_by_all_that_is_known(self):
        found = shortlist(gpu_study(), provider="aws", region="us-east-1", num_samples=1_000_000)
        kinds = [pick.row.price.accelerator for pick in found.measure_first]
        # The cheapest hour (T4), and the two cards that do most for an hour of a few times its price.
        assert kinds[0] == "T4"
        assert set(kinds) <= {"T4", "L40S", "A10G", "L4"}
        assert len(set(kinds)) == 3
        assert 0.8 < found.probability <= 1
        assert found.probability == pytest.approx(sum(pick.probability for pick in found.measure_first))

    def test_measuring_costs_all_the_studys_runs_there(self):
        study = gpu_study("training.seeds=[0,1]")
        found = shortlist(study, instance="p5.4xlarge", region="us-east-1")
        (pick,) = found.measure_first
        assert pick.num_runs == len(study) == 2 * 49
        assert pick.usd.value == pytest.approx(6.88 * math.ceil(pick.seconds.value) / 3600, rel=1e-3)
        assert pick.seconds.low < pick.seconds.value < pick.seconds.high

    def test_limits(self):
        tight = shortlist(
            gpu_study(), provider="aws", region="us-east-1", num_samples=10**6, deadline_s=1800, budget_usd=2
        )
        rows = by_type(tight)
        assert rows["g4dn.xlarge"].misses == ("deadline",)
        assert rows["p5.48xlarge"].misses == ("budget",)
        assert tight.measure_first[0].row.price.instance_type not in ("g4dn.xlarge", "p5.48xlarge")

    def test_discounts_lower_the_bill(self, tmp_path):
        prices = tmp_path / "prices.toml"
        prices.write_text("discount_percent = 50\n", encoding="utf-8")
        full, half = (
            shortlist(gpu_study(), instance="g5.xlarge", region="us-east-1", prices=path).rows[0]
            for path in (None, prices)
        )
        assert half.usd.value == pytest.approx(full.usd.value / 2)

    def test_no_row_is_an_error(self):
        with pytest.raises(UserError, match="its providers: aws"):
            shortlist(gpu_study(), provider="nobody")


class TestCpus:
    def test_without_a_record_a_cpu_must_be_measured(self, tmp_path):
        rows = by_type(shortlist(cpu_study(), results=(tmp_path / "none",)))
        assert rows["m7i.2xlarge"].basis is None
        assert rows["m7i.2xlarge"].fits is True
        assert rows["m7i.2xlarge"].largest_batch > 16
        assert rows["m7i.2xlarge"].reasons == ("nothing was measured on a machine of its family, m7i",)
        assert rows["t3.medium"].reasons == ("burstable: at full speed only while its credits last",)
        assert rows["g5.xlarge"].reasons == ("the study has no cell for a GPU",)

    def test_a_record_of_the_type_is_measured(self, tmp_path):
        record = on_instance("m7i.2xlarge", 8, tmp_path)
        (cell,) = summarize([record])
        row = by_type(shortlist(cpu_study(), results=(tmp_path,)))["m7i.2xlarge"]
        assert row.basis == "measured"
        assert row.samples_per_s.value == pytest.approx(16.0)
        assert row.samples_per_s.low == pytest.approx(cell.samples_per_s.low)
        assert row.samples_per_s.high == pytest.approx(cell.samples_per_s.high)
        # 2 epochs of 2,000 rows at 16 rows a second, set-up and evaluations as measured, and 180 s of rental's set-up.
        run_s = 4000 / 16 + cell.setup_s + cell.evaluate_s
        assert row.hours.value == pytest.approx((180 + run_s) / 3600)

    def test_another_size_of_the_family_is_scaled_and_less_certain(self, tmp_path):
        on_instance("m7i.2xlarge", 8, tmp_path)
        rows = by_type(shortlist(cpu_study(), results=(tmp_path,)))
        larger = rows["m7i.4xlarge"]
        assert larger.basis == "scaled"
        assert larger.samples_per_s.value == pytest.approx(16 * 2**0.64)
        measured = rows["m7i.2xlarge"].samples_per_s
        assert larger.samples_per_s.high / larger.samples_per_s.low > measured.high / measured.low
        assert larger.reasons == ("measured on 8 logical CPUs, scaled to 16",)
        assert rows["c7i.4xlarge"].basis is None

    def test_the_nearest_size_is_scaled(self, tmp_path):
        on_instance("c7i.2xlarge", 8, tmp_path)
        on_instance("c7i.8xlarge", 32, tmp_path, training={"seconds": [0.4] * 40})
        rows = by_type(shortlist(cpu_study(), results=(tmp_path,)))
        assert "scaled to 16" in rows["c7i.4xlarge"].reasons[0]

    def test_a_slice_of_a_machine_says_nothing_of_the_whole(self, tmp_path):
        machine = make_machine(machine_id="slice", num_logical=8, num_usable=2)
        save_record(
            make_record(machine=machine, axes={"padding": "max"}, stated={"instance": "m7i.2xlarge", "region": None}),
            tmp_path,
        )
        assert by_type(shortlist(cpu_study(), results=(tmp_path,)))["m7i.2xlarge"].basis is None

    def test_cells_that_compute_alike_tell_about_each_other(self, tmp_path):
        pairs = [16 * 64**2] * 40
        on_instance("m7i.2xlarge", 8, tmp_path, training={"num_token_pairs": pairs})
        row = by_type(shortlist(cpu_study(training={"epochs": 4}), results=(tmp_path,)))["m7i.2xlarge"]
        assert row.basis == "measured"
        assert row.samples_per_s.value == pytest.approx(16.0, rel=1e-3)  # 0.1 s of the first step

    def test_a_probe_of_the_type_predicts_its_cells(self, tmp_path):
        shapes = [
            ProbedShape(
                num_rows=rows,
                num_tokens=tokens,
                first_step_s=step_s,
                step_s=(step_s,),
                evaluate_s=(step_s / 3,),
                peak_bytes=1,
            )
            for rows, tokens, step_s in ((16, 64, 0.5), (8, 64, 0.25), (16, 32, 0.25))
        ]
        probe = Probe(world_size=1, threads_per_rank=8, shapes=tuple(shapes))
        on_instance("m7i.2xlarge", 8, tmp_path, probe=probe)
        row = by_type(shortlist(cpu_study(), results=(tmp_path,)))["m7i.2xlarge"]
        assert row.basis == "probe"
        assert row.samples_per_s.value == pytest.approx(32.0, rel=1e-3)

    def test_a_measured_machine_is_not_to_be_measured(self, tmp_path):
        on_instance("m7i.2xlarge", 8, tmp_path)
        found = shortlist(cpu_study(), results=(tmp_path,))
        assert {pick.row.price.instance_type for pick in found.measure_first} == {
            "m7i.large",
            "m7i.xlarge",
            "m7i.4xlarge",
        }
        assert found.probability == pytest.approx(1)


class TestBatches:
    def test_real_rows_are_shorter_than_padded_ones(self):
        grouped, padded = (
            cpu_study(matrix={**ON_CPU["matrix"], "device": ["gpu"], "padding": [padding]})
            for padding in ("grouped", "max")
        )
        real, full = (shortlist(study, instance="g4dn.xlarge", region="us-east-1") for study in (grouped, padded))
        assert real.note == "batches of the real rows"
        assert full.note == "every row is padded to seq_len"
        assert real.rows[0].samples_per_s.value > full.rows[0].samples_per_s.value

    def test_rows_that_are_not_here_count_as_padded(self):
        study = cpu_study(
            data={"source": "no-such.csv"}, matrix={**ON_CPU["matrix"], "device": ["gpu"], "padding": ["longest"]}
        )
        found = shortlist(study, instance="g4dn.xlarge", region="us-east-1")
        assert found.note.startswith("every row counts as padded to seq_len (")
        assert "no-such.csv" in found.note

    def test_all_rows_of_data_that_is_not_here_can_not_be_counted(self):
        with pytest.raises(UserError, match='num_train = "all" needs the data'):
            shortlist(cpu_study(data={"source": "no-such.csv", "num_train": "all"}))

    def test_a_study_of_baselines_has_nothing_to_estimate(self):
        cells = [cell for cell in expand(load_study(BENCH / "default.toml")) if cell.config.kind == "baseline"]
        with pytest.raises(UserError, match="no cell that trains"):
            shortlist(cells)
