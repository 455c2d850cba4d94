"""Throughput, intervals, accuracy, targets, memory and warnings, compared with values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.estimate import t_interval, t_quantile, wilson_interval
from harness.analysis.run_spread import stated_spread
from harness.analysis.summarize import peak_memory, summarize
from harness.analysis.throughput import (
    ThroughputWindow,
    host_spread,
    measure_windows,
    throughput,
)
from harness.schema.scores import macro_f1
from harness.schema.training_record import Training
from tests.make_records import GIB, MIB, make_baseline, make_machine, make_record

T_2 = 4.302652729749464  # Student's 97.5 % quantiles, from published tables
T_1 = 12.706204736174707


def window(seconds, num_samples=None):
    samples = num_samples or [16] * len(seconds)
    return ThroughputWindow(0, tuple(seconds), tuple(samples), tuple(samples), tuple(samples))


def summary_of(*records):
    (summary,) = summarize(records)
    return summary


def summary_of_one(**training):
    return summary_of(make_record(training=training))


class TestGroups:
    def test_seeds_and_repeats_share_a_summary_and_cells_and_machines_do_not(self):
        second_phases = make_machine(machine_id="xeon-2c-8g-000002")
        summaries = summarize(
            [
                make_record(seed=0),
                make_record(seed=1, minutes=1),
                make_record(seed=0, repeat=1, minutes=2),
                make_record(axes={"batch_size": 32}, minutes=3),
                make_record(machine=second_phases, minutes=-5),
            ]
        )
        assert [(s.machine_id, s.config.batch_size, s.num_ok) for s in summaries] == [
            ("epyc-4c-16g-000001", 16, 3),
            ("epyc-4c-16g-000001", 32, 1),
            ("xeon-2c-8g-000002", 16, 1),
        ]

    def test_the_newest_record_of_a_host_seed_and_repeat_counts_in_any_order(self):
        old = make_record(training={"seconds": [2.0] * 40}, study="old")
        new = make_record(minutes=9, study="new", cell="renamed")
        for records in ([old, new], [new, old]):
            summary = summary_of(*records)
            assert summary.records == (new,)
            assert (summary.study, summary.cell) == ("new", "renamed")
            assert summary.samples_per_s.value == 16.0

    def test_hosts_of_one_machine_type_share_a_cell(self):
        summary = summary_of(make_record(minutes=1), make_record(machine=make_machine(host="host-b")))
        assert [record.machine.host for record in summary.records] == ["host-b", "host-a"]

    @pytest.mark.parametrize(
        ("rates", "low", "high"),
        [
            # Six runs: t(5 degrees) x 0.122221 / sqrt(6) = 0.128264, which 18 x exp(-+) turns into
            ((16.0, 20.0), 15.833199, 20.463332),
            # t(2 degrees) = 4.302653: 18 -+ 4.302653 x 2 / sqrt(3)
            ((16.0, 18.0, 20.0), 13.031725, 22.968275),
        ],
    )
    def test_intervals_include_all_hosts_however_many_runs_they_have(self, rates, low, high):
        records = [
            make_record(
                machine=make_machine(host=f"host-{rate}"),
                repeat=repeat,
                minutes=60 * repeat,
                training={"seconds": [16 / rate] * 40},
            )
            for rate in rates
            for repeat in range(3)
        ]
        summary, spread = summary_of(*records), host_spread(records)
        assert spread.num_hosts == len(rates)
        assert (spread.slowest, spread.fastest) == (pytest.approx(rates[0]), pytest.approx(rates[-1]))
        assert spread.samples_per_s.value == pytest.approx(18.0)
        assert (spread.samples_per_s.low is None) == (len(rates) == 2)
        assert summary.samples_per_s.value == pytest.approx(18.0)
        assert summary.samples_per_s.low == pytest.approx(low, abs=1e-5)
        assert summary.samples_per_s.high == pytest.approx(high, abs=1e-5)
        assert summary.samples_per_s.basis.endswith(f"reaching over {len(rates)} hosts")

    def test_a_single_host_or_unknown_hosts_have_no_spread(self):
        nameless = [make_record(machine=make_machine(host=None), repeat=repeat) for repeat in range(2)]
        assert host_spread(nameless) is None
        assert host_spread([make_record(), make_record(repeat=1)]) is None

    def test_a_failed_run_determines_the_outcome_but_not_the_figures(self):
        failed = make_record(seed=1, outcome="oom", reason="no memory", minutes=1)
        later = make_record(seed=2, outcome="crashed", reason="signal 11", minutes=2)
        summary = summary_of(make_record(), failed, later)
        assert (summary.outcome, summary.reason, summary.num_ok) == ("oom", "no memory", 1)
        assert summary.samples_per_s.value == 16.0

    def test_a_cell_without_a_successful_run_has_no_figures(self):
        summary = summary_of(make_record(outcome="timeout", reason="3600 s passed"))
        measured = "samples_per_s real_tokens_per_s padding_fraction step_s_median num_warmup_steps num_measured_steps"
        timed = "setup_s train_s evaluate_s epoch_s evaluation_samples_per_s time_to_target_s"
        others = "num_updates global_batch_size peak_memory_bytes peak_memory_source accuracy macro_f1 mfu"
        for name in [*measured.split(), *timed.split(), *others.split(), "num_reached_target", "run_spread"]:
            assert getattr(summary, name) is None, name
        assert (summary.outcome, summary.num_ok, summary.warnings) == ("timeout", 0, ())

    def test_no_records_make_no_summaries(self):
        assert summarize([]) == []

    def test_a_baseline_has_seconds_and_accuracy_but_no_throughput(self):
        summary = summary_of(make_baseline(accuracy=0.7, train_s=0.36))
        assert summary.kind == "baseline"
        assert (summary.train_s, summary.setup_s, summary.evaluate_s) == (0.36, 0.4, 0.2)
        assert (summary.accuracy.value, summary.peak_memory_bytes) == (0.7, 200 * MIB)
        assert summary.evaluation_samples_per_s == 1000 / 0.2
        assert (summary.samples_per_s, summary.epoch_s, summary.num_updates) == (None, None, None)

    def test_the_majority_baseline_has_no_warning_about_majority_accuracy(self):
        assert summary_of(make_baseline("majority", accuracy=0.5)).warnings == ()


class TestThroughput:
    def test_warm_up_is_left_out(self):
        # 3 slow steps, then 37 of 0.5 s with 16 samples each.
        summary = summary_of_one(seconds=[9.0] * 3 + [0.5] * 37)
        assert summary.samples_per_s.value == pytest.approx(32.0, abs=1e-12)
        assert (summary.num_warmup_steps, summary.num_measured_steps, summary.num_updates) == (3, 37, 40)
        assert summary.step_s_median == 0.5

    def test_throughput_is_the_ratio_of_sums_not_the_mean_of_rates(self):
        # 4 steps of 1 s, 4 of 3 s: 128 samples in 16 s are 8/s; the mean of the rates would be 10.67/s.
        assert summary_of_one(seconds=[1.0] * 4 + [3.0] * 4).samples_per_s.value == 8.0

    def test_a_smaller_last_batch_counts_with_its_own_size(self):
        summary = summary_of_one(seconds=[1.0] * 8, num_samples=[16] * 7 + [8])
        assert summary.samples_per_s.value == 15.0

    def test_ranks_take_as_long_as_the_slowest_in_total(self):
        # Rank 1 is late in every second step and makes up for it in the next: 8 s pass, not 12.
        seconds = [[1.0] * 8, [1.5, 0.5] * 4]
        summary = summary_of(make_record(axes={"device": "cpu-ddp2"}, training={"seconds": seconds}))
        assert summary.samples_per_s.value == 8 * 32 / 8.0
        slower = [[1.0] * 8, [1.75, 0.75] * 4]
        summary = summary_of(make_record(axes={"device": "cpu-ddp2"}, training={"seconds": slower}))
        assert summary.samples_per_s.value == 8 * 32 / 10.0
        assert summary.step_s_median == 1.25

    def test_tokens_and_padding_exclude_warm_up(self):
        # 7 measured steps of 1 s: 160 computed tokens each, of which 120 are real.
        padded, real = [9999] * 3 + [160] * 7, [1] * 3 + [120] * 7
        summary = summary_of_one(seconds=[9.0] * 3 + [1.0] * 7, num_padded_tokens=padded, num_real_tokens=real)
        assert summary.real_tokens_per_s == 120.0
        assert summary.padding_fraction == 0.25

    def test_no_steps_give_no_throughput(self):
        summary = summary_of_one(seconds=[], accuracy=None)
        assert (summary.samples_per_s, summary.padding_fraction, summary.num_measured_steps) == (None, None, None)

    def test_epoch_seconds_are_training_rows_over_throughput(self):
        assert summary_of_one(seconds=[0.5] * 40).epoch_s == 2000 / 32

    def test_three_runs_have_students_interval(self):
        # 16, 20 and 25 samples/s an hour apart: mean 61/3, logarithms log(1.25) apart.
        runs = [
            make_record(repeat=i, minutes=60 * i, training={"seconds": [16 / r] * 40})
            for i, r in enumerate((16, 20, 25))
        ]
        estimate = summary_of(*runs).samples_per_s
        half = T_2 * math.log(1.25) / math.sqrt(3)
        assert estimate.value == pytest.approx(61 / 3, abs=1e-9)
        assert math.log(estimate.value / estimate.low) == pytest.approx(half, abs=1e-9)
        assert math.log(estimate.high / estimate.value) == pytest.approx(half, abs=1e-9)
        assert (estimate.basis, estimate.degrees_of_freedom) == ("between 3 runs", pytest.approx(2))

    def test_one_run_has_the_interval_of_its_batches_and_of_the_spread_between_runs(self):
        # 10 batches of one step: R = 160/20 = 8/s, each batch's residual is 16 - 8 s = 8 or -8, so its logarithm has
        # Var = 10/9 * 10 * 64 / 160^2 with 9 degrees of freedom; between runs 0.1^2, taken as known.
        estimate = throughput([window([1.0, 3.0] * 5)])
        within = 10 / 9 * 640 / 160**2
        half = t_quantile((within + 0.01) ** 2 / (within**2 / 9)) * math.sqrt(within + 0.01)
        assert (estimate.value, estimate.basis) == (8.0, "one run, with 10 % between runs assumed")
        assert estimate.low == pytest.approx(8 * math.exp(-half), abs=1e-6)
        assert estimate.high == pytest.approx(8 * math.exp(half), abs=1e-6)

    def test_a_run_without_noise_still_has_the_spread_between_runs(self):
        # Before, the interval of such a run was its value alone: 16 (16.0 to 16.0).
        stated = summarize([make_record()], stated_spread(0.05))[0]
        assert math.log(stated.samples_per_s.high / 16) == pytest.approx(1.959964 * 0.05, rel=1e-6)
        assert stated.samples_per_s.basis == "one run, with 5 % between runs stated"
        assumed = summary_of(make_record())
        assert math.log(assumed.samples_per_s.high / 16) == pytest.approx(1.959964 * 0.1, rel=1e-6)

    def test_steps_that_cancel_within_batches_still_have_a_variance(self):
        # 10 batches of 4 steps, 8 s each: no variance between batches. From 40 single steps with residuals 8 or -8:
        # Var = 40 * 64 / 640^2 * 40 / 39, and t(39) = 2.022691.
        even = throughput([window([1.0, 3.0] * 20)], spread=stated_spread(0.0))
        half = 2.022691 * math.sqrt(40 * 64 / 640**2 * 40 / 39)
        assert (even.value, math.log(even.high / 8)) == (8.0, pytest.approx(half, abs=1e-6))

    def test_two_runs_share_the_spread(self):
        # Both runs have 8/s with the variance above: that of the mean is (2 v / 2 + 0.1^2) / 2.
        estimate = throughput([window([1.0, 3.0] * 5), window([3.0, 1.0] * 5)])
        within = 10 / 9 * 640 / 160**2 / 2
        half = t_quantile((within + 0.005) ** 2 / (within**2 / 18)) * math.sqrt(within + 0.005)
        assert (estimate.value, estimate.basis) == (8.0, "two runs, with 10 % between runs assumed")
        assert estimate.high == pytest.approx(8 * math.exp(half), abs=1e-6)

    def test_the_interval_of_two_runs_includes_both(self):
        estimate = throughput([window([1.0] * 20), window([2.0] * 20)])
        assert (estimate.low, estimate.value, estimate.high) == (8.0, 12.0, 16.0)

    def test_a_single_step_has_no_interval(self):
        estimate = throughput([window([2.0])])
        assert (estimate.value, estimate.low, estimate.high) == (8.0, None, None)
        assert throughput([window([2.0]), window([1.0] * 9)]).low is None

    def test_no_interval_goes_below_zero(self):
        assert 0 <= throughput([window([0.01, 10.0])]).low < 0.01
        assert t_interval([0.0, 1.0], "between 2 seeds", upper_bound=1.0).low == 0.0

    @settings(deadline=None)
    @given(st.lists(st.floats(0.01, 10), min_size=1, max_size=60), st.integers(1, 3))
    def test_the_value_is_inside_its_interval_and_between_the_steps_rates(self, seconds, num_runs):
        estimate = throughput([window(seconds)] * num_runs)
        rates = [16 / step_s for step_s in seconds]
        assert min(rates) * (1 - 1e-9) <= estimate.value <= max(rates) * (1 + 1e-9)
        if estimate.low is not None:
            assert 0 <= estimate.low <= estimate.value * (1 + 1e-9)
            assert estimate.high >= estimate.value * (1 - 1e-9)

    @settings(deadline=None)
    @given(st.lists(st.floats(0.01, 10), min_size=10, max_size=40), st.floats(0.1, 10))
    def test_another_unit_of_time_scales_value_and_interval(self, seconds, scale):
        plain, scaled = throughput([window(seconds)]), throughput([window([s * scale for s in seconds])])
        assert scaled.value * scale == pytest.approx(plain.value, rel=1e-9)
        assert (scaled.high is None) == (plain.high is None)
        if plain.high is not None:
            assert scaled.high * scale == pytest.approx(plain.high, rel=1e-6)


class TestAccuracy:
    def test_wilson_interval_equals_scipys(self):
        # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
        for right, num, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
            estimate = wilson_interval(right / num, num)
            assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)

    def test_one_seed_has_the_wilson_interval(self):
        estimate = summary_of_one(accuracy=0.8).accuracy
        assert (estimate.value, estimate.basis) == (0.8, "over 1,000 test examples, one seed: of this trained model")
        # (p + z^2/2n -+ z sqrt(p q / n + z^2 / 4 n^2)) / (1 + z^2/n)
        z = 1.959963984540054
        centre, spread = 0.8 + z * z / 2000, z * math.sqrt(0.16 / 1000 + z * z / 4e6)
        assert estimate.low == pytest.approx((centre - spread) / (1 + z * z / 1000), abs=1e-9)
        assert estimate.high == pytest.approx((centre + spread) / (1 + z * z / 1000), abs=1e-9)

    def test_repeats_of_one_seed_do_not_count_as_seeds(self):
        runs = [make_record(repeat=i, training={"accuracy": a}) for i, a in enumerate((0.79, 0.80, 0.81))]
        estimate = summary_of(*runs).accuracy
        assert estimate.value == pytest.approx(0.8, abs=1e-12)
        assert "one seed" in estimate.basis

    def test_three_seeds_that_agree_are_no_surer_than_their_test_examples(self):
        # Student's t between seeds alone was 0.78 +- 0.025 here, and +- 0 for seeds that agree.
        runs = [make_record(seed=i, training={"accuracy": 0.78}) for i in range(3)]
        estimate, one = summary_of(*runs).accuracy, summary_of(runs[0]).accuracy
        assert estimate.value == pytest.approx(0.78, abs=1e-9)
        assert estimate.low < one.low and estimate.high > one.high
        assert estimate.basis == "over 1,000 test examples and 3 seeds"

    def test_seeds_that_differ_widen_the_interval(self):
        def width(*accuracies):
            runs = [make_record(seed=i, training={"accuracy": a}) for i, a in enumerate(accuracies)]
            estimate = summary_of(*runs).accuracy
            return estimate.high - estimate.low

        assert width(0.7, 0.8, 0.9) > 2 * width(0.79, 0.8, 0.81)

    def test_a_repeated_seed_has_the_weight_of_one(self):
        runs = [make_record(seed=0, repeat=i, training={"accuracy": 0.7}) for i in range(3)]
        assert summary_of(*runs, make_record(seed=1)).accuracy.value == pytest.approx(0.75, abs=1e-12)

    def test_random_weights_have_speed_but_no_accuracy(self):
        summary = summary_of_one(accuracy=None)
        assert (summary.accuracy, summary.macro_f1, summary.evaluation_samples_per_s) == (None, None, None)
        assert summary.samples_per_s.value == 16.0

    def test_macro_f1_is_the_mean_over_runs(self):
        runs = [make_record(seed=i, training={"accuracy": a}) for i, a in enumerate((0.5, 1.0))]
        each = [macro_f1(r.training.test.labels, r.training.test.predictions) for r in runs]
        assert each[1] == 1.0
        assert summary_of(*runs).macro_f1 == pytest.approx((each[0] + 1.0) / 2, abs=1e-12)

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
    def test_macro_f1_is_scikit_learns(self, pairs):
        metrics = pytest.importorskip("sklearn.metrics")
        labels, predictions = zip(*pairs, strict=True)
        expected = metrics.f1_score(labels, predictions, average="macro", zero_division=0)
        assert macro_f1(labels, predictions) == pytest.approx(expected, abs=1e-12)

    def test_majority_accuracy_is_the_test_sets(self):
        assert summary_of_one().majority_accuracy == 0.5

    def test_evaluation_throughput_is_from_the_test_evaluation(self):
        assert summary_of_one().evaluation_samples_per_s == 1000 / 4.0

    def test_an_evaluation_of_zero_seconds_has_no_throughput(self):
        record = make_baseline("majority")
        test = record.baseline.test.model_copy(update={"evaluate_s": 0.0})
        record = record.model_copy(update={"baseline": record.baseline.model_copy(update={"test": test})})
        assert summary_of(record).evaluation_samples_per_s is None


class TestSecondsAndMemory:
    def test_phases_are_summed_and_averaged_over_runs(self):
        second_phases = {
            "start_s": 1.5,
            "load_s": 2.5,
            "tokenise_s": None,
            "train_s": 60.0,
            "evaluate_s": None,
            "test_s": 2.0,
        }
        summary = summary_of(make_record(), make_record(seed=1, phases=second_phases))
        assert summary.setup_s == (0.5 + 1.5 + 2.0 + 1.5 + 2.5) / 2
        assert summary.train_s == 50.0
        assert summary.evaluate_s == (6.0 + 4.0 + 2.0) / 2

    def test_a_run_without_evaluations_has_no_evaluation_seconds(self):
        assert summary_of(make_record(phases={"evaluate_s": None, "test_s": None})).evaluate_s is None

    def test_peak_memory_is_summed_over_ranks_and_largest_over_runs(self):
        def run(seed, *sizes):
            peaks = [(rank, "rss", size * MIB) for rank, size in enumerate(sizes)]
            return make_record(seed=seed, axes={"device": "cpu-ddp2"}, training={"peaks": peaks})

        summary = summary_of(run(0, 500, 510), run(1, 505, 515))
        assert (summary.peak_memory_bytes, summary.peak_memory_source) == (1020 * MIB, "rss")

    @pytest.mark.parametrize(
        ("together", "source", "mib"),
        [
            ([(None, "pss", 700)], "pss", 700),
            ([(None, "control_group", 650)], "control_group", 650),
            ([(None, "pss", 700), (None, "control_group", 650)], "control_group", 650),
        ],
    )
    def test_a_source_that_counts_shared_pages_once_is_preferred(self, together, source, mib):
        peaks = [
            (0, "rss", 500 * MIB),
            (1, "rss", 510 * MIB),
            *((rank, name, size * MIB) for rank, name, size in together),
        ]
        record = make_record(axes={"device": "cpu-ddp2"}, training={"peaks": peaks})
        summary = summary_of(record)
        assert (summary.peak_memory_bytes, summary.peak_memory_source) == (mib * MIB, source)
        assert peak_memory(record, "rss") == 1010 * MIB  # prices are based on it

    def test_a_gpu_cell_uses_the_allocators_reserved_bytes(self):
        peaks = [(0, "rss", 3 * GIB), (0, "cuda_allocated", 4 * GIB), (0, "cuda_reserved", 5 * GIB)]
        record = make_record(axes={"device": "gpu"}, training={"peaks": peaks})
        summary = summary_of(record)
        assert (summary.peak_memory_bytes, summary.peak_memory_source) == (5 * GIB, "cuda_reserved")
        assert peak_memory(record, "rss") == 3 * GIB
        assert peak_memory(record, "nvml_process") is None

    def test_a_missing_source_is_not_replaced(self):
        summary = summary_of(make_record(axes={"device": "gpu"}, training={"peaks": [(0, "rss", GIB)]}))
        assert (summary.peak_memory_bytes, summary.peak_memory_source) == (None, None)


LOAD = {"available_memory_bytes": 8 * GIB, "system_busy_s": 150.0, "cell_s": 148.0, "parent_s": 1.0, "steal_s": 0.0}


class TestWarnings:
    @pytest.mark.parametrize(("unknown", "warned"), [(None, False), (0.01, False), (0.0312, True)])
    def test_many_unknown_tokens_are_reported(self, unknown, warned):
        record = make_record()
        data = record.data.model_copy(update={"unknown_fraction": unknown})
        (summary,) = summarize([record.model_copy(update={"data": data})])
        told = [warning for warning in summary.warnings if "[UNK]" in warning]
        assert [warning.split(" of the texts")[0] for warning in told] == (["3.1%"] if warned else [])

    @pytest.mark.parametrize(("skipped", "warned"), [(0, False), (2, False), (4, True)])
    def test_many_skipped_fp16_updates_are_reported(self, skipped, warned):
        record = make_record(axes={"precision": "fp16"})
        steps = record.training.steps.model_copy(update={"num_skipped": skipped})
        record = record.model_copy(update={"training": record.training.model_copy(update={"steps": steps})})
        warning_start = (
            "The fp16 gradient scaler skipped 10% of the updates, which were timed and taught nothing: take bf16, or lower "
            "training.lr.",
        )
        assert summary_of(record).warnings == (warning_start if warned else ())

    def test_a_normal_run_has_no_warnings(self):
        assert summary_of_one().warnings == ()

    @pytest.mark.parametrize(
        ("num_steps", "warning_start"),
        [
            (9, "Only 9 steps ran, too few to leave warm-up out"),
            (10, "Only 10 steps were measured after warm-up"),
            (29, "Only 29 steps were measured after warm-up"),
            (30, None),
        ],
    )
    def test_few_steps(self, num_steps, warning_start):
        warnings = summary_of_one(seconds=[1.0] * num_steps).warnings
        assert [warning.startswith(warning_start or "-") for warning in warnings] == ([True] if warning_start else [])

    @pytest.mark.parametrize(("accuracy", "warned"), [(0.499, True), (0.5, True), (0.501, False)])
    def test_accuracy_at_or_below_the_majority_is_reported(self, accuracy, warned):
        warnings = summary_of_one(accuracy=accuracy).warnings
        assert [w.startswith(f"Test accuracy {accuracy:.3f} is not above the 0.500") for w in warnings] == [
            True
        ] * warned

    def test_a_test_file_of_one_label_is_told_instead_of_training_longer(self):
        """Accuracy 1.000 was told to be "not above the 1.000 of always answering the commonest label: train longer"."""
        record = make_record(training={"accuracy": 1.0})
        one_label = record.data.test.model_copy(update={"majority_fraction": 1.0})
        record = record.model_copy(update={"data": record.data.model_copy(update={"test": one_label})})
        (warning,) = summary_of(record).warnings
        assert warning.startswith("All test rows have the same label, so that test accuracy is that label's recall")

    @pytest.mark.parametrize(
        ("losses", "warned"),
        [
            ([0.7] * 40, True),
            ([0.7] * 30 + [0.71] * 10, True),
            ([0.7] * 30 + [0.69] * 10, False),
            # A single low loss at the very end is noise, not learning.
            ([0.7] * 30 + [0.75] * 9 + [0.5], True),
            ([0.7, None] + [0.7] * 28 + [0.6, None] * 5, False),
            ([None] * 40, False),
        ],
    )
    def test_a_loss_that_does_not_fall_is_reported(self, losses, warned):
        assert [w.startswith("The training loss did not fall") for w in summary_of_one(losses=losses).warnings] == [
            True
        ] * warned

    def test_random_weights_need_not_reduce_the_loss(self):
        record = make_record(sections={"model": {"init": "random"}}, training={"losses": [0.7] * 40, "accuracy": None})
        assert summary_of(record).warnings == ()

    def test_training_that_stopped_early_is_reported(self):
        summary = summary_of_one(stopped_early="limits.max_train_s = 30 s reached", num_updates_planned=250)
        (warning,) = summary.warnings
        assert warning.startswith("Training stopped after 40 of 250 updates (limits.max_train_s = 30 s reached): raise")

    def test_every_warning_says_what_to_do(self):
        record = make_record(
            load=LOAD | {"system_busy_s": 300.0, "steal_s": 30.0},
            sections={"training": {"target_accuracy": 0.4}},
            training={"seconds": [1.0] * 12, "losses": [0.7] * 12, "accuracy": 0.4, "stopped_early": "30 s"}
            | {"evaluations": [(5.0, 0.5, 1.0), (9.0, 0.3, 1.0)]},
        )
        warnings = summary_of(record).warnings
        assert len(warnings) == 7
        assert all(w.endswith(".") and ". " not in w and ": " in w for w in warnings)


def test_a_summary_is_immutable():
    summary = summary_of_one()
    with pytest.raises(AttributeError):
        summary.mfu = 1.0
    assert replace(summary, mfu=0.5).mfu == 0.5


def test_a_run_without_steps_has_no_window():
    training = make_record(training={"seconds": [], "accuracy": None}).training
    assert isinstance(training, Training)
    assert measure_windows([training]) == []
