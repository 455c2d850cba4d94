"""Remove secrets from texts, and everything that identifies this machine or its user."""

from __future__ import annotations

import getpass
import platform
import re
import sys
import tempfile
from pathlib import Path

from harness.errors import shorten
from harness.machine.token_shapes import TOKEN_SHAPES

_TAIL_LINES, _MAX_SCRUBBED = 20, 4000
_MAX_LINE_CHARS = 500
# IPv4, shortened IPv6, full IPv6 and MAC addresses.
_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<![\w:])(?:(?:[\da-fA-F]{1,4}:)+(?::[\da-fA-F]{1,4})+"
    r"|(?:[\da-fA-F]{1,4}:){7}[\da-fA-F]{1,4}|(?:[\da-fA-F]{2}:){5}[\da-fA-F]{2})(?![\w:])"
)


def scrubbed_tail(path: Path) -> tuple[str, ...]:
    """Return the last lines of a file, scrubbed; empty when it can't be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(shorten(scrub(line), _MAX_LINE_CHARS) for line in lines[-_TAIL_LINES:])


def scrub(text: str) -> str:
    """Replace local paths, host and user names, addresses and anything that looks like a token or secret."""
    for path, shown in (
        (sys.prefix, "$VENV"),  # first, because the environment is often inside one of the other folders
        (str(Path.cwd()), "."),
        (tempfile.gettempdir(), "$TMP"),
        (str(Path.home()), "~"),
    ):
        if len(path) > 1:
            text = text.replace(path, shown)
    text = re.sub(r"(/home/|/Users/|\\Users\\)[^/\\\s:]+", r"\1...", text)
    for shape in TOKEN_SHAPES:
        text = shape.pattern.sub(shape.replacement, text)
    # Keep a long string with slashes, which is a path, unless capitals and digits suggest base64.
    text = re.sub(
        r"\b(?:[A-Za-z0-9+=_-]{40,}|(?=[^\s.]*[A-Z])(?=[^\s.]*\d)[A-Za-z0-9+/=_-]{40,})", "[long string]", text
    )
    text = _ADDRESS.sub("[address]", text)
    for name, shown in ((platform.node(), "[host]"), (_user(), "[user]")):
        if name:
            text = re.sub(rf"\b{re.escape(name)}\b", shown, text)
    return text


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user may have no name
        return ""
    return "" if name == "root" else name  # root identifies nobody and is a common word in messages
