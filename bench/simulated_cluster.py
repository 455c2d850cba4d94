"""A cluster on a virtual clock: nodes that die and come, cells that take about as long as predicted (for `bench_scheduler.py`)."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.cluster.scheduler import ClusterNode, Scheduler, WaitingCell

HOUR = 3600.0
NUM_REPEATS = 5
MEDIAN_S, SPREAD = 360.0, 0.8  # seconds of a configuration on a machine of median speed, log-normal
KIND_SPREAD = 0.5  # of the logarithm of the kinds' speeds
REPEAT_SPREAD = 0.02
NOTICED_AFTER_S = 30.0  # from a node's death until the scheduler hears of it
COMES_AFTER_S = 300.0  # from asking for a node until it is there


@dataclass(frozen=True)
class World:
    """What a simulation is about.

    Attributes:
        num_nodes: Nodes at the beginning, one per host.
        num_kinds: Machine kinds.
        num_cells: Cells, as many for each kind.
        even: True: as many nodes of each kind. False: the numbers are drawn, and differ severalfold.
        deaths_per_hour: Share of the nodes that die within an hour.
        replaced: True if another node comes for one that died.
        prediction_spread: Standard deviation of the logarithm of predicted over true seconds; None: all cells are predicted alike.
        budget_usd: Budget of the study; None for no budget. Nodes cost 1 USD an hour.
    """

    num_nodes: int = 1000
    num_kinds: int = 50
    num_cells: int = 10_000
    even: bool = True
    deaths_per_hour: float = 0.02
    replaced: bool = True
    prediction_spread: float | None = 0.2
    budget_usd: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What a simulation came to.

    Attributes:
        makespan_s: End of the last cell.
        bound_s: Largest over the kinds of their work over their nodes, plus their longest cell.
        least_s: Largest over the kinds of their work over their nodes, or their longest cell if it is longer: no schedule
            is shorter if no node dies.
        worst_kind: Largest over the kinds of end over bound.
        num_deaths: Nodes that died while they were held.
        num_lost: Attempts that ended with their node.
        num_given_up: Cells that were given up.
        spread_share: Share of the configurations whose repeats ran on as many hosts as there are repeats.
        usd: Dollars of all nodes while they were held.
        busy_share: Dollars of nodes while they ran cells that ended, over `usd`.
        num_placements: Cells that began, repeated attempts included.
        cpu_s: CPU seconds by method of the scheduler.
        slowest_s: CPU seconds of the longest single call.
    """

    makespan_s: float
    bound_s: float
    least_s: float
    worst_kind: float
    num_deaths: int
    num_lost: int
    num_given_up: int
    spread_share: float
    usd: float
    busy_share: float
    num_placements: int
    cpu_s: dict[str, float]
    slowest_s: float


