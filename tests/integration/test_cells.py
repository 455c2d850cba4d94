"""Single cells in processes of their own: training, records, and agreement between ranks, runs and settings."""

from __future__ import annotations

import json

import pytest
from tiny import DECIDING, FILLING

from harness.analysis.stopping import is_known_within, is_look, within_run_rate
from harness.analysis.summarize import summarize
from harness.schema.record import FINISHED, to_json
from harness.schema.settings import SECTIONS

NO_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}


def with_model(bench, **model):
    return bench.defaults["model"] | model


@pytest.fixture(scope="module")
def learned(bench):
    """A run long enough to learn the deciding words."""
    return bench.run(training={"epochs": 6, "lr": 5e-3, "target_accuracy": 0.7})


def test_the_tiny_model_learns_the_deciding_words(learned):
    assert learned.outcome == "ok", learned.stderr_tail
    assert learned.training.test.accuracy > learned.data.test.majority_fraction + 0.2
    assert learned.training.evaluations[-1].accuracy > learned.data.val.majority_fraction + 0.2
    losses = learned.training.steps.loss
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_the_training_clock_stops_during_evaluation(learned):
    phases, training = learned.phases, learned.training
    assert sum(training.steps.seconds[0]) <= phases.train_s
    assert phases.train_s + phases.evaluate_s <= learned.marks[-1].at_s
    assert phases.start_s + phases.load_s + phases.train_s + phases.evaluate_s + phases.test_s <= learned.duration_s
    assert phases.evaluate_s == pytest.approx(sum(evaluation.evaluate_s for evaluation in training.evaluations))
    assert phases.start_s + phases.load_s < phases.first_step_s < learned.duration_s
    clock = [evaluation.train_s for evaluation in training.evaluations]
    assert clock == sorted(clock) and clock[-1] == phases.train_s
    # Half an epoch is 8 of 16 updates of 16 rows.
    assert [evaluation.num_updates for evaluation in training.evaluations] == list(range(8, 97, 8))
    assert [evaluation.num_samples_seen for evaluation in training.evaluations] == [16 * n for n in range(8, 97, 8)]


def test_a_record_describes_what_ran(learned, bench, tiny_bert):
    training = learned.training
    assert learned.start_method == bench.runner.start_method
    assert learned.model.origin == "local" and learned.model.architecture == "BertForSequenceClassification"
    assert (learned.model.num_layers, learned.model.hidden_size, learned.model.checkpoint_dtype) == (2, 32, "F32")
    assert learned.model.num_trainable_parameters == learned.model.num_parameters
    assert training.num_updates_planned == len(training.steps.loss) == 6 * 16
    assert sum(training.steps.num_samples) == 6 * 256
    assert training.threads_per_rank == 1
    assert [peak.source for peak in training.peak_memory] == ["rss"]
    assert training.peak_memory[0].num_bytes > 50 * 2**20
    assert learned.load.cell_s > 0 and learned.load.system_busy_s > 0
    assert learned.load.swapped_bytes >= 0
    assert learned.outcome in FINISHED
    assert json.loads(to_json(learned))["training"]["steps"]["seconds"] == [list(training.steps.seconds[0])]


def test_two_runs_of_a_cell_on_a_cpu_give_the_same_losses_and_predictions(bench):
    first, second = bench.run(), bench.run()
    assert first.training.steps.loss == second.training.steps.loss  # bit for bit, including dropout
    assert first.training.test.predictions == second.training.test.predictions


def test_another_seed_gives_different_losses(bench):
    assert bench.run(training={"seeds": [1]}).training.steps.loss != bench.run().training.steps.loss


