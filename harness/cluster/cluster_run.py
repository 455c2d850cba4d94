"""Run a study's cells on the nodes of a cluster, and bring their records home."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.cluster.cluster_options import ClusterListener, ClusterOptions
from harness.cluster.cluster_plan import Plan, cell_key, make_plan
from harness.cluster.code_package import code_sha256
from harness.cluster.connection import Cluster
from harness.cluster.fleet import ANNOUNCED, Fleet, Loss, Refusal
from harness.cluster.machine_kinds import NodeFacts, kind_of, version_differences
from harness.cluster.members import Member, SharedInput, Step, clock
from harness.cluster.messages import Described, Ended, RunCell, Session
from harness.cluster.record_home import Attempt, bring_home, save_lost
from harness.cluster.run_status import StatusFile
from harness.cluster.scheduler import ClusterNode, Placement, Scheduler
from harness.cluster.study_inputs import describe_hub_inputs, pack_inputs
from harness.cluster.waiting_records import results_key
from harness.errors import UserError
from harness.machine.describe import describe_machine, harness_checkout
from harness.schema.cells import Cell
from harness.schema.host_record import ClusterRun
from harness.schema.record import Record
from harness.store.record_files import load_records

_WITHOUT_NODES_S = 30.0
_REQUEST_S = 1200.0  # until the autoscaler's node of a kind has come: it is started, set up and described
_STOP_S, _TICK_S, _FORGET_S = 12.0, 1.0, 5.0
_STOPPED = ("interrupted", "preempted")
_GIVEN_BACK = "the autoscaler ends it, if the cluster has one; else it costs on until you end it"


def run_on_cluster(
    cluster: Cluster, cells: Sequence[Cell], options: ClusterOptions, listener: ClusterListener
) -> list[tuple[Record, Path]]:
    """Run the cells on every kind of machine, and return the new records with their files.

    Ctrl-C ends the running cells everywhere and brings their records home; then KeyboardInterrupt is raised.

    Args:
        cluster: The cluster.
        cells: The study's cells.
        options: How they run.
        listener: Informed of what happens.

    Raises:
        UserError: If no cell can run, and why.
    """
    run = _Run(cluster, cells, options, listener)
    try:
        run.join()
        run.plan()
        run.work()
    except KeyboardInterrupt:
        run.stop()
        raise
    finally:
        run.end()
    return run.saved


class _Run:
    """One run of a study on a cluster; all times are seconds since its beginning, on this computer's clock."""

    def __init__(
        self, cluster: Cluster, cells: Sequence[Cell], options: ClusterOptions, listener: ClusterListener
    ) -> None:
        self._cluster, self._cells, self._options, self._listener = cluster, list(cells), options, listener
        here = describe_machine()
        self._session = Session(
            run=secrets.token_hex(4), node="", driver_host=here.host, code_sha256=code_sha256(), git=harness_checkout(),
            detect=options.detect, results_key=results_key(options.results, here.host), skip=options.skip,
        )  # fmt: skip
        self._began = clock()
        self._fleet = Fleet(cluster, self._session)
        self._inputs: list[SharedInput] = []
        self._plan = Plan((), 0, (), {})  # until `plan`
        self._scheduler = Scheduler(())
        self._requested: set[str] = set()  # kinds that the autoscaler holds for this run
        self._without_nodes: dict[str, float] = {}  # kinds, and since when
        self._status = StatusFile(options.results, options.budget_usd)
        self._is_stopping = False
        self._refusals: list[str] = []
        self.saved: list[tuple[Record, Path]] = []

    def join(self) -> None:
        """Start an agent on each node, and wait until each has said what it is and which records wait there."""
        self._tick()
        while any(member.facts is None for member in self._fleet.members.values()) or self._awaits_machines():
            self._tick()
        if not self._fleet.members and self._refusals:
            raise UserError(self._refusals[0])

    def _awaits_machines(self) -> bool:
        """Return whether nodes are to come that the study names and the autoscaler can start; ask for them once."""
        named = set(self._options.machines or ())
        missing = named - {member.kind for member in self._fleet.members.values()}
        if not missing or self._now() > _REQUEST_S:
            return False
        if not self._requested and (can_come := missing & self._cluster.requestable()):
            self._requested = can_come | (named - missing)
            self._cluster.request(self._requested)
            self._listener.noted(f"asked the autoscaler for {', '.join(sorted(can_come))}; nodes take some minutes")
        return missing <= self._requested

    def plan(self) -> None:
        """Choose the kinds, say which versions differ, plan the cells, and let the nodes prepare them."""
        members, results = list(self._fleet.members.values()), self._options.results
        known = [member.facts for member in members if member.facts is not None]
        records = load_records([results]).records if results.is_dir() else ()
        plan = self._plan = make_plan(self._cells, known, records, self._options)
        for sentence in version_differences([facts for facts in known if facts.kind in plan.kinds]):
            self._listener.noted(sentence)
        self._listener.planned(plan.kinds, plan.num_cells, plan.num_cells - len(plan.waiting))
        self._scheduler = Scheduler(
            plan.waiting, budget_usd=self._options.budget_usd, deadline_s=self._options.deadline_s
        )
        inputs = pack_inputs(plan.cells.values())
        self._inputs = [SharedInput(each, self._cluster.put(each.archive)) for each in inputs]
        if names := describe_hub_inputs(plan.cells.values(), inputs):
            self._listener.noted(f"each node gets {', '.join(names)} from the hub itself")
        for member in members:
            self._admit(member)

    def work(self) -> None:
        """Run the cells until none waits or runs."""
        while not self._scheduler.is_finished:
            self._tick()
            now = self._now()
            for placement in self._scheduler.place(now):
                self._begin(placement, now)
            self._give_up_kinds(now)
            self._give_back(now)
        reasons: dict[str, list[str]] = {}
        for key, reason in self._scheduler.given_up.items():
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            self._listener.cells_left_out([self._plan.cells[key] for key in keys], reason)
        if self._refusals and not self.saved and reasons:
            raise UserError(self._refusals[0])

    def stop(self) -> None:
        """End all running cells as Ctrl-C does, and bring their records home."""
        self._is_stopping = True
        for member in self._fleet.members.values():
            if member.running is not None:
                member.stop("interrupted", None)
        ends_at = self._now() + _STOP_S
        while self._now() < ends_at and any(member.running for member in self._fleet.members.values()):
            self._tick()

    def end(self) -> None:
        """Let nodes forget what is saved, and end all agents."""
        ends_at = self._now() + _FORGET_S
        while self._now() < ends_at and any(
            "acknowledge" in member.calls.values() for member in self._fleet.members.values()
        ):
            self._tick()
        self._fleet.end()
        self._status.remove()
        if self._requested:
            self._cluster.request(())

    def _release(self, kind: str) -> None:
        """Let the autoscaler end the requested node of a kind for which no cell waits."""
        if kind in self._requested and all(cell.kind != kind for cell in self._scheduler.waiting.values()):
            self._requested.remove(kind)
            self._cluster.request(self._requested)

    def _now(self) -> float:
        return clock() - self._began

    def _tick(self) -> None:
        for event in self._fleet.tick(self._now(), _TICK_S):
            if isinstance(event, Loss):
                self._on_loss(event)
            elif isinstance(event, Refusal):
                self._on_refusal(event)
            else:
                self._on_answer(event.member, event.step, event.value)
        now = self._now()
        states, usd = [member.state(now) for member in self._fleet.members.values()], self._scheduler.held_usd(now)
        self._listener.ticked(states, usd)
        self._status.write(now, (len(self._scheduler.done), len(self._plan.cells)), states, usd)

    def _on_answer(self, member: Member, step: Step, value: Any) -> None:  # noqa: ANN401 - of any method of the agent
        if step == "describe":
            self._on_described(member, value)
        elif step == "collect":
            self._on_collected(member, value)
        elif step == "prepare":
            member.is_ready = member.was_ready = True
            if member.facts is not None:
                facts = member.facts
                host = facts.environment.machine.host or facts.node_id
                self._scheduler.add_node(ClusterNode(facts.node_id, facts.kind, host, facts.usd_per_hour), self._now())
        elif step == "run":
            self._on_ended(member, value)
        elif step == "acknowledge" and member.is_stopping:
            self._fleet.leave(member)

    def _on_described(self, member: Member, described: Described) -> None:
        if described.code_sha256 != self._session.code_sha256:
            self._fleet.leave(member)
            self._refuse(member, "it runs other code than was sent there")
            return
        environment = described.environment
        kind = kind_of(environment, member.node.labels)
        if described.niceness:
            self._listener.noted(
                f"{kind}: Ray lowers the priority of its processes there to {described.niceness}, which slows cells that "
                "share the CPU; start Ray with RAY_worker_niceness=0"
            )
        member.described = described
        member.kind = kind
        member.collect()

    def _on_collected(self, member: Member, waiting: Sequence[tuple[str, bytes]]) -> None:
        """Save the records that waited on a node."""
        for name, content in waiting:
            self._save(member, name, content)
        member.acknowledge([name for name, _ in waiting])
        if member.described is None:
            return
        environment = member.described.environment
        member.facts = NodeFacts(member.node_id, member.kind, environment, self._options.price(environment))
        if self._plan.kinds:
            self._admit(member)

    def _admit(self, member: Member) -> None:
        """Let a node prepare the cells of its kind; one without cells to run is left alone."""
        if member.facts is None or not (cells := self._plan.cells_of(member.facts.kind)):
            self._fleet.leave(member)
        else:
            member.prepare(cells, self._inputs)

    def _begin(self, placement: Placement, now: float) -> None:
        member, cell = self._fleet.members[placement.node_id], self._plan.cells[placement.key]
        machine_id = None if member.facts is None else member.facts.environment.machine.id
        oom = tuple(record for record, _ in self.saved if (record.outcome, record.machine.id) == ("oom", machine_id))
        member.run(cell, placement, RunCell(cell, placement.attempt, oom), now)

    def _on_ended(self, member: Member, ended: Ended) -> None:
        """Save the record of a cell that ended."""
        running, member.running = member.running, None
        record = self._save(member, ended.name, ended.content)
        if ended.unsaved is None:
            member.acknowledge([ended.name])
        else:
            self._listener.noted(f"{member.kind}: no record can be kept there: {ended.unsaved}")
        if running is None:
            return
        was_stopped = record.outcome in _STOPPED
        self._scheduler.end_cell(running.placement.key, self._now(), retry=was_stopped)
        if was_stopped:  # its process has ended; the agent ends when it has answered
            member.is_stopping, member.is_ready = True, False
            self._scheduler.remove_node(member.node_id, self._now())

    def _save(self, member: Member, name: str, content: bytes) -> Record:
        arrival = bring_home(name, content, self._options.results)
        record = arrival.record
        if arrival.is_new and arrival.path is not None:
            self.saved.append((record, arrival.path))
            self._listener.cell_ended(member.kind, record, arrival.path)
        key = cell_key(record.config_hash, record.repeat, member.kind)
        is_own = record.cluster is not None and record.cluster.run == self._session.run
        if is_own and key in self._scheduler.waiting and record.outcome not in _STOPPED:
            self._scheduler.end_cell(key, self._now(), retry=False)  # from a node that was taken for lost
        return record

    def _on_loss(self, loss: Loss) -> None:
        """Record the cell of a node that is lost, and try the node again if it is still there."""
        member, now = loss.member, self._now()
        running, member.running = member.running, None
        if running is not None and member.facts is not None:
            attempt = Attempt(
                running.cell, member.facts.environment, self._cluster_run(member, running.placement),
                running.started_at, now - running.began,
            )  # fmt: skip
            record, path = save_lost(attempt, loss.outcome, loss.reason, self._options.results)
            self.saved.append((record, path))
            self._listener.cell_ended(member.kind, record, path)
            if loss.outcome == "oom":
                self._scheduler.end_cell(running.placement.key, now, retry=False)
        self._scheduler.remove_node(member.node_id, now)
        if (why := self._scheduler.left_out.get(member.node_id)) is not None:
            self._listener.noted(f"{member.kind}: node left out: {why}")
            self._fleet.leave(member)
        elif not member.was_ready:
            self._fleet.leave(member)
            self._refuse(member, loss.reason)
        elif loss.is_node_there and not self._is_stopping:
            self._fleet.join(member.node_id, now)

    def _on_refusal(self, refusal: Refusal) -> None:
        member = refusal.member
        if refusal.step == "run" and self._is_stopping:
            member.running = None  # it had not begun, so that there is nothing to record
        elif refusal.step == "run" and member.is_announced:
            self._on_loss(Loss(member, "preempted", ANNOUNCED, is_node_there=False))
        elif refusal.step == "run":
            self._on_loss(Loss(member, "interrupted", refusal.reason, is_node_there=True))
        elif refusal.step not in ("stop", "acknowledge"):
            self._fleet.leave(member)
            self._scheduler.remove_node(member.node_id, self._now())
            self._refuse(member, refusal.reason)

    def _refuse(self, member: Member, reason: str) -> None:
        self._refusals.append(f"{member.kind}: {reason}")
        self._listener.noted(f"{member.kind}: node left out: {reason}")

    def _cluster_run(self, member: Member, placement: Placement) -> ClusterRun:
        session = self._session
        return ClusterRun(
            run=session.run, node=member.node_id, driver_host=session.driver_host, code_sha256=session.code_sha256,
            attempt=placement.attempt,
        )  # fmt: skip

    def _give_up_kinds(self, now: float) -> None:
        """Give up the cells of kinds that have no node any more, after a while in which one may come."""
        lacking = self._scheduler.kinds_without_nodes()
        coming = {member.kind for member in self._fleet.members.values() if not member.is_ready}
        self._without_nodes = {kind: self._without_nodes.get(kind, now) for kind in lacking if kind not in coming}
        for kind, since in self._without_nodes.items():
            if now - since > (_REQUEST_S if kind in self._requested else _WITHOUT_NODES_S):
                self._scheduler.give_up_kind(kind, f"no node of {kind} is left")

    def _give_back(self, now: float) -> None:
        """End the agents of nodes for which nothing is left, so that an autoscaler can end the nodes."""
        for node_id in self._scheduler.idle_nodes(now):
            member = self._fleet.members.get(node_id)
            if member is not None and not self._scheduler.is_finished:
                self._listener.noted(f"{member.kind}: nothing is left to run on a node; {_GIVEN_BACK}")
                self._scheduler.leave_node(node_id, "nothing is left to run there")
                self._fleet.leave(member)
                self._release(member.kind)