@dataclass
class _Cluster:
    """The state of a simulation."""

    world: World
    random: np.random.Generator
    cells: dict[str, WaitingCell]
    true_s: dict[str, float]
    scheduler: Scheduler
    now: float = 0.0
    events: list[tuple[float, int, str, Any]] = field(default_factory=list)
    ids: itertools.count[int] = field(default_factory=itertools.count)
    alive: dict[str, ClusterNode] = field(default_factory=dict)  # also those given back and never used again
    ended_on: dict[str, str] = field(default_factory=dict)  # the host on which a cell ended
    ends: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    slowest_s: float = 0.0

    def call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method of the scheduler and note its CPU seconds."""
        began = time.process_time()
        result = method(*args, **options)
        took = time.process_time() - began
        self.cpu_s[method.__name__] += took
        self.slowest_s = max(self.slowest_s, took)
        return result

    def at(self, when: float, what: str, data: Any) -> None:
        heapq.heappush(self.events, (when, next(self.ids), what, data))

    def add_node(self, kind: str) -> None:
        """Let a node come, and draw when it will die."""
        name = f"n{next(self.ids)}"
        node = ClusterNode(name, kind, f"host-{name}", 1.0)
        self.alive[name] = node
        self.call(self.scheduler.add_node, node, self.now)
        if self.world.deaths_per_hour:
            rate = -np.log1p(-self.world.deaths_per_hour) / HOUR
            self.at(self.now + self.random.exponential(1 / rate), "dies", name)

    def handle(self, what: str, data: Any) -> None:
        if what == "ends":
            placement = data
            if self.alive.get(placement.node_id) is None or self.scheduler.running.get(placement.key) != placement:
                return
            self.call(self.scheduler.end_cell, placement.key, self.now, retry=False)
            assert placement.key not in self.ends, f"{placement.key} ended twice"
            self.ends[placement.key] = self.now
            self.ended_on[placement.key] = self.alive[placement.node_id].host
        elif what == "dies" and data in self.alive:
            node = self.alive.pop(data)
            self.counts["deaths"] += 1
            self.at(self.now + NOTICED_AFTER_S, "noticed", node)
        elif what == "noticed":
            lost = self.call(self.scheduler.remove_node, data.node_id, self.now)
            self.counts["lost"] += lost is not None
            if self.world.replaced:
                self.at(self.now + COMES_AFTER_S, "comes", data.kind)
        elif what == "comes":
            self.add_node(data)

    def decide(self) -> None:
        """Begin what can begin, give back idle nodes, and ask for a node of each kind that has cells and no node."""
        for placement in self.call(self.scheduler.place, self.now):
            self.counts["placements"] += 1
            self.at(self.now + self.true_s[placement.key], "ends", placement)
        for name in self.call(self.scheduler.idle_nodes, self.now):
            if name in self.alive:  # else its death is not noticed yet
                self.call(self.scheduler.remove_node, name, self.now)
                del self.alive[name]
        for kind in self.call(self.scheduler.kinds_without_nodes):
            if not any(what == "comes" and data == kind for _, _, what, data in self.events):
                self.at(self.now + COMES_AFTER_S, "comes", kind)


def draw_cells(world: World, random: np.random.Generator) -> tuple[dict[str, WaitingCell], dict[str, float]]:
    """Draw the cells of every kind, and their true seconds."""
    per_kind = world.num_cells // world.num_kinds
    configuration_s = MEDIAN_S * np.exp(SPREAD * random.standard_normal(-(-per_kind // NUM_REPEATS)))
    cells, true_s = {}, {}
    for kind, speed in enumerate(np.exp(KIND_SPREAD * random.standard_normal(world.num_kinds))):
        error = np.exp((world.prediction_spread or 0.0) * random.standard_normal(len(configuration_s)))
        for number in range(per_kind):
            configuration, repeat = divmod(number, NUM_REPEATS)
            seconds = float(configuration_s[configuration] * speed)
            predicted = 1.0 if world.prediction_spread is None else seconds * float(error[configuration])
            key = f"{configuration}-{repeat}-k{kind}"
            cells[key] = WaitingCell(key, f"c{configuration}", f"k{kind}", predicted)
            true_s[key] = seconds * float(np.exp(REPEAT_SPREAD * random.standard_normal()))
    return cells, true_s


def draw_nodes(world: World, random: np.random.Generator) -> list[int]:
    """Return the number of nodes of each kind."""
    if world.even:
        return [world.num_nodes // world.num_kinds] * world.num_kinds
    shares = random.dirichlet([4.0] * world.num_kinds)
    return [1 + int(number) for number in random.multinomial(world.num_nodes - world.num_kinds, shares)]


def simulate(world: World, seed: int) -> Outcome:
    """Run a study to its end; assert that no cell is lost or ends twice."""
    random = np.random.default_rng(seed)
    cells, true_s = draw_cells(world, random)
    cluster = _Cluster(world, random, cells, true_s, Scheduler(cells.values(), budget_usd=world.budget_usd))
    num_nodes = draw_nodes(world, random)
    for kind, number in enumerate(num_nodes):
        for _ in range(number):
            cluster.add_node(f"k{kind}")
    cluster.decide()
    while not cluster.scheduler.is_finished:
        cluster.now, _, what, data = heapq.heappop(cluster.events)
        cluster.handle(what, data)
        cluster.decide()
    scheduler = cluster.scheduler
    assert scheduler.done == cluster.ends.keys(), "a cell is done that did not end, or the other way"
    assert cluster.ends.keys() | scheduler.given_up.keys() == cells.keys(), "a cell was lost"
    assert not cluster.ends.keys() & scheduler.given_up.keys(), "a cell ended and was given up"
    return _outcome(cluster, num_nodes)


def _outcome(cluster: _Cluster, num_nodes: list[int]) -> Outcome:
    work: dict[str, float] = defaultdict(float)
    longest: dict[str, float] = defaultdict(float)
    last: dict[str, float] = defaultdict(float)
    hosts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key, cell in cluster.cells.items():
        work[cell.kind] += cluster.true_s[key]
        longest[cell.kind] = max(longest[cell.kind], cluster.true_s[key])
        if key in cluster.ends:
            last[cell.kind] = max(last[cell.kind], cluster.ends[key])
            hosts[cell.kind, cell.config_hash].add(cluster.ended_on[key])
    mean = {kind: work[kind] / num_nodes[int(kind[1:])] for kind in work}
    can = {kind: min(NUM_REPEATS, num_nodes[int(kind[1:])]) for kind in work}
    busy_s = sum(cluster.true_s[key] for key in cluster.ends)
    return Outcome(
        makespan_s=max(last.values()),
        bound_s=max(mean[kind] + longest[kind] for kind in work),
        least_s=max(max(mean[kind], longest[kind]) for kind in work),
        worst_kind=max(last[kind] / (mean[kind] + longest[kind]) for kind in last),
        num_deaths=cluster.counts["deaths"],
        num_lost=cluster.counts["lost"],
        num_given_up=len(cluster.scheduler.given_up),
        spread_share=float(np.mean([len(on) >= can[kind] for (kind, _), on in hosts.items()])),
        usd=cluster.scheduler.held_usd(cluster.now),
        busy_share=busy_s / HOUR / cluster.scheduler.held_usd(cluster.now),
        num_placements=cluster.counts["placements"],
        cpu_s=dict(cluster.cpu_s),
        slowest_s=cluster.slowest_s,
    )
