"""A source file that is another one than it was is noticed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import write_safetensors

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import stamps
from internvl_bridge.storage.checksums import checksum_of
from internvl_bridge.storage.source_shards import open_checkpoint
from internvl_bridge.storage.stamps import Stamp, check_unchanged, settled_stamp, stamp_of

WHEN = 1_700_000_000_123_456_789


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"data")
    os.utime(path, ns=(0, WHEN))
    return path


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")
    os.utime(path, ns=(0, WHEN))


def shorter(path: Path) -> None:
    os.truncate(path, 3)
    os.utime(path, ns=(0, WHEN))


def touched(path: Path) -> None:
    os.utime(path, ns=(0, WHEN + 1))


def set_back(path: Path) -> None:
    os.utime(path, ns=(0, WHEN - 1))


def written_again(path: Path) -> None:
    path.write_bytes(b"atad")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"atad")
    other.replace(path)


def linked_elsewhere(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.with_name("blob").write_bytes(b"atad")
    path.symlink_to("blob")


def test_a_stamp_is_size_time_and_header(source):
    assert stamp_of(source) == Stamp(4, WHEN)
    assert stamp_of(source, "checksum") == Stamp(4, WHEN, "checksum")
    assert Stamp(4, WHEN) != Stamp(4, WHEN, "checksum")


def test_files_that_are_as_they_were_pass(source):
    source.read_bytes()
    os.utime(source, ns=(5, WHEN))  # that it was read is no change
    source.chmod(0o400)
    check_unchanged([])
    check_unchanged([(source, Stamp(4, WHEN)), (source, Stamp(4, WHEN, "header"))])


@pytest.mark.parametrize(
    "change", [longer, shorter, touched, set_back, written_again, replaced, linked_elsewhere], ids=lambda f: f.__name__
)
def test_any_change_is_found(source, change: Callable[[Path], None]):
    same = source.with_name("same")
    same.touch()
    stamps = [(same, stamp_of(same)), (source, stamp_of(source, "header"))]
    change(source)
    with pytest.raises(CheckpointError, match="was changed while it was being converted") as caught:
        check_unchanged(stamps)
    assert str(source) in str(caught.value)
    assert "Convert again" in caught.value.remedy


def test_a_link_is_stamped_as_what_it_leads_to(source):
    link = source.with_name("link")
    link.symlink_to("source")
    stamp = stamp_of(link)
    assert stamp == Stamp(4, WHEN)
    touched(source)
    with pytest.raises(CheckpointError, match="link was changed"):
        check_unchanged([(link, stamp)])


def test_a_file_that_is_gone_is_an_error_of_the_system(source):
    stamp = stamp_of(source)
    source.unlink()
    with pytest.raises(FileNotFoundError):
        check_unchanged([(source, stamp)])
    with pytest.raises(FileNotFoundError):
        stamp_of(source)


def test_a_checkpoint_knows_what_its_files_were(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": ("U8", [3], b"abc")}, {"format": "pt"})
    content = path.read_bytes()
    [shard] = open_checkpoint(tmp_path).shards
    assert shard.stamp == Stamp(len(content), path.stat().st_mtime_ns, checksum_of([content[8:-3]]))
    check_unchanged([(shard.path, shard.stamp)])
    path.write_bytes(content)
    os.utime(path, ns=(0, shard.stamp.modified + 1))
    with pytest.raises(CheckpointError, match="was changed"):
        check_unchanged([(shard.path, shard.stamp)])


def test_a_settled_stamp_is_another_one_after_every_change(source: Path):
    for number in range(20):
        stamp = settled_stamp(source)
        source.write_bytes(bytes([number] * 4))  # within the same step of the clock, often
        os.utime(source, ns=(stamp.modified, stamp.modified))
        assert [*stamps.touched([(source, stamp)])] == [source]


def test_what_is_written_all_the_time_does_not_settle(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stamps.time, "time_ns", lambda: source.stat().st_ctime_ns + 1)
    monkeypatch.setattr(stamps.time, "sleep", lambda _: source.write_bytes(b"more"))
    with pytest.raises(CheckpointError, match=f"{source} was changed while it was being converted"):
        settled_stamp(source)


def test_a_clock_that_is_ahead_does_not_keep_a_file_from_settling(source: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stamps.time, "time_ns", lambda: source.stat().st_ctime_ns - 10**12)
    assert settled_stamp(source) == stamp_of(source)


def test_what_cannot_be_synced_is_stamped_all_the_same(source: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(_handle: int) -> None:
        raise OSError

    monkeypatch.setattr(os, "fsync", fail)
    assert settled_stamp(source, "header") == stamp_of(source, "header")
