"""A stand-in of the Hugging Face hub on loopback: its API, files, redirects and faults, for repositories that tests make.

It speaks the part of the interface that huggingface_hub and datasets were seen to use: info of a repository, trees,
`paths-info`, and `resolve` with ETags and commits. As on the hub, small files are redirected to a commit's own address on
the same host, and large ones to a storage host, here a second port. Xet, the hub's other protocol, is not spoken.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_AcceptedTokenOfTheStandIn"
LARGE_SUFFIXES = (".safetensors", ".bin", ".parquet")
_API = re.compile(
    r"/api/(models|datasets)/(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?"
)
_RESOLVE = re.compile(r"/(datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)")
_RESOLVED = re.compile(r"/api/resolve-cache/(models|datasets)/(?P<name>[\w.-]+(?:/[\w.-]+)?)/([0-9a-f]{40})/(.+)")


@dataclass(frozen=True)
class Request:
    """One request that arrived; `host` is `hub` or `storage`."""

    host: str
    method: str
    path: str
    authorization: str | None
    range: str | None

    @property
    def is_download(self) -> bool:
        return self.method == "GET" and (self.host == "storage" or "/resolve" in self.path)


@dataclass
class Fault:
    """What requests get instead of their answer.

    Attributes:
        status: The answer's status; None: the answer begins well and the connection ends after `num_bytes` of its body.
        times: How many requests it meets.
        headers: Of the answer.
        reset: End the connection by a reset; otherwise by closing it.
        hangs: Nothing is answered until the stand-in closes.
    """

    status: int | None = None
    times: int = 1_000
    headers: Mapping[str, str] = field(default_factory=dict)
    num_bytes: int = 0
    reset: bool = False
    hangs: bool = False


@dataclass
class Repo:
    """A repository; `access` is open, gated (terms to accept), refused (gated, and the token's user is not let in) or private."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    access: str = "open"

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


class HubStandIn:
    """Repositories, the faults to meet, and the requests that came.

    Attributes:
        objects: The contents of all files, by SHA-256.
        endpoint: For HF_ENDPOINT.
        without_commits: Files are answered without X-Repo-Commit, as by a mirror that is no hub.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[Request] = []
        self.without_commits = False
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._servers = {host: _Server(self, host) for host in ("hub", "storage")}
        self.endpoint = self._servers["hub"].address
        self.storage = self._servers["storage"].address

    def add(self, kind: str, name: str, files: Mapping[str, bytes], *, access: str = "open", ref: str = "main") -> str:
        """Add a commit to a repository (`kind`: models or datasets), whose branch or tag `ref` then names it; return it."""
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        commit = hashlib.sha1(json.dumps([kind, name, content]).encode()).hexdigest()
        repo = self.repos.setdefault((kind, name), Repo({}, {}, access))
        repo.commits[commit], repo.refs[ref] = dict(files), commit
        self.objects |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        return commit

    def fail(self, part: str, fault: Fault) -> None:
        """Let requests whose path contains `part` meet a fault; on the storage host, paths are `/<sha256>/<file>`."""
        self.faults[part] = fault

    def fault_of(self, path: str) -> Fault | None:
        with self._lock:
            for part, fault in self.faults.items():
                if part in path and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def downloads(self) -> list[str]:
        return [request.path for request in self.requests if request.is_download]

    @contextmanager
    def watch(self) -> Iterator[list[Request]]:
        """Collect the requests of a block."""
        collected: list[Request] = []
        first = len(self.requests)
        yield collected
        collected += self.requests[first:]

    def close(self) -> None:
        self.closing.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubStandIn, host: str) -> None:
        self.hub, self.host = hub, host
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about connections that clients or faults ended."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *args: object) -> None:
        """Log nothing: `HubStandIn.requests` has all."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        hub, url = self.server.hub, urlsplit(self.path)
        headers = self.headers
        hub.requests.append(
            Request(self.server.host, self.command, self.path, headers.get("Authorization"), headers.get("Range"))
        )
        self._fault = hub.fault_of(url.path)
        if self._fault is not None and self._fault.hangs:
            hub.closing.wait()
            self.close_connection = True
        elif self._fault is not None and self._fault.status is not None:
            self._send(self._fault.status, b'{"error": "a fault of the stand-in"}', dict(self._fault.headers))
        elif self.server.host == "storage":
            self._answer_storage(url.path)
        elif match := _RESOLVED.fullmatch(url.path):
            self._answer_small_file(match[1], match["name"], match[3], match[4])
        elif match := _API.fullmatch(url.path):
            self._answer_api(match[1], match["name"], match[3], unquote(match[4] or "main"), match[5] or "")
        elif match := _RESOLVE.fullmatch(url.path):
            self._answer_resolve("datasets" if match[1] else "models", match["name"], unquote(match[3]), match[4])
        else:
            self._send(404, b"no such page")

    def _find(self, kind: str, name: str, revision: str) -> tuple[Repo, str] | None:
        """Return a repository and the commit, after an answer if the request may not have them."""
        repo, is_known = self.server.hub.repos.get((kind, name)), self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if "Authorization" in self.headers and not is_known:
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif (repo is None or repo.access == "private") and not is_known:
            self._refuse(401, None, "Invalid username or password.")  # the hub does not tell which exist
        elif repo is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif repo.access in ("gated", "refused") and not is_known:
            self._refuse(401, "GatedRepo", f"Access to {kind} {name} is restricted. You must have access to it.")
        elif repo.access == "refused":
            self._refuse(403, "GatedRepo", f"Access to {kind} {name} is restricted and you are not in the list.")
        elif (commit := repo.commit_of(revision)) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repo, commit
        return None

    def _answer_api(self, kind: str, name: str, view: str | None, revision: str, folder: str) -> None:
        found = self._find(kind, name, revision)
        if found is None:
            return
        repo, commit = found
        files = repo.commits[commit]
        if view in (None, "revision"):
            siblings = [{"rfilename": path} for path in sorted(files)]
            gated = "auto" if repo.access in ("gated", "refused") else False
            info = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "gated": gated, "private": False}
            self._send_json(info)
        elif view == "tree":
            entries = _tree(files, folder.strip("/"))
            if "recursive" not in self.path.lower() or "recursive=false" in self.path.lower():
                depth = folder.count("/") + 1 if folder else 0
                entries = [entry for entry in entries if str(entry["path"]).count("/") == depth]
            if folder and not entries:
                self._refuse(404, "EntryNotFound", f"{folder} does not exist on {revision}")
            else:
                self._send_json(entries)
        else:
            wanted = self._form.get("paths", [])
            self._send_json([entry for entry in _tree(files, "") if entry["path"] in wanted])

    def _answer_resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self._find(kind, name, revision)
        if found is None:
            return
        repo, commit = found
        data, commit_headers = repo.commits[commit].get(path), {"X-Repo-Commit": commit}
        if self.server.hub.without_commits:
            commit_headers = {}
        if data is None:
            self._refuse(404, "EntryNotFound", f"{path} does not exist on {revision}", commit_headers)
        elif path.endswith(LARGE_SUFFIXES):
            sha256 = hashlib.sha256(data).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            location = f"{self.server.hub.storage}/{sha256}/{path}?signature=of-the-stand-in"
            self._send(302, b"Found", {"Location": location, **linked, **commit_headers})
        else:
            linked = {"X-Linked-Etag": f'"{_blob_id(data)}"', "X-Linked-Size": str(len(data))}
            location = f"/api/resolve-cache/{kind}/{name}/{commit}/{path}?etag={_blob_id(data)}"
            self._send(307, b"Temporary Redirect", {"Location": location, **linked, **commit_headers})

    def _answer_small_file(self, kind: str, name: str, commit: str, path: str) -> None:
        data = self.server.hub.repos[kind, name].commits[commit][path]
        commit_headers = {} if self.server.hub.without_commits else {"X-Repo-Commit": commit}
        self._send_file(data, {"ETag": f'"{_blob_id(data)}"', **commit_headers})

    def _answer_storage(self, path: str) -> None:
        sha256 = path.split("/")[1]
        data = self.server.hub.objects.get(sha256)
        if data is None:
            self._send(404, b"no such object")
        else:
            self._send_file(data, {"ETag": f'"{sha256}"'})

    def _send_file(self, data: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            self._send(200, data, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], headers)

    def _refuse(self, status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Message": message, **codes, **(headers or {})})

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self._fault
        if fault is None or fault.status is not None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: fault.num_bytes])
        self.wfile.flush()
        if fault.reset:  # a socket that is closed without lingering sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, object]]:
    """Return the entries of a folder and of its subfolders, as the API names them."""
    entries: dict[str, dict[str, object]] = {}
    for path, data in sorted(files.items()):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            entries[parent] = {
                "type": "directory",
                "oid": hashlib.sha1(parent.encode()).hexdigest(),
                "size": 0,
                "path": parent,
            }
        entries[path] = {"type": "file", "oid": _blob_id(data), "size": len(data), "path": path}
        if path.endswith(LARGE_SUFFIXES):
            entries[path]["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return [entry for path, entry in entries.items() if not folder or path.startswith(f"{folder}/")]


def _blob_id(data: bytes) -> str:
    """Return a file's id in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
