"""A file is its header and the ranges behind it, whatever the kernel and the file system can and cannot do."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import re
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any, Self

import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storage.filesystems import open_files, shared_blocks, wanted

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import block_alignment, cloning, copying, direct_io, local_files, reading
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import PassingChecksums
from internvl_bridge.storage.copying import WrittenFile, write_file
from internvl_bridge.storage.local_files import LOCAL, LocalFiles
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.reading import FileReader

pytest_plugins = ["storage.filesystems"]

BLOCK = block_alignment.BLOCK
WINDOW = 4 * BLOCK
SIZE = 25 * BLOCK + 123
PLAIN = LocalFiles(clone=False, direct=False)
ALL_WAYS = [LocalFiles(clone=clone, direct=direct) for clone in (False, True) for direct in (False, True)]
CANNOT_CLONE = [
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
]
CANNOT_BYPASS = [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS]
FAILURES = [errno.EIO, errno.ENOSPC, errno.EDQUOT]
PATIENCE = 20
"""Seconds after which a thread that is waited for has failed."""

Call = Callable[..., Any]


def named(code: int) -> str:
    return errno.errorcode[code]


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that make every case cheap; all of them whole blocks, as the real ones are."""
    monkeypatch.setattr(reading, "WINDOW", WINDOW)
    monkeypatch.setattr(block_alignment, "_LONG", 2 * BLOCK)
    monkeypatch.setattr(local_files, "_CLONE_STEP", 3 * BLOCK)
    monkeypatch.setattr(local_files, "_MOST_UNWRITTEN", 5 * BLOCK)


