"""Memory growth and its warnings, compared with values computed by hand."""

from __future__ import annotations

import math
import random

import pytest

from harness.analysis.memory_growth import fit_memory_growth
from harness.analysis.summarize import summarize
from tests.make_records import GIB, MIB, make_gpu, make_machine, make_record

T_8 = 2.306004135204166  # Student's 97.5 % quantile, from a published table
LOAD = {"available_memory_bytes": 12 * GIB, "system_busy_s": 60.0, "cell_s": 58.0, "parent_s": 1.0, "steal_s": 0.0}


def warnings_of(**fields):
    (summary,) = summarize([make_record(**fields)])
    return [warning for warning in summary.warnings if "emory" in warning or "GPU" in warning]


class TestGrowth:
    def test_fewer_than_30_steps_give_no_growth(self):
        assert fit_memory_growth([0] * 29) is None
        assert fit_memory_growth([0] * 30) is not None

    def test_a_straight_line_has_an_exact_slope(self):
        growth = fit_memory_growth([1000 * step for step in range(40)])
        assert (growth.value, growth.low, growth.high) == (1000, 1000, 1000)
        assert growth.min_total_bytes == 27_000  # two thirds of 40 steps

    def test_level_memory_does_not_grow(self):
        growth = fit_memory_growth([5 * GIB] * 100)
        assert (growth.value, growth.low, growth.high, growth.min_total_bytes) == (0, 0, 0, 0)

    def test_batch_means_have_the_interval_of_a_ratio_estimator(self):
        # A third of 60 steps is left out. Then 10 batches of 4 follow, whose levels alternately rise by 8 (5 times) and 0 (4 times):
        # a slope of 40 / 36 per step.
        levels = [0, 8, 8, 16, 16, 24, 24, 32, 32, 40]
        growth = fit_memory_growth([-999] * 20 + [level for level in levels for _ in range(4)])
        slope = 40 / 36
        squared = 5 * (8 - 4 * slope) ** 2 + 4 * (4 * slope) ** 2
        half = T_8 * math.sqrt(9 / 8 * squared) / 36
        assert growth.value == pytest.approx(slope, abs=1e-12)
        assert growth.low == pytest.approx(slope - half, abs=1e-9)
        assert growth.high == pytest.approx(slope + half, abs=1e-9)

    @pytest.mark.parametrize(
        "memory",
        [
            [100] * 50 + [900] * 50,
            [1000 * (1 - 0.9**step) for step in range(100)],
            [0] * 30 + [500] * 30 + [1000] * 30,
        ],
        ids=["one jump", "an allocator that settles", "two jumps"],
    )
    def test_a_single_rise_is_not_a_leak(self, memory):
        assert fit_memory_growth(memory).min_total_bytes < 0.05 * max(memory)

    def test_the_interval_covers_the_truth_under_a_random_walk(self):
        # AR(1) noise with coefficient 0.8 on a slope of 3 per step: 200 runs of 150 steps.
        rng, hits = random.Random(0), 0
        for _ in range(200):
            noise, memory = 0.0, []
            for step in range(150):
                noise = 0.8 * noise + rng.gauss(0, 20)
                memory.append(3 * step + noise)
            growth = fit_memory_growth(memory)
            hits += growth.low <= 3 <= growth.high
        assert hits >= 0.95 * 200


