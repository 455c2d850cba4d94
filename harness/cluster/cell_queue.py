"""The waiting cells of one machine kind, and which of them a host takes next (pure)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class WaitingCell:
    """A cell that has no record yet.

    Attributes:
        key: Unique name: configuration hash, repeat and kind.
        config_hash: Hash of the configuration; repeats share it and go to different hosts.
        kind: Machine kind on which the cell must run.
        seconds: Predicted seconds on this kind.
    """

    key: str
    config_hash: str
    kind: str
    seconds: float


@dataclass(eq=False)
class _Host:
    """A host of the kind, and how far it has looked through the configurations.

    Attributes:
        num_nodes: Nodes on this host.
        position: Index of the first configuration that it has not passed.
        again: Heap of indices that it passed and has to look at again.
    """

    name: str
    num_nodes: int = 0
    position: int = 0
    again: list[int] = field(default_factory=list)


@dataclass(eq=False)
class _Configuration:
    """The repeats of one configuration.

    Attributes:
        index: Position in the queue, by predicted seconds, the longest first.
        waiting: Repeats that wait, the longest last.
        num_runs: Repeats that run or are done.
        runs_by_host: Number of repeats that each host ran or runs, failed attempts included.
        passed_by: Hosts that passed it because they had their share of its repeats.
    """

    index: int
    waiting: list[WaitingCell]
    num_runs: int = 0
    runs_by_host: dict[str, int] = field(default_factory=dict)
    passed_by: set[_Host] = field(default_factory=set)


class CellQueue:
    """The waiting cells of one kind, the longest first, and the hosts of this kind.

    A host has its share of a configuration if it ran more of its repeats than `num_runs // num_hosts`. It then passes the
    configuration and looks at it again when the share grows. Each host therefore looks at each configuration a constant
    number of times per change, however many cells wait.
    """

    def __init__(self, cells: Iterable[WaitingCell]) -> None:
        by_hash: dict[str, list[WaitingCell]] = {}
        for cell in cells:
            by_hash.setdefault(cell.config_hash, []).append(cell)
        for repeats in by_hash.values():
            repeats.sort(key=lambda cell: cell.seconds)
        ordered = sorted(by_hash.items(), key=lambda item: -item[1][-1].seconds)
        self._configurations = [_Configuration(index, repeats) for index, (_, repeats) in enumerate(ordered)]
        self._by_hash = {name: self._configurations[index] for index, (name, _) in enumerate(ordered)}
        self._hosts: dict[str, _Host] = {}
        self._first = 0  # no configuration before this index has a waiting cell
        self._passed: set[_Configuration] = set()
        self._failed_on: dict[str, set[str]] = {}
        self.num_waiting = sum(len(each.waiting) for each in self._configurations)

    @property
    def num_hosts(self) -> int:
        """Number of hosts that can take a cell."""
        return len(self._hosts)

    def add_node(self, host_name: str) -> None:
        """Count one more node on a host."""
        self._hosts.setdefault(host_name, _Host(host_name)).num_nodes += 1

    def remove_node(self, host_name: str) -> None:
        """Count one node less on a host."""
        host = self._hosts[host_name]
        host.num_nodes -= 1
        if not host.num_nodes:
            del self._hosts[host_name]
            for configuration in list(self._passed):  # shares grow if there are fewer hosts
                self._look_again(configuration)

    def longest(self) -> WaitingCell | None:
        """Return the waiting cell with the most predicted seconds; None if none waits."""
        while self._first < len(self._configurations) and not self._configurations[self._first].waiting:
            self._first += 1
        return self._cell_at(self._first)

    def longest_for(self, host_name: str) -> WaitingCell | None:
        """Return the longest waiting cell of which this host doesn't have its share of repeats; None if there is none."""
        host = self._hosts[host_name]
        return self._cell_at(min(self._next_again(host), self._next_new(host)))

    def longest_despite_share(self, host_name: str) -> WaitingCell | None:
        """Return the longest waiting cell, even if this host has its share of repeats; None if there is none.

        A cell that failed on this host is left to the other hosts, if there is one on which it did not fail.
        """
        waiting = itertools.islice(self._in_order(), self.num_waiting)
        return next((cell for cell in waiting if self._may_run_on(cell, host_name)), None)

    def begin(self, cell: WaitingCell, host_name: str) -> None:
        """Take a waiting cell out of the queue and count its run on a host."""
        configuration = self._take(cell)
        configuration.runs_by_host[host_name] = configuration.runs_by_host.get(host_name, 0) + 1
        configuration.num_runs += 1
        if configuration.num_runs % self.num_hosts == 0:
            self._look_again(configuration)

    def remove(self, cell: WaitingCell) -> None:
        """Take a waiting cell out of the queue; it does not run."""
        self._take(cell)

    def uncount(self, cell: WaitingCell, host_name: str) -> None:
        """Note that a run failed on a host, which keeps its count there, so that other hosts come first."""
        self._by_hash[cell.config_hash].num_runs -= 1
        self._failed_on.setdefault(cell.key, set()).add(host_name)

    def put_back(self, cell: WaitingCell) -> None:
        """Let a cell wait again. All hosts that passed its configuration look at it again: O(hosts)."""
        configuration = self._by_hash[cell.config_hash]
        configuration.waiting.append(cell)
        self.num_waiting += 1
        self._first = min(self._first, configuration.index)
        for host in self._hosts.values():
            if host.position > configuration.index:
                heapq.heappush(host.again, configuration.index)

    def _take(self, cell: WaitingCell) -> _Configuration:
        configuration = self._by_hash[cell.config_hash]
        if configuration.waiting[-1].key == cell.key:
            configuration.waiting.pop()
        else:
            configuration.waiting.remove(cell)
        self.num_waiting -= 1
        return configuration

    def _look_again(self, configuration: _Configuration) -> None:
        for host in configuration.passed_by:
            heapq.heappush(host.again, configuration.index)
        configuration.passed_by.clear()
        self._passed.discard(configuration)

    def _cell_at(self, index: int) -> WaitingCell | None:
        return self._configurations[index].waiting[-1] if index < len(self._configurations) else None

    def _next_again(self, host: _Host) -> int:
        """Return the index of the longest configuration that the host passed and may take now; else the queue's length."""
        while host.again:
            configuration = self._configurations[host.again[0]]
            if self._offers(configuration, host):
                return configuration.index
            heapq.heappop(host.again)
        return len(self._configurations)

    def _next_new(self, host: _Host) -> int:
        """Return the index of the longest configuration that the host has not passed; else the queue's length."""
        self.longest()  # moves _first
        host.position = max(host.position, self._first)
        while host.position < len(self._configurations):
            if self._offers(self._configurations[host.position], host):
                break
            host.position += 1
        return host.position

    def _offers(self, configuration: _Configuration, host: _Host) -> bool:
        """Return whether the host may take a repeat; if one waits and it may not, remember that it passed."""
        if not configuration.waiting:
            return False
        if configuration.runs_by_host.get(host.name, 0) <= configuration.num_runs // self.num_hosts:
            return True
        configuration.passed_by.add(host)
        self._passed.add(configuration)
        return False

    def _in_order(self) -> Iterator[WaitingCell]:
        self.longest()  # moves _first
        for index in range(self._first, len(self._configurations)):
            yield from reversed(self._configurations[index].waiting)

    def _may_run_on(self, cell: WaitingCell, host_name: str) -> bool:
        failed_on = self._failed_on.get(cell.key, ())
        return host_name not in failed_on or all(name in failed_on for name in self._hosts)
