"""Models of the hub, from the stand-in: what arrives, what is asked again, and one line for every fault."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
from hub_sessions import ask, model, tokenizer

from tests.hub_stand_in import TOKEN, Fault, HubStandIn

WEIGHTS = "model.safetensors"
MIB = 2**20


def with_note(weights: bytes, note: str) -> bytes:
    """Return a safetensors file with the same tensors and another hash."""
    length = int.from_bytes(weights[:8], "little")
    header = json.dumps(json.loads(weights[8 : 8 + length]) | {"__metadata__": {"format": "pt", "note": note}}).encode()
    return struct.pack("<Q", len(header)) + header + weights[8 + length :]


def shards(folder, tmp_path) -> dict[str, bytes]:
    from transformers import BertForSequenceClassification

    BertForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="2MB")
    return {path.name: path.read_bytes() for path in tmp_path.iterdir() if WEIGHTS.split(".")[0] in path.name}


@pytest.fixture(scope="module")
def files(tiny_bert):
    return {path.name: path.read_bytes() for path in tiny_bert.iterdir()}


@pytest.fixture(scope="module")
def hub(files, tiny_bert, tmp_path_factory):
    hub = HubStandIn()
    weights, config = files[WEIGHTS], json.loads(files["config.json"])
    without = {name: data for name, data in files.items() if name != WEIGHTS}

    def add(name, changes=(), base=files, **options):
        return hub.add("models", f"tiny/{name}", {**base, **dict(changes)}, **options)

    def configured(**fields):
        changed = {name: value for name, value in {**config, **fields}.items() if value is not None}
        return {"config.json": json.dumps(changed).encode()}

    add("bert", {"README.md": b"---\nlicense: mit\n---\n"})
    add("bert", configured(note="older"), ref="v1")
    add("shards", shards(tiny_bert, tmp_path_factory.mktemp("shards")), without)
    add("pickle", {"pytorch_model.bin": b"pickle"}, without)
    add("gguf", {"model.gguf": b"GGUF"}, {})
    for access in ("gated", "refused", "private"):
        add(access, access=access)
    add("own-code", {**configured(auto_map={"AutoModel": "code.Model"}), "code.py": b"import os; os._exit(9)"})
    add("own-tokenizer", {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["code.T", null]}}'})
    add("no-type", configured(model_type=None))
    add("half-config", {"config.json": files["config.json"][:40]})
    add("half-tokenizer", {"tokenizer.json": files["tokenizer.json"][:1000]})
    add("truncated", {WEIGHTS: weights[:-100]})
    for name, fault in {
        "limited": Fault(429, headers={"Retry-After": "77"}),
        "quota": Fault(429, headers={"RateLimit": '"api";r=0;t=55'}),
        "down": Fault(503),
        "forbidden": Fault(403),
        "sign-in": Fault(200),
    }.items():
        add(name)
        hub.fail(f"models/tiny/{name}/", fault)
    add("silent")
    hub.fail("models/tiny/silent/", Fault(hangs=True))
    # The client writes in pieces of 10 MiB, and resumes after the last one.
    long = with_note(weights, "resumed" + " " * 11 * MIB)
    for name, changed, fault in (
        ("resumed", long, Fault(num_bytes=len(long) - 100, times=1)),
        ("reset", with_note(weights, "reset"), Fault(num_bytes=50_000, reset=True)),
    ):
        add(name, {WEIGHTS: changed})
        hub.fail(hashlib.sha256(changed).hexdigest(), fault)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folder of the caches that `first` fills."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def first(hub, home):
    """What a first process got: the requests, and the answers by name."""
    names = ["bert", "bert@v1", "shards", "resumed", *FAULTS]
    with hub.watch() as requests:
        answers = ask(hub, home, *(model(f"tiny/{name}") for name in names), tokenizer("tiny/half-tokenizer"))
    return requests, dict(zip([*names, "half-tokenizer"], answers, strict=True))


FAULTS = {
    "bert@v2": "the hub has no revision 'v2' of it: check the branch, tag or commit after @",
    "nobody": "the hub has no such model, or it is private: check the name; for a private one, set HF_TOKEN to a token that "
    "may read it",
    "private": "the hub has no such model, or it is private: check the name",
    "gated": "it is gated: accept its terms at 127.0.0.1:PORT/tiny/gated, then set HF_TOKEN to a token of that account",
    "limited": "the hub limits requests (HTTP 429): run again in 77 s, or set HF_TOKEN",
    "quota": "the hub limits requests (HTTP 429): run again in 55 s, or set HF_TOKEN",
    "down": "the hub failed (HTTP 503): run again later; or use the packaged default (model.name = 'all-MiniLM-L6-v2')",
    "forbidden": "the hub refuses access (HTTP 403): check what the token of HF_TOKEN may read",
    "sign-in": "127.0.0.1:PORT answers unlike the hub: check HF_ENDPOINT, the proxy, and whether the network wants a sign-in",
    "reset": "the transfer broke off: run again",
    "pickle": "no model.safetensors but pytorch_model.bin, which can run code when it is read and is not loaded: name a "
    "revision with safetensors (the hub's bot offers one as @refs/pr/N), or convert it: "
    "https://huggingface.co/spaces/safetensors/convert",
    "gguf": "no config.json, so it is no model of transformers: use another one",
    "own-code": "it needs code of its own (auto_map in config.json), which is never run here; use a model whose architecture "
    "is in transformers",
    "own-tokenizer": "it needs code of its own (auto_map in tokenizer_config.json), which is never run here",
    "no-type": 'config.json names no model_type: add it (for BERT, "model_type": "bert"), or use another model',
    "half-config": "config.json is damaged (JSONDecodeError): delete models--tiny--half-config from the hub's cache and run",
    "truncated": "model.safetensors is damaged: 4,050,068 bytes of 4,050,168: delete models--tiny--truncated from the hub's",
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_one_line_that_says_what_to_do(first, hub, name):
    """Each was `can't be downloaded from the hub: <exception's name>`, or a crash once the cell had begun.

    `own-code` was trained as an ordinary BERT, which it is not, with outcome `ok`.
    """
    error = first[1][name]["error"]
    expected = FAULTS[name].replace("PORT", hub.endpoint.rsplit(":", 1)[1])
    assert error.startswith(f"model 'tiny/{name}': {expected}")
    assert "\n" not in error and "  " not in error


def test_a_damaged_tokenizer_is_one_line(first):
    """It was a traceback of the tokenizers library."""
    error = first[1]["half-tokenizer"]["error"]
    assert error.startswith("model 'tiny/half-tokenizer': tokenizer.json is damaged (EOF while parsing")
    assert error.endswith("): get it again")


def test_a_model_arrives_with_its_commit(first, hub, files):
    requests, answers = first
    refs = hub.repos["models", "tiny/bert"].refs
    for name, revision in (("bert", "main"), ("bert@v1", "v1")):
        answer = answers[name]
        assert answer["origin"] == "hub"
        assert answer["hub"] == {"repo": "tiny/bert", "revision": revision, "commit": refs[revision], "config": None}
        assert answer["sha256"] == hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert answers["bert"]["files"] == ["README.md", "config.json", WEIGHTS, "tokenizer.json"]
    assert {request.host for request in requests} == {"hub", "storage"}


def test_shards_are_one_model(first, hub):
    (files,) = hub.repos["models", "tiny/shards"].commits.values()
    names = sorted(name for name in files if name.endswith(".safetensors"))
    assert len(names) > 1
    hashes = [hashlib.sha256(files[name]).hexdigest() for name in names]
    assert first[1]["shards"]["sha256"] == hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def test_a_transfer_that_breaks_off_once_is_resumed(first, hub):
    (files,) = hub.repos["models", "tiny/resumed"].commits.values()
    sha256 = hashlib.sha256(files[WEIGHTS]).hexdigest()
    assert first[1]["resumed"]["sha256"] == sha256
    assert [request.range for request in first[0] if sha256 in request.path] == [None, f"bytes={10 * MIB}-"]


def test_neither_code_nor_pickles_are_downloaded_and_no_weights_of_a_model_that_needs_code(first, hub):
    downloads = [request.path.split("?")[0] for request in first[0] if request.is_download]
    assert not [path for path in downloads if path.endswith((".py", ".bin", ".gguf"))]
    # `own-code` has the weights of `bert`, whose two commits asked for them once: the cache keeps each content once.
    assert not [path for path in downloads if "own-code" in path and path.endswith(WEIGHTS)]


def test_a_second_process_asks_for_the_commit_alone(first, hub, home):
    with hub.watch() as requests:
        (answer,) = ask(hub, home, model("tiny/bert"))
    assert answer == first[1]["bert"]
    asked = [request.path for request in requests if "agent" not in request.path]  # the client's telemetry
    assert asked == ["/api/models/tiny/bert/revision/main"]


def test_offline_nothing_is_asked(first, hub, home):
    with hub.watch() as requests:
        cached, tagged, unknown, revision = ask(
            hub, home, model("tiny/bert"), model("tiny/bert@v1"), model("tiny/nobody"), model("tiny/bert@v2"),
            HF_HUB_OFFLINE="1",
        )  # fmt: skip
    assert requests == []
    assert (cached, tagged) == (first[1]["bert"], first[1]["bert@v1"])
    assert unknown["error"] == (
        "model 'tiny/nobody': offline (--offline or HF_HUB_OFFLINE), and not in the hub's cache: run once with a network, "
        "or use the packaged default (model.name = 'all-MiniLM-L6-v2') or a local folder"
    )
    assert "not in the hub's cache at revision 'v2'" in revision["error"]


def test_without_a_network_the_cache_serves_and_else_one_line_says_how_to_go_offline(first, hub, home):
    nowhere = "http://user:hf_secret@127.0.0.1:9"
    cached, unknown = ask(hub, home, model("tiny/bert"), model("tiny/nobody"), HF_ENDPOINT=nowhere)
    assert cached == first[1]["bert"]
    assert unknown["error"].startswith(
        "model 'tiny/nobody': no answer from 127.0.0.1:9: check the network (HF_HUB_OFFLINE=1 asks nothing and takes what "
        "the hub's cache has); or use the packaged default"
    )


def test_a_hub_that_never_answers_is_waited_for_only_as_long_as_the_users_time_out(hub, tmp_path):
    """huggingface_hub itself asks for a commit without any time-out."""
    (answer,) = ask(hub, tmp_path, model("tiny/silent"), HF_HUB_ETAG_TIMEOUT="1")
    host = hub.endpoint.removeprefix("http://")
    assert answer["error"].startswith(f"model 'tiny/silent': no answer from {host}: check the network")


def test_a_token_opens_gated_models_and_goes_to_no_other_host(hub, tmp_path):
    with hub.watch() as requests:
        gated, private, refused, unknown = ask(
            hub,
            tmp_path,
            *(model(f"tiny/{name}") for name in ("gated", "private", "refused", "nobody")),
            HF_TOKEN=TOKEN,
        )
    assert gated["origin"] == private["origin"] == "hub"
    assert refused["error"].endswith("(the hub does not let in the present token's account)")
    assert "the hub has no such model" in unknown["error"]
    authorizations = {request.authorization for request in requests if request.host == "storage"}
    assert authorizations == {None}
    assert f"Bearer {TOKEN}" in {request.authorization for request in requests}


def test_a_token_that_is_refused_is_named_as_the_reason(hub, tmp_path):
    (answer,) = ask(hub, tmp_path, model("tiny/bert"), HF_TOKEN="hf_expired")
    assert (
        answer["error"] == "model 'tiny/bert': the hub refuses the token: renew or unset HF_TOKEN (or `hf auth login`)"
    )


def test_an_endpoint_that_is_no_hub_is_named_as_the_reason(hub, tmp_path):
    """Reported as a misleading "check your connection" for mirrors that answer without the hub's headers."""
    hub.without_commits = True
    try:
        (answer,) = ask(hub, tmp_path, model("tiny/bert"))
    finally:
        hub.without_commits = False
    host = hub.endpoint.removeprefix("http://")
    assert answer["error"] == (
        f"model 'tiny/bert': {host} answers without the hub's headers: check HF_ENDPOINT, which must name a hub"
    )
