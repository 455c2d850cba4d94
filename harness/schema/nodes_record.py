"""The parts of a record that describe the machines of a cell that trains on several, and the network between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harness.schema.host_record import DetectedInstance, Load, Machine, StatedInstance
from harness.schema.ranges import PositiveSeconds, PositiveTally
from harness.schema.settings import Many, Settings

# Names of network interfaces; Linux allows 15 characters, Windows has longer names.
InterfaceName = Annotated[str, Field(min_length=1, max_length=64)]


class Node(Settings):
    """One of the machines that trained a cell together.

    Attributes:
        machine: The machine; all nodes of a cell have the same `Machine.id`, and each its own `host`.
        stated: The instance that the user stated for it; None when the user stated none.
        detected: The instance that its metadata service reported; None when none was asked, or none answered.
        num_ranks: Number of ranks on this node; ranks are numbered by node.
        interface: Network interface that carried the gradients.
        load: The node's load; None when no process was started there.
    """

    machine: Machine
    stated: StatedInstance | None
    detected: DetectedInstance | None
    num_ranks: PositiveTally
    interface: InterfaceName
    load: Load | None = None


class AllReduceTimes(Settings):
    """All-reduces of one size.

    Attributes:
        num_bytes: Size of each rank's tensor, of fp32 numbers.
        seconds: Seconds of each all-reduce on rank 0, after one that is not timed.
    """

    num_bytes: PositiveTally
    seconds: Many[PositiveSeconds] = Field(min_length=1)


class Network(Settings):
    """All-reduces over all ranks of all nodes, timed before training and in no other figure.

    Attributes:
        backend: The library that carried them, which also carries the gradients.
        all_reduce: The sizes, smallest first. Sizes that would take too long, or too much memory, are missing.
    """

    backend: Literal["gloo", "nccl"]
    all_reduce: Many[AllReduceTimes] = Field(min_length=1)