@pytest.mark.parametrize(
    "shape",
    [
        # ranks, batch per rank, micro-batches: a global batch of 24 rows in each; 250 rows leave a remainder of 10
        (2, 12, 1),
        (3, 8, 1),
        (1, 12, 2),
        (2, 6, 2),
        (4, 1, 6),  # some ranks get no row of the remainder
    ],
    ids=lambda shape: "{}ranks-b{}-accum{}".format(*shape),
)
@pytest.mark.parametrize("padding", ["longest", "grouped"])
def test_ranks_and_micro_batches_give_the_losses_of_one_process(bench, shape, padding):
    ranks, batch_size, grad_accum = shape
    environment = bench.with_cores(4)

    def run(ranks, batch_size, grad_accum):
        record = bench.run(
            environment,
            model=with_model(bench, **NO_DROPOUT),
            data={"num_train": 250},  # 10 full batches and one of 10 rows
            training={"max_steps": 22, "lr": 1e-3, "lr_base_batch_size": 24, "grad_accum": grad_accum},
            matrix={
                "batch_size": [batch_size],
                "device": [f"cpu-ddp{ranks}" if ranks > 1 else "cpu"],
                "threads": [1],
                "padding": [padding],
            },
        )
        assert record.outcome == "ok", (record.reason, record.stderr_tail)
        assert record.training.world_size == ranks
        assert record.training.global_batch_size == 24
        return record.training

    single, shared = run(1, 24, 1), run(ranks, batch_size, grad_accum)
    assert shared.steps.num_samples == single.steps.num_samples == (*[24] * 10, 10) * 2
    assert shared.steps.num_real_tokens == single.steps.num_real_tokens
    assert shared.steps.loss == pytest.approx(single.steps.loss, abs=1e-4)
    assert max(single.steps.loss) - min(single.steps.loss) > 1e-3  # the losses do change
    accuracies, single_accuracies = ([e.accuracy for e in training.evaluations] for training in (shared, single))
    assert accuracies == pytest.approx(single_accuracies, abs=2 / 64)
    assert len(shared.steps.seconds) == ranks


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_with_uneven_shares_of_a_global_batch_give_the_losses_of_one_process(bench, ranks):
    def run(device):
        record = bench.run(
            bench.with_cores(4),
            model=with_model(bench, **NO_DROPOUT),
            training={"max_steps": 20, "lr": 1e-3},
            matrix={"global_batch_size": [32], "device": [device], "threads": [1]},
        )
        assert record.outcome == "ok", (record.reason, record.stderr_tail)
        return record.training

    single, shared = run("cpu"), run(f"cpu-ddp{ranks}")
    assert (shared.world_size, shared.global_batch_size, shared.lr_peak) == (ranks, 32, single.lr_peak)
    assert shared.steps.num_samples == single.steps.num_samples
    assert shared.steps.loss == pytest.approx(single.steps.loss, abs=1e-4)
    assert max(single.steps.loss) - min(single.steps.loss) > 1e-3
    communication = shared.communication
    assert len(communication.sync_s) == len(communication.no_sync_s) == 6
    assert min(communication.sync_s + communication.no_sync_s) > 0
    assert single.communication is None
    assert [len(held) for held in shared.held_bytes] == [20] * ranks


def test_a_distilbert_folder_trains(bench, tiny_distilbert):
    record = bench.run(model={"name": str(tiny_distilbert), **NO_DROPOUT}, training={"epochs": 6, "lr": 5e-3})
    assert record.outcome == "ok", record.stderr_tail
    assert record.model.architecture == "DistilBertForSequenceClassification"
    assert (record.model.num_layers, record.model.intermediate_size) == (2, 64)
    assert (record.model.attention_dropout, record.model.hidden_dropout) == (0.0, 0.0)
    assert record.training.test.accuracy > record.data.test.majority_fraction + 0.2


def test_a_16_bit_checkpoint_is_trained_in_fp32(bench, half_bert, learned):
    record = bench.run(model={"name": str(half_bert)})
    assert record.outcome == "ok", record.stderr_tail
    assert record.model.checkpoint_dtype == "F16"
    assert record.model.sha256 != learned.model.sha256
    whole = bench.run()
    assert record.training.steps.loss != whole.training.steps.loss
    # Rounding the weights to 16 bits changes a loss far less than training in 16 bits would.
    assert record.training.steps.loss == pytest.approx(whole.training.steps.loss, abs=5e-3)


