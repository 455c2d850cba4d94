from __future__ import annotations

import pytest

from harness.dataset.hub import HubId, is_offline, parse_hub_id
from harness.dataset.hub_errors import explain, hub_host, one_line


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("gpt2", ("gpt2", None, "main")),
        ("google-bert/bert-base-uncased", ("google-bert/bert-base-uncased", None, "main")),
        ("nyu-mll/glue:sst2", ("nyu-mll/glue", "sst2", "main")),
        ("a/b@refs/pr/12", ("a/b", None, "refs/pr/12")),
        ("a/b.c_d:x-y z@v1.0", ("a/b.c_d", "x-y z", "v1.0")),
    ],
)
def test_a_hub_id_has_a_config_and_a_revision(name, parts):
    assert parse_hub_id(name) == HubId(*parts)


@pytest.mark.parametrize(
    "name", ["a/b/c", "./a", "/a/b", "~/a", "a/b@", "a/b@../../x", "a/b@x y", "a b", "", "a/b:c:d"]
)
def test_other_names_are_no_hub_ids(name):
    assert parse_hub_id(name) is None


def test_the_variables_of_the_hubs_libraries_say_offline(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
        assert not is_offline()
        monkeypatch.setenv(name, "0")
        assert not is_offline()
        monkeypatch.setenv(name, "yes")
        assert is_offline()


def test_the_host_is_shown_without_credentials(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@hub.example.com:8443/x")
    assert hub_host() == "hub.example.com:8443"
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub_host() == "huggingface.co"


class ProxyError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "clause"),
    [
        (ProxyError("503"), "no way through the proxy: check HTTPS_PROXY and NO_PROXY"),
        (
            ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"),
            "the certificate of hub.example.com is",
        ),
        (
            OSError(28, "No space left on device"),
            "no space left for the hub's cache: set HF_HOME to a folder with more",
        ),
        (OSError("Consistency check failed: file should be of size 9"), "the transfer broke off: run again"),
        (
            TimeoutError("timed out"),
            "no answer from hub.example.com: check the network (HF_HUB_OFFLINE=1 asks nothing and",
        ),
    ],
)
def test_errors_without_an_answer_say_what_to_check(monkeypatch, error, clause):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.com")
    assert explain(error, kind="model", page="a/b", revision="main").startswith(clause)


def test_an_unknown_error_is_its_first_line_without_tokens():
    error = ValueError("\n  token hf_AbC123 is odd\nmore")
    assert one_line(error) == "ValueError: token hf_... is odd"
