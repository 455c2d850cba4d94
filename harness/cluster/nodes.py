"""The nodes of a cluster: which can take a cell, and what all of them cost while they are held (pure)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# How a node's kind is known to Ray: by its label (ray start --labels machine=NAME), and by a resource that only nodes of the kind
# have, by which the autoscaler is asked for one.
MACHINE_LABEL = "machine"
RESOURCE_PREFIX = f"{MACHINE_LABEL}:"
_HOUR = 3600.0
_ROUNDING = 1 + 1e-9  # sums of the same dollars in another order may differ in the last digits


@dataclass(frozen=True)
class ClusterNode:
    """A node that the cluster has.

    Attributes:
        node_id: Unique name of the node.
        kind: Machine kind, as the cells name it.
        host: Name of the machine; nodes with the same host are no different hosts for repeats.
        usd_per_hour: Price while the node is held; None if it is not known.
    """

    node_id: str
    kind: str
    host: str
    usd_per_hour: float | None


class FreeNodes:
    """Nodes that can take a cell, by kind and host, in the order in which they became free."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, dict[str, None]]] = {}

    def add(self, node: ClusterNode) -> None:
        """Add a node."""
        self._by_kind.setdefault(node.kind, {}).setdefault(node.host, {})[node.node_id] = None

    def discard(self, node: ClusterNode) -> None:
        """Remove a node, if it is there."""
        hosts = self._by_kind.get(node.kind, {})
        nodes = hosts.get(node.host, {})
        nodes.pop(node.node_id, None)
        if not nodes:
            hosts.pop(node.host, None)

    def hosts(self, kind: str) -> Mapping[str, Mapping[str, None]]:
        """Return the hosts of a kind that have free nodes, with these."""
        return self._by_kind.get(kind, {})

    def by_kind(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each kind that has free nodes, with these."""
        for kind, hosts in self._by_kind.items():
            if hosts:
                yield kind, [node_id for nodes in hosts.values() for node_id in nodes]


class NodeCosts:
    """The bill of all nodes, idle ones too; a node without a price counts as free of charge."""

    def __init__(self) -> None:
        self._usd_per_s: dict[str, float] = {}
        self._rate = 0.0  # dollars per second of all nodes that are held
        self._usd = 0.0  # dollars until `_as_of`
        self._as_of = 0.0
        self._busy_until: dict[str, float] = {}
        self._latest: list[
            tuple[float, str]
        ] = []  # heap of (minus predicted end, node); stale entries stay until they are on top

    def hold(self, node_id: str, usd_per_hour: float | None, now: float) -> None:
        """Charge for a node from now on."""
        self._settle(now)
        self._usd_per_s[node_id] = (usd_per_hour or 0.0) / _HOUR
        self._rate += self._usd_per_s[node_id]

    def release(self, node_id: str, now: float) -> None:
        """Charge no longer for a node."""
        self._settle(now)
        self._rate -= self._usd_per_s.pop(node_id)
        self._busy_until.pop(node_id, None)
        if not self._usd_per_s:
            self._rate = 0.0  # what rounding left over

    def begin(self, node_id: str, until: float) -> None:
        """Note when the cell of a node is predicted to end."""
        self._busy_until[node_id] = until
        heapq.heappush(self._latest, (-until, node_id))

    def end(self, node_id: str) -> None:
        """Note that the cell of a node has ended."""
        self._busy_until.pop(node_id, None)

    def usd(self, now: float) -> float:
        """Return the dollars spent so far."""
        return self._usd + self._rate * (now - self._as_of)

    def usd_until(self, end: float, now: float) -> float:
        """Return the dollars if all nodes are held until `end`, and busy ones until their own predicted end if it is later."""
        beyond = sum(
            self._usd_per_s[node_id] * (until - end) for node_id, until in self._busy_until.items() if until > end
        )
        return self.usd(now) + self._rate * (end - now) + beyond

    def fits(self, budget_usd: float, end: float, now: float) -> bool:
        """Return whether `usd_until(end, now)` is within a budget, in constant time unless the budget is nearly reached."""
        limit = budget_usd * _ROUNDING
        at_least = self.usd(now) + self._rate * (end - now)
        if at_least > limit:
            return False
        if at_least + self._rate * max(0.0, self._latest_end() - end) <= limit:
            return True
        return self.usd_until(end, now) <= limit

    def _latest_end(self) -> float:
        while self._latest and self._busy_until.get(self._latest[0][1]) != -self._latest[0][0]:
            heapq.heappop(self._latest)
        return -self._latest[0][0] if self._latest else 0.0

    def _settle(self, now: float) -> None:
        self._usd = self.usd(now)
        self._as_of = now
