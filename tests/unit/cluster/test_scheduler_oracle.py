"""Random events through the scheduler, beside plain loops that follow the same rules, and beside what must always hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness.cluster.scheduler import MAX_ATTEMPTS, MAX_NODE_FAILURES, ClusterNode, Scheduler, WaitingCell

KINDS = ("a", "b")
HOUR = 3600.0


def draw_cells(rng: random.Random) -> list[WaitingCell]:
    cells = []
    for number in range(rng.randint(1, 12)):
        kind, seconds = rng.choice(KINDS), float(rng.choice([60, 600, 600, 1800, 3600, 7200]))
        cells += [WaitingCell(f"{number}-{r}", f"c{number}", kind, seconds) for r in range(rng.randint(1, 4))]
    rng.shuffle(cells)
    return cells


class PlainLoops:
    """The rules of the scheduler, with every count made anew from lists of what happened; no budget, no deadline."""

    def __init__(self, cells: list[WaitingCell]) -> None:
        self.cells = {cell.key: cell for cell in cells}
        names = list(dict.fromkeys(cell.config_hash for cell in cells))
        of_name = {name: [cell for cell in cells if cell.config_hash == name] for name in names}
        self.order = sorted(names, key=lambda name: -of_name[name][0].seconds)
        self.waiting = of_name  # the last of each list is taken first
        self.running: dict[str, ClusterNode] = {}
        self.attempts: list[tuple[str, str, str]] = []  # key, host, "runs" or "failed"
        self.nodes: list[ClusterNode] = []
        self.free: list[tuple[str, str, list[str]]] = []  # kind, host, nodes, in the order in which they became free
        self.failures: list[str] = []

    def usable(self, node: ClusterNode) -> bool:
        return self.failures.count(node.node_id) < MAX_NODE_FAILURES

    def add(self, node: ClusterNode) -> None:
        self.nodes.append(node)
        self.make_free(node)

    def make_free(self, node: ClusterNode) -> None:
        if not self.usable(node):
            return
        for kind, host, names in self.free:
            if (kind, host) == (node.kind, node.host):
                names.append(node.node_id)
                return
        self.free.append((node.kind, node.host, [node.node_id]))

    def make_busy(self, node_id: str) -> None:
        for entry in list(self.free):
            if node_id in entry[2]:
                entry[2].remove(node_id)
            if not entry[2]:
                self.free.remove(entry)

    def hosts(self, kind: str) -> set[str]:
        return {node.host for node in self.nodes if node.kind == kind and self.usable(node)}

    def end(self, key: str, *, failed: bool) -> None:
        node = self.running.pop(key)
        if failed:
            self.attempts = [
                (each, host, "failed") if (each, state) == (key, "runs") else (each, host, state)
                for each, host, state in self.attempts
            ]
            self.failures.append(node.node_id)
            if not self.usable(node):
                self.make_busy(node.node_id)
            if len([each for each, _, _ in self.attempts if each == key]) < MAX_ATTEMPTS:
                self.waiting[self.cells[key].config_hash].append(self.cells[key])
        self.make_free(node)

    def remove(self, node_id: str) -> None:
        for key in [key for key, node in self.running.items() if node.node_id == node_id]:
            self.end(key, failed=True)
        self.make_busy(node_id)
        self.nodes = [node for node in self.nodes if node.node_id != node_id]

    def has_share(self, name: str, host: str, kind: str) -> bool:
        of_name = [(where, state) for key, where, state in self.attempts if self.cells[key].config_hash == name]
        here = len([where for where, _ in of_name if where == host])
        runs = len([state for _, state in of_name if state == "runs"])
        return here > runs // len(self.hosts(kind))

    def may_run(self, key: str, host: str, kind: str) -> bool:
        failed_on = {where for each, where, state in self.attempts if each == key and state == "failed"}
        return host not in failed_on or self.hosts(kind) <= failed_on

    def choose(self, kind: str, host: str, *, despite_share: bool) -> str | None:
        for name in self.order:
            for cell in reversed(self.waiting[name]):
                if cell.kind != kind:
                    continue
                if despite_share and self.may_run(cell.key, host, kind):
                    return cell.key
                if not despite_share and not self.has_share(name, host, kind):
                    return cell.key
        return None

    def place_in(self, kind: str) -> tuple[str, str] | None:
        for despite_share in (False, True):
            for of_kind, host, names in self.free:
                if of_kind == kind and (key := self.choose(kind, host, despite_share=despite_share)) is not None:
                    self.waiting[self.cells[key].config_hash].remove(self.cells[key])
                    self.running[key] = next(node for node in self.nodes if node.node_id == names[0])
                    self.attempts.append((key, host, "runs"))
                    node_id = names[0]
                    self.make_busy(node_id)
                    return key, node_id
        return None

    def place(self) -> list[tuple[str, str]]:
        placed = []
        kinds = set(KINDS)
        while kinds:
            longest = {
                kind: max(
                    (cell.seconds for name in self.order for cell in self.waiting[name] if cell.kind == kind),
                    default=-1,
                )
                for kind in kinds
            }
            kind = min(kinds, key=lambda kind: (-longest[kind], kind))
            placement = self.place_in(kind)
            if placement is None:
                kinds.discard(kind)
            else:
                placed.append(placement)
        return placed


@pytest.mark.parametrize("seed", range(150))
def test_placements_are_those_of_plain_loops(seed):
    rng = random.Random(seed)
    cells = draw_cells(rng)
    scheduler, plain = Scheduler(cells), PlainLoops(cells)
    hosts = [f"h{number}" for number in range(rng.randint(1, 4))]
    num_placed = num_nodes = 0
    for now in range(120):
        running, held = sorted(scheduler.running), [node.node_id for node in plain.nodes]
        action = rng.choice(["add", "add", "end", "end", "end", "end", "fail", "remove"])
        if action == "add" and len(held) < 6:
            node = ClusterNode(f"n{num_nodes}", rng.choice(KINDS), rng.choice(hosts), 1.0)
            num_nodes += 1
            scheduler.add_node(node, now)
            plain.add(node)
        elif action in ("end", "fail") and running:
            key = rng.choice(running)
            scheduler.end_cell(key, now, retry=action == "fail")
            plain.end(key, failed=action == "fail")
        elif action == "remove" and held:
            node_id = rng.choice(held)
            scheduler.remove_node(node_id, now)
            plain.remove(node_id)
        placed = [(placement.key, placement.node_id) for placement in scheduler.place(now)]
        assert placed == plain.place()
        num_placed += len(placed)
    assert num_placed > 0


PRICES = (0.5, 1.0, 4.0)


class Anything(RuleBasedStateMachine):
    """Anything may happen in any order: no cell is lost or doubled, and nothing begins beyond the limits."""

    @initialize(
        seed=st.integers(0, 10_000),
        budget=st.none() | st.floats(0.1, 30),
        deadline=st.none() | st.floats(60, 12 * HOUR),
    )
    def begin(self, seed, budget, deadline):
        self.cells = {cell.key: cell for cell in draw_cells(random.Random(seed))}
        self.budget, self.deadline = budget, deadline
        self.scheduler = Scheduler(self.cells.values(), budget_usd=budget, deadline_s=deadline)
        self.held: dict[str, tuple[ClusterNode, float]] = {}
        self.bill, self.now, self.num_nodes = 0.0, 0.0, 0
        self.attempts = dict.fromkeys(self.cells, 0)
        self.begun_at: dict[str, float] = {}
        self.ended: set[str] = set()

    def usd(self) -> float:
        return self.bill + sum(node.usd_per_hour * (self.now - since) / HOUR for node, since in self.held.values())

    def usd_until(self, end: float) -> float:
        """Every node until `end`, and those that are busy longer until their own."""
        busy = {each.node_id: self.end_of(each.key) for each in self.scheduler.running.values()}
        until = {name: max(end, busy.get(name, end)) for name in self.held}
        return self.usd() + sum(self.held[name][0].usd_per_hour * (until[name] - self.now) / HOUR for name in until)

    def end_of(self, key: str) -> float:
        return self.begun_at[key] + self.cells[key].seconds

    @rule(pick=st.integers(0, 8))
    def add(self, pick):
        node = ClusterNode(f"n{self.num_nodes}", KINDS[pick % 2], f"h{pick % 3}", PRICES[pick % 3])
        self.num_nodes += 1
        self.scheduler.add_node(node, self.now)
        self.held[node.node_id] = (node, self.now)

    @rule(seconds=st.floats(0, 2 * HOUR))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def place(self):
        left_out = set(self.scheduler.left_out)
        placements = self.scheduler.place(self.now)
        for placement in placements:
            self.attempts[placement.key] += 1
            self.begun_at[placement.key] = self.now
            assert placement.attempt == self.attempts[placement.key] <= MAX_ATTEMPTS
            assert placement.key not in self.ended
            assert placement.node_id in self.held.keys() - left_out
            assert self.held[placement.node_id][0].kind == self.cells[placement.key].kind
        for placement in placements:
            end = self.end_of(placement.key)
            assert self.budget is None or self.usd_until(end) <= self.budget * (1 + 1e-6)
            assert self.deadline is None or end <= self.deadline

    @precondition(lambda self: self.scheduler.running)
    @rule(pick=st.integers(0, 9), fails=st.booleans())
    def end(self, pick, fails):
        key = sorted(self.scheduler.running)[pick % len(self.scheduler.running)]
        self.scheduler.end_cell(key, self.now, retry=fails)
        self.ended |= set() if fails else {key}

    @precondition(lambda self: self.scheduler.waiting or self.scheduler.given_up)
    @rule(pick=st.integers(0, 9))
    def come_late(self, pick):
        keys = sorted(self.scheduler.waiting.keys() | self.scheduler.given_up.keys())
        self.scheduler.end_cell(keys[pick % len(keys)], self.now, retry=False)
        self.ended.add(keys[pick % len(keys)])

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 9))
    def leave(self, pick):
        self.scheduler.leave_node(sorted(self.held)[pick % len(self.held)], "a test")

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 9))
    def remove(self, pick):
        name = sorted(self.held)[pick % len(self.held)]
        node, since = self.held[name]
        before = dict(self.scheduler.running)
        self.bill += node.usd_per_hour * (self.now - since) / HOUR
        del self.held[name]
        lost = self.scheduler.remove_node(name, self.now)
        assert lost == next((each for each in before.values() if each.node_id == name), None)

    @invariant()
    def every_cell_is_in_one_state(self):
        scheduler = self.scheduler
        states = [scheduler.waiting.keys(), scheduler.running.keys(), scheduler.done, scheduler.given_up.keys()]
        assert sum(map(len, states)) == len(self.cells)
        assert set().union(*states) == set(self.cells)
        assert scheduler.done == self.ended

    @invariant()
    def a_node_runs_one_cell_and_is_not_idle_then(self):
        on = [placement.node_id for placement in self.scheduler.running.values()]
        assert len(on) == len(set(on))
        assert set(on) <= self.held.keys()
        idle = self.scheduler.idle_nodes(self.now)
        assert len(idle) == len(set(idle))
        assert set(idle) <= self.held.keys() - set(on)

    @invariant()
    def the_bill_is_that_of_all_held_nodes(self):
        assert self.scheduler.held_usd(self.now) == pytest.approx(self.usd(), rel=1e-9, abs=1e-9)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), budget=st.floats(0.5, 60))
def test_the_bill_of_a_run_that_goes_as_predicted_stays_within_the_budget(seed, budget):
    rng = random.Random(seed)
    cells = {cell.key: cell for cell in draw_cells(rng)}
    scheduler = Scheduler(cells.values(), budget_usd=budget)
    for number in range(rng.randint(1, 5)):
        scheduler.add_node(ClusterNode(f"n{number}", rng.choice(KINDS), f"h{number}", rng.choice(PRICES)), 0.0)
    now, ends = 0.0, {}
    while True:
        ends |= {placement.key: now + cells[placement.key].seconds for placement in scheduler.place(now)}
        if not ends:
            break
        key = min(ends, key=lambda each: ends[each])
        now = ends.pop(key)
        scheduler.end_cell(key, now, retry=False)
    assert scheduler.held_usd(now) <= budget * (1 + 1e-6)  # though no idle node was given back
    assert len(scheduler.done) + len(scheduler.given_up) + len(scheduler.waiting) == len(cells)
    assert not scheduler.waiting or scheduler.kinds_without_nodes()
