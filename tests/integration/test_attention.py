"""`model.attention` and `matrix.pad_multiple`: the same training by another route, and the choice that `auto` makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from encoders import write_encoder
from resumable_runs import computed_values, run_segment
from test_compile import rng_states

from harness.analysis.time_to_target import setup_seconds
from harness.schema.training_record import NUM_CHOICE_SHAPES, NUM_CHOICE_STEPS
from harness.worker import attention_choice, main
from harness.worker.attention_choice import apply_attention, faster, representative_steps
from harness.worker.collate import attention_mask, num_padded_tokens
from harness.worker.model import build_model

NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
PADDED = {"padding": ["grouped"], "seq_len": [20], "batch_size": [8]}


def run(bench, environment=None, *, model=None, training=None, **matrix):
    record = bench.run(
        environment,
        model=model or {},
        training={"max_steps": 8} | (training or {}),
        matrix={key: [value] for key, value in matrix.items()} | PADDED,
    )
    assert record.outcome == "ok", record.stderr_tail
    return record


def test_losses_are_those_of_sdpa_and_of_batches_padded_to_their_longest_text(bench):
    usual = run(bench, model=NO_DROPOUT)
    eager, padded = (
        run(bench, model=NO_DROPOUT | {"attention": "eager"}, pad_multiple=multiple) for multiple in (1, 8)
    )
    assert [record.model.attention for record in (usual, eager, padded)] == ["sdpa", "eager", "eager"]
    for record in (eager, padded):
        assert record.training.steps.loss == pytest.approx(usual.training.steps.loss, abs=1e-5)
        assert record.training.test.predictions == usual.training.test.predictions
        assert record.training.attention_choice is None
    assert eager.training.attention_kernels == ()
    widths, rounded = (
        [tokens // 8 for tokens in record.training.steps.num_padded_tokens] for record in (eager, padded)
    )
    assert len(set(widths)) > 2
    assert rounded == [min(20, -(-width // 8) * 8) for width in widths]
    assert set(rounded) == {8, 16, 20}
    assert list(padded.training.steps.num_token_pairs) == [8 * width**2 for width in rounded]
    assert padded.training.steps.num_real_tokens == eager.training.steps.num_real_tokens


def test_the_chosen_attention_trains_as_if_it_had_been_asked_for(bench):
    """Dropout is on, so that a random number drawn while choosing would change every loss."""
    auto = run(bench, model={"attention": "auto"})
    choice = auto.training.attention_choice
    assert choice.implementation == faster(choice.seconds) == auto.model.attention
    assert (choice.num_steps, choice.seconds.keys()) == (6, {"sdpa", "eager"})
    assert choice.choose_s > sum(choice.seconds.values()) > 0
    assert computed_values(auto) == computed_values(run(bench, model={"attention": choice.implementation}))
    phases = auto.phases
    assert setup_seconds(auto) == phases.start_s + phases.load_s + phases.tokenise_s + choice.choose_s


def test_ranks_and_segments_of_a_training_share_one_choice(bench, tmp_path):
    study = {"model": {"attention": "auto"}, "training": {"max_steps": 6}}
    study["matrix"] = {"device": ["cpu-ddp2"], "pad_multiple": [8], "padding": ["grouped"]}
    cores = bench.with_cores(2)
    first = run_segment(bench, tmp_path / "checkpoints", environment=cores, max_rows=40, **study)
    last = run_segment(bench, tmp_path / "checkpoints", environment=cores, **study)
    assert [first.outcome, last.outcome] == ["interrupted", "ok"], (first.stderr_tail, last.stderr_tail)
    choice = first.training.attention_choice
    assert last.training.attention_choice == choice
    whole = bench.run(cores, **study | {"model": {"attention": choice.implementation}})
    assert computed_values(last) == computed_values(whole)


@pytest.mark.parametrize(
    ("sdpa_s", "eager_s", "expected"), [(1.3, 1.0, "eager"), (1.05, 1.0, "eager"), (1.04, 1.0, "sdpa"), (1, 2, "sdpa")]
)
def test_eager_is_chosen_only_if_it_is_clearly_faster(sdpa_s, eager_s, expected):
    assert faster({"sdpa": sdpa_s, "eager": eager_s}) == expected


@pytest.fixture
def loaded(bench):
    (cell,) = bench.cells(model={"attention": "auto"}, matrix=PADDED)
    loaded = main._load(replace(bench.prepare(cell).job, num_threads=1))
    return loaded.state, loaded.context


def test_steps_of_three_lengths_are_timed_in_turns_and_leave_no_trace(loaded, monkeypatch):
    state, context = loaded
    timed = []

    def recorded(state, context, step):
        timed.append((state.model.config._attn_implementation, sum(len(part) for micro in step for part in micro)))
        return forward_backward(state, context, step)

    forward_backward = attention_choice.forward_backward
    monkeypatch.setattr(attention_choice, "forward_backward", recorded)
    before, weights = rng_states(), [parameter.detach().clone() for parameter in state.model.parameters()]
    choice = apply_attention(state, context)
    assert [kind for kind, _ in timed] == ["sdpa", "eager", "sdpa", "eager", "eager", "sdpa"] * NUM_CHOICE_SHAPES
    assert len(timed) == NUM_CHOICE_STEPS
    assert {num_rows for _, num_rows in timed} == {8}
    assert rng_states() == before
    assert all(torch.equal(own, was) for own, was in zip(state.model.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in state.model.parameters()) and state.optimizer.state == {}
    assert state.model.config._attn_implementation == choice.implementation
    timed.clear()
    other = choice.model_copy(update={"implementation": choice.other})
    assert apply_attention(state, context, earlier=other) is other
    assert timed == [] and state.model.config._attn_implementation == choice.other


def test_the_timed_steps_are_at_the_percentiles_of_the_plans_padded_tokens(loaded):
    _, context = loaded
    sizes = sorted(
        num_padded_tokens(context.splits.train, rows, context.config) for ((rows,),) in representative_steps(context)
    )
    epoch = sorted(8 * longest for longest in planned_longest(context))
    assert sizes == [epoch[round(share * (len(epoch) - 1))] for share in (0.25, 0.5, 0.9)]
    assert len(epoch) == 32 and sizes[0] < sizes[-1]


def planned_longest(context):
    steps = attention_choice.iter_batches(context)
    return [int(context.splits.train.lengths[next(steps)[0][0]].max()) for _ in range(32)]


def test_an_architecture_without_sdpa_has_nothing_to_choose(bench, tmp_path):
    folder = str(write_encoder(tmp_path / "mpnet", "mpnet"))
    auto = run(bench, model={"name": folder, "attention": "auto"}, training={"max_steps": 2})
    assert (auto.model.attention, auto.training.attention_choice) == ("eager", None)
    refused = bench.run(model={"name": folder, "attention": "sdpa"})
    assert refused.outcome == "unsupported"
    assert refused.reason == 'model.attention: "sdpa": transformers has no such attention for MPNet; take eager or auto'


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_mask_that_eager_attention_adds_has_the_dtype_of_its_scores(bench, dtype):
    """With transformers' fp32 mask, scores, weights and dropout of a 16-bit step were fp32: twice the bytes."""
    (cell,) = bench.cells(model={"attention": "eager"})
    model = build_model(bench.prepare(cell).job.model, cell.config.model, ("bad", "good"))
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    added = attention_mask(mask, model.config, padded=True, dtype=dtype)
    assert (added.shape, added.dtype) == ((2, 1, 1, 3), dtype)
    assert np.array_equal(added[:, 0, 0] == 0, mask == 1) and added.min() == torch.finfo(dtype).min
    assert attention_mask(mask, model.config, padded=False, dtype=dtype) is None
