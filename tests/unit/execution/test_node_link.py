"""The connection between the parents of a cell's nodes, over loopback and without ranks."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from harness.execution import node_channel
from harness.execution.heartbeat import Stall
from harness.execution.jobs import NodePart
from harness.execution.node_link import LOST_AFTER_S, NodeLink, NodesNotJoinedError
from harness.execution.outcome import Ending
from harness.machine.network import free_port

HOST = "127.0.0.1"
FACTS = {"kind of machine": "epyc-4c", "data": "abc"}
FAILED = Ending("oom", "rank 1: MemoryError")
STALL = Stall(6.0, 1.0, (4,), (True,), (False,))


def parts(num_nodes=2, **more):
    port = free_port(HOST)
    return [NodePart(index, num_nodes, HOST, port, "secret", join_timeout_s=5.0, **more) for index in range(num_nodes)]


def join_all(members, facts=None):
    """Join all nodes at once; return each one's link or error."""

    def join(part):
        try:
            return NodeLink.join(part, (facts or {}).get(part.node_index, FACTS))
        except NodesNotJoinedError as error:
            return error

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(join, members))


@pytest.fixture
def joined():
    links = join_all(parts(3))
    assert all(isinstance(link, NodeLink) for link in links), links
    yield links
    with ThreadPoolExecutor(len(links)) as pool:  # each waits for the others' last message
        list(pool.map(NodeLink.close, links))


def poll_until_told(link, now=1.0):
    """Poll as the parent does: whenever a message has come."""
    from multiprocessing import connection

    while True:
        connection.wait(link.pipes, 5.0)
        if ending := link.poll(now, None):
            return ending


def test_all_nodes_get_one_port_for_torchs_store(joined):
    assert len({link.store_port for link in joined}) == 1


def test_a_failure_on_any_node_ends_the_others_as_its_consequence(joined):
    joined[2].tell(FAILED, failed=True)
    told = poll_until_told(joined[0])
    assert told == FAILED._replace(is_consequence=True)
    joined[0].tell(told, failed=True)  # as the parent of node 0 does when its part has ended
    assert poll_until_told(joined[1]) == told


def test_a_node_that_ended_well_is_no_loss(joined):
    first, second, third = joined
    second.tell(Ending("ok", None), failed=False)
    third.tell(Ending("ok", None), failed=False)
    first.tell(Ending("ok", None), failed=False)
    with ThreadPoolExecutor(2) as pool:
        closing = [pool.submit(second.close), pool.submit(third.close)]
        while first.pipes:
            assert first.poll(1.0, None) is None
        for each in closing:
            each.result()
    assert first.poll(1000.0, None) is None


def test_the_last_message_arrives_although_the_sender_has_unread_ones():
    first, second = join_all(parts(2))
    second.poll(1.0, None)  # a ping that node 0 does not read
    first.tell(FAILED, failed=True)
    closing = threading.Thread(target=first.close)
    closing.start()
    assert poll_until_told(second).outcome == "oom"  # not "connection reset"
    second.close()
    closing.join()


def test_a_node_whose_process_died_is_lost(joined):
    for peer in joined[2]._peers:
        peer.pipe.close()  # as the kernel does
    ending = poll_until_told(joined[0])
    assert ending == Ending("interrupted", "node 2 was lost: its connection closed")


def test_a_node_that_falls_silent_is_lost_after_ten_seconds(joined):
    first, second, third = joined
    for link in (second, third):
        link.poll(0.0, None)
    assert first.poll(0.5, None) is None
    while any(peer.heard_at is None for peer in first._peers):
        first.poll(0.5, None)
    assert first.poll(0.4 + LOST_AFTER_S, None) is None
    ending = first.poll(0.6 + LOST_AFTER_S, None)
    assert ending == Ending("interrupted", "node 1 was lost: nothing was heard from it for 10 s")


def test_a_stall_is_known_when_all_nodes_tell_one(joined):
    first, second, third = joined
    second.poll(0.0, STALL)
    third.poll(0.0, None)
    while any(peer.heard_at is None for peer in first._peers):
        first.poll(0.5, None)
    assert first.peer_stalls is None  # node 2 makes progress
    third.poll(2.0, replace(STALL, counters=(3,)))
    while first.peer_stalls is None:
        first.poll(2.5, None)
    assert [stall.counters for stall in first.peer_stalls] == [(4,), (3,)]


def test_nodes_that_differ_are_refused_with_what_differs():
    errors = join_all(parts(2), {1: FACTS | {"kind of machine": "xeon-8c"}})
    reason = "node 1 differs in its kind of machine: xeon-8c, and node 0 has epyc-4c"
    assert [(error.outcome, error.reason) for error in errors] == [("unsupported", reason)] * 2


def test_a_node_without_the_token_does_not_join():
    first, second = parts(2)
    errors = join_all([replace(first, join_timeout_s=1.0), replace(second, token="guessed")])
    assert [error.outcome for error in errors] == ["interrupted"] * 2
    assert [error.reason for error in errors] == [
        "node 1 did not join within 1 s",
        "the tokens of this node and of node 0 differ",
    ]
    assert "secret" not in f"{errors}{first}{second}"


def test_a_stranger_who_says_nothing_or_nonsense_keeps_nobody_out(monkeypatch):
    monkeypatch.setattr(node_channel, "_HANDSHAKE_S", 1.0)
    first, second = parts(2)
    with ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as strangers:
        node_0 = pool.submit(NodeLink.join, replace(first, join_timeout_s=30.0), FACTS)
        for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x04null"):
            strangers.enter_context(_connect(first)).sendall(words)
        link = NodeLink.join(replace(second, join_timeout_s=30.0), FACTS)
        other = node_0.result()
        closing = pool.submit(other.close)
        link.close()
        closing.result()


def test_a_node_that_never_comes_ends_the_wait_of_all():
    first, second, _ = parts(3)
    errors = join_all([replace(first, join_timeout_s=1.0), second])
    assert [error.reason for error in errors] == ["node 2 did not join within 1 s"] * 2


def _connect(part):
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection((part.master_address, part.master_port))
