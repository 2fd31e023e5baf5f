"""A conversion that is killed, wherever it is, leaves an output that is absent or complete, and can go on."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from support import make_synthetic, without_record
from thinning import rarely
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import OutputError

BRIDGE = [sys.executable, "-m", "internvl_bridge"]
LONGEST = 60

# Every request is one run of the command line, in a process of its own that was forked when everything was imported,
# as a hundred starts of Python would take minutes. The process records what it asks of the system, and kills itself
# where it is told to: in the middle of a write, or before anything else.
SERVER = """
import json, os, signal, sys
import internvl_bridge.cli.commands, internvl_bridge.cli.worker_commands
from internvl_bridge.cli import app as cli

def record_calls(deadly):
    calls = []
    names = "pwrite write fsync rename replace link symlink unlink mkdir rmdir truncate ftruncate".split()
    def recorded(name):
        call = getattr(os, name)
        def recording(*arguments, **options):
            calls.append(name)
            if len(calls) == deadly:
                if name.endswith("write"):
                    file, data, *offset = arguments
                    try:
                        call(file, data[: len(data) // 2], *offset)
                    except OSError:  # half a block cannot be written past the page cache
                        pass
                os.write = original
                original(2, name.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)
        setattr(os, name, recording)
    original = os.write
    for name in names:
        recorded(name)
    return calls

answers, requests = os.fdopen(os.dup(1), "w"), sys.stdin
for request in requests:
    arguments, deadly = json.loads(request)
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(there, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv[1:] = arguments
        calls = record_calls(deadly)
        try:
            cli.main()
        except SystemExit as stop:
            sys.stderr.flush()
            if not stop.code:
                os.fdopen(there, "w").write(" ".join(calls))
            os._exit(stop.code or 0)
        os._exit(99)
    os.close(there)
    with os.fdopen(here) as told:
        text = told.read()
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), text]), file=answers, flush=True)
"""

Snapshot = Mapping[str, bytes] | None


@dataclass(frozen=True)
class Commands:
    """Runs command lines one after the other; each may be told at which system call to kill itself."""

    process: subprocess.Popen[str]

    def run(self, arguments: list[str], deadly: int = 0) -> tuple[int, str]:
        """The exit code (-9 if it was killed) and what it said: its errors, its last call, or all of its calls."""
        print(json.dumps([arguments, deadly]), file=self.process.stdin, flush=True)
        code, text = json.loads(self.process.stdout.readline())
        return code, text


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Commands(process)
        process.stdin.close()
        process.wait(LONGEST)


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_synthetic(tmp_path_factory.mktemp("killed") / "source")


def snapshot(directory: Path) -> Snapshot:
    """Every file below ``directory`` with its bytes; None if it is not there."""
    if not os.path.lexists(directory):
        return None
    assert directory.is_dir()
    assert not directory.is_symlink()
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): without_record(path) for path in files}


def stamps(directory: Path) -> list[tuple[str, int, int]]:
    return sorted((path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in directory.iterdir())


@pytest.fixture
def points(request: pytest.FixtureRequest) -> Callable[[list[str]], list[int]]:
    """Where to kill a run with these calls: everywhere, or at the first and the last of each name."""

    def every(calls: list[str]) -> list[int]:
        return [*range(1, len(calls) + 1)]

    def ends(calls: list[str]) -> list[int]:
        return sorted({position for name in calls for position in (calls.index(name) + 1, last(name, calls))})

    return every if request.config.getoption("exhaustive") else ends


def last(name: str, calls: list[str]) -> int:
    """The number of the last call of ``name``."""
    return len(calls) - calls[::-1].index(name)


def partial_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def sweep(
    commands: Commands,
    arguments: list[str],
    points: Callable[[list[str]], list[int]],
    prepare: Callable[[], None],
    check: Callable[[], None],
) -> set[str]:
    """Kill ``arguments`` at each of ``points`` and ``check`` what is left; the names of the calls at which that was."""
    prepare()
    code, text = commands.run(arguments)
    assert code == 0, text
    seen = set()
    for number in points(text.split()):
        prepare()
        code, name = commands.run(arguments, number)
        # which of several workers comes first may change the number of calls by a few
        assert code == -signal.SIGKILL or (code == 0 and "--workers" not in arguments), name
        seen.add(name)
        try:
            check()
        except Exception as error:
            error.add_note(f"killed in {name}, call {number}")
            raise
    return seen


def remove(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
        assert not directory.exists()


# Killed at a system call


@pytest.mark.parametrize(
    ("size", "flags"),
    [
        ("400KB", ["--workers", "1", "--no-verify"]),
        ("60KB", ["--workers", "1"]),
        rarely(("400KB", ["--workers", "1"])),
        rarely(("60KB", [])),
    ],
)
def test_killed_at_any_call_the_output_is_absent_or_complete(commands, source, tmp_path, points, size, flags):
    output = tmp_path / "output"
    whole, before = tmp_path / "whole", (snapshot(source), stamps(source))
    internvl_bridge.to_hf(source, whole, max_shard_size=size)
    expected = snapshot(whole)
    assert len(expected) > (20 if size == "60KB" else 3)
    verify, times = "--no-verify" not in flags, {"absent": 0, "complete": 0, "kept": 0}

    def check() -> None:
        found = snapshot(output)
        assert found in (None, expected)
        assert (snapshot(source), stamps(source)) == before
        times["absent" if found is None else "complete"] += 1
        if found is not None:
            # it was killed while it cleaned up: what is asked for is there
            assert snapshot(partial_of(output)) in (None, {}) or [*snapshot(partial_of(output))] == ["journal"]
            with pytest.raises(OutputError, match="exists and is not an empty directory"):
                internvl_bridge.to_hf(source, output, max_shard_size=size, verify=verify)
            assert snapshot(output) == expected
        report = internvl_bridge.to_hf(source, output, max_shard_size=size, verify=verify, overwrite=found is not None)
        times["kept"] += len(report.kept)
        assert snapshot(output) == expected
        assert snapshot(partial_of(output)) is None
        assert (snapshot(source), stamps(source)) == before

    arguments = [
        "to-hf",
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        size,
        "--quiet",
        *flags,
    ]
    seen = sweep(commands, arguments, points, lambda: remove(output, partial_of(output)), check)
    assert seen >= {"mkdir", "pwrite", "fsync", "rename", "unlink", "rmdir"}
    assert min(times.values()) > 0, times


@pytest.mark.parametrize("link", ["hard", rarely("symbolic")])
def test_killed_at_any_call_an_output_with_links_goes_on(commands, source, tmp_path, points, link):
    output, whole = tmp_path / "output", tmp_path / "whole"
    internvl_bridge.to_hf(source, whole, link=link)
    before, expected = (snapshot(source), stamps(source)), snapshot(whole)

    def check() -> None:
        assert snapshot(output) in (None, expected)
        found = internvl_bridge.to_hf(source, output, link=link, overwrite=output.exists())
        assert len(found.linked.files) == 1
        assert snapshot(output) == expected
        assert snapshot(partial_of(output)) is None
        assert (snapshot(source), stamps(source)) == before

    arguments = ["to-hf", str(source), str(output), "--link", link, "--quiet", "--workers", "1"]
    seen = sweep(commands, arguments, points, lambda: remove(output, partial_of(output)), check)
    assert {"hard": "link", "symbolic": "symlink"}[link] in seen


@pytest.mark.parametrize("killed", ["worker", "finish"])
def test_killed_at_any_call_workers_go_on(commands, source, tmp_path, points, killed):
    output, whole, half = tmp_path / "output", tmp_path / "whole", tmp_path / "half"
    internvl_bridge.to_hf(source, whole, max_shard_size="250KB")
    before, expected = (snapshot(source), stamps(source)), snapshot(whole)
    convert = ["to-hf", str(source), str(output), "--accept", "small-shards", "--max-shard-size", "250KB", "--quiet"]
    workers = [[*convert, "--workers", "1", "--worker", worker] for worker in ("1/2", "2/2")]
    for arguments in workers if killed == "finish" else workers[1:]:
        assert commands.run(arguments)[0] == 0
    partial_of(output).rename(half)

    def prepare() -> None:
        remove(output, partial_of(output))
        shutil.copytree(half, partial_of(output))

    def check() -> None:
        assert snapshot(output) in (None, expected)
        if not output.exists():
            assert killed == "finish" or commands.run(workers[0])[0] == 0
            internvl_bridge.finish(output)
        assert snapshot(output) == expected
        assert all(name.endswith("journal") for name in snapshot(partial_of(output)) or ())
        with pytest.raises(OutputError, match=r"nothing to finish: .* is complete"):
            internvl_bridge.finish(output)
        assert (snapshot(source), stamps(source)) == before

    arguments = workers[0] if killed == "worker" else ["finish", str(output), "--quiet", "--workers", "1"]
    seen = sweep(commands, arguments, points, prepare, check)
    assert seen >= ({"pwrite", "fsync", "write"} if killed == "worker" else {"rename", "write", "unlink"})


@pytest.mark.parametrize("size", [None, rarely("250KB"), rarely("1MB")])
def test_killed_at_any_call_what_is_deleted_in_the_source_is_in_the_output(commands, source, tmp_path, points, size):
    consumed, output, whole = tmp_path / "consumed", tmp_path / "output", tmp_path / "whole"
    internvl_bridge.to_hf(source, whole, max_shard_size=size)
    expected, times = snapshot(whole), {"absent": 0, "complete": 0, "resumed": 0}

    def prepare() -> None:
        remove(output, partial_of(output), consumed)
        shutil.copytree(source, consumed)

    def check() -> None:
        found = snapshot(output)
        assert found in (None, expected)
        times["absent" if found is None else "complete"] += 1
        if found is None:
            gone = {path.name for path in source.glob("*.safetensors")} - {path.name for path in consumed.iterdir()}
            times["resumed"] += bool(gone)
            report = internvl_bridge.to_hf(consumed, output, max_shard_size=size, consume=True)
            assert len(report.consumed) == 3
        else:
            with pytest.raises(OutputError, match="it is complete"):
                internvl_bridge.to_hf(consumed, output, max_shard_size=size, consume=True)
        assert snapshot(output) == expected
        assert not [*consumed.glob("*.safetensors")]

    arguments = ["to-hf", str(consumed), str(output), "--consume", "--yes", "--quiet", "--workers", "1"]
    if size is not None:
        arguments += ["--accept", "small-shards", "--max-shard-size", size]
    sweep(commands, arguments, points, prepare, check)
    assert min(times.values()) > 0, times


@pytest.mark.parametrize("size", ["250KB", rarely("60KB")])
def test_killed_while_it_overwrites_the_output_is_the_old_one_or_the_new_one(commands, source, tmp_path, points, size):
    output, old, new = tmp_path / "output", tmp_path / "old", tmp_path / "new"
    internvl_bridge.to_hf(source, old, layout="l2")
    internvl_bridge.to_hf(source, new, max_shard_size=size)
    before, former, latter = (snapshot(source), stamps(source)), snapshot(old), snapshot(new)
    assert former != latter
    times = {"old": 0, "absent": 0, "new": 0}

    def prepare() -> None:
        remove(output, partial_of(output))
        shutil.copytree(old, output)

    def check() -> None:
        found = snapshot(output)
        assert found in (former, None, latter)
        times["absent" if found is None else "old" if found == former else "new"] += 1
        if found is None:
            assert snapshot(partial_of(output) / "replaced") == former
        internvl_bridge.to_hf(source, output, max_shard_size=size, overwrite=True)
        assert snapshot(output) == latter
        assert snapshot(partial_of(output)) is None
        assert (snapshot(source), stamps(source)) == before

    arguments = [
        "to-hf",
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        size,
        "--overwrite",
        "--workers",
        "1",
    ]
    assert "rename" in sweep(commands, arguments, points, prepare, check)
    assert times.pop("absent") == 0  # they change places in one step
    assert min(times.values()) > 0, times


def test_killed_again_and_again_it_gets_there(commands, source, tmp_path):
    output, whole = tmp_path / "output", tmp_path / "whole"
    internvl_bridge.to_hf(source, whole, max_shard_size="60KB")
    arguments = [
        "to-hf",
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        "60KB",
        "--quiet",
        "--workers",
        "1",
    ]
    dice = random.Random(7)  # noqa: S311
    for attempt in count(1):
        code, text = commands.run(arguments, dice.randrange(20, 90))
        if not code:
            break
        assert code == -signal.SIGKILL, text
        assert attempt < 100, "it gets no further"
        assert snapshot(output) is None or snapshot(output) == snapshot(whole)
        if output.exists():
            break
    assert attempt > 3
    assert snapshot(output) == snapshot(whole)


def test_killed_just_after_the_outputs_changed_places_the_new_one_stays(commands, source, tmp_path):
    output = tmp_path / "output"
    arguments = ["to-hf", str(source), str(output), "--overwrite", "--quiet", "--workers", "1"]
    internvl_bridge.to_hf(source, output, layout="l2")
    former = snapshot(output)
    _, calls = commands.run(arguments)
    remove(output)
    internvl_bridge.to_hf(source, output, layout="l2")
    # they have changed places, and the old one is still where the new one was
    assert commands.run(arguments, last("rename", calls.split()))[0] == -signal.SIGKILL
    latter = snapshot(output)
    assert latter not in (former, None)
    assert snapshot(partial_of(output) / "files") == former
    # that is not taken for an unfinished output, and whoever does not overwrite is told what is there
    result = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--dry-run", "--overwrite"])
    assert "already" not in result.stdout
    with pytest.raises(OutputError, match="exists and is not an empty directory"):
        internvl_bridge.to_hf(source, output)
    assert snapshot(output) == latter
    internvl_bridge.to_hf(source, output, order="name", overwrite=True)
    assert snapshot(output) not in (latter, None)
    assert snapshot(partial_of(output)) is None


# Killed from outside


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + LONGEST
    while not condition() and process.poll() is None:
        assert time.monotonic() < end, "it hangs"


@pytest.mark.parametrize("seed", [0, *map(rarely, range(1, 6))])
def test_killed_from_outside_at_any_time(source, tmp_path, seed):
    output, whole = tmp_path / "output", tmp_path / "whole"
    internvl_bridge.to_hf(source, whole, max_shard_size="60KB")
    before, expected = (snapshot(source), stamps(source)), snapshot(whole)
    arguments = [
        *BRIDGE,
        "to-hf",
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        "60KB",
        "--quiet",
    ]
    with subprocess.Popen(arguments) as process:
        until(partial_of(output).exists, process)
        try:
            process.wait(random.Random(seed).uniform(0, 0.08))  # noqa: S311
        except subprocess.TimeoutExpired:
            process.kill()
    found = snapshot(output)
    assert found in (None, expected)
    assert (snapshot(source), stamps(source)) == before
    if found is None:
        internvl_bridge.to_hf(source, output, max_shard_size="60KB")
    assert snapshot(output) == expected


# Asked to stop


# Runs the command line so that the worker waits in the place that is asked for until its input ends, and says so; and
# says that it is stopping when it has heard that it must. Then it stops in one and the same place every time.
WAITING = """
import signal, sys
from internvl_bridge.cli import app as cli
from internvl_bridge.storage import shard_jobs as shards
from internvl_bridge.storage.journal import Journal

