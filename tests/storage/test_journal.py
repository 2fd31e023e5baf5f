"""The journal of a conversion: who may write it, what it says, and what counts for nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import OutputError
from internvl_bridge.storage import journal as module
from internvl_bridge.storage.held_directory import held
from internvl_bridge.storage.journal import Identity, Journal, open_journal, read_journal

IDENTITY = Identity("1", {"order": "name", "limit": None}, {"a": [7, 1, "abc"], "b": [8, 2, ""]}, "plan")
LONGEST = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    with held(path.parent) as directory, open_journal(directory) as journal:
        yield journal


def begun(path: Path, *finished: str) -> None:
    with opened(path) as journal:
        journal.begin(IDENTITY)
        for name in finished:
            journal.record(name)


# What it says


def test_what_was_written_down_is_read(path):
    begun(path, "one", "two \u00e9\n\"'\\")
    record = read_journal(path)
    assert record.identity == {**json.loads(json.dumps(asdict(IDENTITY))), "run": record.run}
    assert record.finished == ["one", "two \u00e9\n\"'\\"]
    with opened(path) as journal:
        assert journal.finished == []  # until it is known that this is the same conversion
        assert journal.resumes(IDENTITY)
        assert journal.finished == record.finished


def test_a_line_is_a_record(path):
    begun(path, "one", "two")
    first, *others = path.read_text().splitlines()
    assert set(json.loads(first)) == {"program", "options", "source", "plan", "machine", "run"}
    assert [json.loads(line) for line in others] == [{"finished": "one"}, {"finished": "two"}]


def test_to_begin_is_to_forget(path):
    begun(path, "one")
    with opened(path) as journal:
        assert journal.resumes(IDENTITY)
        journal.begin(replace(IDENTITY, plan="other"))
        assert journal.finished == []
        journal.record("two")
    assert read_journal(path).identity["plan"] == "other"
    assert read_journal(path).finished == ["two"]


def test_every_line_reaches_the_disk_before_the_next_step(path, monkeypatch):
    sizes, fsync = [], os.fsync

    def counting(file: int) -> None:
        fsync(file)
        sizes.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fsync", counting)
    with opened(path) as journal:
        journal.begin(IDENTITY)
        assert sizes == [path.stat().st_size]
        journal.record("one")
        assert sizes[1:] == [path.stat().st_size]


def test_a_new_journal_says_nothing(path):
    with opened(path) as journal:
        assert path.exists()
        assert read_journal(path) is None
        assert not journal.resumes(IDENTITY)


def test_a_journal_that_is_not_there_is_an_error_to_a_reader(path):
    with pytest.raises(FileNotFoundError):
        read_journal(path)
    assert not path.exists()


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_last_line_that_was_cut_off_counts_for_nothing_wherever_it_was(path, cut):
    begun(path, "one", "two")
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_journal(path).finished == ["one"]
    with opened(path) as journal:  # what follows it does not become part of a name
        assert journal.resumes(IDENTITY)
        journal.record("three")
        journal.record("four")
    assert read_journal(path).finished == ["one", "three", "four"]


def test_what_could_not_be_written_down_is_not_finished(path, monkeypatch):
    with opened(path) as journal:
        journal.begin(IDENTITY)

        def full(_file: int, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journal.record("one")
        assert journal.finished == []


def test_a_first_line_that_was_cut_off_is_none(path):
    begun(path)
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        assert read_journal(path) is None, cut


GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)).map(
        lambda value: json.dumps(value).encode()
    ),
    st.dictionaries(
        st.sampled_from(["finished", "program", "x"]),
        st.none() | st.integers() | st.lists(st.text(max_size=3)),
        max_size=2,
    ).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(GARBAGE, max_size=5), st.lists(GARBAGE, max_size=5))
def test_garbage_between_the_lines_counts_for_nothing(tmp_path_factory, before, after):
    path = tmp_path_factory.getbasetemp() / "journal"
    path.unlink(missing_ok=True)
    begun(path, "one")
    first, second = path.read_bytes().splitlines(keepends=True)
    lines = [*(line + b"\n" for line in before), second, *(line + b"\n" for line in after)]
    path.write_bytes(first + b"".join(lines))
    assert read_journal(path).finished == ["one"]
    with opened(path) as journal:
        assert journal.resumes(IDENTITY)


# Whether it is the same conversion


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(IDENTITY, program="2"), "by internvl-bridge '1', and this is 2"),
        (
            replace(IDENTITY, options={"order": "source", "limit": None}),
            "with --order name, and this one has --order source. Give --order name to go on",
        ),
        (
            replace(IDENTITY, options={"order": "name", "limit": 5}),
            "without --limit, and this one has --limit 5. Leave out --limit to go on",
        ),
        (replace(IDENTITY, options={"order": "name"}), "from another source"),
        (
            replace(IDENTITY, options={**IDENTITY.options, "new": 1}),
            "without --new, and this one has --new 1. Leave out --new to go on",
        ),
        (replace(IDENTITY, source={"a": [7, 1, "abc"], "b": [9, 2, ""]}), "b was changed, added or removed since"),
        (replace(IDENTITY, source={"a": [7, 2, "abc"], "b": [8, 2, ""]}), "a was changed, added or removed since"),
        (replace(IDENTITY, source={"a": [7, 1, "abd"], "b": [8, 2, ""]}), "a was changed, added or removed since"),
        (replace(IDENTITY, source={"a": [7, 1, "abc"]}), "b was changed, added or removed since"),
        (replace(IDENTITY, source={**IDENTITY.source, "c": [1, 1, ""]}), "c was changed, added or removed since"),
        (replace(IDENTITY, plan="other"), "to write something else"),
    ],
)
def test_every_difference_is_named(path, now, words):
    if words == "from another source":  # an option that both do not name is the same one: None
        now, words = replace(now, source={}), "a was changed, added or removed since"
    begun(path, "one")
    before = path.read_bytes()
    with opened(path) as journal, pytest.raises(OutputError) as caught:
        journal.resumes(now)
    assert words in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "--restart (restart=True)" in caught.value.remedy
    assert path.read_bytes() == before


def test_another_command_is_told_first_and_lists_as_they_are_typed(path):
    options = {"adapter": ["my lora"], "command": "merge"}
    with opened(path) as journal:
        journal.begin(replace(IDENTITY, options=options))
        with pytest.raises(OutputError, match=r"begun by 'merge', and this is 'cast'\. Use 'merge' to go on with it"):
            journal.resumes(replace(IDENTITY, options={"adapter": [], "command": "cast"}))
        with pytest.raises(OutputError, match=r"with --adapter 'my lora', and this one is without --adapter"):
            journal.resumes(replace(IDENTITY, options={**options, "adapter": []}))


def test_on_another_machine_nothing_is_gone_on_with(path):
    with opened(path) as journal:
        journal.begin(replace(IDENTITY, machine={"torch": "1"}))
        journal.record("one")
        assert not journal.resumes(replace(IDENTITY, machine={"torch": "2"}))
        assert journal.resumes(replace(IDENTITY, machine={"torch": "1"}))


def test_what_json_does_not_tell_apart_is_the_same(path):
    begun(path)
    same = replace(IDENTITY, source={name: tuple(stamp) for name, stamp in IDENTITY.source.items()})
    with opened(path) as journal:
        assert journal.resumes(same)


def test_a_difference_of_megabytes_is_told_in_a_line(path):
    with opened(path) as journal:
        journal.begin(replace(IDENTITY, options={"order": "x" * 1_000_000, "limit": None}))
        with pytest.raises(OutputError) as caught:
            journal.resumes(replace(IDENTITY, options={"order": "y" * 1_000_000, "limit": None}))
    assert len(str(caught.value)) < 1000


# Who may write it


HOLD = """
import sys
from pathlib import Path
from internvl_bridge.storage.held_directory import held
from internvl_bridge.storage.journal import open_journal
with held(Path(sys.argv[1]).parent) as directory, open_journal(directory) as journal:
    print("held", journal.locked, flush=True)
    sys.stdin.read()
    if len(sys.argv) > 2:
        journal.path.unlink()
