"""A workspace that is moved, removed, begun anew or spoiled while a run works in it: nothing of it is published."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from faults.injecting import once
from support import copy_custom, load_all, shard

import internvl_bridge
from internvl_bridge.convert import run
from internvl_bridge.errors import BridgeError, OutputError
from internvl_bridge.storage import publishing
from internvl_bridge.storage.replacing import put_in_place
from internvl_bridge.storage.workspace import Place

SHARDS = 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = copy_custom("qwen2-300m", tmp_path / "source")
    keys = sorted(load_all(directory))
    shard(directory, lambda key: SHARDS * keys.index(key) // len(keys))
    return directory


def removed(partial: Path) -> None:
    shutil.rmtree(partial)


def moved(partial: Path) -> None:
    partial.rename(partial.with_name("moved"))


def behind_a_link(partial: Path) -> None:
    moved(partial)
    partial.symlink_to(partial.with_name("moved"))


def begun_anew(partial: Path) -> None:
    removed(partial)
    (partial / "files").mkdir(parents=True)
    (partial / "journal").touch()


def without_its_journal(partial: Path) -> None:
    (partial / "journal").unlink()


def with_files_behind_a_link(partial: Path) -> None:
    (partial / "files").rename(partial / "others")
    (partial / "files").symlink_to("others")


def below_another_directory(partial: Path) -> None:
    """As where a link above the output is moved, or something is mounted there."""
    partial.parent.rename(partial.parent.with_name("former"))
    partial.parent.mkdir()


LOST = [
    removed,
    moved,
    behind_a_link,
    begun_anew,
    without_its_journal,
    with_files_behind_a_link,
    below_another_directory,
]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("happens", LOST)
def test_a_workspace_that_is_not_ours_any_more(
    happens: Callable[[Path], None], share: float, verify: bool, source: Path, tmp_path: Path
):
    output = tmp_path / "outputs" / "output"
    partial = output.with_name("output.partial")
    output.parent.mkdir()
    seen: list[list[str]] = []

    def lose() -> None:
        happens(partial)
        seen.append(tree(tmp_path))

    with pytest.raises(OutputError, match=r"output\.partial is not what this run works in any more"):
        internvl_bridge.to_hf(source, output, workers=1, verify=verify, progress=once(lose, share))
    assert not output.exists()
    if happens is not with_files_behind_a_link:  # the directory around is ours, and goes
        assert tree(tmp_path) == seen[0]  # nothing of what is there now was written, or removed


def flipped(files: Path) -> None:
    path = files / "model-00002-of-00004.safetensors"
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def at_the_same_time(files: Path) -> None:
    """As rsync -t --inplace does it."""
    times = (files / "model-00002-of-00004.safetensors").stat()
    flipped(files)
    os.utime(files / "model-00002-of-00004.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced_by_a_copy(files: Path) -> None:
    shutil.copy2(files / "config.json", files / "new")
    (files / "new").replace(files / "config.json")


SPOILED = {
    "a bit": flipped,
    "cut off": lambda files: os.truncate(files / "model-00003-of-00004.safetensors", 1000),
    "no shard": lambda files: (files / "model-00004-of-00004.safetensors").unlink(),
    "no config.json": lambda files: (files / "config.json").unlink(),
    "a stale shard": lambda files: (files / "model-00005-of-00005.safetensors").write_bytes(b"stale"),
    "a directory": lambda files: (files / "checkpoint-500").mkdir(),
    "a link": lambda files: (files / "LICENSE").symlink_to("/etc/passwd"),
    "a bit, at the same time": at_the_same_time,
    "the sidecar": lambda files: (files / "internvl_bridge.json").write_text("{}"),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("what", SPOILED)
def test_files_that_are_not_as_they_were_read_back(
    what: str, verify: bool, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "output"
    monkeypatch.setattr(run, "check_contents", lambda *_: SPOILED[what](tmp_path / "output.partial" / "files"))
    with pytest.raises(OutputError, match=r"by somebody else while the output was being made, so that nothing"):
        internvl_bridge.to_hf(source, output, verify=verify)
    assert not output.exists()
    monkeypatch.undo()
    report = internvl_bridge.to_hf(source, output, verify=verify)
    assert len(report.kept) == SHARDS - (what in {"a bit", "a bit, at the same time", "cut off", "no shard"})
    assert internvl_bridge.verify(source, output).identical


@pytest.mark.parametrize("touch", [replaced_by_a_copy, lambda files: (files / "config.json").chmod(0o600)])
def test_files_that_are_the_same_are_published(
    touch: Callable[[Path], None], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, "check_contents", lambda *_: touch(tmp_path / "output.partial" / "files"))
    internvl_bridge.to_hf(source, tmp_path / "output")
    assert internvl_bridge.verify_checksums(tmp_path / "output").intact


def test_what_another_run_has_published_is_not_taken_back(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    output = tmp_path / "output"

    def published(place: Place, *more: Any, **options: Any) -> None:
        (place.around.path / "files").rename(place.output)  # in the moment before this run does it
        put_in_place(place, *more, **options)

    monkeypatch.setattr(publishing, "put_in_place", published)
    with pytest.raises(OSError, match="No such file"):
        internvl_bridge.to_hf(source, output)
    assert internvl_bridge.verify_checksums(output).intact


def test_a_handle_that_went_stale_is_of_something_lost(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on NFS where another machine removed the journal: what is at its place now is not ours to remove."""
    output, partial, fstat = tmp_path / "output", tmp_path / "output.partial", os.fstat

    def lose() -> None:
        begun_anew(partial)
        monkeypatch.setattr(os, "fstat", stale)

    def stale(handle: int) -> os.stat_result:
        status = fstat(handle)
        if status.st_nlink == 0:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return status

    with pytest.raises(OutputError, match="is not what this run works in any more"):
        internvl_bridge.to_hf(source, output, workers=1, progress=once(lose, 0.6))
    monkeypatch.undo()
    assert tree(partial) == ["files", "journal"]


