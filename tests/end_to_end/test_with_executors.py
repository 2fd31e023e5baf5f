"""An executor writes the files of an output: threads, processes, and workers that die, lie, or see something else."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from support import files_of, make_synthetic

import internvl_bridge
from internvl_bridge.convert.options import Execution, check_several_processes
from internvl_bridge.errors import CheckpointError, DifferenceError, OptionError, OutputError
from internvl_bridge.storage import shard_tasks
from internvl_bridge.storage.shard_tasks import Attempt, ShardTask, write_attempt
from internvl_bridge.work.executors import given_to

COUNT = 21


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("executors") / "source")


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, bytes]:
    internvl_bridge.to_hf(source, source.with_name("expected"), max_shard_size="60KB")
    return files_of(source.with_name("expected"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def convert(source: Path, output: Path) -> Callable[..., internvl_bridge.ConversionReport]:
    return lambda executor, **options: internvl_bridge.to_hf(
        source, output, max_shard_size="60KB", executor=executor, **options
    )


class AtOnce(Executor):
    """Does everything when it is submitted; ``meddling`` gets the result of what writes files, and its task."""

    def __init__(self, meddling: Callable[[ShardTask, Attempt], Attempt] = lambda _, attempt: attempt) -> None:
        self.meddling = meddling

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            result = work(*arguments)
            future.set_result(self.meddling(*arguments, result) if work is write_attempt else result)
        except Exception as error:  # noqa: BLE001 (as a real one does)
            future.set_exception(error)
        return future


def processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("fork"))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("make", [lambda: ThreadPoolExecutor(3), processes, AtOnce])
def test_the_output_is_the_same(
    make: Callable[[], Executor],
    convert: Callable[..., internvl_bridge.ConversionReport],
    output: Path,
    expected: dict[str, bytes],
):
    seen: list[tuple[int, int]] = []

    def progress(_task: str, total: int, files: int) -> Callable[[int, int], None]:
        seen.append((-total, -files))
        return lambda done, finished: seen.append((done, finished))

    with make() as executor:
        report = convert(executor, progress=progress)
    assert report.by_workers
    assert files_of(output) == expected
    assert [sum(numbers) for numbers in zip(*seen, strict=True)] == [0, 0]


def test_without_verification_nothing_is_read_again(
    convert: Callable[..., internvl_bridge.ConversionReport], output: Path, expected: dict[str, bytes]
):
    done: list[Callable[..., Any]] = []

    class Recording(AtOnce):
        def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
            done.append(work)
            return super().submit(work, *arguments)

    assert convert(Recording(), verify=False).verification is None
    assert done == [write_attempt] * COUNT
    assert files_of(output) == expected


def ending(task: ShardTask) -> Attempt:
    """Write a file, and die of it if it is the fifth."""
    if "00005" in task.name:
        (task.attempts / f"{task.name}.half").write_bytes(b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    return write_attempt(task)


def alone(task: ShardTask, attempt: Attempt) -> Attempt:
    assert [path.name for path in task.attempts.parent.glob("attempts-*")] == [task.attempts.name]
    return attempt


class Broken(AtOnce):
    """Is broken before it gets the third task."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        self.given = getattr(self, "given", 0) + 1
        if self.given == 3:
            raise BrokenExecutor("of old age")
        return super().submit(work, *arguments)


def test_an_executor_that_breaks_while_it_is_given_work_is_told(
    convert: Callable[..., internvl_bridge.ConversionReport],
):
    with pytest.raises(OutputError, match=r"a worker ended and reported nothing \(of old age\)"):
        convert(Broken(), workers=1)


def test_what_was_done_before_an_executor_broke_is_kept(
    convert: Callable[..., internvl_bridge.ConversionReport], output: Path, expected: dict[str, bytes]
):
    with pytest.raises(OutputError, match="a worker ended and reported nothing"):
        convert(Broken())
    assert len(convert(AtOnce()).kept) == 2
    assert files_of(output) == expected