class TestWarnings:
    def test_a_leak_is_named_with_its_slope(self):
        memory = [[500 * MIB + 3 * MIB * step for step in range(40)]]
        (summary,) = summarize([make_record(training={"held_bytes": memory})])
        assert summary.memory_growth.value == 3 * MIB
        assert warnings_of(training={"held_bytes": memory}) == [
            "Memory grew by 3.0 MiB a step (3.0 to 3.0): a leak, or something that is kept from every step."
        ]

    def test_a_killed_cells_leak_is_found_in_its_progress_messages(self):
        memory = [500 * MIB + 12 * MIB * step for step in range(40)]
        (summary,) = summarize([make_record(outcome="oom", reason="killed", held_bytes=memory)])
        assert summary.memory_growth.value == 12 * MIB
        (warning,) = warnings_of(outcome="oom", reason="killed", held_bytes=memory)
        assert warning.startswith("Memory grew by 12.0 MiB a step")

    def test_ranks_are_summed(self):
        memory = [[300 * MIB + 2 * MIB * step for step in range(40)]] * 2
        (warning,) = warnings_of(axes={"device": "cpu-ddp2"}, training={"held_bytes": memory})
        assert warning.startswith("Memory grew by 4.0 MiB a step")

    def test_growth_below_the_limit_is_not_reported(self):
        # Two thirds of 37 steps are 25: at 1 MiB each, 25 MiB are below 5 % of 539 MiB; at 1.2 MiB, 30 MiB are above 5 % of 547 MiB.
        for slope, warned in ((1, 0), (1.2, 1)):
            memory = [[500 * MIB + int(slope * MIB) * step for step in range(40)]]
            assert len(warnings_of(training={"held_bytes": memory})) == warned

    def test_warm_up_does_not_count_as_growth(self):
        memory = [[0, 300 * MIB, 400 * MIB] + [500 * MIB] * 37]
        (summary,) = summarize([make_record(training={"held_bytes": memory})])
        assert summary.memory_growth.value == 0

    @pytest.mark.parametrize("leak", [0, 3])
    def test_growth_in_steps_with_new_shapes_is_ignored(self, leak):
        # 40 lengths, each twice in a row: a new shape adds memory in its first step, a leak in every step.
        lengths = [16 * (20 + step // 2) for step in range(80)]
        memory = [[(500 + 10 * (step // 2 + 1) + leak * step) * MIB for step in range(80)]]
        fields = {"seconds": [1.0] * 80, "num_padded_tokens": lengths, "num_real_tokens": lengths, "held_bytes": memory}
        (summary,) = summarize([make_record(training=fields)])
        assert summary.memory_growth.value == leak * MIB
        assert [text.split(" (")[0] for text in warnings_of(training=fields) if "Memory grew" in text] == (
            ["Memory grew by 3.0 MiB a step"] if leak else []
        )

    @pytest.mark.parametrize(
        ("gib", "available", "warned"), [(1.1, 12, 0), (1.3, 12, 1), (0.7, 8, 0), (0.9, 8, 1), (1.7, 40, 1)]
    )
    def test_other_processes_are_reported_above_a_tenth_of_total_or_available_memory(self, gib, available, warned):
        # A tenth of 16 GiB in total is 1.6, of 12 GiB available 1.2, of 8 GiB available 0.8.
        holders = [{"name": "notebook", "num_bytes": int(gib * GIB), "gpu": None}]
        load = LOAD | {"available_memory_bytes": available * GIB, "holders": holders}
        assert len(warnings_of(load=load)) == warned

    def test_other_processes_are_reported_for_a_cell_that_ran_out_of_memory(self):
        holders = [
            {"name": "editor", "num_bytes": 2 * GIB, "gpu": None},
            {"name": "notebook", "num_bytes": int(6.1 * GIB), "gpu": None},
            {"name": "small", "num_bytes": GIB, "gpu": None},
        ]
        assert warnings_of(outcome="oom", reason="killed", load=LOAD | {"holders": holders}) == [
            f"Another process ({name}) held {gib} GiB of main memory ({share}) when this cell began: "
            "end it, and run the cell with --force."
            for name, gib, share in (("notebook", "6.1", "38%"), ("editor", "2.0", "12%"))
        ]

    def test_the_most_affected_run_is_reported(self):
        runs = [
            make_record(
                seed=seed, load=LOAD | {"holders": [{"name": f"run{seed}", "num_bytes": gib * GIB, "gpu": None}]}
            )
            for seed, gib in enumerate((2, 4, 3))
        ]
        (summary,) = summarize(runs)
        assert [warning.split()[2] for warning in summary.warnings] == ["(run1)"]

    def test_a_process_on_a_gpu_is_reported_with_the_gpu(self):
        machine = make_machine(gpus=["NVIDIA A10G"])
        holders = [{"name": "python3", "num_bytes": 6 * GIB, "gpu": 0}]
        (warning,) = warnings_of(axes={"device": "gpu"}, machine=machine, load=LOAD | {"holders": holders})
        assert warning.startswith("Another process (python3) held 6.0 GiB of GPU 0 (25%) when this cell began")
        assert make_gpu().memory_bytes == 24 * GIB

    def test_a_gpu_missing_in_the_record_is_ignored(self):
        holders = [{"name": "python3", "num_bytes": 6 * GIB, "gpu": 3}]
        assert warnings_of(load=LOAD | {"holders": holders}) == []

    @pytest.mark.parametrize(
        ("method", "method_name"), [("rlimit_data", "RLIMIT_DATA"), ("cuda_fraction", "torch's allocator")]
    )
    def test_an_approximate_cap_is_reported(self, method, method_name):
        cap = {"limit_bytes": 2 * GIB, "method": method, "exact": False, "peak_bytes": None, "num_oom_kills": None}
        (warning,) = warnings_of(cap=cap)
        assert "The memory cap of 2 GiB is approximate" in warning and method_name in warning

    def test_an_exact_cap_needs_no_warning(self):
        cap = {"limit_bytes": 2 * GIB, "method": "control_group_v2", "exact": True, "peak_bytes": GIB}
        assert warnings_of(cap=cap | {"num_oom_kills": 0}) == []
