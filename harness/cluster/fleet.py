"""The nodes of a run: which have come, what they answer, and which are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.cluster.connection import Call, Cluster, LostError
from harness.cluster.members import HANG_S, Member, Step
from harness.cluster.messages import Session
from harness.errors import UserError
from harness.schema.record import Outcome

_LIST_EVERY_S = 5.0
_JOIN_S = 180.0

CUT_OFF = "its node died or was cut off"
ANNOUNCED = "the end of its node was announced"
_AGENT_GONE = "Ray's process on its node ended"
_SILENT = f"its node did not answer for {HANG_S:.0f} s"
_NEARLY_FULL = "Ray ended the process because the memory of its node was nearly full"
_NEVER_JOINED = f"it did not say within {_JOIN_S:.0f} s what it is; other work may occupy it"


@dataclass(frozen=True)
class Answer:
    """What a node answered to a call; `value` is the result of the agent's method."""

    member: Member
    step: Step
    value: Any


@dataclass(frozen=True)
class Refusal:
    """A call that a node could not fulfil; its agent is of no further use."""

    member: Member
    step: Step
    reason: str


@dataclass(frozen=True)
class Loss:
    """A node, or only its agent, that is gone.

    Attributes:
        outcome: Outcome of the cell that ran there.
        is_node_there: Whether the node itself is still there and may get another agent.
    """

    member: Member
    outcome: Outcome
    reason: str
    is_node_there: bool


Event = Answer | Refusal | Loss


class Fleet:
    """The members of a run.

    Attributes:
        members: By Ray's id of the node.
    """

    def __init__(self, cluster: Cluster, session: Session) -> None:
        """Begin without members.

        Args:
            cluster: The cluster.
            session: What all nodes are told; each gets its own id.
        """
        self._cluster, self._session = cluster, session
        self.members: dict[str, Member] = {}
        self._left: set[str] = set()
        self._draining: frozenset[str] = frozenset()
        self._listed_at: float | None = None

    def join(self, node_id: str, now: float) -> None:
        """Start an agent on a node that is there."""
        node = next((node for node in self._cluster.nodes() if node.node_id == node_id), None)
        if node is not None:
            self.members[node_id] = Member(self._cluster, node, replace(self._session, node=node_id), now)

    def leave(self, member: Member) -> None:
        """End a node's agent, and start none there again."""
        self._left.add(member.node_id)
        self.drop(member)

    def drop(self, member: Member) -> None:
        """End a node's agent."""
        if self.members.get(member.node_id) is member:
            del self.members[member.node_id]
        member.end()

    def end(self) -> None:
        """End all agents."""
        for member in list(self.members.values()):
            self.drop(member)

    def tick(self, now: float, timeout_s: float) -> Iterator[Event]:
        """Wait until something happens, but not longer than a time-out, and yield all that did.

        Args:
            now: Seconds since the beginning of the run.
            timeout_s: Longest wait in seconds.
        """
        if self._listed_at is None or now - self._listed_at >= _LIST_EVERY_S:
            self._listed_at = now
            yield from self._list(now)
        polls = {call: member for member in self.members.values() if (call := member.poll(now)) is not None}
        calls = {call: member for member in self.members.values() for call in member.calls}
        if not polls and not calls:
            return
        for call in self._cluster.wait([*polls, *calls], timeout_s):
            if call in polls:
                yield from self._take_poll(polls[call], call)
            elif call in calls[call].calls:
                yield from self._take(calls[call], call)
        for member in list(self.members.values()):
            if member.hangs(now):
                yield self._lose(member, "interrupted", _SILENT, is_node_there=False)
            elif member.facts is None and now - member.joined_at > _JOIN_S:
                self.leave(member)
                yield Refusal(member, "describe", _NEVER_JOINED)

    def _list(self, now: float) -> Iterator[Event]:
        """Compare the members with the nodes that Ray lists."""
        listed = {node.node_id for node in self._cluster.nodes()}
        self._draining = self._cluster.draining()
        for node_id, member in list(self.members.items()):
            if node_id not in listed:
                outcome: Outcome = "preempted" if member.is_announced else "interrupted"
                yield self._lose(member, outcome, ANNOUNCED if member.is_announced else CUT_OFF, is_node_there=False)
            elif node_id in self._draining and not member.is_announced:
                member.is_announced, member.is_ready = True, False
                if member.running is not None:
                    member.stop("preempted", ANNOUNCED)
        for node_id in listed - self.members.keys() - self._left - self._draining:
            self.join(node_id, now)

    def _take_poll(self, member: Member, call: Call) -> Iterator[Event]:
        try:
            member.answered(self._cluster.result(call))
        except LostError as error:
            if self.members.get(member.node_id) is member:
                yield self._lose_as(member, error)

    def _take(self, member: Member, call: Call) -> Iterator[Event]:
        step = member.calls.pop(call)
        try:
            value = self._cluster.result(call)
        except UserError as error:
            self.drop(member)
            yield Refusal(member, step, str(error))
        except LostError as error:
            if self.members.get(member.node_id) is member:
                yield self._lose_as(member, error)
        else:
            yield Answer(member, step, value)

    def _lose_as(self, member: Member, error: LostError) -> Loss:
        is_there = any(node.node_id == member.node_id for node in self._cluster.nodes())
        if error.is_oom:
            return self._lose(member, "oom", _NEARLY_FULL, is_node_there=is_there)
        if error.is_preempted or member.is_announced:
            return self._lose(member, "preempted", ANNOUNCED, is_node_there=False)
        return self._lose(member, "interrupted", _AGENT_GONE if is_there else CUT_OFF, is_node_there=is_there)

    def _lose(self, member: Member, outcome: Outcome, reason: str, *, is_node_there: bool) -> Loss:
        self.drop(member)
        return Loss(member, outcome, reason, is_node_there)
