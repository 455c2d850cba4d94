"""Every tensor of a checkpoint is accounted for, and a head means what its labels say."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from encoders import LABELS, write_encoder
from safetensors.torch import load_file, save_file

from harness.dataset.sources import locate_model
from harness.schema.settings import ModelSettings
from harness.worker.device import Unsupported
from harness.worker.model import load_model

IDS = torch.arange(5, 30)[None]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("original") / "bert", "bert")


@pytest.fixture
def changed(original, tmp_path):
    """Return a function that copies the checkpoint with changed tensors or configuration."""

    def change(tensors=lambda tensors: tensors, **config):
        shutil.copytree(original, tmp_path / "changed", dirs_exist_ok=True)
        folder = tmp_path / "changed"
        kept = tensors(load_file(original / "model.safetensors"))
        save_file(kept, folder / "model.safetensors", {"format": "pt"})
        fields = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(fields))
        return folder

    return change


def load(folder, labels=LABELS, **settings):
    return load_model(locate_model(str(folder)), ModelSettings(name=str(folder), **settings), labels)


def logits(loaded):
    with torch.inference_mode():
        return loaded.model.eval()(input_ids=IDS).logits


def same(left, right):
    return torch.allclose(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrappers_prefix_is_stripped(prefix, original, changed):
    """All 41 tensors were made anew, and the record said `pretrained`, with the file's sha256."""
    loaded = load(changed(lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}))
    assert same(logits(loaded), logits(load(original)))
    weights = loaded.weights
    assert (weights.num_tensors, weights.stripped_prefixes, weights.new, weights.num_unused) == (41, (prefix,), (), 0)


def test_a_compiled_encoder_inside_the_model_is_found_too(original, changed):
    loaded = load(
        changed(
            lambda tensors: {name.replace("bert.encoder.", "bert._orig_mod.encoder."): t for name, t in tensors.items()}
        )
    )
    assert same(logits(loaded), logits(load(original))) and loaded.weights.stripped_prefixes == ("_orig_mod.",)


@pytest.mark.parametrize("part", ["bert.encoder.layer.1.", "bert.embeddings.word_embeddings."])
def test_a_checkpoint_without_a_part_of_the_encoder_is_refused(part, changed):
    """It trained from random weights there, with outcome `ok`."""
    folder = changed(lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(part)})
    with pytest.raises(Unsupported, match=rf"lacks \d+ of the encoder's 37 tensors.*random: {part}.*save_pretrained"):
        load(folder)


def test_a_tensor_of_another_shape_is_refused(changed):
    with pytest.raises(
        Unsupported, match=r"lacks 1 of the encoder's 37 tensors, or has them in another shape.*word_embeddings"
    ):
        load(changed(vocab_size=400))


def test_an_encoder_without_pooler_and_head_gets_new_ones_and_says_so(changed):
    def encoder_of_masked_language_model(tensors):
        kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name and "classifier" not in name}
        return kept | {"cls.predictions.bias": torch.zeros(300)}

    weights = load(changed(encoder_of_masked_language_model)).weights
    assert weights.new == ("bert.pooler.dense.bias", "bert.pooler.dense.weight", "classifier.bias", "classifier.weight")
    assert (weights.head, weights.head_reason) == ("new", "the checkpoint has none")
    assert (weights.num_unused, weights.unused) == (1, ("cls.predictions.bias",))


def test_names_of_old_checkpoints_are_known(original, changed):
    """bert-base-uncased calls LayerNorm's weight gamma and its bias beta."""

    def rename(name):
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    loaded = load(changed(lambda tensors: {rename(name): tensor for name, tensor in tensors.items()}))
    assert same(logits(loaded), logits(load(original))) and not loaded.weights.new


def test_the_heads_rows_follow_the_datas_labels(original):
    """Logits were mixed up: a kept model of labels (good, bad) had a test accuracy of 0.000 on what it had learned to 1.000."""
    kept, moved = load(original), load(original, LABELS[::-1])
    assert same(logits(moved), logits(kept).flip(1))
    assert (kept.weights.head, kept.weights.head_reason, kept.weights.new) == ("kept", None, ())
    assert (moved.weights.head, moved.weights.new) == ("reordered", ())
    assert moved.weights.head_reason == "the checkpoint's labels come in the order bad, good"
    assert moved.model.config.id2label == {0: "good", 1: "bad"}
    cased = load(original, ("Bad", "GOOD"))
    assert same(logits(cased), logits(kept)) and cased.weights.head == "kept"


@pytest.mark.parametrize(
    ("config", "labels", "reason"),
    [
        ({}, ("ham", "spam"), "the checkpoint's labels are bad, good, the data's are ham, spam"),
        ({}, ("bad", "good", "mixed"), "the checkpoint's has 2 labels, the data 3"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, LABELS, "the checkpoint doesn't name its labels"),
    ],
)
def test_a_head_of_other_labels_is_replaced(config, labels, reason, original, changed):
    """A head of another number of labels crashed; one of other labels was taken for the data's."""
    torch.manual_seed(1)
    loaded = load(changed(**config), labels)
    weights, before = loaded.weights, load(original).model.state_dict()
    assert (weights.head, weights.head_reason) == ("new", reason)
    assert weights.new == ("classifier.bias", "classifier.weight")
    after = loaded.model.state_dict()
    assert (
        after["classifier.weight"].shape[0] == len(labels) and after["classifier.weight"].std() < 0.03
    )  # as initialized
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("classifier"))


def test_the_record_says_what_became_of_the_checkpoint(bench, original, changed, reviews):
    data = {"source": str(reviews), "num_train": 32, "num_val": 16, "num_test": 16}
    bad = changed(lambda tensors: {name: tensor for name, tensor in tensors.items() if "layer.1" not in name})
    refused = bench.run(model={"name": str(bad)}, data=data, training={"max_steps": 1})
    assert refused.outcome == "unsupported" and "bert.encoder.layer.1.attention" in refused.reason
    assert refused.reason.endswith('measure speed alone (model.init = "random")')
    record = bench.run(model={"name": str(original)}, data=data, training={"max_steps": 1})
    assert record.outcome == "ok" and record.model.family == "BERT"
    assert (record.model.weights.head, record.model.weights.num_tensors) == ("kept", 41)
    random = bench.run(model={"name": str(original), "init": "random"}, data=data, training={"max_steps": 1})
    assert random.model.weights is None


def test_predict_refuses_an_incomplete_encoder(changed, tmp_path):
    from harness.errors import UserError
    from harness.schema.predict_job import PredictJob
    from harness.worker.predictor import Predictor

    folder = changed(lambda tensors: {name: tensor for name, tensor in tensors.items() if "layer.1" not in name})
    job = PredictJob(model=str(folder), file="x.csv", out="y.csv", text=("text",), seq_len=32, threads=1)
    with pytest.raises(UserError, match="lacks 16 of the encoder's 37 tensors"):
        Predictor(job)


def test_a_token_beyond_the_vocabulary_is_told_before_training(bench, reviews, tmp_path):
    """It ended in "IndexError: index out of range in self"."""
    folder = write_encoder(tmp_path / "narrow", "bert", vocab_size=20)
    data = {"source": str(reviews), "num_train": 32, "num_val": 16, "num_test": 16}
    record = bench.run(model={"name": str(folder)}, data=data, training={"max_steps": 1})
    assert record.outcome == "unsupported"
    assert re.fullmatch(
        r"its tokenizer gives token \d+, but the model has 20 embeddings \(vocab_size\): .*", record.reason
    )
