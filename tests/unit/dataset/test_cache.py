"""The cache of large data: private, verified, and not used for small data."""

from __future__ import annotations

import csv
import json
import stat

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.dataset.arrow_texts import BATCH_ROWS, ArrowTextColumn
from harness.dataset.cache import Cache
from harness.dataset.corpus import load_corpus, load_texts, write_texts
from harness.dataset.rows import read_rows
from harness.dataset.sources import locate_model
from harness.dataset.tokens import load_tokens, tokenize
from harness.schema.settings import PACKAGED_MODEL, DataSettings

NUM_ROWS = BATCH_ROWS + 2_500


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("harness.dataset.row_collector.LARGE_ROWS", 6_000)
    return Cache()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        rows = [(f"row {i} né", f"and {i}", "good" if i % 3 else "bad") for i in range(NUM_ROWS)]
        csv.writer(file).writerows([("text", "second", "label"), *rows, rows[7]])
    return path


@pytest.fixture(scope="module")
def packaged():
    return locate_model(PACKAGED_MODEL, weights=False)


def settings(source, **changes):
    return DataSettings(**{"source": str(source), "num_train": 300, "num_val": 40, "num_test": 50} | changes)


def test_large_data_on_disk_has_the_same_rows_as_in_memory(cache, source, monkeypatch):
    large = read_rows(settings(source, pair="second"))
    assert isinstance(large.texts, ArrowTextColumn) and isinstance(large.pairs, ArrowTextColumn)
    in_memory = list(large.texts), list(large.pairs), large.labels.tolist(), large.label_names, large.facts
    monkeypatch.setattr("harness.dataset.row_collector.LARGE_ROWS", 10**9)
    cache.clear()
    small = read_rows(settings(source, pair="second"))
    assert isinstance(small.texts, list) and small.cache_key is None
    assert in_memory == (small.texts, small.pairs, small.labels.tolist(), small.label_names, small.facts)


def test_rows_are_read_once_and_then_found_in_the_cache(cache, source, monkeypatch):
    first = read_rows(settings(source, pair="second"))
    monkeypatch.setattr("harness.dataset.rows.RowCollector.read", None)  # reading the file again would fail
    again = read_rows(settings(source, pair="second", num_train=100, seed=3))
    assert list(again.texts) == list(first.texts) and list(again.pairs) == list(first.pairs)
    assert np.array_equal(again.labels, first.labels) and again.facts == first.facts
    assert first.facts.num_duplicates_dropped == 1 and len(first.texts) == NUM_ROWS
    rows = np.array([NUM_ROWS - 1, 0, BATCH_ROWS, 5, BATCH_ROWS - 1])
    assert [int(text.split()[1]) for text in first.take(rows)[0]] == rows.tolist()
    assert (first.texts[3], list(first.texts[2:4])) == ("row 3 né", ["row 2 né", "row 3 né"])


def test_the_same_rows_are_drawn_and_tokenised_with_and_without_cache(cache, source, packaged, tmp_path, monkeypatch):
    chosen = settings(source, pair="second")
    large = load_corpus(chosen)
    done = [tokenize(large, packaged, 16, tmp_path / "none", store_texts=True) for _ in range(2)]
    assert not (tmp_path / "none").exists()
    assert [each.facts.tokens_were_kept for each in done] == [False, True]
    assert done[0].tokenise_s == done[1].tokenise_s and done[0].example == done[1].example
    assert cache.root in done[0].folder.parents
    write_texts(large, tmp_path / "laid")
    monkeypatch.setattr("harness.dataset.row_collector.LARGE_ROWS", 10**9)
    monkeypatch.setattr("harness.dataset.rows.Cache.find", lambda *_: None)
    small = load_corpus(chosen)
    assert small.cache_key is None
    write_texts(small, tmp_path / "small-laid")
    tokenize(small, packaged, 16, tmp_path / "small", store_texts=True)
    for name in ("train", "val", "test"):
        # The same rows; those on disk are in file order.
        order = np.argsort([int(text.split()[1]) for text in small.texts[name]])
        assert list(large.texts[name]) == [small.texts[name][row] for row in order]
        mapped, in_memory = load_tokens(done[0].folder, name, mmap_above_bytes=0), load_tokens(tmp_path / "small", name)
        assert np.array_equal(mapped.lengths, in_memory.lengths[order])
        assert np.array_equal(mapped.first_segment_lengths, in_memory.first_segment_lengths[order]) and np.array_equal(
            mapped.labels, in_memory.labels[order]
        )
        for row, place in enumerate(order):
            ours, theirs = (
                tokens.ids[tokens.offsets[at] : tokens.offsets[at + 1]]
                for tokens, at in ((mapped, row), (in_memory, place))
            )
            assert ours.tolist() == theirs.tolist()
        texts, labels = load_texts(tmp_path / "laid", name)
        others, other_labels = load_texts(tmp_path / "small-laid", name)
        assert list(texts) == [list(others)[row] for row in order]
        assert np.array_equal(labels, other_labels[order])
        first = next(iter(texts))
        assert first == f"row {first.split()[1]} né and {first.split()[1]}"


