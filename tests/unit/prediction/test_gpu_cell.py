"""Cells on GPUs that nobody rented: precision, reasons for wide intervals, several GPUs, unknown boards."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.errors import Unavailable
from harness.prediction.gpu_cell import datasheet, predict_on_gpu, slowest_of
from harness.prediction.gpu_speed import GpuFactor
from tests.unit.prediction.gpu_cells import gpu, gpu_cell, published_speed


def predict(name="NVIDIA A30", **settings):
    return predict_on_gpu(published_speed(), gpu(name), gpu_cell(**settings))


def width(run):
    return run.train.log_half_width()


def why(run):
    return " ".join(run.train.reasons)


def test_peaks_are_dense_and_of_the_precision():
    assert datasheet(gpu("NVIDIA A10G"), "fp16").flop_per_s == 70e12  # not the A10's 125
    assert datasheet(gpu("NVIDIA L40S"), "tf32").flop_per_s == 183e12
    assert datasheet(gpu("NVIDIA L4"), "fp32").bytes_per_s == 300e9


def test_a_precision_that_the_gpu_only_emulates_is_not_predicted():
    assert predict("NVIDIA Tesla T4", precision="bf16") == Unavailable("NVIDIA Tesla T4 has no rate for bf16")
    assert not isinstance(predict("NVIDIA Tesla T4", precision="fp16"), Unavailable)


def test_a_measured_gpu_is_known_better_than_another():
    known, other = predict("NVIDIA H100 PCIe"), predict("NVIDIA A30")
    assert width(known) < width(other)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"seq_len": 64, "batch_size": 384}, "no published row has 64 tokens"),
        ({"batch_size": 2}, "its steps are small for the GPU"),
        ({"precision": "fp32"}, "no published run computes true fp32 on such a GPU"),
        ({"trainable": "top2"}, "no published run trains a part of the model"),
        ({"activation_checkpointing": True}, "no published run recomputes activations"),
        ({"compile": True}, "no published run compiles the model"),
    ],
)
def test_intervals_widen_where_there_is_no_data_and_say_why(settings, reason):
    usual, run = predict(), predict(**settings)
    assert reason in why(run)
    assert reason not in why(usual)
    assert width(run) > width(usual)


def test_a_gpu_slower_than_all_published_ones_is_less_certain():
    assert "no published GPU has a bandwidth like it" in why(predict("NVIDIA L4"))
    assert "bandwidth" not in why(predict("NVIDIA L40S"))


def test_shorter_texts_and_smaller_batches_widen_more_and_more():
    lengths = [width(predict(seq_len=seq_len, batch_size=24576 // seq_len)) for seq_len in (384, 128, 32)]
    batches = [width(predict(batch_size=batch_size)) for batch_size in (64, 8, 1)]
    assert lengths == sorted(lengths)
    assert batches == sorted(batches)
    assert batches[0] < batches[-1]


def test_own_records_of_a_gpu_leave_no_doubt_about_the_loop():
    speed = published_speed()
    own = replace(speed, measured={**speed.measured, "NVIDIA A30": GpuFactor(0.0, 0.05, by_own_loop=True)})
    run = predict_on_gpu(own, gpu("NVIDIA A30"), gpu_cell())
    assert "another training loop" in why(predict())
    assert "another training loop" not in why(run)
    assert width(run) < width(predict())


def test_several_gpus_exchange_their_gradients():
    one, four = predict("NVIDIA A10G"), predict("NVIDIA A10G", world_size=4, batch_size=16)
    cell = gpu_cell(world_size=4, batch_size=16)
    # Over PCIe, 3/4 of all gradients go there and back: half of that is taken to be hidden.
    gradients = 4 * cell.shape.trained_parameters("all", 2)
    exchange_s = cell.work.training.num_batches * 2 * 3 / 4 * gradients / 10e9
    lone = predict_on_gpu(published_speed(), gpu("NVIDIA A10G"), gpu_cell(batch_size=16, num_rows=1600)).train_s
    assert four.train_s == pytest.approx(lone + exchange_s / 2, rel=1e-6)
    assert "no published run has several GPUs" in why(four)
    assert "several" not in why(one)
    nvlink, pcie = (
        predict(name, world_size=8, batch_size=8) for name in ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")
    )
    assert nvlink.train_s < pcie.train_s


def test_evaluations_pass_forward_alone():
    random = predict()
    assert random.evaluate_s == 0  # random weights are not evaluated
    cell = gpu_cell()
    config = cell.config.model_copy(update={"model": cell.config.model.model_copy(update={"init": "pretrained"})})
    one_test = replace(cell, config=config, work=cell.work.model_copy(update={"test": cell.work.training}))
    run = predict_on_gpu(published_speed(), gpu("NVIDIA A30"), one_test)
    assert 0.25 < run.evaluate_s / run.train_s < 0.4


def test_an_unknown_board_is_the_slowest_with_room_for_the_fastest():
    slow, fast = predict("NVIDIA Tesla V100-PCIE"), predict("NVIDIA Tesla V100-SXM2-16GB")
    both = slowest_of([fast, slow])
    assert both.train_s == max(slow.train_s, fast.train_s)
    spread = abs(math.log(slow.train_s / fast.train_s))
    assert both.factors[-1].log_sd == pytest.approx(spread / 2)
    assert "any of 2 boards" in why(both)
    assert slowest_of([slow]).train.reasons == slow.train.reasons