def test_what_an_earlier_run_made_is_compared_with_the_source(source: Path, output: Path):
    ours = Path(shutil.copytree(source, output.with_name("ours")))
    with pytest.raises(OutputError):
        internvl_bridge.to_hf(ours, output, max_shard_size="60KB", executor=Broken(), workers=1)
    for path in ours.glob("*.safetensors"):
        before, data = path.stat(), bytearray(path.read_bytes())
        data[int.from_bytes(data[:8], "little") + 8 :] = bytes(len(data) - 8 - int.from_bytes(data[:8], "little"))
        path.write_bytes(data)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert internvl_bridge.to_hf(ours, output, max_shard_size="60KB", executor=AtOnce()).kept == ()
    assert internvl_bridge.verify(ours, output).identical


def test_a_reader_that_reports_nothing_is_found_out(
    convert: Callable[..., internvl_bridge.ConversionReport], output: Path
):
    class Silent(AtOnce):
        def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
            done = super().submit(work, *arguments)
            if work is not write_attempt:
                done = Future()
                done.set_result(None)
            return done

    with pytest.raises(DifferenceError, match="what is not true: None"):
        convert(Silent())
    assert not output.exists()


def test_permissions_are_those_of_this_process(
    convert: Callable[..., internvl_bridge.ConversionReport], output: Path, monkeypatch: pytest.MonkeyPatch
):
    write = shard_tasks.write_and_check

    def careless(job: Any, advance: Any, **options: Any) -> Any:
        written = write(job, advance, **options)
        job.path.chmod(0o777)
        return written

    monkeypatch.setattr(shard_tasks, "write_and_check", careless)
    convert(AtOnce())
    assert len({path.stat().st_mode for path in output.iterdir()}) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_dies_is_told_and_the_same_call_goes_on(
    convert: Callable[..., internvl_bridge.ConversionReport],
    output: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("internvl_bridge.convert.write_on_executor.write_attempt", ending)
    with pytest.raises(OutputError, match="a worker ended and reported nothing") as error, processes() as executor:
        convert(executor, workers=1)
    assert any("4 finished file(s) are kept in" in note for note in error.value.__notes__)
    monkeypatch.undo()
    partial = output.parent / "output.partial"
    (partial / "files" / "model-00002-of-00021.safetensors").write_bytes(b"damaged")
    (partial / "files" / "model-00003-of-00021.safetensors").unlink()
    (partial / "attempts-of-a-run-that-was-killed").mkdir()
    assert len(convert(AtOnce(alone)).kept) == 2
    assert files_of(output) == expected


def test_what_a_dead_worker_has_left_is_removed(
    convert: Callable[..., internvl_bridge.ConversionReport], output: Path, expected: dict[str, bytes]
):
    def retried(task: ShardTask, attempt: Attempt) -> Attempt:
        (task.attempts / f"{task.name}.0123").write_bytes(b"half")
        return attempt

    convert(AtOnce(retried))
    assert files_of(output) == expected
    assert [path.name for path in output.parent.iterdir()] == ["output"]


def cut(task: ShardTask, attempt: Attempt) -> Attempt:
    os.truncate(task.attempts / attempt.name, task.job.size - 1)
    return attempt


def changed(task: ShardTask, attempt: Attempt) -> Attempt:
    with (task.attempts / attempt.name).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    return attempt


def other_header(task: ShardTask, attempt: Attempt) -> Attempt:
    with (task.attempts / attempt.name).open("r+b") as file:
        file.seek(9)
        file.write(b"x")
    return attempt


def outside(task: ShardTask, attempt: Attempt) -> Attempt:
    (task.attempts / attempt.name).rename(task.attempts.parent / attempt.name)
    return replace(attempt, name=f"../{attempt.name}")


@pytest.mark.parametrize(
    ("meddling", "kind", "reason"),
    [
        (cut, DifferenceError, "reports of .* what is not true"),
        (other_header, DifferenceError, "reports of .* what is not true"),
        (changed, DifferenceError, "is not what was read"),
        (lambda _, attempt: replace(attempt, name="model-00001-of-00021.safetensors.x"), DifferenceError, "not true"),
        (outside, DifferenceError, "what is not true"),
        (lambda *_: None, DifferenceError, "what is not true: None"),
    ],
)
def test_a_worker_that_reports_what_is_not_true_is_found_out(
    meddling: Callable[[ShardTask, Attempt], Attempt],
    kind: type[Exception],
    reason: str,
    convert: Callable[..., internvl_bridge.ConversionReport],
    output: Path,
    expected: dict[str, bytes],
):
    with pytest.raises(kind, match=reason):
        convert(AtOnce(meddling))
    assert not output.exists()
    convert(AtOnce())
    assert files_of(output) == expected


def test_what_is_interrupted_stops_and_goes_on(
    convert: Callable[..., internvl_bridge.ConversionReport],
    output: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shard_tasks, "_LOOK", 0)
    write = shard_tasks.write_and_check

    def slow(job: Any, advance: Callable[[int], None], **options: Any) -> Any:
        for _ in range(1000 if "00021-of" in job.path.name else 0):
            time.sleep(0.05)
            advance(0)
        return write(job, advance, **options)

    def progress(_task: str, _total: int, _files: int) -> Callable[[int, int], None]:
        done = 0

        def report(more: int, _finished: int) -> None:
            nonlocal done
            done += bool(more)
            if done == 5:
                raise KeyboardInterrupt

        return report

    monkeypatch.setattr(shard_tasks, "write_and_check", slow)
    start = time.monotonic()
    with ThreadPoolExecutor(32) as executor, pytest.raises(KeyboardInterrupt):
        convert(executor, progress=progress)
    assert time.monotonic() - start < 20
    monkeypatch.undo()
    assert not [*output.parent.glob("output.partial/attempts-*")]
    assert len(convert(AtOnce()).kept) >= 4
    assert files_of(output) == expected


def test_a_machine_that_sees_something_else_says_so(
    convert: Callable[..., internvl_bridge.ConversionReport], tmp_path: Path
):
    told: dict[str, str] = {}

    def trying(task: ShardTask, attempt: Attempt) -> Attempt:
        absent = tmp_path / "absent"
        path, stamp = task.sources[0]
        for name, other, kind in (
            ("no workspace", replace(task, attempts=absent), OutputError),
            ("no source", replace(task, sources=((absent, stamp),)), OutputError),
            ("another source", replace(task, sources=((path, replace(stamp, size=1)),)), CheckpointError),
            ("another version", replace(task, version="0"), OutputError),
        ):
            with pytest.raises(kind) as error:
                write_attempt(other)
            told[name] = str(error.value)
        return attempt

    convert(AtOnce(trying))
    assert f"cannot open {tmp_path / 'absent'}: No such file or directory. SOURCE and OUTPUT" in told["no workspace"]
    assert told["no source"] == told["no workspace"]
    assert "was changed while it was being converted" in told["another source"]
    assert "Install the same version on all machines" in told["another version"]


def nap(number: int) -> None:
    time.sleep(number % 3 / 100)


def test_so_much_at_a_time():
    under_way: list[int] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
            under_way.append(under_way[-1] + 1 if under_way else 1)
            return super().submit(work, *arguments, **options)

    with Counting(8) as executor:
        for _, future in given_to(executor, nap, range(50), 3, check=lambda: None, cancel=lambda: None):
            under_way.append(under_way[-1] - 1)
            assert future.done()
    assert max(under_way) == 3
    assert len(under_way) == 100


@pytest.mark.parametrize(
    "execution",
    [
        Execution(executor=AtOnce(), consume=True),
        Execution(executor=AtOnce(), stream=True),
        Execution(ray="local", consume=True),
    ],
)
def test_what_does_not_go_together_is_refused(execution: Execution):
    with pytest.raises(OptionError, match="Leave out"):
        check_several_processes(execution, Path("output"))
