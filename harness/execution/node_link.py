"""The connection between the parents of a cell's nodes: it joins them before the start, and carries the end of one to all.

Node 0 listens on its address in the nodes' network alone; every other node connects to it. Both sides prove that they have
the cell's token (HMAC, as multiprocessing does). Messages are JSON, never pickles. Results do not travel here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError, connection
from typing import get_args

from harness import __version__
from harness.execution.heartbeat import Stall
from harness.execution.jobs import Environment, NodePart, PreparedCell, TrainJob
from harness.execution.node_channel import accept, connect_to_first, finish_sending, receive, send
from harness.execution.outcome import Ending
from harness.machine.network import free_port, listen
from harness.schema.cells import Cell
from harness.schema.record import Outcome

PING_S = 1.0
# Seconds of silence after which a node counts as lost. Pings come every second, so that ten are missing.
LOST_AFTER_S = 10.0
_BACKLOG = 64
_CLOSE_S = 3.0
_MAX_REASON_CHARS = 1000


def node_facts(cell: Cell, prepared: PreparedCell, environment: Environment) -> dict[str, str]:
    """Return what must be equal on all nodes, by its name in messages."""
    data = prepared.data
    splits = ",".join(split.sha256[:12] for split in (data.train, data.val, data.test))
    packages = {name: environment.packages.get(name, "not installed") for name in ("torch", "transformers")}
    return {
        "kind of machine": environment.machine.id,
        "version of this harness": __version__,
        "configuration": f"{cell.config_hash} repeat {cell.repeat}",
        "data": splits,
        "saving of the model": str(isinstance(prepared.job, TrainJob) and bool(prepared.job.save_model_to)),
        **packages,
    }


class NodesNotJoinedError(Exception):
    """The nodes did not come together; `outcome` is that of the cell."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        """Keep the cell's outcome and reason."""
        super().__init__(reason)
        self.outcome: Outcome = outcome
        self.reason = reason


@dataclass
class _Peer:
    """Another node, as this one sees it.

    Attributes:
        heard_at: When its last message came, in seconds since the start; None before the first.
        stall: What its last message said of its ranks' progress.
        is_done: Whether it ended without a failure, or was lost.
    """

    index: int
    pipe: connection.Connection
    heard_at: float | None = None
    stall: Stall | None = None
    is_done: bool = False


@dataclass
class NodeLink:
    """The connections of one node's parent, while its part of a cell runs. Times are in seconds since the start.

    Attributes:
        store_port: Free port of node 0 for torch's TCP store.
    """

    part: NodePart
    store_port: int
    _peers: list[_Peer] = field(default_factory=list)
    _pinged_at: float | None = None

    @classmethod
    def join(cls, part: NodePart, facts: Mapping[str, str]) -> NodeLink:
        """Wait until all nodes have joined.

        Args:
            part: This node's part.
            facts: What must be equal on all nodes, by its name in messages.

        Raises:
            NodesNotJoinedError: If a node did not come in time, or has other facts.
        """
        try:
            return _gather(part, facts) if part.node_index == 0 else _reach(part, facts)
        except AuthenticationError:
            raise NodesNotJoinedError("interrupted", "the tokens of this node and of node 0 differ") from None
        except (OSError, EOFError) as error:
            text = f"node {part.node_index} could not join the others: {error or type(error).__name__}"
            raise NodesNotJoinedError("interrupted", text) from None

    @property
    def pipes(self) -> list[connection.Connection]:
        """Connections that `multiprocessing.connection.wait` can wait for."""
        return [peer.pipe for peer in self._peers if not peer.is_done]

    @property
    def peer_stalls(self) -> Sequence[Stall] | None:
        """What the other nodes last said of their ranks; None unless no rank of any of them makes progress."""
        stalls = [peer.stall for peer in self._peers if peer.stall is not None]
        return stalls if len(stalls) == len(self._peers) else None

    def poll(self, now: float, stall: Stall | None) -> Ending | None:
        """Read messages, and send one if it is due; return how the cell ends because of another node, or None.

        Args:
            now: Seconds since the start.
            stall: Of this node's ranks; None while they make progress.
        """
        is_due = self._pinged_at is None or now - self._pinged_at >= PING_S
        if is_due:
            self._pinged_at = now
        for peer in self._peers:
            if peer.is_done:
                continue
            try:
                ending = self._read(peer, now)
                if ending is None and is_due and not peer.is_done:
                    send(peer.pipe, {"kind": "ping", "stall": None if stall is None else stall.as_json()})
            except (OSError, EOFError):
                return _lose(peer, "its connection closed")
            if ending is not None:
                return ending
            # The others may still be starting processes when this node polls first.
            limit_s = LOST_AFTER_S if peer.heard_at is not None else self.part.join_timeout_s
            if not peer.is_done and now - (peer.heard_at or 0.0) > limit_s:
                return _lose(peer, f"nothing was heard from it for {limit_s:.0f} s")
        return None

    def tell(self, ending: Ending, *, failed: bool) -> None:
        """Tell the other nodes how this one ended; `failed` ends theirs."""
        message = {"kind": "ended", "outcome": ending.outcome, "reason": ending.reason, "failed": failed}
        for peer in self._peers:
            if not peer.is_done:
                with contextlib.suppress(OSError):
                    send(peer.pipe, message)

    def close(self) -> None:
        """Close all connections, after the other nodes have read the last message."""
        deadline = time.monotonic() + _CLOSE_S
        for peer in self._peers:
            if not peer.is_done:
                with contextlib.suppress(OSError, EOFError):
                    finish_sending(peer.pipe)
                    # Closing with unread messages would reset the connection, and the other node would lose the last message.
                    while peer.pipe.poll(max(0.0, deadline - time.monotonic())):
                        receive(peer.pipe)
                peer.pipe.close()
        self._peers = []

    def _read(self, peer: _Peer, now: float) -> Ending | None:
        while not peer.is_done and peer.pipe.poll():
            message = receive(peer.pipe)
            peer.heard_at = now
            if message.get("kind") == "ping":
                peer.stall = Stall.from_json(message.get("stall"))
            elif message.get("kind") == "ended":
                if message.get("failed"):
                    return _told(peer, message)
                peer.is_done = True
                peer.pipe.close()
        return None


