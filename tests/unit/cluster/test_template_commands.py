"""The commands in the files that start a cluster: bash reads them, and a stand-in for `ray` is started by them."""

from __future__ import annotations

import re
import subprocess

import pytest

from harness import __version__
from tests.unit.cluster.template_texts import EVERY, config_of, text_of


def every_command(config: dict) -> list[str]:
    return [command for key, value in config.items() if key.endswith("commands") for command in value]


@pytest.mark.parametrize("on", EVERY)
@pytest.mark.parametrize("is_checkout", [True, False])
def test_every_command_is_bash(on, is_checkout, monkeypatch):
    monkeypatch.setattr("harness.cluster.templates.is_checkout", lambda: is_checkout)
    text, config = text_of(on), config_of(on)
    commands = [config["setup"], config["run"]] if on == "skypilot" else every_command(config)
    header = [line[4:] for line in text.splitlines() if line.startswith("#   ") and not re.search("USD an hour", line)]
    for command in [*commands, "\n".join(header)]:
        subprocess.run(["bash", "-n", "-c", command], check=True, capture_output=True)
    assert ("pip wheel" in text) == is_checkout
    assert (f"bert-cost-harness[train,cluster]=={__version__}" in text) != is_checkout
    assert ("@ file://$HOME/dist/bert_cost_harness-" in text) == is_checkout


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a `ray` that prints its arguments and the authentication it was started with."""
    script = tmp_path / "harness-env" / "bin" / "ray"
    script.parent.mkdir(parents=True)
    script.write_text('#!/bin/sh\necho "$RAY_AUTH_MODE ${OMP_NUM_THREADS-unset}: $*"\n')
    script.chmod(0o755)
    for name, value in {"HOME": tmp_path, "OMP_NUM_THREADS": "1", "RAY_HEAD_IP": "10.0.0.5", "MAX_HOURS": "1"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize("on", EVERY)
@pytest.mark.parametrize("head", ["", "10.0.0.5"])
def test_ray_starts_with_the_token_only(on, head, home, monkeypatch):
    config = config_of(on)
    monkeypatch.setenv("HEAD", head)
    monkeypatch.setenv("MACHINE", "g5.xlarge")
    monkeypatch.setenv("RAY_RAYLET_PID", "7")  # SkyPilot's own Ray
    command = config["run"] if on == "skypilot" else config[f"{'worker' if head else 'head'}_start_ray_commands"][-1]
    without = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "start" not in without.stdout
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert token.stat().st_mode & 0o777 == 0o600
    assert done.stdout.startswith("token unset: start ")
    assert ("--address=10.0.0.5:6379" in done.stdout) == bool(head)
    assert ("--head" in done.stdout) != bool(head)
    assert "secret" not in done.stdout + done.stderr


def test_a_node_shuts_down_when_the_head_does(home):
    """The head writes when it ends; a node that comes an hour later gets the file, and has an hour less."""
    (home / "harness-env" / "bin" / "sudo").write_text('#!/bin/sh\necho "$*"\n')
    (home / "harness-env" / "bin" / "sudo").chmod(0o755)
    first_two = "\n".join(config_of("aws", max_hours=3)["setup_commands"][:2])
    head = subprocess.run(["bash", "-c", first_two], capture_output=True, text=True, check=True).stdout
    assert head in ("shutdown -h +180\n", "shutdown -h +179\n")
    ends_at = home / "ends-at"
    ends_at.write_text(str(int(ends_at.read_text()) - 3600))
    node = subprocess.run(["bash", "-c", first_two], capture_output=True, text=True, check=True).stdout
    assert node in ("shutdown -h +120\n", "shutdown -h +119\n")
