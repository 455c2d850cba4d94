"""Addresses, interfaces and ports of this machine."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import psutil
import pytest

from harness.errors import UserError
from harness.machine.network import address_of, free_port, interface_towards, listen, tcp_url


def an_interface(family, address):
    return SimpleNamespace(family=family, address=address)


@pytest.fixture
def interfaces(monkeypatch):
    """Interfaces of a machine with two networks, one of which has IPv6 alone."""
    found = {
        "lo": [an_interface(socket.AF_INET, "127.0.0.1")],
        "eth0": [an_interface(socket.AF_INET6, "fe80::1%eth0"), an_interface(socket.AF_INET, "10.0.0.5")],
        "ib0": [an_interface(socket.AF_INET6, "fe80::2%ib0"), an_interface(socket.AF_INET6, "fd00::5")],
        "down0": [],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)


@pytest.mark.parametrize(("name", "address"), [("eth0", "10.0.0.5"), ("ib0", "fd00::5")])
def test_an_interface_has_its_ipv4_address_else_its_global_ipv6_address(name, address, interfaces):
    assert address_of(name) == address


@pytest.mark.parametrize(
    ("name", "message"),
    [("eth1", "no network interface 'eth1' here; there are down0, eth0, ib0, lo"), ("down0", "has no address")],
)
def test_an_interface_that_is_not_there_is_told_with_those_that_are(name, message, interfaces):
    with pytest.raises(UserError, match=message):
        address_of(name)


def test_the_interface_towards_this_machines_own_address_is_the_one_that_has_it():
    name = interface_towards("127.0.0.1")
    assert address_of(name) == "127.0.0.1"


def test_a_listening_socket_is_open_on_one_address_alone():
    port = free_port("127.0.0.1")
    with listen("127.0.0.1", port, 1) as server:
        assert server.getsockname() == ("127.0.0.1", port)  # not 0.0.0.0, which is every network


def test_an_ipv6_url_has_brackets():
    assert tcp_url("10.0.0.5", 80) == "tcp://10.0.0.5:80"
    assert tcp_url("fd00::5", 80) == "tcp://[fd00::5]:80"
