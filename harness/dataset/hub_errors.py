"""Say in one line what the hub's clients met, and what to do about it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY_REQUESTS, _FIRST_SERVER_ERROR = 401, 403, 429, 500
_UNREACHABLE = {"ConnectError", "ConnectionError", "TimeoutException", "TimeoutError"}
_BROKEN = {"ReadError", "WriteError", "RemoteProtocolError", "IncompleteRead"}
_RATE_LIMIT_RESET = re.compile(r"\bt\s*=\s*(\d+)")
_TOKEN = re.compile(r"hf_\w+")
_MAX_CHARS = 200


def hub_host() -> str:
    """Return the hub's host, without the credentials that HF_ENDPOINT may hold."""
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "huggingface.co"


def is_passing(error: BaseException) -> bool:
    """Return whether the hub may answer later: it was not reached, failed, or limits requests."""
    status = _status(error)
    if status is None:
        return bool(_kinds(error) & (_UNREACHABLE | _BROKEN))
    return status == _TOO_MANY_REQUESTS or status >= _FIRST_SERVER_ERROR


def explain(error: BaseException, *, kind: str, page: str, revision: str) -> str:
    """Return what went wrong and what to do, in one line without tokens.

    Args:
        error: What huggingface_hub, datasets or their HTTP client raised.
        kind: `model` or `dataset`.
        page: Path of the repository's page on the hub.
        revision: The revision that was asked for.
    """
    has_token = _has_token()
    clauses = _clauses(kind, page, revision, has_token=has_token)
    for link in _chain(error):
        names = [cls.__name__ for cls in type(link).__mro__]
        if "LocalEntryNotFoundError" in names:
            continue  # "not in the cache" wraps what the hub or the network said
        clause = next((clauses[name] for name in names if name in clauses), None)
        if clause := clause or _explain_status(link, clauses["RepositoryNotFoundError"], has_token=has_token):
            return clause
    return _explain_transfer(error)


def one_line(error: BaseException) -> str:
    """Return an error's type and first line, shortened and without tokens."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return _TOKEN.sub("hf_...", f"{type(error).__name__}: {first}")[:_MAX_CHARS]


def _clauses(kind: str, page: str, revision: str, *, has_token: bool) -> dict[str, str]:
    """Return what to say of an error, by the name of its class; see `explain` for the arguments."""
    no_hub = (
        f"{hub_host()} answers unlike the hub: check HF_ENDPOINT, the proxy, and whether the network wants a sign-in"
    )
    refused = " (the hub does not let in the present token's account)" if has_token else ""
    return {
        "GatedRepoError": f"it is gated: accept its terms at {hub_host()}/{page}, then set HF_TOKEN to a token of that "
        f"account{refused}",
        "DisabledRepoError": "the hub has disabled it: use another one",
        "RevisionNotFoundError": f"the hub has no revision {revision!r} of it: check the branch, tag or commit after @",
        "RepositoryNotFoundError": f"the hub has no such {kind}, or it is private: check the name; for a private one, set "
        "HF_TOKEN to a token that may read it",
        "HFValidationError": "not an id of the hub, which are NAME or OWNER/NAME: check the name",
        "EntryNotFoundError": f"a file of revision {revision!r} is missing on the hub: name another revision after @",
        "FileMetadataError": f"{hub_host()} answers without the hub's headers: check HF_ENDPOINT, which must name a hub",
        **dict.fromkeys(("JSONDecodeError", "KeyError"), no_hub),
    }


def _explain_status(error: BaseException, unknown: str, *, has_token: bool) -> str | None:
    """Explain an answer by its status; None if there was no answer. `unknown` is what to say of an unknown repository."""
    status = _status(error)
    if status == _UNAUTHORIZED:  # without a token, the hub's answer for a repository that does not exist
        return "the hub refuses the token: renew or unset HF_TOKEN (or `hf auth login`)" if has_token else unknown
    if status == _FORBIDDEN:
        return "the hub refuses access (HTTP 403): check what the token of HF_TOKEN may read"
    if status == _TOO_MANY_REQUESTS:
        seconds = _seconds_to_wait(dict(error.response.headers))  # type: ignore[attr-defined] # it has a status
        when = f"in {seconds} s" if seconds else "later"
        return f"the hub limits requests (HTTP 429): run again {when}" + ("" if has_token else ", or set HF_TOKEN")
    if status is not None and status >= _FIRST_SERVER_ERROR:
        return f"the hub failed (HTTP {status}): run again later"
    return None


def _explain_transfer(error: BaseException) -> str:
    """Explain an error that is no answer of the hub."""
    names, text = _kinds(error), " ".join(str(link) for link in _chain(error))
    if "ProxyError" in names:
        return "no way through the proxy: check HTTPS_PROXY and NO_PROXY"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"the certificate of {hub_host()} is not trusted: set SSL_CERT_FILE to the certificates of your proxy"
    if names & _BROKEN or "Consistency check failed" in text:
        return "the transfer broke off: run again"
    if names & _UNREACHABLE:
        return f"no answer from {hub_host()}: check the network (HF_HUB_OFFLINE=1 asks nothing and takes what the hub's cache has)"
    if any(getattr(link, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for link in _chain(error)):
        return "no space left for the hub's cache: set HF_HOME to a folder with more"
    return one_line(error)


def _seconds_to_wait(headers: dict[str, str]) -> int | None:
    told = {name.lower(): value for name, value in headers.items()}
    if told.get("retry-after", "").isdigit():
        return int(told["retry-after"])
    match = _RATE_LIMIT_RESET.search(told.get("ratelimit", ""))
    return int(match[1]) if match else None


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _kinds(error: BaseException) -> set[str]:
    """Return the names of an error's classes and of those of its causes.

    Names, because the HTTP client's module differs between versions of huggingface_hub (requests, httpx, httpx2).
    """
    return {cls.__name__ for link in _chain(error) for cls in type(link).__mro__}


def _status(error: BaseException) -> int | None:
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status