place = sys.argv.pop(1)
record, write = Journal.record, shards.write_file
set_handler = signal.signal

def say(word):
    print(word, flush=True)

def wait():
    say("waiting")
    sys.stdin.read()

def recording(self, *names, **known):
    record(self, *names, **known)
    if place == f"record {len(self.finished)}":
        wait()

def writing(*arguments):
    if place == "write":
        wait()
    return write(*arguments)

def setting(number, handler):
    def telling(*arguments):
        handler(*arguments)
        say("stopping")
    return set_handler(number, handler if handler in ORDINARY else telling)

ORDINARY = signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL
signal.signal = setting
Journal.record, shards.write_file = recording, writing
cli.main()
"""


def waiting(place: str, *arguments: object) -> subprocess.Popen[str]:
    """The command line with ``arguments``, which has come to ``place`` and waits there."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, place, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    return process


STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
FEW_STOPS = [signal.SIGINT, *map(rarely, STOPS[1:])]


@pytest.mark.parametrize("number", STOPS)
def test_a_conversion_that_is_asked_to_stop_says_what_it_keeps(source, tmp_path, number):
    output = tmp_path / "output"
    options = ["--accept", "small-shards", "--max-shard-size", "60KB", "--workers", "1", "--quiet"]
    with waiting("record 3", "to-hf", source, output, *options) as process:
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 130
    assert errors.startswith("Interrupted. No half output is visible. 3 finished file(s) are kept in ")
    assert f"{partial_of(output)}: the same command goes on from there" in errors
    assert "--restart starts over" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output.partial"]
    report = internvl_bridge.to_hf(source, output, max_shard_size="60KB")
    assert report.kept == tuple(f"model-{n:05d}-of-00021.safetensors" for n in (1, 2, 3))
    assert internvl_bridge.verify(source, output).identical


