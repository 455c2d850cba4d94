"""The socket of multiprocessing gets a path that is short enough."""

from __future__ import annotations

import multiprocessing.process
import tempfile

import pytest

from harness.errors import UserError
from harness.execution import socket_folder
from harness.execution.socket_folder import choose_socket_folder


@pytest.fixture
def process_config(monkeypatch):
    """A fresh configuration of multiprocessing, as at the start of a command."""
    config = {}
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", config)
    return config


def use(folder, monkeypatch):
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_a_short_folder_is_kept(process_config, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    choose_socket_folder()
    assert process_config == {}


def test_a_long_folder_is_replaced_for_the_socket_alone(process_config, tmp_path, monkeypatch):
    """A TMPDIR of 112 characters ended every `run` with "OSError: AF_UNIX path too long"."""
    use(tmp_path / ("x" * (111 - len(str(tmp_path)))), monkeypatch)
    long = tempfile.gettempdir()
    choose_socket_folder()
    assert len(process_config["tempdir"]) + len("/listener-") + 8 <= 103
    assert tempfile.gettempdir() == long


def test_without_a_short_folder_the_message_says_what_to_set(process_config, tmp_path, monkeypatch):
    use(tmp_path / ("x" * (111 - len(str(tmp_path)))), monkeypatch)
    monkeypatch.setattr(socket_folder, "_SHORT_FOLDERS", ("/proc",))
    with pytest.raises(
        UserError, match=r"has 112 bytes, too many for a socket's path; set TMPDIR to a folder of at most 71"
    ):
        choose_socket_folder()
