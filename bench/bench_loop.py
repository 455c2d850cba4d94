"""Cost of the harness beside the model: tokenising, and the time that its loop adds to a step.

Run: .venv/bin/pytest bench/bench_loop.py -s
The harness's loop is compared with a bare loop (the same batches, model, optimiser and schedule; nothing timed, counted or
sent), in turns A B B A. The model is so small (2 layers, width 32) that the added time shows; it does not grow with the model.
"""

from __future__ import annotations

import time
from itertools import islice
from statistics import median

import numpy as np
import pytest
import torch
from replay_clock import ReplayClock, replay

from harness.dataset.corpus import load_corpus
from harness.dataset.sources import locate_model
from harness.dataset.tokens import TokenArrays, tokenize
from harness.schema.expansion import expand
from harness.schema.settings import PACKAGED_MODEL, DataSettings
from harness.schema.study_file import parse_study
from harness.worker.collate import attention_mask, collate
from harness.worker.distributed import DistributedContext
from harness.worker.meters import Meters
from harness.worker.model import build_model
from harness.worker.train_loop import TrainHooks, build_train_state, iter_batches, train
from harness.worker.train_state import SplitTokens, TrainContext

NUM_STEPS, ROUNDS = 200, 20
STUDY = {
    "baselines": False,
    "model": {"init": "random", "shape": "bert-tiny"},
    "data": {"num_train": 1024},
    "training": {"max_steps": NUM_STEPS},
    "matrix": {"batch_size": [4], "seq_len": [16], "padding": ["longest"], "threads": [1]},
}
CPU = DistributedContext(torch.device("cpu"), 0, 1)
CLOCK = ReplayClock()


def test_tokenising(benchmark, tmp_path):
    corpus, model = load_corpus(DataSettings(num_train="all")), locate_model(PACKAGED_MODEL, weights=False)
    benchmark.pedantic(lambda: tokenize(corpus, model, 128, tmp_path, store_texts=True), rounds=5)
    num_rows = sum(map(len, corpus.texts.values()))
    benchmark.extra_info["rows_per_s"] = num_rows / benchmark.stats.stats.median
    print(f"\n{num_rows:,} rows, {num_rows / benchmark.stats.stats.median:,.0f} rows/s")


@pytest.fixture(scope="module")
def step_seconds():
    """Return the mean seconds per step of each block of steps, by loop."""
    torch.set_num_threads(1)
    (cell,) = expand(parse_study(STUDY, "bench_loop"))
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 16, size=1024)
    rows = TokenArrays(
        ids=rng.integers(1, 30_000, size=lengths.sum()).astype(np.int32),
        offsets=np.cumsum([0, *lengths]),
        labels=rng.integers(0, 2, size=1024),
    )
    model = build_model(locate_model(PACKAGED_MODEL, weights=False), cell.config.model, ("bad", "good"))
    context = TrainContext(cell.config, CPU, SplitTokens(rows, rows, rows))
    state = build_train_state(model, cell.config, CPU, 2 * ROUNDS * NUM_STEPS)
    found = {ours: [], bare: []}
    for turn in range(2 * ROUNDS + 4):
        loop = (ours, bare, bare, ours)[turn % 4]
        began = time.perf_counter()
        loop(state, context)
        if turn >= 4:  # the first four turns are warm-up
            found[loop].append((time.perf_counter() - began) / NUM_STEPS)
    return found


def ours(state, context):
    train(state, context, Meters.create(CPU.device, 0), TrainHooks())


def bare(state, context):
    state.model.train()
    losses = []
    for step in islice(iter_batches(context), NUM_STEPS):
        ids, mask, labels, num_real = collate(context.splits.train, step[0][0], pad_to=None)
        attended = attention_mask(mask, state.model.config, padded=num_real < ids.numel())
        logits = state.model(input_ids=ids, attention_mask=attended).logits
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        state.optimizer.step()
        state.schedule.step()
        state.optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("loop", [ours, bare], ids=lambda loop: loop.__name__)
def test_a_step(benchmark, step_seconds, loop):
    replay(benchmark, CLOCK, step_seconds[loop])
    added = [one - other for one, other in zip(step_seconds[ours], step_seconds[bare], strict=True)]
    benchmark.extra_info["added_s"] = median(added)
    print(
        f"the harness's loop adds {1e6 * median(added):.0f} us a step (pairs: {1e6 * min(added):.0f} to {1e6 * max(added):.0f})"
    )