@pytest.mark.parametrize("number", FEW_STOPS)
def test_a_conversion_that_is_asked_to_stop_before_anything_is_finished_leaves_nothing(source, tmp_path, number):
    with waiting("write", "to-hf", source, tmp_path / "output", "--workers", "1") as process:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["output.partial"]
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 130
    assert errors == "Interrupted. No half output is visible.\n"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("number", FEW_STOPS)
def test_an_overwriting_that_is_asked_to_stop_keeps_the_old_output(source, tmp_path, number):
    output = tmp_path / "output"
    internvl_bridge.to_hf(source, output, layout="l2")
    former = snapshot(output)
    with waiting("record 1", "to-hf", source, output, "--overwrite", "--workers", "1", "--quiet") as process:
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        _, errors = process.communicate(timeout=LONGEST)
    assert process.returncode == 130
    assert re.search(r"\b1 finished file\(s\) are kept", errors)
    assert snapshot(output) == former
    assert internvl_bridge.to_hf(source, output, overwrite=True).kept == ("model-00001-of-00003.safetensors",)
    assert snapshot(output) != former
    assert snapshot(partial_of(output)) is None


# Two at a time


def test_a_second_run_is_turned_away_at_once_and_disturbs_nothing(source, tmp_path):
    output = tmp_path / "output"
    command = ["to-hf", str(source), str(output), "--workers", "1", "--quiet"]
    with waiting("record 1", *command) as process:
        inside = snapshot(partial_of(output))
        for flags in ([], ["--restart"], ["--overwrite"], ["--restart", "--overwrite"], ["--order", "name"]):
            second = CliRunner().invoke(app, [*command, *flags])
            assert second.exit_code == 2, flags
            assert second.stderr.startswith(f"Error: Another conversion is writing to {partial_of(output)}.")
            assert snapshot(partial_of(output)) == inside
        with pytest.raises(OutputError, match="Another conversion is writing"):
            internvl_bridge.to_hf(source, output)
        assert snapshot(partial_of(output)) == inside
        _, errors = process.communicate(timeout=LONGEST)
    assert (process.returncode, errors) == (0, "")
    assert internvl_bridge.verify(source, output).identical
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_a_run_that_was_killed_excludes_nobody(source, tmp_path):
    output = tmp_path / "output"
    with waiting("record 2", "to-hf", source, output, "--workers", "1", "--quiet") as process:
        process.kill()
        process.communicate(timeout=LONGEST)
    assert process.returncode == -signal.SIGKILL
    names = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors")
    assert internvl_bridge.to_hf(source, output).kept == names


def test_two_runs_that_begin_together_make_one_output(source, tmp_path):
    output = tmp_path / "output"
    command = [*BRIDGE, "to-hf", str(source), str(output), "--quiet"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=LONGEST)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 2], errors  # whoever comes later finds a lock, or the finished output
    assert re.search("is writing to|exists", "".join(errors))
    assert internvl_bridge.verify(source, output).identical
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]
