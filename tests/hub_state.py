"""What the hub of hub_server.py holds, and what tests see and set of it."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

Content = bytes | Path
LARGE = (".safetensors", ".bin", ".pt", ".model", ".gguf")
TOKEN = "hf_owner"  # noqa: S105 (opens nothing but this server)
STRANGER = "hf_stranger"
LARGE_FROM = 10_000_000
PIECE = 1 << 16


@dataclass(frozen=True)
class Blob:
    """A file's content, and what the hub knows of it."""

    content: Content
    large: bool

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()

    @cached_property
    def oid(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        data = pointer.encode() if self.large else self.read()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.large else self.oid}"'

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content[start:end]
            return
        with self.content.open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(PIECE, end - start))):
                start += len(piece)
                yield piece


@dataclass
class Repo:
    """A repository: its commits' files, and the branches and tags that name commits."""

    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)  # of commits
    private: bool = False
    gated: bool = False

    def resolve(self, revision: str) -> str | None:
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        return commit if commit in self.commits else None

    def add(self, files: Mapping[str, Blob], branch: str = "main", message: str = "") -> str:
        """Add a commit and return its id, which depends on its place only; a branch moves to it."""
        commit = hashlib.sha1(b"commit %d" % len(self.commits), usedforsecurity=False).hexdigest()
        self.commits[commit] = dict(files)
        self.messages[commit] = message
        self.branches[branch] = commit
        return commit


def repository(*commits: Mapping[str, Content], large: Sequence[str] = LARGE, **settings: Any) -> Repo:
    """A repository with these commits, the last of which is `main`; files that end so, or of 10 MB, are large."""
    repo = Repo(**settings)
    for files in commits:
        blobs = {path: Blob(content, large=path.endswith(tuple(large))) for path, content in files.items()}
        repo.add({path: blob if blob.size < LARGE_FROM else replace(blob, large=True) for path, blob in blobs.items()})
    return repo


def files_of(directory: Path) -> dict[str, Content]:
    """The files below a directory, which are read when they are asked for."""
    return {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}


@dataclass
class Request:
    """A request as it came, and what it got: `sent` and `received` count the bytes of bodies."""

    origin: str  # "hub" or "store"
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # with names in lower case
    received: int = 0
    status: int = 0
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Fault:
    """What goes wrong with some requests: the nth that matches, and as many as `times` says from there."""

    path: str  # a regular expression, searched for in the path
    method: str = "GET|HEAD|POST|PUT|DELETE"
    nth: int = 1
    times: int = 1
    status: int | None = None  # answer so, without doing anything
    headers: Mapping[str, str] = field(default_factory=dict)  # put these in the place of the right ones
    close: bool = False  # close the connection without an answer
    cut: int | None = None  # promise the whole body, close the connection after so many bytes of it
    short: int | None = None  # send so many bytes, and say that this is all
    flip: bool = False  # change the first byte of the body
    whole: bool = False  # answer as if no range were asked for
    hang: float = 0  # wait so many seconds before the answer, or where the body is cut
    call: Callable[["Hub"], object] = lambda _hub: None  # do this before the answer, for example move a branch
    seen: int = 0

    def hits(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class Hub:
    """A hub: what it holds, what it was asked, and what is to go wrong."""

    def __init__(self, repos: Mapping[str, Repo | Mapping[str, Content]]) -> None:
        self.repos = {name: repo if isinstance(repo, Repo) else repository(repo) for name, repo in repos.items()}
        self.store = {
            b.sha256: b for r in self.repos.values() for c in r.commits.values() for b in c.values() if b.large
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[Exception] = []  # of the hub itself
        self.page = 1000  # how many entries a page of a listing has
        self.tokens = {TOKEN, STRANGER}
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.endpoint = self.store_endpoint = ""  # known when the servers run

    def move(self, branch: str, commit: str, repo: str | None = None) -> None:
        """Let a branch name another commit, in the only repository if none is named."""
        with self.lock:
            (name,) = [repo] if repo else self.repos
            self.repos[name].branches[branch] = commit

    def asked(self, path: str = "", method: str = "") -> list[Request]:
        """The requests whose path and method match these regular expressions."""
        return [r for r in list(self.requests) if re.search(path, r.path) and re.search(method, r.method)]

    def sent(self, path: str = "") -> int:
        """How many bytes of contents were sent for such paths, by both servers."""
        return sum(request.sent for request in self.asked(path) if request.status in {200, 206})

    def signed(self, sha256: str, path: str = "") -> str:
        """An address in the store; it ends with the path of the file, so that `sent` counts that too."""
        return f"{self.store_endpoint}/{sha256}{quote(path)}?Signature=secret-{sha256[:8]}"
