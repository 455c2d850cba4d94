"""Names, addresses and secrets are removed from text that goes into a record."""

from __future__ import annotations

import getpass
import platform
import sys
import tempfile
from pathlib import Path

import pytest

from harness.machine.scrub import scrub, scrubbed_tail


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"{Path.home()}/models/x", "~/models/x"),
        (f"open {Path.cwd()}/harness/x.py", "open ./harness/x.py"),
        (f"{tempfile.gettempdir()}/pytest-1/x", "$TMP/pytest-1/x"),
        (
            f'File "{sys.prefix}/lib/python3.11/site-packages/torch/nn/modules/module.py"',
            'File "$VENV/lib/python3.11/site-packages/torch/nn/modules/module.py"',
        ),
        ("/home/alice/x and /Users/Bob/y", "/home/.../x and /Users/.../y"),
        ("C:\\Users\\Carol\\x", "C:\\Users\\...\\x"),
        ("401 for hf_abcdefghijKLMNOP", "401 for [token]"),
        ("sk-proj-0123456789abcdef ghp_0123456789abcdef AKIAIOSFODNN7EXAMPLE", "[token] [token] [token]"),
        ("token=short", "token=[secret]"),
        ("PASSWORD: hunter2", "PASSWORD: [secret]"),
        ("api-key = abc", "api-key = [secret]"),
        ("a" * 45, "[long string]"),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1234", "[long string]"),
        ("connect to 10.1.22.3:8080", "connect to [address]:8080"),
        ("[fe80::1ff:fe23:4567:890a]", "[[address]]"),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334 on 02:42:ac:11:00:02", "[address] on [address]"),
        ("at 12:30:45 c10::Error in at::native", "at 12:30:45 c10::Error in at::native"),
        (
            "transformers/models/distilbert/modeling_distilbert.py:12",
            "transformers/models/distilbert/modeling_distilbert.py:12",
        ),
        ("loss 0.1234567890123456 after 3.5.1 steps", "loss 0.1234567890123456 after 3.5.1 steps"),
    ],
)
def test_private_names_and_secrets_are_replaced_and_the_rest_stays(text, clean, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "")
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    assert scrub(text) == clean


def test_host_and_user_are_replaced_as_whole_words(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "box.lab")
    monkeypatch.setattr(getpass, "getuser", lambda: "dora")
    assert scrub("dora@box.lab: doradora boxelab") == "[user]@[host]: doradora boxelab"


def test_a_user_without_a_name_is_no_error(monkeypatch):
    def nameless():
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert scrub("plain") == "plain"


def test_a_tail_has_the_last_lines_shortened_and_scrubbed(tmp_path):
    log = tmp_path / "rank0.log"
    log.write_bytes(b"\n".join([b"first", *[b"line \xff %d" % i for i in range(19)], b"x " * 600 + b"10.0.0.1"]))
    tail = scrubbed_tail(log)
    assert len(tail) == 20
    assert tail[0].startswith("line")
    assert len(tail[-1]) == 500
    assert scrubbed_tail(tmp_path / "none.log") == ()
