"""A shard job stands alone: any process carries it out, on any file system, and its file is compared bit for bit."""

import multiprocessing
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from internvl_bridge.errors import DifferenceError
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.header import Entry, encode_header
from internvl_bridge.storage.shard_jobs import ShardJob, check, write_and_check
from internvl_bridge.storage.stamps import Stamp


class MemoryFiles:
    """A file system without files: no descriptors, nothing to share, no page cache."""

    def __init__(self, contents: dict[Path, bytes]) -> None:
        self.contents = contents

    def stamp(self, path: Path) -> Stamp:
        return Stamp(len(self.contents[path]), 0)

    def open(self, path: Path) -> "MemorySource":
        return MemorySource(self.contents[path])

    @contextmanager
    def create(self, path: Path) -> Iterator["MemorySink"]:
        sink = MemorySink()
        yield sink
        assert sink.is_finished
        self.contents[path] = bytes(sink.data)


class MemorySource:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_into(self, window: memoryview, offset: int) -> int:
        part = self.data[offset : offset + min(len(window), 1000)]  # less than was asked for, as a network may give
        window[: len(part)] = part
        return len(part)

    def forget(self, offset: int, length: int) -> None:
        pass

    def close(self) -> None:
        pass


class MemorySink:
    def __init__(self) -> None:
        self.data, self.is_finished = bytearray(), False

    def begin(self, *_: object) -> tuple[()]:
        return ()

    def write(self, window: memoryview, offset: int) -> int:
        self.data.extend(bytes(max(0, offset + len(window) - len(self.data))))
        self.data[offset : offset + len(window)] = window
        return len(window)

    def finish(self) -> None:
        self.is_finished = True


HEADER = encode_header({"a": Entry("U8", (3000,), 0, 3000), "b": Entry("BF16", (500,), 3000, 4000)}, {"format": "pt"})
DATA = bytes(number * 7 % 251 for number in range(8000))
WANTED = HEADER + DATA[5:3005] + DATA[4000:5000]


def job_in(directory: Path) -> ShardJob:
    source = directory / "source"
    return ShardJob(directory / "shard", HEADER, (ByteRange(source, 5, 3000), ByteRange(source, 4000, 1000)))


@pytest.fixture
def job(tmp_path: Path) -> ShardJob:
    (tmp_path / "source").write_bytes(DATA)
    return job_in(tmp_path)


def test_another_process_carries_out_what_was_pickled(job: ShardJob) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        written = pool.apply(write_and_check, [pickle.loads(pickle.dumps(job))])  # noqa: S301 (our own)

    assert job.path.read_bytes() == WANTED
    assert written.checksums == check(job)


@pytest.mark.parametrize("verify", [True, False])
def test_the_bytes_are_the_same_from_and_to_any_file_system(job: ShardJob, verify: bool) -> None:
    job = replace(job, verify=verify)
    files = MemoryFiles({job.ranges[0].path: DATA})
    steps: list[int] = []
    here = write_and_check(job, steps.append)
    there = write_and_check(job, steps.append, source=files, target=files)

    assert job.path.read_bytes() == files.contents[job.path] == WANTED
    assert replace(here, stamp=there.stamp) == there
    assert sum(steps) == 2 * job.work == (4 if verify else 2) * len(WANTED)


@pytest.mark.parametrize(
    ("offset", "where"),
    [
        (3, "byte 3 differs"),
        (len(HEADER), "a differs from element 0 on"),
        (len(HEADER) + 2999, "a differs from element 2999 on"),
        (len(HEADER) + 3001, "b differs from element 0 on"),
        (len(WANTED) - 1, "b differs from element 499 on"),
    ],
)
def test_a_flipped_bit_is_found_and_located(job: ShardJob, offset: int, where: str) -> None:
    job.path.write_bytes(WANTED[:offset] + bytes([WANTED[offset] ^ 1]) + WANTED[offset + 1 :])

    with pytest.raises(DifferenceError) as error:
        check(job)

    assert error.value.reason == f"What was written to {job.path} is not what was read: {where}."


@pytest.mark.parametrize("content", [WANTED[:-1], WANTED + b"\0", b""])
def test_a_file_of_another_length_is_found(job: ShardJob, content: bytes) -> None:
    job.path.write_bytes(content)

    with pytest.raises(DifferenceError, match="differs"):
        check(job)


def test_a_file_that_has_vanished_is_a_difference(job: ShardJob) -> None:
    with pytest.raises(DifferenceError, match="was written, and is not there any more"):
        check(job)