@pytest.mark.parametrize(
    ("kind", "trained"), [("bert", 32 * 32 + 32 + 2 * 32 + 2), ("distilbert", 32 * 32 + 32 + 2 * 32 + 2)]
)
def test_training_the_head_only_gives_the_encoder_no_gradient(kind, trained, bench, request):
    import torch

    from harness.worker.model import build_model, freeze_encoder_below

    folder = request.getfixturevalue(f"tiny_{kind}")
    record = bench.run(model={"name": str(folder)}, matrix={"trainable": ["head"]})
    assert record.outcome == "ok", record.stderr_tail
    assert record.model.num_trainable_parameters == trained  # the pooler (or pre-classifier) and the classifier
    (cell,) = bench.cells(model={"name": str(folder)}, matrix={"trainable": ["head"]})
    model = build_model(bench.prepare(cell).job.model, cell.config.model, ("bad", "good"))
    freeze_encoder_below(model, 0)
    ids = torch.ones((2, 8), dtype=torch.int64)
    model(input_ids=ids, attention_mask=ids).logits.sum().backward()
    with_gradient = {
        name.split(".")[0 if not name.startswith("bert.") else 1]
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    assert with_gradient == ({"pooler", "classifier"} if kind == "bert" else {"pre_classifier", "classifier"})


def test_training_the_last_layers_gives_lower_layers_no_gradient(bench, tiny_bert, tiny_distilbert):
    import torch

    from harness.worker.model import build_model, freeze_encoder_below

    for folder, last_layer in (
        (tiny_bert, "bert.encoder.layer.1."),
        (tiny_distilbert, "distilbert.transformer.layer.1."),
    ):
        (cell,) = bench.cells(model={"name": str(folder)}, matrix={"trainable": ["top1"]})
        model = build_model(bench.prepare(cell).job.model, cell.config.model, ("bad", "good"))
        freeze_encoder_below(model, 1)
        ids = torch.ones((2, 8), dtype=torch.int64)
        model(input_ids=ids, attention_mask=ids).logits.sum().backward()
        trained = {name for name, p in model.named_parameters() if p.grad is not None and ".layer." in name}
        assert trained and all(name.startswith(last_layer) for name in trained)
        assert not any(p.grad is not None for name, p in model.named_parameters() if "embeddings" in name)
    too_many = bench.run(matrix={"trainable": ["top3"]})
    assert (too_many.outcome, too_many.reason) == ("unsupported", "top3 asks for more layers than this model's 2")


def test_training_stops_with_the_first_validation_that_reaches_the_target(bench):
    recipe = {"epochs": 50, "eval_every": 1.0, "target_accuracy": 0.75}
    record = bench.run(training=recipe | {"stop_at_target": True})
    reached = [evaluation.accuracy >= 0.75 for evaluation in record.training.evaluations]
    assert reached == [False] * (len(reached) - 1) + [True]
    assert record.training.stopped_early == "target 0.75 reached on validation"
    assert len(record.training.steps.num_samples) == record.training.evaluations[-1].num_updates < 50 * 16
    assert record.training.test is not None


def test_num_layers_keeps_the_first_layers(bench):
    record = bench.run(model=with_model(bench, num_layers=1))
    assert record.outcome == "ok", record.stderr_tail
    assert record.model.num_layers == 1
    whole = bench.run()
    assert record.model.num_parameters < whole.model.num_parameters


def test_random_weights_of_a_standard_shape_measure_speed_but_no_accuracy(bench):
    record = bench.run(model=with_model(bench, shape="bert-tiny", init="random"), training={"max_steps": 3})
    assert record.outcome == "ok", record.stderr_tail
    assert (record.model.origin, record.model.sha256, record.model.name) == ("random", None, "bert-tiny")
    assert (record.model.hidden_size, record.model.num_layers) == (128, 2)
    assert record.training.test is None and record.training.evaluations == ()
    assert len(record.training.steps.seconds[0]) == 3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("sqrt", 2), ("linear", 4)])
def test_the_learning_rate_scales_with_the_global_batch(bench, optimizer, scaling, factor):
    training = {
        "max_steps": 1,
        "lr": 1e-4,
        "lr_scaling": scaling,
        "optimizer": optimizer,
        "grad_accum": 2,
        "lr_base_batch_size": 8,
    }
    assert bench.run(training=training).training.lr_peak == pytest.approx(factor * 1e-4)


def test_training_stops_at_the_first_step_after_max_train_s(bench):
    record = bench.run(training={"epochs": 10_000}, limits={"max_train_s": 0.5})
    assert record.outcome == "ok"
    assert record.training.stopped_early == "limits.max_train_s = 0.5 s reached"
    assert len(record.training.steps.loss) < record.training.num_updates_planned
    assert record.phases.train_s >= 0.5 > sum(record.training.steps.seconds[0][:-1])
    assert record.training.test is not None


