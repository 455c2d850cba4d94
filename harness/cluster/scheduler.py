"""Which node of a cluster runs which cell, and when: longest predicted first, within a budget and a deadline (pure).

The caller says what happened (a node came or went, a cell ended) and at what time; the scheduler says what begins. It has
no clock, and no ray: `bench/bench_scheduler.py` runs it on a virtual clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from types import MappingProxyType

from harness.cluster.cell_queue import CellQueue, WaitingCell
from harness.cluster.nodes import ClusterNode, FreeNodes, NodeCosts

__all__ = ["MAX_ATTEMPTS", "MAX_NODE_FAILURES", "ClusterNode", "Placement", "Scheduler", "WaitingCell"]

MAX_ATTEMPTS = 3
MAX_NODE_FAILURES = 2


@dataclass(frozen=True)
class Placement:
    """A cell that runs on a node; `attempt` counts from 1."""

    key: str
    node_id: str
    attempt: int


class Scheduler:
    """Places cells on nodes; a node runs one cell at a time.

    Within a kind, the cell with the most predicted seconds begins first, so that no long cell is left for the end. Repeats
    of one configuration go to different hosts of the kind, which shows the spread between hosts: a host takes another
    repeat only when the other hosts have as many. If nothing else waits for its kind, it takes the repeat all the same: a
    node costs as much idle as busy, and a repeat on a known host still shows the spread between runs.

    A cell whose node failed waits again, and goes to another host if there is one. It gets at most `MAX_ATTEMPTS`
    attempts. A node on which `MAX_NODE_FAILURES` cells failed gets no more cells.

    A cell is given up if its end is predicted after the deadline, or if the budget would be exceeded at its predicted end:
    dollars spent so far, plus all nodes that are held until then, plus those that are predicted to be busy longer until
    their own end. With a budget, a node without a price gets no cells.

    Args:
        cells: All cells of the study, with unique keys.
        budget_usd: Limit of `held_usd`; None for no limit.
        deadline_s: Time, on the clock of `now`, after which no cell may end; None for no limit.
    """

    def __init__(
        self, cells: Iterable[WaitingCell], *, budget_usd: float | None = None, deadline_s: float | None = None
    ) -> None:
        self._cells: dict[str, WaitingCell] = {}
        by_kind: dict[str, list[WaitingCell]] = {}
        for cell in cells:
            if cell.key in self._cells:
                raise ValueError(f"two cells have the key {cell.key!r}")
            self._cells[cell.key] = cell
            by_kind.setdefault(cell.kind, []).append(cell)
        self._queues = {kind: CellQueue(of_kind) for kind, of_kind in by_kind.items()}
        self._budget_usd, self._deadline_s = budget_usd, deadline_s
        self._waiting = dict(self._cells)
        self._running: dict[str, Placement] = {}
        self._done: dict[str, None] = {}
        self._given_up: dict[str, str] = {}
        self._num_attempts: Counter[str] = Counter()
        self._nodes: dict[str, ClusterNode] = {}
        self._cell_on: dict[str, str] = {}  # the key of the cell that a node runs
        self._left_out: dict[str, str] = {}
        self._num_failures: Counter[str] = Counter()
        self._free = FreeNodes()
        self._unused: dict[str, None] = {}  # nodes that are held, left out, and run nothing
        self._num_running: Counter[str] = Counter()  # by kind
        self._changed: set[str] = set()  # kinds in which something may begin since the last `place`
        self._costs = NodeCosts()

    @property
    def waiting(self) -> Mapping[str, WaitingCell]:
        """Cells that wait, by key."""
        return MappingProxyType(self._waiting)

    @property
    def running(self) -> Mapping[str, Placement]:
        """Cells that run, by key."""
        return MappingProxyType(self._running)

    @property
    def done(self) -> Set[str]:
        """Keys of cells that ended."""
        return self._done.keys()

    @property
    def given_up(self) -> Mapping[str, str]:
        """Why cells will not run (again), by key."""
        return MappingProxyType(self._given_up)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Why nodes get no more cells, by node; nodes that were removed included."""
        return MappingProxyType(self._left_out)

    @property
    def is_finished(self) -> bool:
        """True if no cell waits or runs."""
        return not self._waiting and not self._running

    def held_usd(self, now: float) -> float:
        """Return the dollars of all nodes while they were held, idle ones too."""
        return self._costs.usd(now)

    def kinds_without_nodes(self) -> list[str]:
        """Return the kinds for which cells wait and no node can take one."""
        return [kind for kind, queue in self._queues.items() if queue.num_waiting and not queue.num_hosts]

    def add_node(self, node: ClusterNode, now: float) -> None:
        """Add a node that is held from now on; one that was left out before stays so."""
        if node.node_id in self._nodes:
            raise ValueError(f"node {node.node_id!r} is already held")
        self._nodes[node.node_id] = node
        self._costs.hold(node.node_id, node.usd_per_hour, now)
        if node.usd_per_hour is None and self._budget_usd is not None:
            self._left_out[node.node_id] = "its hourly price is not known, so that the budget can't be kept"
        if node.node_id in self._left_out:
            self._unused[node.node_id] = None
            return
        if node.kind in self._queues:
            self._queues[node.kind].add_node(node.host)
        self._set_free(node)

    def remove_node(self, node_id: str, now: float) -> Placement | None:
        """Remove a node that died, was cut off, pre-empted or given back.

        Returns:
            What ran on it, and waits again or was given up after its last attempt; None if nothing ran, or the node was not
            held.
        """
        node = self._nodes.get(node_id)
        if node is None:
            return None
        key = self._cell_on.get(node_id)
        placement = None if key is None else self._running[key]
        if key is not None:
            self._fail(key, "its node was lost", now)
        if node_id not in self._left_out:
            self._withdraw(node)
        self._unused.pop(node_id, None)
        del self._nodes[node_id]
        self._costs.release(node_id, now)
        return placement

    def leave_node(self, node_id: str, reason: str) -> None:
        """Give no more cells to a node; what runs there goes on. The node stays held until it is removed."""
        if node_id in self._left_out:
            return
        self._left_out[node_id] = reason
        node = self._nodes.get(node_id)
        if node is None:
            return
        self._withdraw(node)
        if node_id not in self._cell_on:
            self._unused[node_id] = None

    def end_cell(self, key: str, now: float, *, retry: bool) -> None:
        """Note that a cell ended.

        A result may come late, from a node that was cut off: a cell that waits again, or was given up, is then done. If it
        runs elsewhere meanwhile, that run counts as ended: stop it first.

        Args:
            key: The cell.
            now: Time.
            retry: True if the node caused its end (pre-empted, interrupted): it waits again until its last attempt. False
                for every other end (ok, oom, crashed, timeout, ...): it is done.
        """
        cell = self._cells[key]
        if key in self._running:
            if retry:
                self._fail(key, "its node interrupted it", now)
            else:
                self._stop(key)
                self._done[key] = None
        elif not retry and key not in self._done:
            if key in self._waiting:
                self._drop(cell)
            self._given_up.pop(key, None)
            self._done[key] = None

    def give_up_kind(self, kind: str, reason: str) -> None:
        """Give up all waiting cells of a kind, for example because no node of it can be had."""
        queue = self._queues.get(kind)
        while queue is not None and (cell := queue.longest()) is not None:
            self._give_up(cell, reason)

    def place(self, now: float) -> list[Placement]:
        """Begin what can begin now, the longest predicted cell first.

        Takes O(log cells) for each placement, and O(kinds) for those in which something changed since the last call.
        """
        if (reason := self._why_over(now)) is not None:
            for kind in self._queues:
                self.give_up_kind(kind, reason)
        longest = [(self._queues[kind].longest(), kind) for kind in sorted(self._changed) if kind in self._queues]
        self._changed.clear()
        heap = [(-cell.seconds, kind) for cell, kind in longest if cell is not None]
        heapq.heapify(heap)
        placements = []
        while heap:
            _, kind = heapq.heappop(heap)
            if (placement := self._place_one(kind, now)) is not None:
                placements.append(placement)
                if (cell := self._queues[kind].longest()) is not None:
                    heapq.heappush(heap, (-cell.seconds, kind))
        return placements

    def idle_nodes(self, now: float) -> list[str]:
        """Return the nodes to be given back: those left out, and those for whose kind nothing waits.

        While a cell of the kind runs, one node of it is kept: the cell may wait again. One is enough, because the next node
        that ends its cell can take another.
        """
        idle = list(self._unused)
        is_over = self._why_over(now) is not None
        for kind, node_ids in self._free.by_kind():
            if is_over or kind not in self._queues:
                idle += node_ids
            elif not self._queues[kind].num_waiting:
                idle += node_ids[1 if self._num_running[kind] else 0 :]
        return idle

    def _place_one(self, kind: str, now: float) -> Placement | None:
        """Begin one cell of a kind; None if no node can take one."""
        queue, hosts = self._queues[kind], self._free.hosts(kind)
        while queue.num_waiting:
            host, cell = next(
                (
                    (host, cell)
                    for longest in (queue.longest_for, queue.longest_despite_share)
                    for host in hosts
                    if (cell := longest(host)) is not None
                ),
                (None, None),
            )
            if host is None or cell is None:
                return None
            if (reason := self._why_not(cell, now)) is None:
                return self._begin(cell, self._nodes[next(iter(hosts[host]))], now)
            self._give_up(cell, reason)
        return None

    def _why_not(self, cell: WaitingCell, now: float) -> str | None:
        """Return why a cell may not begin now; None if it may."""
        end = now + cell.seconds
        if self._deadline_s is not None and end > self._deadline_s:
            return f"the deadline: it is predicted to end {end - self._deadline_s:.0f} s after it"
        if self._budget_usd is not None and not self._costs.fits(self._budget_usd, end, now):
            until = self._costs.usd_until(end, now)
            return f"the budget of {self._budget_usd:g} USD: at its predicted end the nodes would have cost {until:.2f} USD"
        return None

    def _why_over(self, now: float) -> str | None:
        """Return why no cell may begin any more; None if one may."""
        if self._deadline_s is not None and now > self._deadline_s:
            return "the deadline has passed"
        if self._budget_usd is not None and self._costs.usd(now) > self._budget_usd:
            return f"the budget of {self._budget_usd:g} USD is spent"
        return None

    def _begin(self, cell: WaitingCell, node: ClusterNode, now: float) -> Placement:
        self._queues[cell.kind].begin(cell, node.host)
        del self._waiting[cell.key]
        self._num_attempts[cell.key] += 1
        placement = Placement(cell.key, node.node_id, self._num_attempts[cell.key])
        self._running[cell.key] = placement
        self._cell_on[node.node_id] = cell.key
        self._num_running[cell.kind] += 1
        self._free.discard(node)
        self._costs.begin(node.node_id, now + cell.seconds)
        return placement

    def _stop(self, key: str) -> ClusterNode:
        """Take a cell off its node, which is then free, and return the node."""
        node = self._nodes[self._running.pop(key).node_id]
        del self._cell_on[node.node_id]
        self._num_running[node.kind] -= 1
        self._costs.end(node.node_id)
        if node.node_id in self._left_out:
            self._unused[node.node_id] = None
        else:
            self._set_free(node)
        return node

    def _fail(self, key: str, cause: str, now: float) -> None:
        """Stop a cell whose node failed; it waits again, or is given up after its last attempt."""
        cell, node = self._cells[key], self._stop(key)
        self._queues[cell.kind].uncount(cell, node.host)
        self._num_failures[node.node_id] += 1
        if self._num_failures[node.node_id] >= MAX_NODE_FAILURES:
            self.leave_node(
                node.node_id, f"{MAX_NODE_FAILURES} cells failed on it, the last one {now:.0f} s after the beginning"
            )
        if self._num_attempts[key] >= MAX_ATTEMPTS:
            self._given_up[key] = f"{MAX_ATTEMPTS} attempts failed; in the last one {cause}"
        else:
            self._waiting[key] = cell
            self._queues[cell.kind].put_back(cell)

    def _drop(self, cell: WaitingCell) -> None:
        self._queues[cell.kind].remove(cell)
        del self._waiting[cell.key]

    def _give_up(self, cell: WaitingCell, reason: str) -> None:
        self._drop(cell)
        self._given_up[cell.key] = reason

    def _withdraw(self, node: ClusterNode) -> None:
        """Count a node no longer among those that can take cells."""
        if node.kind in self._queues:
            self._queues[node.kind].remove_node(node.host)
        self._free.discard(node)
        self._changed.add(node.kind)  # what failed on the other hosts may now run there again

    def _set_free(self, node: ClusterNode) -> None:
        self._free.add(node)
        self._changed.add(node.kind)
