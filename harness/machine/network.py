"""Network interfaces and ports of this machine."""

from __future__ import annotations

import socket

import psutil

from harness.errors import UserError

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def address_of(interface: str) -> str:
    """Return the address of a network interface, IPv4 if it has one.

    Raises:
        UserError: If there is no such interface, or it has no address.
    """
    interfaces = psutil.net_if_addrs()
    if interface not in interfaces:
        raise UserError(f"no network interface {interface!r} here; there are {', '.join(sorted(interfaces))}")
    for family in _FAMILIES:
        for address in interfaces[interface]:
            if address.family == family and not address.address.startswith("fe80"):  # link-local needs a scope
                return address.address
    raise UserError(f"the network interface {interface!r} has no address")


def interface_towards(address: str) -> str:
    """Return the network interface that has an address, or through which this machine reaches it.

    Raises:
        UserError: If the address is not reachable.
    """
    own = _own_address_towards(address)
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.family in _FAMILIES and each.address.partition("%")[0] == own for each in addresses):
            return name
    raise UserError(f"no network interface of this machine has the address from which it reaches {address}")


def free_port(address: str) -> int:
    """Return a TCP port that is free on one of this machine's addresses; another process may take it before it is used."""
    with socket.create_server((address, 0), family=_family(address)) as server:
        return int(server.getsockname()[1])


def listen(address: str, port: int, backlog: int) -> socket.socket:
    """Listen on one address of this machine alone, so that its other networks can't connect.

    Raises:
        OSError: If the address is not this machine's, or the port is taken.
    """
    return socket.create_server((address, port), family=_family(address), backlog=backlog)


def tcp_url(address: str, port: int) -> str:
    """Return the URL of a TCP port, with the brackets that IPv6 needs."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _own_address_towards(address: str) -> str:
    # Connecting a datagram socket sends nothing: it only looks up the route.
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError as error:
            raise UserError(f"{address} is not reachable from this machine: {error.strerror or error}") from None
        return str(probe.getsockname()[0])