def test_a_seq_len_beyond_the_models_positions_is_unsupported(bench):
    record = bench.run(matrix={"seq_len": [1024]})
    assert (record.outcome, record.training) == ("unsupported", None)
    assert record.reason == "seq_len 1024 is beyond this model's 512 positions"


def test_without_stored_texts_the_record_has_no_word_of_the_data(bench):
    words = {*FILLING, *DECIDING["good"], *DECIDING["bad"]}
    record = bench.run(data={"store_texts": False})
    text = to_json(record)
    assert not [word for word in words if word in text]
    assert record.training.example.input_ids is None
    assert [word for word in words if word in to_json(bench.run())]  # with stored texts, there are some


def test_padding_changes_only_the_number_of_computed_tokens(bench):
    runs = {
        padding: bench.run(matrix={"padding": [padding]}).training.steps for padding in ("max", "longest", "grouped")
    }
    real = {sum(steps.num_real_tokens) for steps in runs.values()}
    assert len(real) == 1
    computed = [sum(runs[padding].num_padded_tokens) for padding in ("grouped", "longest", "max")]
    assert computed[0] < computed[1] < computed[2] == 256 * 24


def test_baselines_use_the_same_rows(bench, learned):
    cells = [cell for cell in bench.cells(baselines=True) if cell.config.kind == "baseline"]
    majority, tfidf, features = (bench.runner.run(cell, bench.prepare(cell), bench.environment) for cell in cells)
    for record in (majority, tfidf, features):
        assert record.outcome == "ok", record.stderr_tail
        assert record.data.test == learned.data.test
        assert record.baseline.test.labels == learned.training.test.labels
        assert record.baseline.peak_memory[0].num_bytes > 0
    assert majority.baseline.test.accuracy == pytest.approx(learned.data.test.majority_fraction, abs=1e-12)
    for record in (tfidf, features):
        assert record.baseline.test.accuracy > majority.baseline.test.accuracy + 0.2


def test_the_record_has_every_section_of_the_study(learned):
    assert set(SECTIONS) <= set(type(learned.config).model_fields)


SPEED = {"measure": "speed", "training": {"epochs": 40}, "limits": {"until": "50%"}}


def test_a_cell_of_speed_alone_ends_at_the_first_look_at_which_its_speed_is_known(bench):
    record = bench.run(**SPEED)
    assert record.outcome == "ok", record.stderr_tail
    steps = record.training.steps
    assert record.training.stopped_early == "limits.until = 50.0% reached: the speed of this run is known"
    assert record.training.num_updates_planned == 40 * 16
    looks = [num_steps for num_steps in range(1, len(steps.num_samples) + 1) if is_look(num_steps)]
    *earlier, last = [
        is_known_within(within_run_rate([steps.seconds[0][:n]], steps.num_padded_tokens[:n]), 0.5) for n in looks
    ]
    assert looks[-1] == len(steps.num_samples)
    assert (any(earlier), last) == (False, True)
    assert (record.training.test, record.training.evaluations) == (None, ())
    assert (record.training.memory_parts, record.training.flops) == (None, None)


def test_ranks_agree_on_when_their_speed_is_known(bench):
    record = bench.run(bench.with_cores(2), **SPEED, matrix={"device": ["cpu-ddp2"]})
    assert record.outcome == "ok", record.stderr_tail
    assert is_look(len(record.training.steps.num_samples))
    assert [len(rank) for rank in record.training.steps.seconds] == [len(record.training.steps.num_samples)] * 2


def test_the_seconds_of_a_whole_training_follow_from_the_speed_that_was_measured(bench):
    record = bench.run(**SPEED)
    (summary,) = summarize([record])
    assert summary.accuracy is None
    # All epochs have the same rows, so that a mean step of the plan has a sixteenth of them.
    assert record.training.planned_step.num_samples == 16
    assert record.training.planned_step.num_padded_tokens <= 16 * 24
    assert summary.train_s == pytest.approx(40 * 256 / summary.samples_per_s.value)
    assert not any("Training stopped" in warning for warning in summary.warnings)
