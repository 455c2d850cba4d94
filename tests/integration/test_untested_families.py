"""An architecture in no tested family runs only if padded batches give what its own forward pass gives, text by text."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from encoders import texts, write_encoder

from harness.dataset.text_stream import TextWindow
from harness.errors import UserError
from harness.schema.predict_job import PredictJob
from harness.worker.predictor import Predictor


@pytest.fixture(scope="module")
def ernie(tmp_path_factory):
    """BERT under a name that no table has."""
    return write_encoder(tmp_path_factory.mktemp("untested") / "ernie", "ernie")


@pytest.fixture(scope="module")
def xlnet(tmp_path_factory):
    """An architecture with positions of its own: padding on the right shifts them."""
    return write_encoder(tmp_path_factory.mktemp("untested") / "xlnet", "xlnet")


def run(bench, folder, reviews, **raw):
    data = {"source": str(reviews), "num_train": 64, "num_val": 16, "num_test": 16}
    matrix = {"seq_len": [24], "threads": [1]} | raw.pop("matrix", {})
    return bench.run(
        model={"name": str(folder)} | raw.pop("model", {}), data=data, training={"max_steps": 2}, matrix=matrix, **raw
    )


def test_one_that_gives_equal_logits_runs_as_not_tested(bench, ernie, reviews):
    record = run(bench, ernie, reviews)
    assert record.outcome == "ok", record.stderr_tail
    assert (record.model.family, record.model.weights.head) == ("not tested", "kept")
    assert record.model.attention_dropout is None


@pytest.mark.parametrize(
    ("raw", "refused"),
    [
        ({"matrix": {"trainable": ["top1"]}}, "top1"),
        ({"model": {"attention_dropout": 0.0}}, "model.attention_dropout"),
        ({"model": {"hidden_dropout": 0.0, "num_layers": 1}}, "model.num_layers and model.hidden_dropout"),
    ],
)
def test_settings_that_need_the_table_are_refused(raw, refused, bench, ernie, reviews):
    record = run(bench, ernie, reviews, **raw)
    assert record.outcome == "unsupported"
    assert record.reason.startswith(
        f"{refused}: not known for the architecture 'ernie', which was never tested; it trains without"
    )


def test_one_whose_logits_differ_is_unsupported(bench, xlnet, reviews):
    """XLNet crashed, with a message that was cut off before its cure."""
    record = run(bench, xlnet, reviews)
    assert record.outcome == "unsupported", record.stderr_tail
    assert "'xlnet' was never tested, and in a padded batch its logits differ by up to" in record.reason
    assert record.reason.endswith("MPNet, DeBERTa and ModernBERT")


def test_predict_compares_too(ernie, xlnet):
    def predict(folder):
        job = PredictJob(
            model=str(folder), file="x.csv", out="y.csv", text=("text",), seq_len=64, threads=1, batch_size=8
        )
        window = TextWindow(0, texts(20, 20), None, pa.table({}))
        with torch.inference_mode():
            return Predictor(job).predict(window)[0]

    assert predict(ernie).num_rows == 20
    with pytest.raises(UserError, match="'xlnet' was never tested, and in a padded batch its logits differ"):
        predict(xlnet)
