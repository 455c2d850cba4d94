"""Texts without what names this machine, its user, or a secret."""

from __future__ import annotations

import getpass
import platform
import re
import sys
import tempfile
from pathlib import Path

_TAIL_LINES = 20
# IPv4, shortened IPv6, IPv6, and a network card's own.
_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<![\w:])(?:(?:[\da-fA-F]{1,4}:)+(?::[\da-fA-F]{1,4})+"
    r"|(?:[\da-fA-F]{1,4}:){7}[\da-fA-F]{1,4}|(?:[\da-fA-F]{2}:){5}[\da-fA-F]{2})(?![\w:])"
)


def scrubbed_tail(path: Path) -> tuple[str, ...]:
    """The last lines of a file, scrubbed; none where it can't be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(scrub(line)[:500] for line in lines[-_TAIL_LINES:])


def scrub(text: str) -> str:
    """Take paths of this machine, host and user names, addresses and what looks like a token out of a text."""
    for path, shown in (
        (sys.prefix, "$VENV"),  # before the folder that it often lies in
        (str(Path.cwd()), "."),
        (tempfile.gettempdir(), "$TMP"),
        (str(Path.home()), "~"),
    ):
        if len(path) > 1:
            text = text.replace(path, shown)
    text = re.sub(r"(/home/|/Users/|\\Users\\)[^/\\\s:]+", r"\1...", text)
    text = re.sub(r"\b(hf_|ghp_|sk-|AKIA|xox.-)[A-Za-z0-9_-]{8,}", "[token]", text)
    text = re.sub(r"(?i)\b(token|password|secret|api[_-]?key)(\s*[=:]\s*)\S+", r"\1\2[secret]", text)
    # A slash makes a path of it, unless digits and capitals say that it is base64.
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
    except (KeyError, OSError):  # a container's user may have no name
        return ""
    return "" if name == "root" else name  # which names nobody, and is a word of many messages
