"""Records: JSON round trip, older schema versions, derived figures."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.schema.cells import hash_config
from harness.schema.record import SCHEMA_VERSION, Outcome, Record, to_json, upgrade_record
from harness.schema.scores import accuracy, macro_f1
from harness.store.record_files import load_record
from tests.unit.frozen import RECORDS

FROZEN = sorted(RECORDS.glob("v*/*.json"))


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_frozen_record_loads_with_the_outcome_in_its_name(path):
    record = load_record(path)
    assert record.outcome == ("ok" if path.stem in ("baseline", "features", "nodes") else path.stem)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_every_outcome_has_a_frozen_record_in_each_version(version):
    names = {path.stem for path in (RECORDS / f"v{version}").glob("*.json")}
    assert set(get_args(Outcome)) <= names


@pytest.mark.parametrize("version", [1, 2])
def test_fields_missing_in_older_versions_are_none(version):
    for path in (RECORDS / f"v{version}").glob("*.json"):
        assert "detected" not in json.loads(path.read_text(encoding="utf-8"))
        assert load_record(path).detected is None


def test_a_record_of_two_machines_has_both_and_their_network():
    record = load_record(RECORDS / "v6" / "nodes.json")
    assert (record.num_nodes, len(record.machines), record.training.world_size) == (2, 2, 2)
    assert [node.num_ranks for node in record.nodes] == [1, 1]
    sizes = [times.num_bytes for times in record.training.network.all_reduce]
    assert sizes == sorted(sizes) and sizes[0] == 64 * 2**10
    fields = record.model_dump(mode="json")
    for nodes in (fields["nodes"][:1], [fields["nodes"][0] | {"num_ranks": 2}, fields["nodes"][1]]):
        with pytest.raises(ValidationError, match="nodes of 2"):
            upgrade_record(fields | {"nodes": nodes})


@pytest.mark.parametrize("version", range(1, 6))
def test_records_of_older_versions_are_of_one_machine(version):
    record = load_record(RECORDS / f"v{version}" / "ok.json")
    assert (record.nodes, record.num_nodes, record.machines) == ((), 1, (record.machine,))
    assert record.training.network is None


@pytest.mark.parametrize("version", range(1, 5))
def test_baselines_of_older_versions_chose_no_layer(version):
    record = load_record(RECORDS / f"v{version}" / "baseline.json")
    assert record.baseline.features is None and record.model is None
    assert (record.config.model, record.config.seq_len) == (None, None)
    assert record.config_hash == hash_config(record.config)


def test_what_the_baseline_features_chose_is_stored():
    record = load_record(RECORDS / "v5" / "features.json")
    chosen = record.baseline.features
    assert (record.model.architecture, record.model.num_trainable_parameters) == ("BertModel", 0)
    assert len(chosen.val_accuracies) == record.model.num_layers + 1
    assert chosen.layer_accuracies[chosen.layer] == max(chosen.layer_accuracies) == record.baseline.val_accuracy


def test_the_detected_instance_is_stored():
    detected = load_record(RECORDS / "v3" / "skipped.json").detected
    assert (detected.vendor, detected.instance, detected.region, detected.is_spot) == (
        "aws",
        "m5.xlarge",
        "us-east-1",
        False,
    )


def test_a_record_survives_json(ok_record):
    assert upgrade_record(json.loads(to_json(ok_record))) == ok_record


def test_json_has_sorted_keys_and_each_array_of_numbers_on_one_line(ok_record):
    text = to_json(ok_record)
    fields = json.loads(text)
    assert list(fields) == sorted(fields)
    assert list(fields["training"]["steps"]) == sorted(fields["training"]["steps"])
    samples = " ".join(f"{count}," for count in ok_record.training.steps.num_samples).removesuffix(",")
    assert f'"num_samples": [{samples}]\n' in text or f'"num_samples": [{samples}],\n' in text
    assert text.endswith("}\n")


HOSTILE = [
    "[\n1,\n2\n]",
    '[\\n1\\n]"',
    "\u2028[\u20281\u2028]",
    '"reason": [\n 3\n ]',
    "\x00\x1b[31m",
    "</script>",
    "é 漢 🙂",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_never_reformatted_as_an_array_of_numbers(ok_record, text):
    hostile = ok_record.model_copy(update={"reason": text, "stderr_tail": ((text, text), (text,))})
    assert upgrade_record(json.loads(to_json(hostile))) == hostile


@given(text=st.text())
def test_any_text_survives_json(text):
    hostile = _OK.model_copy(update={"reason": text, "packages": {text: text}})
    assert upgrade_record(json.loads(to_json(hostile))) == hostile


_OK = load_record(RECORDS / "v1" / "ok.json")


def test_nan_is_refused(ok_record):
    with pytest.raises(ValueError, match="JSON"):
        to_json(ok_record.model_copy(update={"duration_s": float("nan")}))


def test_an_unknown_field_is_refused(ok_record):
    with pytest.raises(ValidationError, match="host_name"):
        upgrade_record(json.loads(to_json(ok_record)) | {"host_name": "leak"})


label_pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@settings(deadline=None)  # the first call imports scikit-learn
@given(pairs=label_pairs)
def test_accuracy_and_macro_f1_match_scikit_learn(pairs):
    from sklearn.metrics import accuracy_score, f1_score

    labels, predictions = zip(*pairs, strict=True)
    assert macro_f1(labels, predictions) == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-12)
    assert accuracy(labels, predictions) == pytest.approx(accuracy_score(labels, predictions), abs=1e-12)


def test_macro_f1_by_hand():
    # Class 0: 2 hits, 1 wrong; class 1: 1 hit, 1 wrong. F1 = 4/5 and 2/3.
    assert macro_f1([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_the_counts_of_the_frozen_run_are_consistent(ok_record: Record):
    training = ok_record.training
    assert training.world_size == len(training.steps.seconds) == 2
    assert sum(training.steps.num_samples) == ok_record.data.train.num_rows * ok_record.config.training.epochs
    assert all(
        real <= padded
        for real, padded in zip(training.steps.num_real_tokens, training.steps.num_padded_tokens, strict=True)
    )
    assert {peak.rank for peak in training.peak_memory} == {0, 1}
    assert len(training.test.labels) == ok_record.data.test.num_rows
