"""Every tested encoder family: its logits and gradients are those of transformers' own forward pass of each text alone."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from encoders import FAMILY_TYPES, LABELS, texts, write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.dataset.sources import locate_model
from harness.dataset.tokens import load_tokens
from harness.schema.encoder_families import FAMILIES, read_config, refusal
from harness.schema.settings import ModelSettings
from harness.worker.device import Unsupported
from harness.worker.distributed import DistributedContext
from harness.worker.evaluation import batch_logits
from harness.worker.model import check_settings, describe_model, freeze_encoder_below, load_model
from harness.worker.train_state import SplitTokens, TrainContext

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = DistributedContext(torch.device("cpu"), 0, 1)
# Families whose own forward pass has no scaled_dot_product_attention.
EAGER = {"mpnet", "deberta", "deberta-v2"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Return a function that writes a family's checkpoint once."""
    folder, written = tmp_path_factory.mktemp("encoders"), {}

    def get(model_type):
        if model_type not in written:
            written[model_type] = write_encoder(folder / model_type, model_type)
        return written[model_type]

    return get


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A CSV of texts of 1 to 24 words with a second text and a label."""
    path = tmp_path_factory.mktemp("words") / "words.csv"
    rows = zip(dict.fromkeys(texts(460, 24)), texts(460, 5, seed=1), strict=False)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("one", "two", "label"), *((one, two, LABELS[n % 2]) for n, (one, two) in enumerate(rows))]
        )
    return path


def load(folder, **settings):
    return load_model(locate_model(str(folder)), ModelSettings(name=str(folder), **settings), LABELS)


@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_logits_of_a_padded_batch_are_those_of_each_text_alone(model_type, pairs, bench, encoders, words):
    """ModernBERT's differed by up to 0.67 when one 4-D mask served its global and its sliding layers."""
    folder = encoders(model_type)
    data = {"source": str(words), "text": "one", "num_train": 64, "num_val": 16, "num_test": 16}
    own = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with words.open() as file:
        second = {row["one"]: row["two"] for row in csv.DictReader(file)}
    for padding, multiple, attention in (("longest", 1, None), ("max", 1, None), ("longest", 8, "eager")):
        (cell,) = bench.cells(
            model={"name": str(folder)}, matrix={"padding": [padding], "pad_multiple": [multiple], "seq_len": [100]},
            data=data | ({"pair": "two"} if pairs else {}),
        )  # fmt: skip
        job = bench.prepare(cell).job
        drawn = bench.preparations._corpora[cell.config.data].texts["test"]
        context = TrainContext(cell.config, CPU, SplitTokens.load(job.tokens_folder))
        loaded = load(folder, attention=attention)
        assert loaded.weights.head == "kept" and not loaded.weights.new and not loaded.weights.num_unused
        assert describe_model(loaded, job.model, cell.config.model).attention == (
            "eager" if attention == "eager" or model_type in EAGER else "sdpa"
        )
        with torch.inference_mode():
            ours = batch_logits(loaded.model.eval(), context.splits.test, np.arange(16), context)
            inputs = [
                own(text, second[text] if pairs else None, truncation=True, max_length=100, return_tensors="pt")
                for text in drawn
            ]
            alone = torch.cat([reference(**one).logits for one in inputs])
        lengths = [one["input_ids"].shape[1] for one in inputs]
        assert max(lengths) > min(lengths) + 20
        assert load_tokens(job.tokens_folder, "test").lengths.tolist() == lengths
        assert alone.std(dim=0).min() > 0.005  # the texts differ by far more than the tolerance
        torch.testing.assert_close(ours, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_sdpa_is_refused_where_transformers_has_none(model_type, encoders):
    family = FAMILIES[model_type]
    assert family.has_sdpa == (model_type not in EAGER)
    config = read_config(encoders(model_type))
    if family.has_sdpa:
        assert load(encoders(model_type), attention="sdpa").model.config._attn_implementation == "sdpa"
        assert refusal(config, ModelSettings(attention="sdpa"), "all", 64) is None
        return
    sentence = f'model.attention: "sdpa": transformers has no such attention for {family.name}; take eager or auto'
    assert refusal(config, ModelSettings(attention="sdpa"), "all", 64) == sentence
    with pytest.raises(Unsupported, match=sentence):
        load(encoders(model_type), attention="sdpa")
    assert load(encoders(model_type), attention="auto").model.config._attn_implementation == "eager"


# Parameters that are trained with `head` and, besides, with `top1`; prefixes of their names.
TRAINED = {
    "bert": (("bert.pooler.", "classifier."), ("bert.encoder.layer.1.",)),
    "distilbert": (("pre_classifier.", "classifier."), ("distilbert.transformer.layer.1.",)),
    "roberta": (("classifier.",), ("roberta.encoder.layer.1.",)),
    "xlm-roberta": (("classifier.",), ("roberta.encoder.layer.1.",)),
    "electra": (("classifier.",), ("electra.encoder.layer.1.",)),
    "albert": (("albert.pooler.", "classifier."), ("albert.encoder.albert_layer_groups.",)),  # top2: both share it
    "mpnet": (("classifier.",), ("mpnet.encoder.layer.1.",)),
    "deberta": (("pooler.", "classifier."), ("deberta.encoder.layer.1.",)),
    "deberta-v2": (("pooler.", "classifier."), ("deberta.encoder.layer.1.",)),
    "modernbert": (("head.", "classifier."), ("model.layers.3.", "model.final_norm.")),
}


@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_only_the_trained_part_has_gradients(model_type, encoders):
    """`topN` trained the head alone on ALBERT and ModernBERT: 1,122 parameters of 23,266 and of 51,970."""
    head, layer = TRAINED[model_type]
    for num_layers, prefixes in ((0, head), (2 if model_type == "albert" else 1, head + layer)):
        loaded = load(encoders(model_type))
        model = loaded.model
        freeze_encoder_below(model, num_layers)
        ids = torch.arange(5, 30)[None]
        model(input_ids=ids).logits.sum().backward()
        with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert with_gradient == {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
        facts = describe_model(loaded, locate_model(str(encoders(model_type))), ModelSettings())
        sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        assert facts.num_trainable_parameters == sum(sizes[name] for name in with_gradient)
        assert facts.num_parameters == sum(sizes.values())


def test_layers_that_share_weights_are_not_frozen_apart(encoders):
    model = load(encoders("albert")).model
    check_settings(model, ModelSettings(), "top2", 64)
    with pytest.raises(Unsupported, match=r"top1: the 2 layers of ALBERT share their weights.*take top2, all or head"):
        check_settings(model, ModelSettings(), "top1", 64)


@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_dropout_settings_take_effect(model_type, encoders):
    """`attention_dropout` of ModernBERT was recorded as 0.4 and was 0.0."""

    def logits(attention, hidden, seed=0):
        loaded = load(encoders(model_type), attention_dropout=attention, hidden_dropout=hidden)
        facts = describe_model(loaded, locate_model(str(encoders(model_type))), ModelSettings())
        assert (facts.attention_dropout, facts.hidden_dropout) == (attention, hidden)
        torch.manual_seed(seed)
        return loaded.model.train()(input_ids=torch.arange(5, 30)[None]).logits

    none = logits(0.0, 0.0)
    assert torch.equal(none, logits(0.0, 0.0, seed=1))
    assert not torch.allclose(none, logits(0.4, 0.0)) and not torch.allclose(none, logits(0.0, 0.4))


@pytest.mark.parametrize(
    ("model_type", "limit"),
    [
        ("bert", 512), ("distilbert", 512), ("electra", 512), ("albert", 512), ("deberta", 512), ("deberta-v2", 512),
        ("modernbert", 128), ("roberta", 512), ("xlm-roberta", 512), ("mpnet", 512),
    ],
)  # fmt: skip
def test_the_longest_input_is_the_models_own(model_type, limit, encoders):
    """RoBERTa, XLM-R and MPNet were given 514, their table's rows; two of these belong to padding, and 513 tokens crashed."""
    model = load(encoders(model_type)).model.eval()
    check_settings(model, ModelSettings(), "all", limit)
    assert torch.isfinite(model(input_ids=torch.full((1, limit), 7)).logits).all()
    with pytest.raises(Unsupported, match=f"seq_len {limit + 1} is beyond this model's {limit} positions"):
        check_settings(model, ModelSettings(), "all", limit + 1)


@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_the_first_layers_alone_are_used(model_type, encoders):
    loaded = load(encoders(model_type), num_layers=1)
    model = loaded.model
    assert len(model(input_ids=torch.arange(5, 30)[None], output_hidden_states=True).hidden_states) == 2
    assert not loaded.weights.new and (loaded.weights.num_unused > 0) == (model_type != "albert")
