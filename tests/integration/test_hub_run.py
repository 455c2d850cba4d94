"""`harness run` and `harness predict` on models and datasets of the hub, from the stand-in, as a user starts them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hub_sessions import ROOT, environment

from harness.store.record_files import load_records
from tests.hub_stand_in import TOKEN, HubStandIn

HARNESS = [sys.executable, "-m", "harness"]


@pytest.fixture(scope="module")
def hub(tiny_bert, reviews):
    hub = HubStandIn()
    model = {path.name: path.read_bytes() for path in tiny_bert.iterdir()}
    hub.add("models", "tiny/bert", {**model, "README.md": b"---\nlicense: mit\n---\n"}, access="gated")
    hub.add("datasets", "tiny/reviews", {"train.csv": reviews.read_bytes()}, ref="v1")
    yield hub
    hub.close()


def harness(hub, home, *arguments, **changes):
    done = subprocess.run(
        [*HARNESS, *map(str, arguments)], env=environment(hub, home, **changes), stdin=subprocess.DEVNULL,
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr and TOKEN not in done.stdout + done.stderr, done.stderr
    return done


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "hub.toml"
    path.write_text(
        'baselines = false\n[model]\nname = "tiny/bert"\n[data]\nsource = "tiny/reviews@v1"\n'
        "num_train = 64\nnum_val = 32\nnum_test = 32\n[training]\nmax_steps = 2\nkeep_model = true\n"
        "[matrix]\nseq_len = [24]\nthreads = [1]\n"
    )
    return path


def test_a_run_records_the_commits_and_offline_runs_again_from_the_cache(hub, study, tmp_path):
    results, home = tmp_path / "results", tmp_path / "hub"
    online = harness(hub, home, "run", study, "--results", results, HF_TOKEN=TOKEN)
    assert online.returncode == 0, online.stderr
    with hub.watch() as requests:
        offline = harness(hub, home, "run", study, "--results", results, "--force", "--offline", HF_TOKEN=TOKEN)
    assert offline.returncode == 0, offline.stderr
    assert requests == []
    (model,) = hub.repos["models", "tiny/bert"].commits
    (data,) = hub.repos["datasets", "tiny/reviews"].commits
    records = load_records([results]).records
    assert [record.outcome for record in records] == ["ok", "ok"]
    for record in records:
        assert (record.model.origin, record.model.name) == ("hub", "tiny/bert")
        assert record.model.hub.model_dump() == {
            "repo": "tiny/bert",
            "revision": "main",
            "commit": model,
            "config": None,
        }
        assert record.data.hub["source"].model_dump() == {
            "repo": "tiny/reviews", "revision": "v1", "commit": data, "config": "default",
        }  # fmt: skip
        assert (record.data.source, record.data.sha256) == ("tiny/reviews@v1", None)
    assert records[0].data.train == records[1].data.train
    for done in (online, offline):
        assert f"tiny/bert: commit {model} (revision main)" in done.stdout.splitlines()
        assert f"tiny/reviews:default: commit {data} (revision v1)" in done.stdout.splitlines()
    (card, *_) = results.rglob("README.md")
    assert 'license: "mit"' in card.read_text() and 'base_model: "tiny/bert"' in card.read_text()
    written = [path for path in results.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]


def test_a_fault_ends_with_status_2_and_one_line(hub, reviews, tmp_path):
    done = harness(hub, tmp_path / "hub", "predict", "tiny/bert", reviews, "-o", tmp_path / "out.csv")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model 'tiny/bert': it is gated: accept its terms at 127.0.0.1:")