@pytest.fixture
def real_sizes(small_sizes: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 (it is undone)
    monkeypatch.undo()


def sources_in(directory: Path, size: int = SIZE, count: int = 3) -> list[Path]:
    """Files of bytes that are nowhere alike: what lands in the wrong place is noticed."""
    paths = [directory / f"source-{number}" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(random.Random(number).randbytes(size))  # noqa: S311
    return paths


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return sources_in(tmp_path)


def mixed_job(sources: list[Path]) -> OutputShard:
    """Of all there is: two files, ranges that could be shared and others, several windows, an odd end."""
    first, second, _ = sources
    header = b"header".ljust(BLOCK + 904)
    ranges = (
        ByteRange(first, 904, 8 * BLOCK + 10),  # congruent with where it goes, to the byte
        ByteRange(second, 17, 6 * BLOCK),
        ByteRange(first, 1, 1),
        ByteRange(second, 904 + 11, 8 * BLOCK + 333),  # congruent again
    )
    return OutputShard("out", header, ranges, ("a", "b"))


@pytest.fixture
def job(sources: list[Path]) -> OutputShard:
    return mixed_job(sources)


def written(directory: Path, job: OutputShard, files: LocalFiles = LOCAL) -> tuple[WrittenFile, list[int]]:
    steps: list[int] = []
    with FileReader() as readers:
        passing = PassingChecksums()
        result = write_file(directory / job.name, (job.header, job.ranges), readers, steps.append, files, passing)
    return result, steps


def shareable_in(job: OutputShard) -> int:
    return sum(part.length for part in block_alignment.file_segments(job.header, job.ranges) if part.shareable)


def check(directory: Path, job: OutputShard, files: LocalFiles, *, clones: bool) -> WrittenFile:
    """Write ``job``; all that can be said of the result holds."""
    result, steps = written(directory, job, files)
    content = (directory / job.name).read_bytes()
    assert content == wanted(job)
    assert sum(steps) == job.size == len(content)
    assert result.cloned == (shareable_in(job) if clones and files.clone else 0)
    assert (result.checksums and result.checksums.whole) == (
        None if result.cloned else xxhash.xxh3_128_hexdigest(content)
    )
    return result


class Scripted:
    """A function of the system as it is, except that (counting calls from 0) some calls do ``odd`` instead."""

    def __init__(self, whole: Call, odd: Call | None = None, is_odd: Callable[[int], bool] = lambda _: True) -> None:
        self.whole, self.odd, self.is_odd = whole, odd, is_odd
        self.calls = 0
        self._lock = Lock()

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
        if self.odd and self.is_odd(number):
            return self.odd(*args)
        return self.whole(*args)


def raising(code: int) -> Call:
    def odd(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return odd


def cloning_kernel(target: int, request: int, argument: bytes) -> int:
    """FICLONERANGE as a file system that can share has it, by its contract: whole blocks, within the source."""
    assert request == 0x4020940D
    source, start, length, offset = struct.unpack("=qQQQ", argument)
    if start % BLOCK or length % BLOCK or offset % BLOCK or start + length > os.fstat(source).st_size:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with open(f"/proc/self/fd/{target}", "r+b") as file:  # noqa: PTH123 (its own descriptor: never direct)
        file.seek(offset)
        file.write(os.pread(source, length, start))
    return 0


@pytest.fixture
def clones(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A file system that shares, on any machine."""
    kernel = Scripted(cloning_kernel)
    monkeypatch.setattr(fcntl, "ioctl", kernel)
    return kernel


@pytest.fixture
def bypasses(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """A file system that takes any direct transfer, on any machine; the fixture is its os.pwrite.

    The flag is one that a file can have, but that says nothing for it.
    """
    write = Scripted(os.pwrite)
    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(direct_io, "_DIRECT", os.O_NONBLOCK)
    return write


# The fast ways write what the plain one writes


@st.composite
def jobs(draw: st.DrawFn, sources: list[Path]) -> OutputShard:
    """Any header and ranges; half of the ranges are where a file system could share them."""
    header = random.Random(0).randbytes(draw(st.integers(0, 2 * BLOCK) | st.sampled_from([8, BLOCK, 3 * WINDOW])))  # noqa: S311
    ranges: list[ByteRange] = []
    position = len(header)
    for _ in range(draw(st.integers(0, 5))):
        offset = draw(st.integers(0, SIZE))
        if draw(st.booleans()):
            offset = min(offset // BLOCK * BLOCK, SIZE // BLOCK * BLOCK - BLOCK) + position % BLOCK
        blocks = draw(st.integers(0, 20))
        length = draw(st.sampled_from([0, 1, 2 * BLOCK, BLOCK - 1]) | st.integers(0, BLOCK)) + blocks * BLOCK
        byte_range = ByteRange(draw(st.sampled_from(sources)), min(offset, SIZE), min(length, SIZE - min(offset, SIZE)))
        ranges.append(byte_range)
        position += byte_range.length
    return OutputShard("out", header, tuple(ranges), ())


def check_any_job(directory: Path, *, clones: bool) -> None:
    """Any job, by any means, in the file system where ``directory`` is."""
    sources = sources_in(directory)

    @settings(suppress_health_check=[HealthCheck.nested_given], max_examples=40)
    @given(jobs(sources), st.sampled_from(ALL_WAYS))
    def check_one(job: OutputShard, files: LocalFiles) -> None:
        for each in {files, PLAIN}:
            check(directory, job, each, clones=clones)
            (directory / "out").unlink()

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda _: None)  # what is slow; where it matters, it is tested
        check_one()


def test_any_ranges_by_any_means_are_the_same_bytes_in_the_file_system_of_this_machine(tmp_path):
    if cloning.can_clone(sources_in(tmp_path)[0], tmp_path):
        pytest.skip("temporary files are where blocks can be shared: the test on an image says the same")
    check_any_job(tmp_path, clones=False)


def test_any_ranges_by_any_means_are_the_same_bytes_in_memory(tmpfs):
    check_any_job(tmpfs, clones=False)


def test_any_ranges_by_any_means_are_the_same_bytes_on_ext4(ext4):
    check_any_job(ext4, clones=False)


def test_any_ranges_by_any_means_are_the_same_bytes_on_xfs(xfs):
    check_any_job(xfs, clones=True)


def test_any_ranges_by_any_means_are_the_same_bytes_on_btrfs(btrfs):
    check_any_job(btrfs, clones=True)


@pytest.mark.usefixtures("clones")
def test_any_ranges_by_any_means_are_the_same_bytes_where_the_kernel_shares(tmp_path):
    check_any_job(tmp_path, clones=True)


@pytest.mark.usefixtures("bypasses")
def test_any_ranges_by_any_means_are_the_same_bytes_where_direct_writes_have_no_rules(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "ioctl", raising(errno.ENOTTY))
    check_any_job(tmp_path, clones=False)


def big_job(sources: list[Path]) -> OutputShard:
    """Several windows of the real size, with odd ends, of which most could be shared."""
    first, second, _ = sources
    ranges = (ByteRange(first, 1000, (5 << 20) + 77), ByteRange(second, 5, 3 << 20), ByteRange(second, 1, 1234))
    return OutputShard("out", bytes(3 * BLOCK + 1000), ranges, ())


@pytest.mark.usefixtures("real_sizes")
@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.parametrize("kind", ["tmp_path", "tmpfs", "xfs", "btrfs", "ext4"])
def test_with_the_real_sizes_the_bytes_are_the_same(request, kind, files):
    directory = request.getfixturevalue(kind)
    sources = sources_in(directory, (5 << 20) + 2000)
    clones = cloning.can_clone(sources[0], directory)
    if kind in {"xfs", "btrfs"}:
        assert clones
    result = check(directory, big_job(sources), files, clones=clones)
    assert result.cloned in {0, (5 << 20) - BLOCK}


def test_every_means_is_tried_if_nothing_is_said(tmp_path, job, clones, bypasses):
    assert LocalFiles() == LocalFiles(clone=True, direct=True)
    result, _ = written(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)
    assert result.cloned == shareable_in(job) == 14 * BLOCK
    assert clones.calls == 7 // 3 + 1 + 7 // 3 + 1  # in steps of three blocks
    assert bypasses.calls


def test_means_that_are_not_given_are_not_used(tmp_path, monkeypatch, job, clones):
    seen = []
    monkeypatch.setattr(local_files, "use_direct_io", seen.append)
    written(tmp_path, job, PLAIN)
    assert clones.calls == 0
    assert seen == []


# What is shared is really shared


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.mark.usefixtures("real_sizes")
def test_shared_bytes_take_no_room(sharing):
    size = 48 << 20
    [source] = sources_in(sharing, size, 1)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.sync()
    before = os.statvfs(sharing)
    job = OutputShard("out", bytes(BLOCK), (ByteRange(source, 0, size),), ())
    result = check(sharing, job, LocalFiles(), clones=True)
    os.sync()
    after = os.statvfs(sharing)
    assert result.cloned == size
    assert (before.f_bfree - after.f_bfree) * before.f_frsize < 4 << 20


def test_shared_stretches_are_the_blocks_of_the_source_and_nothing_else_is(sharing):
    sources = sources_in(sharing)
    job = mixed_job(sources)
    check(sharing, job, LocalFiles(), clones=True)
    blocks = {
        offset
        for part in block_alignment.file_segments(job.header, job.ranges)
        if part.shareable
        for offset in range(part.offset, part.offset + part.length, BLOCK)
    }
    assert shared_blocks(sharing / "out", sources[0]) | shared_blocks(sharing / "out", sources[1]) == blocks
    plain = OutputShard("plain", job.header, job.ranges, ())
    check(sharing, plain, LocalFiles(clone=False), clones=True)
    assert shared_blocks(sharing / "plain", sources[0]) == set()


def test_changing_one_of_two_files_that_share_leaves_the_other(sharing):
    sources = sources_in(sharing)
    job = mixed_job(sources)
    check(sharing, job, LocalFiles(), clones=True)
    result = wanted(job)
    originals = [source.read_bytes() for source in sources]
    (sharing / "out").write_bytes(bytes(len(result)))
    assert [source.read_bytes() for source in sources] == originals
    (sharing / "out").unlink()
    check(sharing, job, LocalFiles(), clones=True)
    with (sharing / "out").open("r+b") as file:  # in place: the very blocks
        file.write(bytes(len(result)))
        os.fsync(file.fileno())
    assert [source.read_bytes() for source in sources] == originals
    (sharing / "out").unlink()
    check(sharing, job, LocalFiles(), clones=True)
    for source in sources:
        with source.open("r+b") as file:
            file.write(bytes(SIZE))
            os.fsync(file.fileno())
    assert (sharing / "out").read_bytes() == result
    for source in sources:
        source.unlink()
    assert (sharing / "out").read_bytes() == result


# What a file system refuses is done in another way


WHEN = {
    "always": lambda _: True,
    "at first": lambda call: call == 0,
    "from the second on": lambda call: call >= 1,
    "within the first range": lambda call: call == 2,
    "the second range": lambda call: call >= 3,
    "the last": lambda call: call == 5,
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("code", CANNOT_CLONE, ids=named)
def test_what_cannot_be_shared_is_copied(tmp_path, job, clones, code, when):
    clones.odd, clones.is_odd = raising(code), WHEN[when]
    result, steps = written(tmp_path, job)
    content = (tmp_path / "out").read_bytes()
    assert content == wanted(job)
    assert sum(steps) == job.size
    assert result.cloned == (0 if when in {"always", "from the second on"} else 7 * BLOCK)
    assert (result.checksums and result.checksums.whole) == (
        None if result.cloned else xxhash.xxh3_128_hexdigest(content)
    )


def test_a_source_that_cannot_be_shared_is_asked_once(tmp_path, sources, clones):
    clones.odd = raising(errno.EXDEV)
    ranges = tuple(ByteRange(sources[n % 2], 2 * n * BLOCK, 2 * BLOCK) for n in range(8))
    written(tmp_path, OutputShard("out", bytes(BLOCK), ranges, ()))
    assert clones.calls == 2


def test_a_source_of_another_file_system_does_not_keep_others_from_being_shared(tmp_path, sources, clones):
    other = os.stat(sources[1]).st_ino  # noqa: PTH116

    def elsewhere(target: int, request: int, argument: bytes) -> int:
        if os.fstat(struct.unpack_from("=q", argument)[0]).st_ino == other:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return cloning_kernel(target, request, argument)

    clones.odd = elsewhere
    ranges = tuple(ByteRange(sources[n % 2], 2 * n * BLOCK, 2 * BLOCK) for n in range(8))
    job = OutputShard("out", bytes(BLOCK), ranges, ())
    result, _ = written(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)
    assert result.cloned == 4 * 2 * BLOCK


@pytest.mark.parametrize("when", ["always", "at first", "from the second on", "within the first range"])
@pytest.mark.parametrize("code", CANNOT_BYPASS, ids=named)
def test_where_a_transfer_cannot_bypass_the_cache_it_is_done_again_through_it(tmp_path, job, bypasses, code, when):
    def refusing(target: int, data: memoryview, offset: int) -> int:
        if direct_io.is_direct(target):
            raise OSError(code, os.strerror(code))
        return bypasses.whole(target, data, offset)

    bypasses.odd, bypasses.is_odd = refusing, WHEN[when]
    result = check(tmp_path, job, LocalFiles(clone=False), clones=False)
    assert result.checksums is not None


@pytest.mark.parametrize("code", [*CANNOT_BYPASS, errno.EPERM], ids=named)
def test_a_file_system_that_takes_no_such_flag_is_written_through_the_cache(tmp_path, monkeypatch, job, code):
    whole = fcntl.fcntl

    def control(file: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(code, os.strerror(code))
        return whole(file, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", control)
    check(tmp_path, job, LocalFiles(clone=False), clones=False)


def test_a_platform_that_has_no_such_flag_writes_through_the_cache(tmp_path, monkeypatch, job):
    monkeypatch.setattr(direct_io, "_DIRECT", 0)
    check(tmp_path, job, LocalFiles(clone=False), clones=False)


def test_a_write_that_is_refused_through_the_cache_too_is_an_error_and_no_endless_loop(tmp_path, monkeypatch, job):
    monkeypatch.setattr(os, "pwrite", Scripted(os.pwrite, raising(errno.EINVAL)))
    for files in (LocalFiles(clone=False), PLAIN):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            written(tmp_path, job, files)
        assert caught.value.filename == str(tmp_path / "out")
        (tmp_path / "out").unlink()


class Library:
    """The C library, of which fallocate fails or is not there."""

    def __init__(self, code: int | None) -> None:
        if code is not None:
            self.fallocate = lambda *_: ctypes.set_errno(code) or -1


@pytest.mark.parametrize("code", [None, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
def test_where_no_blocks_can_be_claimed_the_file_is_written_without(tmp_path, monkeypatch, job, code):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: Library(code))
    for files in ALL_WAYS:
        monkeypatch.setattr(fcntl, "ioctl", raising(errno.ENOTTY))
        check(tmp_path, job, files, clones=False)
        (tmp_path / "out").unlink()


# Transfers that are cut short


@pytest.mark.parametrize("files", [LocalFiles(clone=False), PLAIN], ids=str)
@pytest.mark.parametrize("at_most", [1, 7, 512, BLOCK, WINDOW - 1])
def test_short_writes_are_continued(tmp_path, monkeypatch, job, at_most, files):
    """Under O_DIRECT, the rest of what was cut short must find its way, too: it lies where such a write may not."""
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda target, data, offset: whole(target, data[:at_most], offset))
    check(tmp_path, job, files, clones=False)


@pytest.mark.parametrize("at_most", [1, 7, 512, WINDOW - 1])
def test_short_writes_that_stay_direct_are_continued(tmp_path, job, bypasses, at_most):
    bypasses.odd = lambda target, data, offset: bypasses.whole(target, data[:at_most], offset)
    check(tmp_path, job, LocalFiles(clone=False), clones=False)


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.parametrize("at_most", [1, 7, 512, WINDOW - 1])
def test_short_reads_are_continued(tmp_path, monkeypatch, job, clones, at_most, files):
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda source, rooms, offset: whole(source, [rooms[0][:at_most]], offset))
    check(tmp_path, job, files, clones=True)
    assert bool(clones.calls) is files.clone


def test_a_full_device_is_an_error(tmp_path, monkeypatch, job):
    if not Path("/dev/full").exists():
        pytest.skip("only Linux has a device that is always full")
    full = os.open("/dev/full", os.O_WRONLY)
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda _target, data, offset: whole(full, data, offset))
    with pytest.raises(OSError, match="No space left") as caught:
        written(tmp_path, job, PLAIN)
    os.close(full)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
def test_a_full_disk_is_an_error_before_anything_is_written(ext4, files):
    [source] = sources_in(ext4, 8 << 20, 1)
    steps: list[int] = []
    job = OutputShard("out", b"header", (ByteRange(source, 0, 8 << 20),) * 8, ())
    with FileReader() as readers, pytest.raises(OSError, match="No space left") as caught:
        write_file(ext4 / job.name, (job.header, job.ranges), readers, steps.append, files)
    assert caught.value.filename == str(ext4 / "out")
    assert steps == []


# Errors that are not for us to hide


def failing_at(place: str, calls: int) -> int:
    return {"first": 0, "middle": calls // 2, "last": calls - 1}[place]


def check_failure(tmp_path: Path, job: OutputShard, function: Scripted, code: int, place: str) -> OSError:
    """Count the calls of ``function`` in a run that goes well; then let one fail."""
    written(tmp_path, job)
    (tmp_path / "out").unlink()
    calls, function.calls = function.calls, 0
    assert calls >= 3 or place != "middle"
    number = failing_at(place, calls)
    function.odd, function.is_odd = raising(code), lambda call: call == number
    steps: list[int] = []
    with FileReader() as readers, pytest.raises(OSError, match=os.strerror(code)) as caught:
        write_file(tmp_path / job.name, (job.header, job.ranges), readers, steps.append)
    assert caught.value.errno == code
    assert sum(steps) < job.size
    return caught.value


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("code", FAILURES, ids=named)
def test_an_error_of_the_disk_while_blocks_are_shared_is_raised(tmp_path, job, clones, code, place):
    assert check_failure(tmp_path, job, clones, code, place).filename == str(tmp_path / "out")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("code", [*FAILURES, errno.EFBIG, errno.ENOMEM], ids=named)
def test_an_error_of_a_direct_write_is_raised(tmp_path, monkeypatch, job, bypasses, code, place):
    monkeypatch.setattr(fcntl, "ioctl", raising(errno.ENOTTY))
    assert check_failure(tmp_path, job, bypasses, code, place).filename == str(tmp_path / "out")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("code", FAILURES, ids=named)
@pytest.mark.parametrize("kernel", [cloning_kernel, raising(errno.ENOTTY)], ids=["shared", "copied"])
def test_an_error_of_a_write_is_raised(tmp_path, monkeypatch, job, code, place, kernel):
    write = Scripted(os.pwrite)
    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(fcntl, "ioctl", kernel)
    assert check_failure(tmp_path, job, write, code, place).filename == str(tmp_path / "out")


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("code", [*FAILURES, errno.EINVAL], ids=named)
def test_an_error_of_a_read_names_the_source(tmp_path, monkeypatch, job, code, place):
    read = Scripted(os.preadv)
    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(fcntl, "ioctl", raising(errno.ENOTTY))
    name = check_failure(tmp_path, job, read, code, place).filename
    assert name == str(job.ranges[3 if place == "last" else 0 if place == "first" else 1].path)


@pytest.mark.parametrize("code", [*FAILURES, errno.EFBIG], ids=named)
def test_an_error_while_blocks_are_claimed_is_raised(tmp_path, monkeypatch, job, code):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: Library(code))
    monkeypatch.setattr(fcntl, "ioctl", raising(errno.ENOTTY))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        written(tmp_path, job)
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "out"))


@pytest.mark.parametrize("code", FAILURES, ids=named)
@pytest.mark.parametrize("call", [0, 1, -1])
def test_an_error_of_the_disk_that_shows_when_data_is_to_be_durable_is_raised(tmp_path, monkeypatch, job, code, call):
    sync = Scripted(os.fsync)
    monkeypatch.setattr(os, "fsync", sync)
    written(tmp_path, job, PLAIN)
    (tmp_path / "out").unlink()
    calls, sync.calls = sync.calls, 0
    assert calls == job.size // local_files._MOST_UNWRITTEN + 1
    sync.odd, sync.is_odd = raising(code), lambda number: number == call % calls
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        written(tmp_path, job, PLAIN)
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "out"))


def test_advice_that_the_kernel_does_not_take_is_no_error(tmp_path, monkeypatch, job):
    monkeypatch.setattr(os, "posix_fadvise", raising(errno.ENOSYS))
    check(tmp_path, job, PLAIN, clones=False)
    monkeypatch.delattr(os, "posix_fadvise")
    (tmp_path / "out").unlink()
    check(tmp_path, job, PLAIN, clones=False)


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
def test_an_interrupt_of_the_progress_is_heard(tmp_path, job, clones, files):
    """The files are closed then, and no thread writes any more."""
    steps: list[int] = []

    def advance(step: int) -> None:
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    before = open_files()
    with pytest.raises(KeyboardInterrupt), FileReader() as readers:
        write_file(tmp_path / job.name, (job.header, job.ranges), readers, advance, files)
    assert open_files() == before
    assert sum(steps) < job.size
    assert bool(clones.calls) is files.clone


# Sources that are not what their header said


def ended(error: CheckpointError, source: Path) -> int:
    """The byte that the error misses in ``source``."""
    found = re.match(f"{re.escape(str(source))} ended before byte ([0-9]+): ", str(error))
    assert found
    return int(found[1])


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.parametrize("left", [0, 904, 905, 3 * BLOCK, 8 * BLOCK + 913])
@pytest.mark.usefixtures("clones")
def test_a_source_that_became_shorter_is_refused(tmp_path, job, left, files):
    source = job.ranges[0].path
    os.truncate(source, left)
    with pytest.raises(CheckpointError, match="it was changed while it was being read") as caught:
        written(tmp_path, job, files)
    assert left < ended(caught.value, source) <= 8 * BLOCK + 914
    assert "Try again" in caught.value.remedy


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.usefixtures("clones")
def test_a_source_that_becomes_shorter_meanwhile_is_refused(tmp_path, sources, files):
    job = OutputShard("out", bytes(BLOCK), (ByteRange(sources[0], 0, SIZE), ByteRange(sources[0], 0, SIZE)), ())
    with FileReader() as readers, pytest.raises(CheckpointError, match="it was changed") as caught:
        write_file(
            tmp_path / job.name, (job.header, job.ranges), readers, lambda _: os.truncate(sources[0], 2 * BLOCK), files
        )
    assert 2 * BLOCK < ended(caught.value, sources[0]) <= SIZE


@pytest.mark.parametrize("left", [0, BLOCK, 3 * BLOCK + 1])
def test_a_source_that_is_shorter_is_refused_where_blocks_are_shared(sharing, left):
    sources = sources_in(sharing)
    os.truncate(sources[0], left)
    with pytest.raises(CheckpointError, match="it was changed") as caught:
        written(sharing, mixed_job(sources))
    assert left < ended(caught.value, sources[0])


def test_a_source_that_is_gone_is_named(tmp_path, job):
    job.ranges[1].path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        written(tmp_path, job)
    assert Path(caught.value.filename) == job.ranges[1].path


# Memory


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.usefixtures("clones")
def test_any_file_passes_through_a_few_buffers(tmp_path, monkeypatch, sources, files):
    """Many windows and many gaps between shared stretches; the same memory is used again and again."""
    made = []
    real = mmap.mmap

    def counted(number: int, length: int) -> mmap.mmap:
        made.append(length)
        return real(number, length)

    monkeypatch.setattr(mmap, "mmap", counted)
    ranges = []
    for number in range(40):
        ranges += [ByteRange(sources[0], 0, 2 * BLOCK), ByteRange(sources[number % 3], 1, 9 * BLOCK)]
    job = OutputShard("out", bytes(BLOCK), tuple(ranges), ())
    expected = wanted(job)
    tracemalloc.start()
    try:
        result, _ = written(tmp_path, job, files)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out").read_bytes() == expected
    assert (result.cloned > 0) is files.clone
    assert made == [WINDOW] * copying._BUFFERS
    assert peak < len(expected) // 4


class Latest:
    """An executor that does everything as late as it may: when the result is asked for, or at the end."""

    def __init__(self, _workers: int) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for do in self.waiting:
            do()

    def submit(self, work: Call, *args: Any) -> Any:
        done: list[int] = []

        def do() -> None:
            if not done:
                done.append(work(*args))

        def result() -> int:
            do()
            return done[0]

        self.waiting.append(do)
        future: Future[int] = Future()
        future.result = result  # type: ignore[method-assign, assignment]
        return future


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.usefixtures("clones")
def test_a_window_is_not_filled_again_before_it_is_written(tmp_path, monkeypatch, job, files):
    monkeypatch.setattr(copying, "ThreadPoolExecutor", Latest)
    check(tmp_path, job, files, clones=True)


def test_while_a_slow_disk_writes_the_reader_waits_and_no_window_changes(tmp_path, monkeypatch, job):
    """The first write ends only when the reader waits for it: by then all windows but that one's are filled."""
    waits, whole_write, whole_read = Event(), os.pwrite, os.preadv
    begun: list[bool] = []
    read = 0

    class Watched(ThreadPoolExecutor):
        def submit(self, *args: Any) -> Any:
            future = super().submit(*args)
            result = future.result

            def watched() -> int:
                waits.set()
                return result(PATIENCE)

            future.result = watched  # type: ignore[method-assign]
            return future

    def preadv(source: int, rooms: list[memoryview], offset: int) -> int:
        nonlocal read
        count = whole_read(source, rooms, offset)
        if not waits.is_set():
            read += count
        return count

    def pwrite(target: int, data: memoryview, offset: int) -> int:
        begun.append(waits.is_set() or waits.wait(PATIENCE))
        return whole_write(target, data, offset)

    monkeypatch.setattr(copying, "ThreadPoolExecutor", Watched)
    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(os, "pwrite", pwrite)
    check(tmp_path, job, PLAIN, clones=False)
    assert all(begun)
    assert read == copying._BUFFERS * WINDOW - len(job.header)


# The file that is made


def test_an_existing_file_is_not_overwritten(tmp_path, job):
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        written(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == b"precious"


@pytest.mark.parametrize("header", [b"", b"header", bytes(BLOCK)], ids=len)
@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
def test_a_file_without_data_is_its_header(tmp_path, header, files):
    check(tmp_path, OutputShard("out", header, (), ()), files, clones=False)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What was done to the disk, as far as it was done: inode and size at every write and at every os.fsync."""
    done: list[tuple[str, int, int]] = []
    whole_write = os.pwrite

    def pwrite(target: int, data: memoryview, offset: int) -> int:
        written = whole_write(target, data, offset)
        done.append(("write", os.fstat(target).st_ino, os.fstat(target).st_size))
        return written

    def fsync(handle: int) -> None:
        done.append(("sync", os.fstat(handle).st_ino, os.fstat(handle).st_size))

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    return done


@pytest.mark.parametrize("files", ALL_WAYS, ids=str)
@pytest.mark.usefixtures("clones")
def test_the_complete_file_reaches_the_disk(tmp_path, job, files, events):
    written(tmp_path, job, files)
    assert events[-1] == ("sync", (tmp_path / "out").stat().st_ino, job.size)
    assert "write" in {what for what, _, _ in events}


def test_what_waits_in_the_cache_is_bounded(tmp_path, job, events):
    written(tmp_path, job, PLAIN)
    assert [what for what, _, _ in events].count("sync") == job.size // local_files._MOST_UNWRITTEN + 1
