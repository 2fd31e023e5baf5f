"""What the hub of hub_server.py answers: the endpoints that huggingface_hub asks."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from hub_state import LARGE, LARGE_FROM, TOKEN, Blob, Hub, Repo, Request, repository


class RefusedError(Exception):
    """An error as the hub words it: the client knows the kind by a header."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        named = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.headers = {name.replace("_", "-"): value for name, value in named.items() if value}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Blob


def as_json(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    body = Blob(json.dumps(data).encode(), large=False)
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, body)


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.large else {}
    return {"type": "file", "path": path, "oid": blob.oid, "size": blob.size, **lfs}


def _sibling(path: str, blob: Blob) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.large else {}
    return {"rfilename": path, "blobId": blob.oid, "size": blob.size, **lfs}


class Api:
    """What the two servers answer to one request."""

    def __init__(self, hub: Hub, request: Request, body: bytes) -> None:
        self.hub, self.request, self.body = hub, request, body

    def answer(self, raw_path: str) -> Answer:
        """Find the endpoint; a revision's slashes are quoted, so the path is matched as it came."""
        for origin, methods, pattern, endpoint in ENDPOINTS:
            found = re.fullmatch(pattern, raw_path)
            if found and origin == self.request.origin and self.request.method in methods.split("|"):
                with self.hub.lock:
                    return endpoint(self, *(unquote(group or "") for group in found.groups()))
        raise RefusedError(404, "", f"this hub has no endpoint {self.request.method} {raw_path}")

    # Who may do what

    def readable(self, name: str) -> Repo:
        token, repo = self.request.token, self.hub.repos.get(name)
        if token and token not in self.hub.tokens:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        if repo is None or (repo.private and token != TOKEN):
            raise RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repo

    def writable(self, name: str) -> Repo:
        repo = self.readable(name)
        self.owner()
        return repo

    def owner(self) -> None:
        if self.request.token != TOKEN:
            raise RefusedError(403 if self.request.token else 401, "", "You have no right to write here")

    def commit_of(self, repo: Repo, revision: str) -> str:
        if commit := repo.resolve(revision or "main"):
            return commit
        raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    # Reading

    def whoami(self) -> Answer:
        self.owner()
        return as_json({"type": "user", "name": "owner", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def info(self, name: str, revision: str = "") -> Answer:
        repo = self.readable(name)
        commit = self.commit_of(repo, revision)
        files = repo.commits[commit].items()
        listed = [_sibling(*file) if "blobs" in self.request.query else {"rfilename": file[0]} for file in files]
        rights = {"private": repo.private, "gated": "manual" if repo.gated else False}
        return as_json({"id": name, "modelId": name, "sha": commit, "siblings": listed, "tags": [], **rights})

    def refs(self, name: str) -> Answer:
        repo = self.readable(name)
        branches, tags = (
            [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in refs.items() if "refs/" not in n]
            for kind, refs in (("heads", repo.branches), ("tags", repo.tags))
        )
        return as_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def tree(self, name: str, revision: str, folder: str = "") -> Answer:
        repo = self.readable(name)
        files = repo.commits[self.commit_of(repo, revision)]
        prefix = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise RefusedError(404, "EntryNotFound", f"{folder} does not exist")
        folders = {str(parent) for path in inside for parent in Path(path).parents if str(parent).startswith(prefix)}
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders - {".", folder}]
        entries += [_entry(*file) for file in inside.items()]
        if self.request.query.get("recursive", ["false"])[0] not in {"true", "True", "1"}:
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
        start = int(self.request.query.get("cursor", ["0"])[0])
        entries.sort(key=lambda entry: entry["path"])
        query = {key: values[0] for key, values in self.request.query.items()} | {"cursor": start + self.hub.page}
        more = f'<{self.hub.endpoint}{quote(self.request.path)}?{urlencode(query)}>; rel="next"'
        page = entries[start : start + self.hub.page]
        return as_json(page, headers={"Link": more} if start + self.hub.page < len(entries) else None)

    def paths_info(self, name: str, revision: str) -> Answer:
        repo = self.readable(name)
        files = repo.commits[self.commit_of(repo, revision)]
        return as_json([_entry(path, files[path]) for path in parse_qs(self.body.decode())["paths"] if path in files])

    def resolve(self, name: str, revision: str, path: str) -> Answer:
        repo = self.readable(name)
        if repo.gated and self.request.token != TOKEN:
            raise RefusedError(403 if self.request.token else 401, "GatedRepo", f"Access to model {name} is restricted")
        commit = self.commit_of(repo, revision)
        blob = repo.commits[commit].get(path)
        if blob is None:
            raise RefusedError(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        headers = {"X-Repo-Commit": commit, "ETag": blob.etag, "Accept-Ranges": "bytes"}
        if not blob.large:
            return Answer(200, headers, blob)
        # What counts stands in other headers: those of the redirection's own short body are not of the file.
        linked = {"X-Linked-Size": str(blob.size), "X-Linked-Etag": blob.etag, "ETag": f'"{blob.oid}"'}
        location = self.hub.signed(blob.sha256, f"/{name}/{path}")
        return Answer(302, {**headers, **linked, "Location": location}, Blob(b"", large=False))

    # Writing

    def create(self) -> Answer:
        self.owner()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'owner'}/{asked['name']}"
        answer = {"url": f"{self.hub.endpoint}/{name}", "name": name}
        if name in self.hub.repos:
            return as_json({"error": "You already created this model repo", **answer}, 409)
        private = asked.get("visibility") == "private" or asked.get("private", False)
        self.hub.repos[name] = repository({".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return as_json(answer)

    def branch(self, name: str, branch: str) -> Answer:
        repo = self.writable(name)
        if branch in repo.branches:
            return as_json({"error": "Reference already exists"}, 409)
        repo.branches[branch] = self.commit_of(repo, json.loads(self.body or b"{}").get("startingPoint", ""))
        return as_json({})

    def preupload(self, name: str, revision: str) -> Answer:
        repo = self.writable(name)
        present = repo.commits[self.commit_of(repo, revision)]
        modes = []
        for file in json.loads(self.body)["files"]:
            large, blob = file["path"].endswith(LARGE) or file["size"] >= LARGE_FROM, present.get(file["path"])
            known = {"oid": blob.sha256 if blob.large else blob.oid} if blob else {}
            modes.append(
                {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, **known}
            )
        return as_json({"files": modes})

    def batch(self, name: str) -> Answer:
        self.writable(name)
        objects: list[dict[str, Any]] = json.loads(self.body)["objects"]
        for asked in objects:
            if asked["oid"] not in self.hub.store:
                verify = {"href": f"{self.hub.endpoint}/api/lfs/verify"}
                asked["actions"] = {"upload": {"href": self.hub.signed(asked["oid"])}, "verify": verify}
        return as_json({"transfer": "basic", "objects": objects})

    def verify(self) -> Answer:
        self.owner()
        asked = json.loads(self.body)
        blob = self.hub.store.get(asked["oid"])
        return as_json({}, 200 if blob and blob.size == asked["size"] else 400)

    def commit(self, name: str, revision: str) -> Answer:
        repo = self.writable(name)
        head = self.commit_of(repo, revision)
        (_, header), *changes = (json.loads(line).values() for line in self.body.splitlines())
        if header.get("parentCommit", head) != head:
            raise RefusedError(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repo.commits[head])
        for key, value in changes:
            self.change(files, key, value)
        url, pull_request = f"{self.hub.endpoint}/{name}", {}
        if "create_pr" in self.request.query:
            number = 1 + sum(branch.startswith("refs/pr/") for branch in repo.branches)
            revision, pull_request = f"refs/pr/{number}", {"pullRequestUrl": f"{url}/discussions/{number}"}
        oid = repo.add(files, revision, header["summary"])
        return as_json({"success": True, "commitOid": oid, "commitUrl": f"{url}/commit/{oid}", **pull_request})

    def change(self, files: dict[str, Blob], key: str, value: dict[str, str]) -> None:
        path = value["path"]
        match key:
            case "file":
                files[path] = Blob(base64.b64decode(value["content"]), large=False)
            case "lfsFile" if value["oid"] not in self.hub.store:
                raise RefusedError(400, "", f"LFS pointer of {path} points to a file that does not exist")
            case "lfsFile":
                files[path] = self.hub.store[value["oid"]]
            case "deletedFile" if path not in files:
                raise RefusedError(404, "EntryNotFound", "A file with this name doesn't exist")
            case "deletedFile":
                del files[path]
            case "deletedFolder":
                for inside in [file for file in files if file.startswith(path.rstrip("/") + "/")]:
                    del files[inside]

    # The store of large files

    def stored(self, sha256: str) -> Answer:
        if self.request.token:
            raise RefusedError(400, "", "Only one way of authentication is allowed")
        if self.hub.signed(sha256).partition("Signature=")[2] not in self.request.query.get("Signature", []):
            raise RefusedError(403, "", "Access denied")
        if self.request.method == "PUT":
            if hashlib.sha256(self.body).hexdigest() != sha256:
                raise RefusedError(400, "", "The content does not match its checksum")
            self.hub.store[sha256] = Blob(self.body, large=True)
            return as_json({})
        if sha256 not in self.hub.store:
            raise RefusedError(404, "", "No such key")
        blob = self.hub.store[sha256]
        return Answer(200, {"ETag": blob.etag, "Accept-Ranges": "bytes"}, blob)


_REPO = "([^/]+(?:/[^/]+)?)"
ENDPOINTS: tuple[tuple[str, str, str, Callable[..., Answer]], ...] = (
    ("store", "GET|HEAD|PUT", "/([0-9a-f]{64})(?:/.+)?", Api.stored),
    ("hub", "GET", "/api/whoami-v2", Api.whoami),
    ("hub", "GET", f"/api/models/{_REPO}/revision/([^/]+)", Api.info),
    ("hub", "GET", f"/api/models/{_REPO}/tree/([^/]+)(?:/(.+))?", Api.tree),
    ("hub", "GET", f"/api/models/{_REPO}/refs", Api.refs),
    ("hub", "GET", f"/api/models/{_REPO}", Api.info),
    ("hub", "GET|HEAD", f"/{_REPO}/resolve/([^/]+)/(.+)", Api.resolve),
    ("hub", "POST", f"/api/models/{_REPO}/paths-info/([^/]+)", Api.paths_info),
    ("hub", "POST", f"/api/models/{_REPO}/preupload/([^/]+)", Api.preupload),
    ("hub", "POST", f"/api/models/{_REPO}/commit/([^/]+)", Api.commit),
    ("hub", "POST", f"/api/models/{_REPO}/branch/([^/]+)", Api.branch),
    ("hub", "POST", "/api/repos/create", Api.create),
    ("hub", "POST", "/api/validate-yaml", lambda _api: as_json({"errors": [], "warnings": []})),
    ("hub", "POST", "/api/lfs/verify", Api.verify),
    ("hub", "POST", f"/{_REPO}\\.git/info/lfs/objects/batch", Api.batch),
)