def _gather(part: NodePart, facts: Mapping[str, str]) -> NodeLink:
    """Accept the other nodes, and tell all of them to start."""
    deadline = time.monotonic() + part.join_timeout_s
    peers: dict[int, _Peer] = {}
    with (
        contextlib.ExitStack() as on_failure,
        listen(part.master_address, part.master_port, _BACKLOG + part.num_nodes) as server,
    ):
        while missing := [str(index) for index in range(1, part.num_nodes) if index not in peers]:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                pipe = accept(server, part.token)
            except TimeoutError:
                nodes = f"node{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
                reason = f"{nodes} did not join within {part.join_timeout_s:.0f} s"
                _refuse(peers.values(), reason)
                raise NodesNotJoinedError("interrupted", reason) from None
            if pipe is None:
                continue
            on_failure.callback(pipe.close)
            hello = receive(pipe)
            index = hello.get("node")
            if not isinstance(index, int) or not 0 < index < part.num_nodes or index in peers:
                _refuse([_Peer(-1, pipe)], f"node number {index!r} is wrong or taken")
                continue
            peers[index] = _Peer(index, pipe)
            if (difference := _difference(index, facts, hello.get("facts"))) is not None:
                _refuse(peers.values(), difference, "unsupported")
                raise NodesNotJoinedError("unsupported", difference)
        store_port = free_port(part.master_address)
        for peer in peers.values():
            send(peer.pipe, {"kind": "start", "store_port": store_port})
        on_failure.pop_all()
    return NodeLink(part, store_port, [peers[index] for index in sorted(peers)])  # ranks are numbered by node


def _reach(part: NodePart, facts: Mapping[str, str]) -> NodeLink:
    """Connect to node 0, and wait until it tells to start."""
    deadline = time.monotonic() + part.join_timeout_s
    pipe = connect_to_first(part, deadline)
    try:
        send(pipe, {"kind": "hello", "node": part.node_index, "facts": dict(facts)})
        if not pipe.poll(max(0.0, deadline - time.monotonic())):
            raise NodesNotJoinedError("interrupted", f"not all nodes joined within {part.join_timeout_s:.0f} s")
        message = receive(pipe)
        if message.get("kind") != "start":
            told = _told(_Peer(0, pipe), message)
            raise NodesNotJoinedError(told.outcome, told.reason or "node 0 refused")
        return NodeLink(part, int(message["store_port"]), [_Peer(0, pipe)])
    except BaseException:
        pipe.close()
        raise


def _difference(index: int, own: Mapping[str, str], others: object) -> str | None:
    """Return how a node's facts differ from this one's; None if they are equal."""
    facts = others if isinstance(others, dict) else {}
    for name, value in own.items():
        if facts.get(name) != value:
            return f"node {index} differs in its {name}: {str(facts.get(name))[:80]}, and node 0 has {value}"
    return None


def _refuse(peers: Iterable[_Peer], reason: str, outcome: Outcome = "interrupted") -> None:
    for peer in peers:
        with contextlib.suppress(OSError):
            send(peer.pipe, {"kind": "ended", "outcome": outcome, "reason": reason, "failed": True})


def _told(peer: _Peer, message: Mapping[str, object]) -> Ending:
    """Return another node's ending as the consequence that it is here."""
    outcome, reason = message.get("outcome"), message.get("reason")
    known: Outcome = outcome if outcome in get_args(Outcome) else "crashed"  # type: ignore[assignment]  # checked
    text = reason[:_MAX_REASON_CHARS] if isinstance(reason, str) else f"node {peer.index} failed"
    return Ending(known, text, is_consequence=True)


def _lose(peer: _Peer, how: str) -> Ending:
    """Give up a node: nothing more is sent to it or expected from it."""
    peer.is_done = True
    peer.pipe.close()
    return Ending("interrupted", f"node {peer.index} was lost: {how}")
