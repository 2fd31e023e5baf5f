"""A file is its header and the ranges behind it, whatever the kernel can and cannot do."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import copying
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.copying import write_file
from internvl_bridge.storage.layout import FileJob
from internvl_bridge.storage.reading import FileReader

CANNOT = [errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM]
HEADER = b"header"
SIZE = 1000

Kernel = Callable[[int, int, int, int], int]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "first", tmp_path / "second"
    for number, path in enumerate(paths):
        path.write_bytes(bytes((i * (7 + number) + i // 256) % 256 for i in range(SIZE)))
    return paths


@pytest.fixture
def job(sources: tuple[Path, Path]) -> FileJob:
    first, second = sources
    pieces = (Piece(first, 100, 300), Piece(second, 0, 250), Piece(first, 0, 1), Piece(second, 749, 251))
    return FileJob("out", HEADER, pieces, ("a", "b"))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_KERNEL_CHUNK", 100)
    monkeypatch.setattr(copying, "_BUFFER", 64)


@pytest.fixture
def promptly() -> Iterator[None]:
    def late(_signal: int, _frame: object) -> None:
        pytest.fail("this takes for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def wanted(job: FileJob) -> bytes:
    return job.header + b"".join(
        piece.path.read_bytes()[piece.offset : piece.offset + piece.length] for piece in job.pieces
    )


def write(directory: Path, job: FileJob) -> list[int]:
    steps: list[int] = []
    with FileReader() as readers:
        write_file(directory, job, readers, steps.append)
    return steps


class ScriptedKernel:
    """os.copy_file_range as it works everywhere, until (counting calls from 0) it does ``odd`` instead."""

    def __init__(self, odd: Kernel, is_odd: Callable[[int], bool]) -> None:
        self.odd = odd
        self.is_odd = is_odd
        self.calls = 0

    def __call__(self, source: int, target: int, count: int, offset_src: int) -> int:
        self.calls += 1
        if self.is_odd(self.calls - 1):
            return self.odd(source, target, count, offset_src)
        return copied(source, target, count, offset_src)


def copied(source: int, target: int, count: int, offset: int) -> int:
    data = os.pread(source, count, offset)
    assert os.write(target, data) == len(data)
    return len(data)


def raising(code: int) -> Kernel:
    def odd(*_: int) -> int:
        raise OSError(code, os.strerror(code))

    return odd


def copying_nothing(*_: int) -> int:
    return 0


def copying_short(source: int, target: int, count: int, offset: int) -> int:
    return copied(source, target, min(count, 7), offset)


ODD = {
    **{f"raises {errno.errorcode[code]}": raising(code) for code in CANNOT},
    "copies nothing": copying_nothing,
    "copies short": copying_short,
}
WHEN = {
    "always": lambda _: True,
    "at first only": lambda call: call == 0,
    "from the second call on": lambda call: call >= 1,
    "in the middle of a piece only": lambda call: call == 2,
    "every other time": lambda call: call % 2 == 1,
}


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("what", ODD)
def test_the_bytes_are_the_same_whatever_the_kernel_does(tmp_path, monkeypatch, job, what, when):
    kernel = ScriptedKernel(ODD[what], WHEN[when])
    monkeypatch.setattr(os, "copy_file_range", kernel, raising=False)
    steps = write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)
    assert sum(steps) == len(wanted(job)) - len(HEADER)
    assert kernel.calls > 1


def test_the_bytes_are_the_same_on_a_platform_without_range_copies(tmp_path, monkeypatch, job):
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    steps = write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)
    assert sum(steps) == len(wanted(job)) - len(HEADER)
    assert max(steps) <= 64


def test_the_bytes_are_the_same_in_the_kernel_of_this_machine(tmp_path, job):
    steps = write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)
    assert sum(steps) == len(wanted(job)) - len(HEADER)


def test_where_the_kernel_copies_no_byte_passes_through_this_process(tmp_path, monkeypatch, job):
    expected = wanted(job)
    kernel = ScriptedKernel(copying_nothing, lambda _: False)
    monkeypatch.setattr(os, "copy_file_range", kernel, raising=False)
    steps = write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == expected
    assert steps == [100, 100, 100, 100, 100, 50, 1, 100, 100, 51]
    assert kernel.calls == len(steps)


RANGES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, SIZE), st.integers(0, 300)), max_size=5)


@given(
    RANGES,
    st.binary(max_size=100),
    st.lists(st.sampled_from([*sorted(ODD), "works"]), min_size=1, max_size=9),
)
def test_any_ranges_survive_any_sequence_of_mishaps(tmp_path_factory, ranges, header, script):
    directory = tmp_path_factory.getbasetemp() / "mishaps"
    directory.mkdir(exist_ok=True)
    (directory / "out").unlink(missing_ok=True)
    paths = [directory / "first", directory / "second"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes((i * (3 + number)) % 253 for i in range(SIZE)))
    pieces = tuple(Piece(paths[which], start, min(length, SIZE - start)) for which, start, length in ranges)
    job = FileJob("out", header, pieces, ())
    calls = iter(range(10**6))

    def kernel(source: int, target: int, count: int, offset: int) -> int:
        return ODD.get(script[next(calls) % len(script)], copied)(source, target, count, offset)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "copy_file_range", kernel, raising=False)
        write(directory, job)
    assert (directory / "out").read_bytes() == wanted(job)


# Writes that are cut short


@pytest.mark.parametrize("at_most", [1, 5, 63])
def test_short_writes_are_continued(tmp_path, monkeypatch, job, at_most):
    whole_write = os.write
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(os, "write", lambda target, data: whole_write(target, bytes(data)[:at_most]))
    write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)


def test_short_reads_are_continued(tmp_path, monkeypatch, job):
    whole_read = os.pread
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(os, "pread", lambda source, count, offset: whole_read(source, min(count, 9), offset))
    write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == wanted(job)


# Errors that are not for us to hide


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM])
@pytest.mark.parametrize("call", [0, 1, 4])
def test_an_error_of_the_disk_while_the_kernel_copies_is_raised(tmp_path, monkeypatch, job, code, call):
    monkeypatch.setattr(os, "copy_file_range", ScriptedKernel(raising(code), lambda c: c == call), raising=False)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write(tmp_path, job)
    assert caught.value.errno == code


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("write", errno.ENOSPC),
        ("write", errno.EIO),
        ("pread", errno.EIO),
        ("fsync", errno.EIO),
        ("fsync", errno.ENOSPC),
    ],
)
def test_an_error_of_the_disk_in_this_process_is_raised(tmp_path, monkeypatch, job, function, code):
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(os, function, raising(code))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write(tmp_path, job)
    assert caught.value.errno == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_device_is_an_error(tmp_path, monkeypatch, job):
    full = os.open("/dev/full", os.O_WRONLY)
    whole_write = os.write
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(os, "write", lambda _target, data: whole_write(full, data))
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path, job)
    os.close(full)
    assert caught.value.errno == errno.ENOSPC


# Sources that are not what their header said


@pytest.mark.usefixtures("promptly")
@pytest.mark.parametrize("in_kernel", [True, False])
@pytest.mark.parametrize("left", [0, 100, 101, 399])
def test_a_source_that_became_shorter_is_refused(tmp_path, monkeypatch, job, left, in_kernel):
    source = job.pieces[0].path
    os.truncate(source, left)
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    with pytest.raises(CheckpointError, match="ended before byte 400: it was changed") as caught:
        write(tmp_path, job)
    assert str(source) in str(caught.value)
    assert "Convert again" in caught.value.remedy


@pytest.mark.usefixtures("promptly")
@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_source_that_becomes_shorter_during_the_copy_is_refused(tmp_path, monkeypatch, job, in_kernel):
    source = job.pieces[0].path
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    with FileReader() as readers, pytest.raises(CheckpointError, match="ended before byte 400") as caught:
        write_file(tmp_path, job, readers, lambda _: os.truncate(source, 150))
    assert str(source) in str(caught.value)


# The file that is made


def test_an_existing_file_is_not_overwritten(tmp_path, job):
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write(tmp_path, job)
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_a_file_without_data_is_its_header(tmp_path):
    assert write(tmp_path, FileJob("out", HEADER, (), ())) == []
    assert (tmp_path / "out").read_bytes() == HEADER


def test_the_complete_file_reaches_the_disk(tmp_path, monkeypatch, job):
    synced = []

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        synced.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path, job)
    assert synced[-1] == ((tmp_path / "out").stat().st_ino, job.size)
