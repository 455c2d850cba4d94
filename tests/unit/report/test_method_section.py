"""The report's description of the data: known facts only, and what could bias a figure."""

from __future__ import annotations

from types import SimpleNamespace

from harness.report.sections.model_and_data import data_descriptions, model_descriptions
from harness.schema.inputs_record import HubSource, LoadedWeights, SimilarLabels
from harness.schema.training_record import AttentionChoice
from harness.store.record_files import load_record
from tests.unit.frozen import RECORDS


def descriptions(record, **changes):
    record = record.model_copy(update={"data": record.data.model_copy(update=changes)})
    return data_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])


def test_a_baselines_encoder_is_described_only_if_no_cell_trained_it():
    features, trained = (load_record(RECORDS / "v5" / f"{name}.json") for name in ("features", "ok"))
    both, alone = (
        model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=records))])
        for records in ([features, trained], [features])
    )
    assert len(both) == len(alone) == 1
    assert "BertForSequenceClassification" in both[0] and "BertModel" in alone[0]


def test_facts_that_older_records_lack_are_omitted(ok_record):
    (description,) = descriptions(ok_record)
    assert description.endswith("classes.") and "nearly" not in description


def test_unusable_leaked_duplicate_and_rare_rows_are_reported(ok_record):
    data = ok_record.data
    num_rows = data.train.num_rows + data.val.num_rows + data.test.num_rows
    (description,) = descriptions(
        ok_record, bad_rows={"empty text": 1_200, "broken row": 3}, num_leaks_dropped=4, num_conflicting_duplicates=5,
        num_near_duplicates=6, num_near_checked=num_rows, rare_labels=tuple("abcdefg"),
    )  # fmt: skip
    assert description.endswith(
        "Left out as unusable: 1,200 empty text and 3 broken row. 4 rows that also stand in its validation or test file left "
        "out. 5 texts occur under two labels: the first counts. 6 validation and test rows nearly are a training row. "
        "Fewer than 10 training rows each: a, b, c, d and e and 2 more."
    )
    (description,) = descriptions(ok_record, num_near_duplicates=6, num_near_checked=200_000)
    assert description.endswith("nearly are a training row, of a sample of 200,000 rows.")


def test_labels_that_look_alike_are_shown_with_their_rows(ok_record):
    (description,) = descriptions(
        ok_record, similar_labels=(SimilarLabels(kinds=("blanks",), rows={"neg": 120, "neg ": 3}),), null_like_labels={"nan": 12}
    )  # fmt: skip
    assert (
        "Labels that look alike count as classes of their own: 'neg' 120, 'neg ' 3 (blanks). data.clean_labels = true merges "
        "them. A label may stand for a missing one: 'nan' (12 rows). It counts as a class;" in description
    )
    (description,) = descriptions(
        ok_record, similar_labels=(SimilarLabels(kinds=("Unicode normalization",), rows={"né": 2, "ne\u0301": 1}, merged=True),)
    )  # fmt: skip
    assert description.endswith(r"Labels merged by clean_labels: 'n\xe9' 2, 'ne\u0301' 1 (Unicode normalization).")


def test_a_test_file_of_one_label_and_labels_that_are_lists_are_told(ok_record):
    data = ok_record.data
    (description,) = descriptions(
        ok_record, test=data.test.model_copy(update={"majority_fraction": 1.0}), labels=("['a', 'b']", "['a']")
    )
    assert "All test rows have the same label: accuracy on them is that label's recall" in description
    assert """Labels look like lists, as "['a', 'b']": each combination counts as a class of its own""" in description


def test_models_and_datasets_of_the_hub_are_told_with_their_commits(ok_record):
    hub = HubSource(repo="tiny/bert", revision="v1", commit="86b5e0934494bd15c9632b12f734a8a67f723594")
    (description,) = descriptions(ok_record, source="tiny/reviews", hub={"source": hub})
    assert description.startswith("tiny/reviews at commit 86b5e09: ")
    model = ok_record.model.model_copy(update={"name": "tiny/bert@v1", "origin": "hub", "hub": hub})
    record = ok_record.model_copy(update={"model": model})
    (description,) = model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])
    assert description.startswith("tiny/bert@v1, ") and description.endswith(", hub weights of commit 86b5e09.")