"""


def holder(path: Path, *flags: str) -> subprocess.Popen[str]:
    """A process that has opened the journal ``path``, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held True\n"
    return process


def test_one_process_keeps_another_away_until_it_ends(path):
    with holder(path) as process:
        with pytest.raises(OutputError, match=f"Another conversion is writing to {path.parent}"), opened(path):
            pytest.fail("it is another's")
        process.communicate(timeout=LONGEST)
    with opened(path) as journal:
        assert journal.locked


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_killed_keeps_nobody_away(path, number):
    with holder(path) as process:
        process.send_signal(number)
        process.communicate(timeout=LONGEST)
    with opened(path) as journal:
        assert journal.locked


def test_a_child_of_the_holder_keeps_nobody_away(path):
    with opened(path):
        child = subprocess.Popen(
            [sys.executable, "-c", "print('here', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )
        assert child.stdout.readline() == "here\n"
    try:
        with opened(path) as journal:
            assert journal.locked
    finally:
        child.communicate("\n", timeout=LONGEST)


@pytest.mark.parametrize("ends", ["regularly", "killed"])
def test_a_forked_child_of_the_holder_keeps_nobody_away(path, ends):
    script = f"""
import os, signal, sys, time
from pathlib import Path
from internvl_bridge.storage.held_directory import held
from internvl_bridge.storage.journal import open_journal
reading, writing = os.pipe()
with held(Path(sys.argv[1]).parent) as directory, open_journal(directory) as journal:
    if os.fork() == 0:
        os.write(writing, b"here")
        time.sleep({LONGEST})
        os._exit(0)
    os.read(reading, 4)  # until the child has begun, it has not given the lock up
    if {ends == "killed"}:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], start_new_session=True)
    try:
        process.wait(timeout=LONGEST)
        with opened(path) as journal:
            assert journal.locked
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the child, which sleeps


def test_a_journal_of_gigabytes_is_not_one(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OutputError, match="is not an unfinished output of this program"):
        read_journal(path)
    with opened(path) as journal, pytest.raises(OutputError, match="is not an unfinished output of this program"):
        journal.read()


def test_a_thread_of_the_same_process_is_kept_away_too(path):
    with opened(path), pytest.raises(OutputError, match="Another conversion"), opened(path):
        pytest.fail("it is another's")


@pytest.mark.parametrize("another", [False, True])
def test_the_first_one_ends_between_the_opening_and_the_locking_of_the_second(path, monkeypatch, another):
    # then the second has locked a file that is no longer there, or no longer the one of that name
    flock = fcntl.flock
    with holder(path, "remove it at the end") as process:

        def late(file: int, operation: int) -> None:
            process.communicate(timeout=LONGEST)
            assert not path.exists()
            if another:
                path.write_text("of a third")
            flock(file, operation)

        monkeypatch.setattr(fcntl, "flock", late)
        with pytest.raises(OutputError, match="Another conversion is writing"), opened(path):
            pytest.fail("this journal is nowhere")
    monkeypatch.undo()
    assert path.exists() == another
    with opened(path) as journal:
        assert journal.locked


def test_a_refusal_leaves_no_descriptor_open(path):
    with opened(path):
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
        for _ in range(5):
            with pytest.raises(OutputError), opened(path):
                pytest.fail("it is another's")
        after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    assert after == before


@pytest.mark.parametrize("number", sorted(module._NO_LOCKS))
def test_a_file_system_without_locks_is_no_obstacle(path, monkeypatch, number):
    def without(_file: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    with opened(path) as journal:
        assert not journal.locked
        journal.begin(IDENTITY)
    assert read_journal(path).finished == []


def test_a_failure_of_the_disk_is_not_a_missing_lock(path, monkeypatch):
    def broken(_file: int, _operation: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output error"), opened(path):
        pytest.fail("nobody knows")


def test_a_link_is_not_followed(path):
    target = path.with_name("target")
    target.write_text("mine")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), opened(path):
        pytest.fail("it is another's")
    assert target.read_text() == "mine"
