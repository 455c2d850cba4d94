"""The shipped GPUs, the model fitted to the published rows, and cells of bert-base for tests."""

from __future__ import annotations

import functools

import numpy as np

from harness.execution.planned_work import plan_cell
from harness.prediction.gpu_cell import GpuCell
from harness.prediction.gpu_records import measured_steps
from harness.prediction.gpu_speed import fit_gpu_speed
from harness.prediction.published_rows import load_published
from harness.pricing.price_search import hardware_named
from harness.pricing.price_table import load_prices
from harness.schema.cells import FineTuneConfig
from harness.schema.model_shapes import load_model_shape


@functools.cache
def tables():
    return load_prices()


@functools.cache
def published_speed():
    return fit_gpu_speed(measured_steps(load_published(tables()), (), tables()))


def gpu(name):
    return hardware_named(tables(), name)


def gpu_cell(*, batch_size=64, seq_len=384, precision="fp16", trainable="all", world_size=1, num_rows=6400, **training):
    config = FineTuneConfig.model_validate(
        {"batch_size": batch_size, "seq_len": seq_len, "precision": precision, "device": "gpu", "padding": "max"}
        | {
            "trainable": trainable,
            "threads": None,
            "seed": 0,
            "data": {},
            "training": {"epochs": 1} | training,
            "limits": {},
        }
        | {"model": {"shape": "bert-base", "init": "random"}}
    )
    lengths = np.full(num_rows, seq_len)
    work = plan_cell(config, lengths, lengths[:64], lengths[:64], world_size).work
    return GpuCell(config, load_model_shape(config.model, None), work, world_size)
