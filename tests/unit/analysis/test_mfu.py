"""FLOPs formula, MFU and arithmetic intensity, compared with values computed by hand."""

from __future__ import annotations

import pytest

from harness.analysis.flops_formula import training_flops
from harness.analysis.mfu import compute_use, measure_mfu, moved_bytes, with_mfu
from harness.analysis.summarize import summarize
from harness.schema.diagnostics_record import MemoryParts
from harness.schema.inputs_record import ModelFacts
from tests.make_records import make_baseline, make_machine, make_memory_parts, make_record

BERT_BASE = ModelFacts.model_validate(
    make_record().model.model_dump() | {"hidden_size": 768, "num_layers": 12, "intermediate_size": 3072}
)


class TestMfu:
    def test_flops_of_bert_base_by_hand(self):
        # 12 layers x 32 x 128 tokens x (8 x 768^2 + 4 x 768 x 3072 + 4 x 768 x 128)
        encoder = 12 * 4096 * (4_718_592 + 9_437_184 + 393_216)
        head = 32 * (2 * 768**2 + 2 * 768 * 2)
        assert training_flops(BERT_BASE, 2, 32, 4096, trainable="all") == 3 * encoder + 3 * head
        # The gradient of the pooler's input is not computed.
        frozen = encoder + 32 * (2 * 2 * 768**2 + 3 * 2 * 768 * 2)
        assert training_flops(BERT_BASE, 2, 32, 4096, trainable="head") == frozen

    def test_flops_of_the_upper_layers_by_hand(self):
        layer = 4096 * (4_718_592 + 9_437_184 + 393_216)
        head = 32 * (2 * 768**2 + 2 * 768 * 2)
        input_gradient = 3 * 2 * 768**2 * 4096  # the lowest trained layer computes no gradient of its input
        for top in (1, 2, 12):
            expected = (12 + 2 * top) * layer - input_gradient + 3 * head
            assert training_flops(BERT_BASE, 2, 32, 4096, trainable=f"top{top}") == expected
        assert training_flops(BERT_BASE, 2, 32, 4096, trainable="top99") == 36 * layer - input_gradient + 3 * head

    def test_recomputation_is_one_more_forward_pass_of_the_layers(self):
        usual, again = (
            training_flops(BERT_BASE, 2, 32, 4096, trainable="all", recomputed=requests) for requests in (False, True)
        )
        assert again - usual == 12 * 4096 * (4_718_592 + 9_437_184 + 393_216)

    def test_rows_of_unequal_length_have_more_token_pairs(self):
        equal, unequal = (
            training_flops(BERT_BASE, 2, 2, 256, trainable="all", num_token_pairs=pairs)
            for pairs in (2 * 128**2, 64**2 + 192**2)
        )
        assert unequal - equal == 3 * 12 * 4 * 768 * (64**2 + 192**2 - 2 * 128**2)

    def test_flops_are_about_six_per_weight_and_token(self):
        # The rule of thumb (6 x matrix weights x tokens) ignores attention's quadratic term, which is small here.
        weights = 12 * (4 * 768**2 + 2 * 768 * 3072)
        assert training_flops(BERT_BASE, 2, 1, 16, trainable="all") == pytest.approx(6 * weights * 16, rel=0.01)

    def measure(self, *, device="gpu", peak=1e12, gpus=("NVIDIA A10G",), **fields):
        requests = []

        def peak_flops(name, precision):
            requests.append((name, precision))
            return peak

        record = make_record(axes={"device": device, "precision": "bf16"}, machine=make_machine(gpus=gpus), **fields)
        (summary,) = with_mfu(summarize([record]), peak_flops)
        return summary, requests

    def test_mfu_is_flops_over_seconds_and_peak_after_warm_up(self):
        # A step of 1 s with 16 samples of 64 tokens: 6 layers, h 384, i 1536.
        encoder = 6 * 1024 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 384 * 64)
        flops = 3 * encoder + 3 * 16 * (2 * 384**2 + 2 * 384 * 2)
        summary, requests = self.measure(peak=4 * flops, training={"seconds": [99.0] * 3 + [1.0] * 37})
        assert summary.mfu == pytest.approx(0.25, rel=1e-12)
        assert requests == [("NVIDIA A10G", "bf16")]
        assert summary.warnings == ()

    def test_the_peak_is_that_of_all_gpus(self):
        single, _ = self.measure(peak=1e12)
        double, _ = self.measure(peak=1e12, device="gpu-ddp2", gpus=("NVIDIA A10G",) * 2)
        assert double.mfu == pytest.approx(single.mfu, rel=1e-12)

    def test_a_low_mfu_is_reported(self):
        summary, _ = self.measure(peak=1e15)
        assert summary.warnings[-1].endswith("does not load this GPU: do not choose hardware by it.")

    def test_an_unknown_mfu_is_none_and_not_reported(self):
        for summary, _ in (self.measure(peak=None), self.measure(gpus=()), self.measure(device="cpu")):
            assert summary.mfu is None
            assert not any("load this GPU" in warning for warning in summary.warnings)
        assert self.measure(training={"seconds": [], "accuracy": None})[0].mfu is None
        assert with_mfu(summarize([make_baseline()]), lambda _name, _precision: 1e12)[0].mfu is None

    def test_mfu_is_the_mean_over_runs(self):
        machine = make_machine(gpus=["NVIDIA A10G"])
        runs = [
            make_record(repeat=i, axes={"device": "gpu"}, machine=machine, training={"seconds": [s] * 40})
            for i, s in enumerate((1.0, 0.5))
        ]
        first, second, both = (
            with_mfu(summarize(group), lambda _name, _precision: 1e12)[0].mfu for group in (runs[:1], runs[1:], runs)
        )
        assert second == pytest.approx(2 * first, rel=1e-12)
        assert both == pytest.approx(1.5 * first, rel=1e-12)