def test_what_became_of_a_checkpoint_is_told(ok_record):
    def sentences(**changes):
        model = ok_record.model.model_copy(update={"name": "someone/model", "origin": "local"} | changes)
        record = ok_record.model_copy(update={"model": model})
        (description,) = model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])
        return description.split("local weights.")[1].strip()

    kept = LoadedWeights(
        num_tensors=41, head="kept", num_unused=2, unused=("cls.predictions.bias", "cls.seq_relationship.bias")
    )
    assert sentences() == sentences(family="BERT", weights=kept) == ""
    assert sentences(family="not tested", attention="eager").startswith(
        "Its family was never tested: two batches were compared"
    )
    changed = {"head": "new", "head_reason": "the checkpoint has none", "stripped_prefixes": ("module.",), "num_unused": 16,
               "unused": ("bert.encoder.layer.2.a", "bert.encoder.layer.2.b")}  # fmt: skip
    assert sentences(weights=kept.model_copy(update=changed)) == (
        "A wrapper's prefix was taken off its tensors' names (module.). Its head was made anew (the checkpoint has none). "
        "16 tensors of its file have no place in it: bert.encoder.layer.2.a, bert.encoder.layer.2.b."
    )
    moved = kept.model_copy(
        update={"head": "reordered", "head_reason": "the checkpoint's labels come in the order b, a"}
    )
    assert sentences(weights=moved).startswith(
        "Its head's rows were put in the order of the data's labels (the checkpoint's labels"
    )


def with_choice(record, sdpa_s, eager_s):
    """Return the record of a run that chose its attention by timed steps."""
    choice = AttentionChoice(
        implementation="eager" if sdpa_s >= 1.05 * eager_s else "sdpa",
        seconds={"sdpa": sdpa_s, "eager": eager_s}, num_steps=6, choose_s=3.0,
    )  # fmt: skip
    return record.model_copy(
        update={
            "model": record.model.model_copy(update={"attention": choice.implementation}),
            "training": record.training.model_copy(update={"attention_choice": choice}),
        }
    )


def test_the_attention_that_runs_chose_is_told_once_with_its_speed_up(ok_record):
    def sentences(*seconds):
        records = [with_choice(ok_record, *pair) for pair in seconds]
        model, *attention = model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=records))])
        assert "no fused attention" not in model  # it has one, and the other was faster
        return attention

    assert sentences((1.3, 1.0)) == ["attention: eager, chosen: 1.3 times as fast as sdpa on this study's shapes."]
    assert sentences((1.35, 1.0), (2.4, 2.0), (2.6, 2.0)) == [
        "attention: eager, chosen: 1.2 to 1.4 times as fast as sdpa on this study's shapes (3 runs)."
    ]
    assert sentences((1.0, 2.0), (1.0, 1.0)) == [
        "attention: sdpa, chosen: 1.0 to 2.0 times as fast as eager on this study's shapes (2 runs)."
    ]
    assert sentences((1.0, 1.0)) == ["attention: sdpa, chosen: no clear difference from eager on this study's shapes."]


def test_only_an_architecture_without_sdpa_is_said_to_have_none(ok_record):
    def description(attention):
        settings = ok_record.config.model.model_copy(update={"attention": attention})
        record = ok_record.model_copy(
            update={
                "config": ok_record.config.model_copy(update={"model": settings}),
                "model": ok_record.model.model_copy(update={"attention": "eager"}),
            }
        )
        (sentence,) = model_descriptions([SimpleNamespace(summary=SimpleNamespace(records=[record]))])
        return sentence

    assert ["no fused attention" in description(attention) for attention in (None, "auto", "eager")] == [
        True,
        True,
        False,
    ]
