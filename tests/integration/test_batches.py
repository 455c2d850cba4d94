"""The batch plan: each row once an epoch, and the same global batches for any number of ranks."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dataset.batch_plan import chunk_ends, plan_chunks, plan_epochs, steps_per_epoch
from harness.dataset.tokens import TokenArrays
from harness.worker.collate import collate

PADDINGS = ("max", "longest", "grouped")

plans = st.fixed_dictionaries(
    {
        "global_batch": st.integers(1, 50),
        "grad_accum": st.integers(1, 4),
        "world_size": st.integers(1, 4),
        "padding": st.sampled_from(PADDINGS),
        "seed": st.integers(0, 10),
    }
)


def lengths_of(num):
    return np.random.default_rng(num).integers(3, 60, size=num)


def rows_of(step):
    return np.concatenate([part for micro in step for part in micro])


@settings(deadline=None)
@given(num_rows=st.integers(1, 150), plan=plans)
def test_an_epoch_has_each_row_once_and_no_batch_is_too_large(num_rows, plan):
    full = plan["global_batch"]
    num_steps = steps_per_epoch(num_rows, full)
    planned = plan_epochs(lengths_of(num_rows), **plan)
    epochs = [list(islice(planned, num_steps)) for _ in range(2)]
    for steps in epochs:
        assert sorted(np.concatenate([rows_of(step) for step in steps])) == list(range(num_rows))
        for step in steps:
            assert 1 <= len(step) <= plan["grad_accum"]
            for micro in step:
                assert len(micro) == plan["world_size"]
                assert sum(map(len, micro)) >= 1
                assert max(map(len, micro)) <= -(-full // (plan["grad_accum"] * plan["world_size"]))
                # Ranks wait for each other, so their shares differ by one row at most.
                assert max(map(len, micro)) - min(map(len, micro)) <= 1
        assert [len(rows_of(step)) for step in steps[:-1]] == [full] * (num_steps - 1)
        assert len(rows_of(steps[-1])) == (num_rows - 1) % full + 1


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("num_rows", [96, 101])
def test_global_batches_do_not_depend_on_the_number_of_ranks(padding, num_rows):
    def batches(world_size, batch_size, grad_accum):
        planned = plan_epochs(
            lengths_of(num_rows),
            global_batch=batch_size * grad_accum * world_size,
            grad_accum=grad_accum,
            world_size=world_size,
            padding=padding,
            seed=3,
        )
        return [sorted(rows_of(step)) for step in islice(planned, 20)]

    single = batches(1, 12, 1)
    assert batches(2, 6, 1) == batches(3, 4, 1) == batches(1, 6, 2) == batches(2, 3, 2) == batches(1, 3, 4) == single


def test_a_seed_fixes_the_plan_and_epochs_differ():
    def epochs(seed):
        planned = plan_epochs(lengths_of(64), global_batch=8, grad_accum=1, world_size=1, padding="grouped", seed=seed)
        return [np.concatenate([rows_of(step) for step in islice(planned, 8)]).tolist() for _ in range(2)]

    assert epochs(0) == epochs(0) != epochs(1)
    assert epochs(0)[0] != epochs(0)[1]


@settings(deadline=None)
@given(num_rows=st.integers(4, 150), num_chunks=st.integers(1, 4), epochs=st.integers(1, 3), plan=plans)
def test_a_chunk_is_repeated_for_all_epochs_before_the_next_one_arrives(num_rows, num_chunks, epochs, plan):
    ends = chunk_ends(num_rows, num_chunks)
    sizes = [end - first for first, end in zip((0, *ends), ends, strict=False)]
    assert sum(sizes) == num_rows and max(sizes) - min(sizes) <= 1
    updates = [epochs * steps_per_epoch(size, plan["global_batch"]) for size in sizes]
    steps = plan_chunks(lengths_of(num_rows), chunk_updates=updates, **plan)
    for first, end, num_updates in zip((0, *ends), ends, updates, strict=False):
        rows = np.concatenate([rows_of(step) for step in islice(steps, num_updates)])
        assert sorted(rows) == sorted([*range(first, end)] * epochs)
    # The last chunk repeats without end.
    assert set(rows_of(next(steps))) <= {*range(first, end)}


def tokens_of(lengths):
    offsets = np.cumsum([0, *lengths])
    return TokenArrays(np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets, np.arange(len(lengths)) % 2)


def test_a_batch_is_padded_to_its_longest_row_or_to_the_maximum():
    tokens = tokens_of([3, 5, 4])
    ids, mask, labels, num_real = collate(tokens, [2, 0], pad_to=None)
    assert ids.tolist() == [[9, 10, 11, 12], [1, 2, 3, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (labels.tolist(), num_real) == ([0, 0], 7)
    ids, mask, _, num_real = collate(tokens, np.array([1]), pad_to=8)
    assert ids.tolist() == [[4, 5, 6, 7, 8, 0, 0, 0]]
    assert (mask.sum().item(), num_real) == (5, 5)


def test_grouped_pads_less_than_longest_which_pads_less_than_max():
    lengths = lengths_of(800)
    tokens = tokens_of(lengths)

    def padded(padding):
        planned = plan_epochs(lengths, global_batch=16, grad_accum=1, world_size=1, padding=padding, seed=0)
        pad_to = 60 if padding == "max" else None
        return sum(collate(tokens, rows_of(step), pad_to=pad_to)[0].numel() for step in islice(planned, 50))

    longest, grouped = padded("longest"), padded("grouped")
    assert lengths.sum() < grouped < 1.1 * lengths.sum() < longest < padded("max") == 800 * 60