# One step of the packaged model: 16 samples of 64 tokens.
LAYER = 1024 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 384 * 64)
HEAD = 16 * (2 * 384**2 + 2 * 384 * 2)
STEP = 3 * 6 * LAYER + 3 * HEAD
SHAPE = {"num_samples": 16, "num_padded_tokens": 1024, "num_token_pairs": 16 * 64**2}


def peak(flop_per_s, **fields):
    return {
        "precision": "fp32",
        "flop_per_s": flop_per_s,
        "shape": (512, 512, 512),
        "num_shapes": 9,
        "seconds": 0.9,
        "step_s": (1.0,),
        "copy_bytes_per_s": 20e9,
    } | fields


def counted(num_flops):
    return {"by_operator": {"mm": num_flops}} | SHAPE


def use_of(*, axes=None, sections=None, **training):
    record = make_record(axes=axes, sections=sections, training={"seconds": [99.0] * 3 + [1.0] * 37} | training)
    return compute_use(record, lambda *_: None)


class TestOnACpu:
    def test_mfu_is_the_share_of_the_calibrated_peak(self):
        record = make_record(training={"seconds": [99.0] * 3 + [1.0] * 37, "peak": peak(4.0 * STEP)})
        (summary,) = with_mfu(summarize([record]), lambda *_: None)
        assert summary.mfu == pytest.approx(0.25, rel=1e-12)
        assert summary.compute.flop_per_s == pytest.approx(STEP, rel=1e-12)
        assert summary.compute.mfu_datasheet is None
        assert summary.warnings == ()
        assert measure_mfu(record, lambda *_: 1e12) is None  # the datasheet MFU is for GPUs only

    def test_torchs_count_corrects_the_formula(self):
        use = use_of(peak=peak(4.0 * STEP), flops=counted(round(1.02 * STEP)))
        assert use.mfu_calibrated == pytest.approx(0.255, rel=1e-9)

    def test_steps_of_other_lengths_are_scaled_from_the_counted_step(self):
        use = use_of(
            flops=counted(2 * STEP),
            num_padded_tokens=[512] * 40,
            num_real_tokens=[512] * 40,
            num_token_pairs=[16 * 32**2] * 40,
        )
        layer = 512 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 384 * 32)
        assert use.flop_per_s == pytest.approx(2 * (3 * 6 * layer + 3 * HEAD), rel=1e-12)
        assert use.padding_fraction == pytest.approx(0.0, abs=1e-12)

    def test_recomputation_is_not_part_of_mfu(self):
        again = {"training": {"activation_checkpointing": True}}
        use = use_of(sections=again, flops=counted(STEP + 6 * LAYER))
        assert use.flop_per_s == pytest.approx(STEP, rel=1e-12)

    def test_padding_fraction_is_a_share_of_the_flops(self):
        # Half of the tokens are padding: each row of 64 has 32 real tokens.
        real = 3 * 6 * 512 * (8 * 384**2 + 4 * 384 * 1536 + 4 * 384 * 32) + 3 * HEAD
        assert use_of().padding_fraction == pytest.approx(1 - real / STEP, rel=1e-12)

    def test_an_mfu_above_the_calibrated_peak_is_reported(self):
        record = make_record(training={"seconds": [1.0] * 40, "peak": peak(0.9 * STEP)})
        (summary,) = with_mfu(summarize([record]), lambda *_: None)
        assert summary.mfu == pytest.approx(1 / 0.9, rel=1e-12)
        (warning,) = summary.warnings
        assert warning.startswith("The cell computes at 1.11 of the calibrated peak, which can't be")

    def test_runs_are_averaged_and_the_best_peak_counts(self):
        runs = [
            make_record(repeat=i, training={"seconds": [s] * 40, "peak": peak(p * STEP)})
            for i, (s, p) in enumerate([(1.0, 2.0), (0.5, 8.0)])
        ]
        (summary,) = with_mfu(summarize(runs), lambda *_: None)
        assert summary.mfu == pytest.approx((0.5 + 0.25) / 2, rel=1e-12)
        assert summary.compute.peak_flop_per_s == pytest.approx(8 * STEP, rel=1e-12)


class TestRoofline:
    def test_moved_bytes_by_hand(self):
        parts = MemoryParts.model_validate(
            make_memory_parts(weights=100, gradients=90, optimizer=180, activations={"attention": 50})
        )
        # The parts are for 1,024 padded tokens; half as many tokens save half as many activations.
        assert moved_bytes(parts, 512) == 100 + 3 * 90 + 2 * 180 + 2 * 25

    def test_intensity_is_flops_over_moved_bytes(self):
        use = use_of(flops=counted(STEP), memory_parts={})
        parts = MemoryParts.model_validate(make_memory_parts())
        assert use.flop_per_byte == pytest.approx(STEP / moved_bytes(parts, 1024), rel=1e-12)

    def test_without_memory_parts_or_flop_count_there_is_no_intensity(self):
        assert use_of(flops=counted(STEP)).flop_per_byte is None
        assert use_of(memory_parts={}).flop_per_byte is None


def test_an_implausibly_high_mfu_is_reported():
    axes = {"device": "gpu", "precision": "bf16"}
    record = make_record(axes=axes, machine=make_machine(gpus=["NVIDIA A10G"]), training={"seconds": [1.0] * 40})
    (summary,) = with_mfu(summarize([record]), lambda *_: STEP / 0.7)
    assert summary.mfu == pytest.approx(0.7, rel=1e-12)
    assert summary.warnings[-1].startswith("At 0.70 of its peak the cell is faster than any published run of BERT")
