"""Authenticated connections between the parents of a cell's nodes, which carry JSON and never pickles."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from multiprocessing import AuthenticationError, connection
from typing import Any

from harness.execution.jobs import NodePart

_RETRY_S = 0.2
_HANDSHAKE_S = 5.0  # a stranger who connects and says nothing is dropped after this
_MAX_MESSAGE_BYTES = 2**16


def accept(server: socket.socket, token: str) -> connection.Connection | None:
    """Accept a connection; return None for one without the token.

    Raises:
        TimeoutError: If none came in time.
    """
    accepted, _ = server.accept()
    try:
        return _authenticate(accepted, lambda pipe: _challenge_first(pipe, token.encode()))
    except (OSError, EOFError, AuthenticationError):
        return None


def connect_to_first(part: NodePart, deadline: float) -> connection.Connection:
    """Connect to node 0, which may not listen yet, or be busy with a stranger."""
    while True:
        try:
            sock = socket.create_connection((part.master_address, part.master_port), timeout=_HANDSHAKE_S)
            return _authenticate(sock, lambda pipe: _answer_first(pipe, part.token.encode()))
        except (OSError, EOFError):
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)


def _authenticate(sock: socket.socket, prove: Callable[[connection.Connection], None]) -> connection.Connection:
    """Let both sides prove that they have the token.

    Raises:
        OSError: If the other side does not answer within a few seconds, or not as a node.
        EOFError: If it closes the connection.
        AuthenticationError: If the tokens differ.
    """
    sock.setblocking(
        True
    )  # Python's own time-out would make the file descriptor non-blocking, which a Connection can't be
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(_HANDSHAKE_S), 0))
    pipe = connection.Connection(sock.detach())
    try:
        prove(pipe)
    except BaseException:
        pipe.close()
        raise
    return pipe


def _challenge_first(pipe: connection.Connection, key: bytes) -> None:
    connection.deliver_challenge(pipe, key)
    connection.answer_challenge(pipe, key)


def _answer_first(pipe: connection.Connection, key: bytes) -> None:
    connection.answer_challenge(pipe, key)
    connection.deliver_challenge(pipe, key)


def finish_sending(pipe: connection.Connection) -> None:
    """Tell the other side that no message follows; it can still send."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as sock:
        sock.shutdown(socket.SHUT_WR)


def send(pipe: connection.Connection, message: Mapping[str, object]) -> None:
    """Send a message."""
    pipe.send_bytes(json.dumps(message).encode())


def receive(pipe: connection.Connection) -> dict[str, Any]:
    """Receive a message.

    Raises:
        OSError: If it is too long, or no message of a node.
    """
    try:
        message = json.loads(pipe.recv_bytes(_MAX_MESSAGE_BYTES))
    except ValueError:
        raise OSError("a message that is no JSON") from None
    if not isinstance(message, dict):
        raise OSError("a message that is no object")
    return message
