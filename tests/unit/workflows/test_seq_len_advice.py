"""Advice on `seq_len`: truncation and work computed by hand, and speeds derived from measured cells."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.mfu import with_mfu
from harness.analysis.summarize import summarize
from harness.schema.model_shapes import ModelShape
from harness.schema.settings import TrainingSettings
from harness.workflows.seq_len_advice import (
    PADDINGS,
    STEP_TIME_NEUTRAL_KEYS,
    ExpectedSpeed,
    advise_seq_len,
    candidate_lengths,
    epoch_work,
    find_similar_cells,
)
from tests.make_records import make_machine, make_record

SHAPE = ModelShape(hidden=128, layers=2, heads=2, intermediate=512)


def flops(tokens: float, pairs: float, samples: float = 1) -> float:
    """FLOPs of training all of SHAPE with two labels; a backward pass counts as two forward passes."""
    return 3 * (2 * (tokens * (8 * 128**2 + 4 * 128 * 512) + 4 * 128 * pairs) + samples * (2 * 128**2 + 2 * 128 * 2))


def work(lengths, seq_len, padding, batch_size=2):
    return epoch_work(np.array(lengths), seq_len, padding, SHAPE, 2, batch_size=batch_size)


class TestWork:
    def test_padded_to_the_maximum_by_hand(self):
        computed = work([8, 16, 40, 12], 32, "max")
        assert computed.flops_per_sample == pytest.approx(flops(32, 32**2))
        useful = flops(8 + 16 + 32 + 12, 8**2 + 16**2 + 32**2 + 12**2, samples=4)
        assert computed.padding_fraction == pytest.approx(1 - useful / (4 * flops(32, 32**2)))

    def test_texts_of_one_length_have_no_padding(self):
        for padding in PADDINGS:
            assert work([24] * 7, 24, padding).padding_fraction == pytest.approx(0, abs=1e-12)

    def test_grouping_pads_least_and_the_maximum_most(self):
        lengths = np.random.default_rng(1).integers(5, 60, 400)
        shares = [work(lengths, 64, padding, 16).padding_fraction for padding in ("grouped", "longest", "max")]
        assert shares == sorted(shares)
        assert shares[0] < 0.05 < shares[1]

    def test_a_subset_of_many_rows_has_the_same_fractions(self):
        lengths = np.random.default_rng(2).integers(5, 60, 30_000)
        whole = work(lengths, 64, "max", 16)
        assert whole.flops_per_sample == pytest.approx(flops(64, 64**2))
        useful = flops(lengths.sum(), (lengths**2).sum(), samples=30_000) / 30_000
        assert whole.padding_fraction == pytest.approx(1 - useful / flops(64, 64**2), rel=0.01)


class TestAdvice:
    LENGTHS = np.array([10] * 90 + [30] * 6 + [100] * 4)

    def test_lengths_are_powers_of_two_up_to_the_longest_text_or_the_positions(self):
        assert candidate_lengths(np.array([5]), 512) == [16]
        assert candidate_lengths(np.array([5, 100]), 512) == [16, 32, 64, 128]
        assert candidate_lengths(np.array([5, 1000]), 192) == [16, 32, 64, 128, 192]

    def test_truncation_by_hand(self):
        by_length = {one.seq_len: one for one in advise_seq_len(self.LENGTHS, SHAPE, 2, batch_size=10).lengths}
        assert [by_length[length].cut_texts_fraction for length in (16, 32, 64, 128)] == [0.10, 0.04, 0.04, 0.0]
        num_tokens = 90 * 10 + 6 * 30 + 4 * 100
        assert by_length[16].cut_tokens_fraction == pytest.approx((6 * 14 + 4 * 84) / num_tokens)
        assert by_length[64].cut_tokens_fraction == pytest.approx(4 * 36 / num_tokens)

    def test_recommends_the_shortest_that_leaves_95_of_100_texts_whole(self):
        advice = advise_seq_len(self.LENGTHS, SHAPE, 2, batch_size=10)
        assert (advice.best.seq_len, advice.longer.seq_len) == (32, 64)
        cut = advise_seq_len(np.array([600] * 10), SHAPE, 2, batch_size=10)
        assert (cut.best.seq_len, cut.longer) == (512, None)


class TestSpeed:
    def cells(self, *seconds_by_length, padding="max", machine="epyc-4c-16g-000001"):
        """Make cells of 16-sample steps with the given seconds; the records' model is not SHAPE, which only scales FLOPs."""
        records = [
            make_record(
                axes={"seq_len": length, "padding": padding},
                machine=make_machine(machine_id=machine),
                minutes=length,
                training={"seconds": [seconds] * 40, "num_real_tokens": [16 * length] * 40,
                          "num_padded_tokens": [16 * length] * 40, "accuracy": 0.5 + length / 1000},
            )
            for length, seconds in seconds_by_length
        ]  # fmt: skip
        return with_mfu(summarize(records), lambda *_: None)

    def speed(self, measured, length=64):
        shape = ModelShape(hidden=384, layers=6, heads=12, intermediate=1536)  # the model of made-up records
        advice = advise_seq_len(np.array([120] * 32), shape, 2, batch_size=16, measured=measured, same_data=measured)
        return {one.seq_len: one for one in advice.lengths}[length]

    def test_a_cell_of_this_length_gives_its_measured_speed(self):
        length = self.speed(self.cells((64, 2.0), (128, 4.0)))
        assert length.speeds == {"max": ExpectedSpeed(8.0, "measured")}
        assert length.accuracy.value == pytest.approx(0.564)

    def test_one_cell_is_scaled_by_its_work(self):
        speed = self.speed(self.cells((128, 4.0))).speeds["max"]
        assert speed.basis == "in proportion to one measured length"
        # From 128 to 64 tokens, products halve and attention scores quarter: a step takes a little less than 2 s.
        layer = 8 * 384**2 + 4 * 384 * 1536
        share = (64 * layer + 4 * 384 * 64**2) / (128 * layer + 4 * 384 * 128**2)
        assert speed.samples_per_s == pytest.approx(16 / (4.0 * share), rel=0.002)

    def test_two_cells_give_a_fixed_cost_and_a_slope(self):
        # 1 s plus 1/64 s per token: the line through 16 and 128 tokens at 64, up to attention's small share.
        speed = self.speed(self.cells((16, 1.25), (128, 3.0))).speeds["max"]
        assert speed.basis == "by the line through two measured lengths"
        assert speed.samples_per_s == pytest.approx(16 / 2.0, rel=0.02)

    def test_another_padding_gives_no_speed(self):
        assert self.speed(self.cells((64, 2.0), padding="grouped")).speeds.keys() == {"grouped"}

    def test_only_similar_cells_of_the_machine_count(self):
        config = make_record().config
        here = self.cells((64, 2.0))
        others = [
            *self.cells((64, 2.0), machine="another"),
            *with_mfu(summarize([make_record(axes={"precision": "bf16"})]), lambda *_: None),
        ]
        longer = with_mfu(summarize([make_record(sections={"training": {"epochs": 5, "lr": 1e-3}})]), lambda *_: None)
        elsewhere = with_mfu(summarize([make_record(sections={"data": {"source": "mine.csv"}})]), lambda *_: None)
        similar, same = find_similar_cells(config, [*here, *others, *longer, *elsewhere], "epyc-4c-16g-000001")
        assert similar == [*here, *longer, *elsewhere]
        assert same == [*here, *longer]


def test_every_training_key_is_known_to_change_step_times_or_not():
    """A key that is in neither list would silently keep measured cells from being compared."""
    changing = {
        "optimizer", "grad_accum", "activation_checkpointing", "compile", "allocator", "allow_slow_precision", "chunks",
        "chunk_order", "keep_model",
    }  # fmt: skip
    not_hashed = {"seeds", "checkpoint_every_s"}
    assert set(TrainingSettings.model_fields) == {*STEP_TIME_NEUTRAL_KEYS, *changing, *not_hashed}
