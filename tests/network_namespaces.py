"""Hosts in network namespaces of their own, joined by a bridge: cables that can be pulled, lines that lose packets."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A network namespace with one interface on the bridge.

    Attributes:
        cable: The bridge's end of its cable.
    """

    namespace: str
    cable: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Command that is put before another to run it on this host."""
        return ("ip", "netns", "exec", self.namespace)

    def pull_cable(self) -> None:
        _ip("link", "set", self.cable, "down")

    def plug_cable(self) -> None:
        _ip("link", "set", self.cable, "up")

    def disturb(self, *netem: str) -> None:
        """Let the line delay or lose packets, e.g. `delay 100ms loss 5%`; without arguments it is good again."""
        if netem:
            _run("tc", "qdisc", "replace", "dev", self.cable, "root", "netem", *netem)
        else:
            _run("tc", "qdisc", "del", "dev", self.cable, "root")


def reason_not_possible() -> str | None:
    """Return why this machine has no namespaces for the tests; None if it has."""
    if os.getuid() != 0:
        return "network namespaces need root"
    name = f"hr-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return None


def reason_no_bad_line(host: Host) -> str | None:
    """Return why lines can't delay or lose packets here; None if they can."""
    try:
        host.disturb("delay", "1ms")
    except subprocess.CalledProcessError as error:
        return f"this kernel has no netem: {error.stderr.decode().strip()}"
    host.disturb()
    return None


@contextlib.contextmanager
def hosts(num: int) -> Iterator[list[Host]]:
    """Provide hosts that reach each other and nothing else; all that was made is removed at the end."""
    token = secrets.token_hex(2)
    bridge, network = f"hrb{token}", f"10.{int(token[:2], 16)}.{int(token[2:], 16)}"
    made = [Host(f"hr{token}-{index}", f"hrc{token}{index}", f"{network}.{index + 1}") for index in range(num)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for host in made:
            inside = f"hrv{token}"
            _ip("netns", "add", host.namespace)
            _ip("link", "add", host.cable, "type", "veth", "peer", "name", inside, "netns", host.namespace)
            _ip("link", "set", host.cable, "master", bridge, "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", inside)
            _ip("-n", host.namespace, "link", "set", inside, "up")
        yield made
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", host.cable], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def processes_in(host: Host) -> list[int]:
    """Return the ids of the processes on a host."""
    listed = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


def command_line(pid: int) -> str:
    """Return a process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)