def test_other_files_settings_and_lengths_have_their_own_entries(cache, source, packaged, tmp_path):
    corpus = load_corpus(settings(source))
    tokenize(corpus, packaged, 16, tmp_path, store_texts=True)
    assert len(cache.entries()) == 2
    tokenize(corpus, packaged, 8, tmp_path, store_texts=True)
    tokenize(load_corpus(settings(source, seed=1)), packaged, 8, tmp_path, store_texts=True)
    assert len(cache.entries()) == 4
    with source.open("a") as file:
        file.write("one more,row,good\n")
    assert len(read_rows(settings(source)).texts) == NUM_ROWS + 1
    assert len(cache.entries()) == 5


def test_a_damaged_entry_is_made_again(cache, source):
    first = read_rows(settings(source))
    (entry,) = cache.entries()
    texts_file = entry.folder / "texts.arrow"
    raw = bytearray(texts_file.read_bytes())
    raw[len(raw) // 2] ^= 1
    texts_file.write_bytes(bytes(raw))
    assert cache.find(first.cache_key) is None and not entry.folder.exists()
    again = read_rows(settings(source))
    assert len(list(again.texts)) == NUM_ROWS
    (entry.folder / "labels.npy").unlink()
    assert cache.find(first.cache_key) is None


def test_the_folder_is_private_and_failed_reads_leave_nothing(cache, source):
    with pytest.raises(Exception, match="no column 'words'"):
        read_rows(settings(source, text="words"))
    with source.open("a") as file:
        file.write("no label,at all,\n")
    with pytest.raises(Exception, match="missing label: 1"):
        read_rows(settings(source))
    assert cache.entries() == []
    read_rows(settings(source, on_bad_row="skip"))
    (entry,) = cache.entries()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cache.root, entry.folder)} == {0o700}
    assert entry.num_bytes == sum(path.stat().st_size for path in entry.folder.iterdir())


def test_two_runs_that_commit_the_same_key_keep_one_entry(cache):
    folders = [cache.create_staging_folder(), cache.create_staging_folder()]
    for folder in folders:
        (folder / "a").write_text("the same")
    assert (
        cache.commit(folders[0], "key", "numbers") == cache.commit(folders[1], "key", "numbers") == cache.root / "key"
    )
    assert [entry.description for entry in cache.entries()] == ["numbers"]


def test_small_data_is_not_cached(cache, monkeypatch, source):
    monkeypatch.setattr("harness.dataset.row_collector.LARGE_ROWS", 10**9)
    load_corpus(settings(source))
    assert not cache.root.exists()


def test_the_command_lists_and_clears_entries(cache, source):
    cli = CliRunner()
    assert "0 entries, 0.0 MiB" in cli.invoke(app, ["cache", "list"]).output
    read_rows(settings(source))
    shown = cli.invoke(app, ["cache", "list"], env={"COLUMNS": "200"}).output
    assert f"own.csv: {NUM_ROWS:,} rows" in shown and "1 entries" in shown
    listing = json.loads(cli.invoke(app, ["cache", "list", "--json"]).output)
    assert listing["num_bytes"] == cache.entries()[0].num_bytes > 0
    assert "1 entries" in cli.invoke(app, ["cache", "clear"]).output
    assert cache.entries() == []
    assert cli.invoke(app, ["cache", "burn"]).exit_code == 2
