"""The hub that other tests talk to is enough of one for the real client."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from hub_client import hub_client
from hub_server import hub_server
from hub_state import STRANGER, TOKEN, Fault, Hub, repository
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = bytes(range(256)) * 1024
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "sub/notes.txt": b"notes"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    repos = {
        "org/model": repository({"config.json": b"{}"}, FILES),
        "org/private": repository(FILES, private=True),
        "org/gated": repository(FILES, gated=True),
    }
    with hub_server(repos) as running, hub_client(running, tmp_path / "home"):
        yield running


def test_downloads_a_large_file_from_the_store_without_a_token_there(hub: Hub) -> None:
    got = Path(hf_hub_download("org/model", "model.safetensors", token=TOKEN))
    assert got.read_bytes() == WEIGHTS
    assert got.parent.name == hub.repos["org/model"].branches["main"]
    assert {(r.origin, r.method): r.token for r in hub.requests} == {("hub", "HEAD"): TOKEN, ("store", "GET"): None}
    assert hub.sent("model.safetensors") == hub.sent() == len(WEIGHTS)


def test_lists_and_downloads_what_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    api = HfApi()
    info = api.model_info("org/model", revision="main", files_metadata=True)
    by_name = {file.rfilename: file for file in info.siblings or ()}
    assert by_name["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert by_name["config.json"].size == len(FILES["config.json"])
    hub.page = 2
    assert [entry.path for entry in api.list_repo_tree("org/model", recursive=True)] == [
        *sorted(FILES)[:2],
        "sub",
        "sub/notes.txt",
    ]
    assert [entry.path for entry in api.list_repo_tree("org/model", "sub")] == ["sub/notes.txt"]
    got = Path(snapshot_download("org/model", allow_patterns=["*.json", "sub/*"], local_dir=tmp_path / "out"))
    assert {p.relative_to(got).as_posix() for p in got.rglob("*") if p.is_file() and ".cache" not in p.parts} == {
        "config.json",
        "sub/notes.txt",
    }
    assert not hub.asked("model.safetensors")
    older = next(iter(hub.repos["org/model"].commits))
    assert Path(hf_hub_download("org/model", "config.json", revision=older)).read_bytes() == b"{}"


def test_reads_ranges(hub: Hub) -> None:
    url = hf_hub_url("org/model", "model.safetensors")
    metadata = get_hf_file_metadata(url)
    assert (metadata.size, metadata.etag) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert metadata.commit_hash == hub.repos["org/model"].branches["main"]
    with httpx2.Client(follow_redirects=True) as client:
        got = client.get(url, headers={"Range": "bytes=10-19"})
        assert (got.status_code, got.content) == (206, WEIGHTS[10:20])
        assert got.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
        assert client.get(url, headers={"Range": "bytes=-5"}).content == WEIGHTS[-5:]
        assert client.get(url, headers={"Range": f"bytes={len(WEIGHTS)}-"}).status_code == 416
    with HfFileSystem().open("org/model/model.safetensors", "rb", block_size=1024) as file:
        file.seek(1000)
        assert file.read(24) == WEIGHTS[1000:1024]
    assert hub.asked("^/[0-9a-f]{64}")[-1].sent < len(WEIGHTS)


@pytest.mark.usefixtures("hub")
def test_says_what_is_not_to_be_had() -> None:
    for error, repo, file, revision, token in (
        (RepositoryNotFoundError, "org/none", "config.json", None, None),
        (RepositoryNotFoundError, "org/private", "config.json", None, None),
        (RepositoryNotFoundError, "org/private", "config.json", None, STRANGER),
        (GatedRepoError, "org/gated", "config.json", None, STRANGER),
        (RevisionNotFoundError, "org/model", "config.json", "none", None),
        (EntryNotFoundError, "org/model", "none.json", None, None),
        (HfHubHTTPError, "org/model", "config.json", None, "hf_unknown"),
    ):
        with pytest.raises(error):
            hf_hub_download(repo, file, revision=revision, token=token)
    for repo in ("org/private", "org/gated"):
        assert Path(hf_hub_download(repo, "config.json", token=TOKEN)).read_bytes() == FILES["config.json"]
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi(token=STRANGER).create_repo("org/new")


def test_uploads_in_one_commit_and_reads_back(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path, content in {**FILES, "sub/more.safetensors": WEIGHTS[::-1], "README.md": b"# Model\n"}.items():
        (folder / path).write_bytes(content)
    api = HfApi(token=TOKEN)
    api.create_repo("owner/new", private=True)
    api.create_repo("owner/new", private=True, exist_ok=True)
    done = api.upload_folder(repo_id="owner/new", folder_path=folder, commit_message="Add it")
    repo = hub.repos["owner/new"]
    assert repo.private
    assert repo.messages[done.oid] == "Add it"
    assert len(repo.commits) == 2
    assert len(hub.asked("/commit/")) == 1
    # The store had one of the two large files.
    assert [(r.origin, r.received, r.token) for r in hub.asked(method="PUT")] == [("store", len(WEIGHTS), None)]
    got = Path(snapshot_download("owner/new", token=TOKEN, revision=done.oid))
    assert (got / "sub/more.safetensors").read_bytes() == WEIGHTS[::-1]
    assert (got / "README.md").read_bytes() == b"# Model\n"
    again = api.upload_folder(repo_id="owner/new", folder_path=folder)
    assert again.oid == done.oid


def test_goes_wrong_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what it has of an unfinished one, the client drops
    with hub_server({"org/model": FILES}) as hub, hub_client(hub, tmp_path / "home") as sleeps:
        hub.faults += [
            Fault("^/[0-9a-f]{64}", cut=1000, times=1),
            Fault("^/[0-9a-f]{64}", nth=2, status=429, headers={"Retry-After": "7"}),
        ]
        assert Path(hf_hub_download("org/model", "model.safetensors")).read_bytes() == WEIGHTS
        assert [(r.status, r.range, r.sent) for r in hub.asked("^/[0-9a-f]{64}")] == [
            (200, None, 1000),
            (429, "bytes=1000-", 30),
            (206, "bytes=1000-", len(WEIGHTS) - 1000),
        ]
        assert sleeps == [1, 8]
        hub.faults = [Fault("config.json", "GET", short=3), Fault("sub", close=True, times=9)]
        with pytest.raises(OSError, match="Consistency check failed"):
            hf_hub_download("org/model", "config.json")
        with pytest.raises(httpx2.RemoteProtocolError):
            hf_hub_download("org/model", "sub/notes.txt")
        hub.faults = [Fault("/api/", times=2, status=503)]
        with pytest.raises(HfHubHTTPError, match="503"):
            HfApi().model_info("org/model")


def test_a_branch_moves_while_it_is_read(tmp_path: Path) -> None:
    with hub_server({"org/model": repository({"a": b"old"}, {"a": b"new"})}) as hub, hub_client(hub, tmp_path / "home"):
        old, new = hub.repos["org/model"].commits
        hub.move("main", old)
        hub.faults.append(Fault("/resolve/main/", "GET", call=lambda hub: hub.move("main", new)))
        url = hf_hub_url("org/model", "a")
        assert get_hf_file_metadata(url).commit_hash == old
        with httpx2.Client() as client:
            assert client.get(url).headers["X-Repo-Commit"] == new


def test_a_hang_ends_with_the_server(tmp_path: Path) -> None:
    with hub_server({"org/model": FILES}) as hub, hub_client(hub, tmp_path / "home"):
        hub.faults.append(Fault("config.json", hang=60))
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(hf_hub_url("org/model", "config.json"), timeout=0.1)


def test_keeps_branches_apart(hub: Hub) -> None:
    api = HfApi(token=TOKEN)
    first = hub.repos["org/model"].branches["main"]
    api.create_branch("org/model", branch="feature/x")
    changes = [CommitOperationDelete("sub/", is_folder=True), CommitOperationAdd("new.txt", b"new")]
    done = api.create_commit("org/model", changes, commit_message="Change", revision="feature/x", parent_commit=first)
    assert api.list_repo_files("org/model", revision="feature/x") == ["config.json", "model.safetensors", "new.txt"]
    assert "sub/notes.txt" in api.list_repo_files("org/model")
    refs = {ref.name: ref.target_commit for ref in api.list_repo_refs("org/model").branches}
    assert refs == {"main": first, "feature/x": done.oid}
    late = [CommitOperationAdd("late.txt", b"late")]
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("org/model", late, commit_message="Late", revision="feature/x", parent_commit=first)
    proposed = [CommitOperationAdd("late.txt", b"late")]
    asked = api.create_commit("org/model", proposed, commit_message="Ask", create_pr=True)
    assert asked.pr_revision == "refs/pr/1"
    assert api.get_paths_info("org/model", ["late.txt"], revision="refs/pr/1")[0].size == 4
