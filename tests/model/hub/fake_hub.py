"""A small Hugging Face Hub on loopback: the answers that huggingface_hub asks for, and the faults a real one has."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

HANG_UP = -1  # a fault's status: no answer at all
STALL = -2  # a fault's status: half a body, then silence until the client goes
SHORT = -3  # a fault's status: half a body that says it is whole
LARGE = (".safetensors", ".bin")  # kept by the real Hub on another host, to which no token may go


class Request(NamedTuple):
    method: str
    path: str
    token: str | None
    start: int  # the first byte asked for
    status: int


@dataclass
class Repo:
    """Commits by their sha, branches that point at them, and who may read the files (``gate``: 401 or 403)."""

    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    gate: int | None = None


@dataclass
class Fault:
    """What happens to the next ``times`` requests that match: a status instead of an answer, or a cut body."""

    method: str
    pattern: str
    times: int
    status: int | None = None


@dataclass
class FakeHub:
    """The server's state, which a test reads and changes while clients talk to it."""

    url: str = ""
    elsewhere: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    held: tuple[str, int] | None = None  # bodies of such a file are held back until so many HEADs have come
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, repo: str, files: dict[str, bytes], kind: str = "models", gate: int | None = None) -> str:
        """Commit the files to the repository's main branch; returns the commit."""
        found = self.repos.setdefault((kind, repo), Repo({}, {}, gate))
        commit = hashlib.sha1(f"{repo} {len(found.commits)}".encode()).hexdigest()
        found.commits[commit] = files
        found.branches["main"] = commit
        return commit

    def fail(self, method: str, pattern: str, times: int, status: int | None = None) -> None:
        self.faults.append(Fault(method, pattern, times, status))

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def seen(self, repo: str, method: str = "GET", pattern: str = "") -> list[Request]:
        """The requests for the repository, in order."""
        with self.lock:
            asked = [request for request in self.requests if f"/{repo}/" in f"{request.path}/"]
        return [request for request in asked if request.method == method and re.search(pattern, request.path)]


class Handler(BaseHTTPRequestHandler):
    """One request; ``server.hub`` is the state."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal: the state keeps the requests."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer()

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def _answer(self) -> None:
        path, _, self.query = unquote(self.path).partition("?")
        self.bare = path
        fault = self.hub.fault_of(self.command, path)
        if fault and fault.status == HANG_UP:
            self.close_connection = True
            return None
        self.stalled, self.short = (fault is not None and fault.status == kind for kind in (STALL, SHORT))
        if fault and fault.status and not self.stalled and not self.short:
            return self._send(fault.status, b"", {"X-Error-Message": "not now"})
        self.cut = fault is not None and not self.short
        if cdn := re.fullmatch(r"/cdn/(models|datasets)/([^/]+/[^/]+)/(\w+)/(.+)", path):
            return self._send(200, self.hub.repos[cdn[1], cdn[2]].commits[cdn[3]][cdn[4]])
        if api := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/(revision|tree|paths-info)/(.+))?", path
        ):
            return self._api(*api.groups())
        if file := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(file[1] or "models", *file.groups()[1:])
        return self._send(404, b"")

    def _found(self, kind: str, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None:
            # The real Hub hides from those without a log-in whether there is such a repository.
            self._refuse(
                404 if self.headers["Authorization"] else 401, "RepoNotFound", "Repository not found"
            )
            return None
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo, commit

    def _api(self, kind: str, name: str, what: str | None, rest: str | None) -> None:
        revision, _, folder = (rest or "main").partition("/")
        found = self._found(kind, name, revision)
        if found is None:
            return
        repo, commit = found
        entries = [_entry(path, body) for path, body in sorted(repo.commits[commit].items())]
        if what in (None, "revision"):
            siblings = [{"rfilename": entry["path"]} for entry in entries]
            self._json({"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings})
        elif what == "paths-info":
            self._json([entry for entry in _tree(entries) if entry["path"] in self.posted["paths"]])
        else:
            inside = [
                entry for entry in _tree(entries) if entry["path"].startswith(f"{folder}/") or not folder
            ]
            deep = "recursive=true" in self.query.lower()
            self._json(
                [e for e in inside if deep or "/" not in e["path"][len(folder) + 1 if folder else 0 :]]
            )

    def _file(self, kind: str, name: str, revision: str, path: str) -> None:
        found = self._found(kind, name, revision)
        if found is None:
            return
        repo, commit = found
        if repo.gate:
            return self._refuse(repo.gate, "GatedRepo", f"Access to {kind} {name} is restricted.")
        body = repo.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if body is None:
            return self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        if not path.endswith(LARGE):
            return self._send(200, body, {**headers, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'})
        digest = hashlib.sha256(body).hexdigest()
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(body))}
        self._send(
            302, b"", {**headers, "Location": f"{self.hub.elsewhere}/cdn/{kind}/{name}/{commit}/{path}"}
        )

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def _json(self, answer: object) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        with self.hub.lock:
            token = self.headers["Authorization"]
            self.hub.requests.append(Request(self.command, self.bare, token, start, status))
        self._hold()
        self.send_response(206 if start else status)
        rest = body[start:]
        if self.short:
            rest = rest[: len(rest) // 2]
        extra = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        for name, value in {"Content-Length": str(len(rest)), **(headers or {}), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if getattr(self, "cut", False) and len(rest) > 1:
            rest, self.close_connection = rest[: len(rest) // 2], True
        self.wfile.write(rest)
        if self.stalled:
            self._stall()

    def _stall(self) -> None:
        """Nothing more comes; a client that goes, or is killed, ends it."""
        self.wfile.flush()
        self.connection.settimeout(60)
        with suppress(OSError):
            self.connection.recv(1)

    def _hold(self) -> None:
        """Until as many clients as the test wants have asked for the file, its body stays here."""
        if self.command != "GET" or self.hub.held is None or not re.search(self.hub.held[0], self.bare):
            return
        name = self.bare.rpartition("/")[2]
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with self.hub.lock:
                heads = [r for r in self.hub.requests if r.method == "HEAD" and r.path.endswith(f"/{name}")]
            if sum(bool(re.search(self.hub.held[0], r.path)) for r in heads) >= self.hub.held[1]:
                return
            time.sleep(0.01)


def _entry(path: str, body: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 100}
    return entry


def _tree(entries: list[dict]) -> list[dict]:
    """The entries, and one for each folder they lie in."""
    folders = {entry["path"].rpartition("/")[0] for entry in entries} - {""}
    return [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in sorted(folders)] + entries


@contextmanager
def serving() -> Iterator[FakeHub]:
    """A Hub that listens until the block ends; files of type `LARGE` come from another host name."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port = server.server_address[1]
    server.hub = FakeHub(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