@pytest.mark.parametrize("locks", [True, False, None])
@pytest.mark.parametrize("removes", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_two_runs_do_not_publish_each_others_files(
    share: float, removes: bool, locks: bool | None, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first waits; the second begins, and waits; the first goes on to its end; then the second does."""
    if not locks:  # none, or such as other machines do not see
        monkeypatch.setattr(fcntl, "flock", (lambda *_: None) if locks is None else no_locks)
    output, partial, other = tmp_path / "output", tmp_path / "output.partial", tmp_path / "other"
    shutil.copytree(source, other)
    for path in other.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(0, (source / path.name).stat().st_mtime_ns))
    waiting, going, ended = [Event(), Event()], [Event(), Event()], dict[int, str]()

    made = other if removes else source

    def converted(number: int, directory: Path) -> None:
        def wait() -> None:
            waiting[number].set()
            going[number].wait(20)

        try:
            internvl_bridge.to_hf(directory, output, workers=1, progress=once(wait, share if number == 0 else 0.6))
            ended[number] = "done"
        except BridgeError as error:
            ended[number] = str(error)
        waiting[number].set()

    runs = [
        Thread(target=converted, args=(0, source)),
        Thread(target=converted, args=(1, source if not removes else other)),
    ]
    runs[0].start()
    waiting[0].wait(20)
    if removes:
        shutil.rmtree(partial)
    runs[1].start()
    waiting[1].wait(20)
    for number in (0, 1):
        going[number].set()
        runs[number].join(20)
    if locks and not removes:
        assert ended[0] == "done"
        assert "Another conversion is writing" in ended[1]
    else:
        assert "is not what this run works in any more" in ended[0]
        assert ended[1] == "done"
    assert internvl_bridge.verify(made, output).identical
    assert internvl_bridge.verify_checksums(output).intact
    assert not partial.exists()


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
