"""An output directory appears complete, or there is no trace of it but what the next run can go on with."""

import errno
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from internvl_bridge.errors import OutputError
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.storage import ownership, replacing
from internvl_bridge.storage import publishing as publishing_module
from internvl_bridge.storage.journal import Identity, read_journal
from internvl_bridge.storage.output_place import check_output, partial_path
from internvl_bridge.storage.publishing import finished_files, publishing

IDENTITY = Identity("1", {"order": "name"}, {"model.safetensors": [7, 1, "abc"]}, "plan")
OTHER = Identity("1", {"order": "source"}, {"model.safetensors": [7, 1, "abc"]}, "plan")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def tree(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def refusal(source: Path, output: Path) -> str:
    with pytest.raises(OutputError) as caught:
        check_output(source, output)
    return str(caught.value)


# Appearing


def test_the_output_appears_only_when_it_is_complete(tmp_path, output):
    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "first").write_text("1")
        assert not output.exists()
        (workspace.files / "second").write_text("2")
        assert tree(tmp_path) == {
            "output.partial",
            "output.partial/journal",
            "output.partial/files",
            "output.partial/files/first",
            "output.partial/files/second",
        }
    assert tree(tmp_path) == {"output", "output/first", "output/second"}
    assert (output / "first").read_text() == "1"


def test_the_directories_above_are_made(tmp_path):
    output = tmp_path / "new" / "newer" / "output"
    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "file").touch()
    assert tree(tmp_path) == {"new", "new/newer", "new/newer/output", "new/newer/output/file"}


def test_an_empty_directory_is_replaced(source, output):
    output.mkdir()
    check_output(source, output)
    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "file").touch()
    assert tree(output) == {"file"}
    assert not partial_path(output).exists()


@pytest.mark.parametrize("name", ["model.v1.5", "a b", "\u00e9", ".hidden", "it's"])
def test_a_name_is_kept_whole(tmp_path, name):
    with publishing(tmp_path / name, IDENTITY):
        assert os.listdir(tmp_path) == [f"{name}.partial"]  # noqa: PTH208 - the names as they are on disk
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


def test_the_names_reach_the_disk_before_and_after_they_appear(tmp_path, monkeypatch, output):
    synced = []
    with publishing(output, IDENTITY) as workspace:
        inside = workspace.files.stat().st_ino
        monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, output.exists())))
    assert synced[0] == (inside, False)
    assert synced[-1] == (tmp_path.stat().st_ino, True)


def test_the_journal_says_who_is_at_work_before_anything_is_written(output):
    with publishing(output, IDENTITY) as workspace:
        assert [*workspace.files.iterdir()] == []
        assert IDENTITY.difference(read_journal(partial_path(output) / "journal").identity) is None
        assert workspace.journal.locked


# Vanishing, or being kept


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit, MemoryError])
def test_where_nothing_is_finished_nothing_is_left(tmp_path, output, error):
    def fail(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_bytes(b"half")
        raise error

    with pytest.raises(error) as caught, publishing(output, IDENTITY) as workspace:
        fail(workspace.files)
    assert tree(tmp_path) == set()
    assert not hasattr(caught.value, "__notes__")


def begin(output: Path, identity: Identity = IDENTITY, **flags: bool) -> None:
    """A run that finishes one file, begins another, and is stopped."""
    with pytest.raises(InterruptedError), publishing(output, identity, **flags) as workspace:  # noqa: PT012
        (workspace.files / "one").write_text("finished")
        workspace.journal.record("one")
        (workspace.files / "two").write_text("half")
        raise InterruptedError


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_finished_is_kept_and_told(tmp_path, output, error):
    with pytest.raises(error) as caught, publishing(output, IDENTITY) as workspace:  # noqa: PT012
        (workspace.files / "one").write_text("finished")
        workspace.journal.record("one")
        raise error
    assert tree(tmp_path) >= {"output.partial/journal", "output.partial/files/one"}
    assert not output.exists()
    (note,) = caught.value.__notes__
    assert note.startswith(f"1 finished file(s) are kept in {partial_path(output)}: the same command goes on")
    assert finished_files(output, IDENTITY) == ["one"]


def test_the_next_run_finds_what_is_finished_and_nothing_else(tmp_path, output):
    begin(output)
    with publishing(output, IDENTITY) as workspace:
        assert workspace.journal.finished == ["one"]
        assert tree(workspace.files) == {"one"}
        (workspace.files / "two").write_text("whole")
    assert tree(tmp_path) == {"output", "output/one", "output/two"}
    assert (output / "two").read_text() == "whole"


def test_a_run_after_a_run_after_a_run(output):
    for number in range(3):
        with pytest.raises(InterruptedError), publishing(output, IDENTITY) as workspace:  # noqa: PT012
            assert workspace.journal.finished == [str(n) for n in range(number)]
            (workspace.files / str(number)).touch()
            workspace.journal.record(str(number))
            raise InterruptedError
    with publishing(output, IDENTITY):
        pass
    assert tree(output) == {"0", "1", "2"}


def test_another_conversion_is_refused_and_removes_nothing(tmp_path, output):
    begin(output)
    before = tree(tmp_path)
    with (
        pytest.raises(OutputError, match="begun with --order name, and this one has --order source"),
        publishing(output, OTHER),
    ):
        pytest.fail("what is there is another's")
    assert tree(tmp_path) == before
    with pytest.raises(OutputError, match="begun with --order name, and this one has --order source"):
        finished_files(output, OTHER)
    assert finished_files(output, IDENTITY) == ["one"]


@pytest.mark.parametrize("identity", [IDENTITY, OTHER])
def test_restart_throws_away_what_was_begun(output, identity):
    begin(output)
    with publishing(output, identity, restart=True) as workspace:
        assert workspace.journal.finished == []
        assert tree(workspace.files) == set()
        assert identity.difference(read_journal(workspace.journal.path).identity) is None
    assert tree(output) == set()


def test_finished_files_of_an_output_that_nobody_began(output):
    assert finished_files(output, IDENTITY) == []
    partial_path(output).mkdir()
    assert finished_files(output, IDENTITY) == []
    (partial_path(output) / "journal").touch()
    assert finished_files(output, IDENTITY) == []


def test_a_finished_file_that_is_gone_is_not_finished(output):
    begin(output)
    (partial_path(output) / "files" / "one").unlink()
    assert finished_files(output, IDENTITY) == []


def test_directories_that_were_made_for_an_output_go_with_it(tmp_path):
    (tmp_path / "there").mkdir()
    output = tmp_path / "there" / "new" / "newer" / "output"
    with pytest.raises(RuntimeError), publishing(output, IDENTITY):
        raise RuntimeError
    assert tree(tmp_path) == {"there"}


def test_directories_that_were_made_for_an_output_stay_for_what_is_finished_and_for_others(tmp_path):
    output = tmp_path / "new" / "newer" / "output"
    with pytest.raises(RuntimeError), publishing(output, IDENTITY):  # noqa: PT012
        (tmp_path / "new" / "of another").touch()
        raise RuntimeError
    assert tree(tmp_path) == {"new", "new/of another"}
    begin(output)
    assert finished_files(output, IDENTITY) == ["one"]


def test_a_disk_that_has_no_room_for_a_journal_keeps_nothing(tmp_path, monkeypatch):
    def full(path: object, *_more: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match="No space left"), publishing(tmp_path / "new" / "output", IDENTITY):
            pytest.fail("there is no journal")
    assert tree(tmp_path) == set()


def test_an_empty_output_survives_a_failure(tmp_path, output):
    output.mkdir()
    with pytest.raises(RuntimeError), publishing(output, IDENTITY):
        raise RuntimeError
    assert tree(tmp_path) == {"output"}


def test_a_run_that_another_one_has_overtaken_leaves_nothing(tmp_path, output, monkeypatch):
    make = publishing_module.make_partial

    def overtaken(partial: Path) -> list[Path]:
        made = make(partial)
        output.mkdir()
        (output / "theirs").write_text("complete")
        return made

    monkeypatch.setattr(publishing_module, "make_partial", overtaken)
    with pytest.raises(OutputError, match="exists and is not an empty directory"):
        begin(output)
    assert tree(tmp_path) == {"output", "output/theirs"}


@pytest.mark.parametrize("record", [True, False])
def test_an_output_that_someone_else_filled_meanwhile_is_kept(output, record):
    with pytest.raises(OSError, match="not empty") as caught, publishing(output, IDENTITY) as workspace:  # noqa: PT012 - the end of with fails
        (workspace.files / "file").touch()
        if record:
            workspace.journal.record("file")
        output.mkdir()
        (output / "precious").touch()
    assert caught.value.filename == str(output)
    assert tree(output) == {"precious"}
    assert partial_path(output).exists() == record
    assert finished_files(output, IDENTITY) == (["file"] if record else [])


def test_what_cannot_reach_the_disk_does_not_appear(tmp_path, monkeypatch, output):
    def fsync(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"), publishing(output, IDENTITY):
        monkeypatch.setattr(os, "fsync", fsync)
    assert tree(tmp_path) == set()


def test_the_names_are_durable_before_anything_old_is_removed(tmp_path, monkeypatch):
    events, places = [], {}
    fsync, open_, rename, rmtree = os.fsync, os.open, os.rename, shutil.rmtree
    output = tmp_path / "new" / "newer" / "output"

    def opening(path, *more, **options):
        handle = open_(path, *more, **options)
        places[handle] = str(path)
        return handle

    def told(name, call):
        def telling(path, *more, **options):
            events.append((name, Path(path).name))
            return call(path, *more, **options)

        return telling

    def syncing(handle):
        events.append(("fsync", Path(places.get(handle, "journal")).name))
        fsync(handle)

    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "config.json").write_text("old")
        monkeypatch.setattr(os, "open", opening)
        monkeypatch.setattr(os, "fsync", syncing)
        monkeypatch.setattr(os, "rename", told("rename", rename))
    names = [("fsync", "output.partial"), ("fsync", "newer")]
    assert events == [("fsync", "files"), ("rename", "files"), *names, ("fsync", "new"), ("fsync", tmp_path.name)]
    steps = {
        True: [("rename", "files")],  # they have changed places, and what is there now gets out of the way
        False: [("rename", "output"), ("rename", "files")],
    }
    for can_exchange, renames in steps.items():
        if not can_exchange:
            monkeypatch.setattr(replacing, "exchange", lambda *_: False)
        with publishing(output, IDENTITY, overwrite=True) as workspace:
            (workspace.files / "config.json").write_text("new")
            monkeypatch.setattr(shutil, "rmtree", told("remove", rmtree))
            events.clear()
        assert events == [("fsync", "files"), ("fsync", "journal"), *renames, *names, ("remove", "replaced")]
        monkeypatch.setattr(shutil, "rmtree", rmtree)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_directories_is_no_hindrance(output, monkeypatch, number):
    def fsync(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "file").touch()
        monkeypatch.setattr(os, "fsync", fsync)
    assert tree(output) == {"file"}


def test_an_output_whose_name_may_not_be_durable_is_no_success(output, monkeypatch):
    fsync, calls = os.fsync, []

    def failing(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        fsync(handle)

    with pytest.raises(OSError, match="Input/output error"), publishing(output, IDENTITY):
        monkeypatch.setattr(os, "fsync", failing)
    assert len(calls) == 2
    assert not output.exists()
    assert not partial_path(output).exists()


def test_an_output_that_is_not_replaced_durably_is_not_replaced(tmp_path, output, monkeypatch):
    output.mkdir()
    (output / "config.json").write_text("old")
    fsync, calls = os.fsync, []

    def failing(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        fsync(handle)

    with pytest.raises(OSError, match="Input/output"), publishing(output, IDENTITY, overwrite=True) as workspace:  # noqa: PT012
        (workspace.files / "config.json").write_text("new")
        monkeypatch.setattr(os, "fsync", failing)
    assert (output / "config.json").read_text() == "old"
    assert tree(tmp_path) == {"output", "output/config.json"}


# Replacing


@pytest.fixture
def old(output: Path) -> Path:
    """An output of an earlier conversion."""
    output.mkdir()
    (output / "config.json").write_text("old")
    (output / "model.safetensors").write_text("old")
    return output


def test_an_existing_output_is_replaced_when_the_new_one_is_complete(tmp_path, old):
    with publishing(old, IDENTITY, overwrite=True) as workspace:
        (workspace.files / "config.json").write_text("new")
        assert (old / "config.json").read_text() == "old"
    assert tree(tmp_path) == {"output", "output/config.json"}
    assert (old / "config.json").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_existing_output_survives_a_failure(tmp_path, old, error):
    with pytest.raises(error), publishing(old, IDENTITY, overwrite=True):
        raise error
    assert tree(tmp_path) == {"output", "output/config.json", "output/model.safetensors"}
    assert (old / "config.json").read_text() == "old"


@pytest.fixture(params=["in one step", "in two steps"])
def swaps_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether two directories change places at once, as on Linux, or one after the other."""
    if request.param == "in two steps":
        monkeypatch.setattr(replacing, "exchange", lambda *_: False)
    return request.param == "in one step"


def failing_at(number: int, when: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, *, at_once: bool):
    """Let the renames of the last step fail, the one with that number or ``from then on``, or just ``after`` it."""
    lasting, after = when == "from then on", when == "after"
    calls = []

    def failing(call, worked):
        def step(*args, **options):
            calls.append(call)
            strikes = len(calls) == number or (lasting and len(calls) > number)
            if strikes and not after:
                raise error
            done = call(*args, **options)
            if strikes and worked(done):
                raise error
            return done

        return step

    monkeypatch.setattr(os, "rename", failing(os.rename, lambda _: True))
    if at_once:
        monkeypatch.setattr(replacing, "exchange", failing(replacing.exchange, bool))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("when", ["then", "from then on", "after"])
@pytest.mark.parametrize("number", [1, 2])
def test_an_old_output_is_never_lost(old, swaps_at_once, monkeypatch, number, when, error, record):  # noqa: PLR0917
    """Whatever goes wrong while the new output takes its place, the old one is there, or comes back with the next run.

    Between two steps it may be absent. If they change places at once, one of the two is there at every instant.
    """
    with pytest.raises(type(error)), publishing(old, IDENTITY, overwrite=True) as workspace:  # noqa: PT012
        (workspace.files / "new").touch()
        (workspace.files / "config.json").touch()
        if record:
            workspace.journal.record("new")
        failing_at(number, when, error, monkeypatch, at_once=swaps_at_once)
    monkeypatch.undo()
    before, new = {"config.json", "model.safetensors"}, {"config.json", "new"}
    if swaps_at_once:
        assert tree(old) in (before, new)
    if not old.exists():
        assert tree(partial_path(old) / "replaced") == before
    was_new = old.exists() and tree(old) == new
    with pytest.raises(InterruptedError), publishing(old, IDENTITY, overwrite=True):
        raise InterruptedError
    assert tree(old) == (new if was_new else before)


def test_whoever_misses_the_old_output_is_told_where_it_is(old, monkeypatch):
    """Killed between two renames: the message has a command that brings it back."""
    monkeypatch.setattr(replacing, "exchange", lambda *_: False)
    before = tree(old)
    with pytest.raises(KeyboardInterrupt), publishing(old, IDENTITY, overwrite=True) as workspace:  # noqa: PT012
        workspace.journal.record("nothing")
        failing_at(2, "from then on", KeyboardInterrupt(), monkeypatch, at_once=False)
    monkeypatch.undo()
    told = not_a_directory(old)
    assert f"{old} does not exist. A command with --overwrite was killed" in str(told)
    command = told.remedy.partition("bring it back: ")[2]
    subprocess.run(shlex.split(command), check=True)
    assert tree(old) == before


def test_what_was_replaced_and_half_removed_is_not_put_back(tmp_path, old):
    """Killed while it removed the old output; then somebody moved the new one away."""
    begin(old, overwrite=True)
    partial = partial_path(old)
    (partial / "files").rename(tmp_path / "moved away")
    (partial / "replaced").mkdir()
    (partial / "replaced" / "config.json").write_text("what is left of the old one")
    shutil.rmtree(old)
    with publishing(old, IDENTITY, overwrite=True) as workspace:
        assert not old.exists()
        assert tree(workspace.files) == set()
    assert tree(old) == set()
    assert not partial.exists()


def test_a_run_that_does_not_overwrite_learns_at_once_that_the_old_output_is_back(old):
    begin(old, overwrite=True)
    old.rename(partial_path(old) / "replaced")  # as if it had been killed between the two renames
    with pytest.raises(OutputError, match="exists and is not an empty directory"), publishing(old, IDENTITY):
        pytest.fail("the work would be in vain")
    assert tree(old) == {"config.json", "model.safetensors"}
    assert finished_files(old, IDENTITY) == ["one"]


def test_what_was_replaced_is_removed_by_the_next_run_if_the_program_was_killed_before(tmp_path, old):
    begin(old, overwrite=True)
    shutil.rmtree(partial_path(old) / "files")  # it has become the output
    shutil.copytree(old, partial_path(old) / "replaced")
    (partial_path(old) / "replaced" / "config.json").unlink()  # and the cleaning up had begun
    with publishing(old, IDENTITY, overwrite=True) as workspace:
        (workspace.files / "newest").touch()
    assert tree(tmp_path) == {"output", "output/newest"}


def test_what_a_finished_run_has_left_is_in_nobodys_way(tmp_path, old):
    begin(old, overwrite=True)
    shutil.rmtree(partial_path(old) / "files")  # it has become the output, and then the program was killed
    with publishing(old, OTHER, overwrite=True) as workspace:
        assert workspace.journal.finished == []
    assert tree(tmp_path) == {"output"}


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("restart", [True, False])
def test_two_outputs_of_which_only_the_user_knows_the_right_one_are_both_left_alone(tmp_path, old, overwrite, restart):
    begin(old, overwrite=True)
    shutil.copytree(old, partial_path(old) / "replaced")
    before = tree(tmp_path)
    with (
        pytest.raises(OutputError, match=r"is there again|exists and is not an empty directory"),
        publishing(old, IDENTITY, overwrite=overwrite, restart=restart),
    ):
        pytest.fail("there are two of them")
    assert tree(tmp_path) == before


def test_an_output_that_became_something_else_meanwhile_is_not_replaced(old):
    with pytest.raises(OutputError, match="holds more than a checkpoint"), publishing(old, IDENTITY, overwrite=True):
        (old / "experiments").mkdir()
    assert tree(old) == {"config.json", "model.safetensors", "experiments"}


# Directories that cannot be made


@pytest.mark.parametrize("below", ["output", "deep/er/output"])
def test_a_file_in_the_way_of_the_parent_is_named(tmp_path, below):
    (tmp_path / "file").write_text("precious")
    output = tmp_path / "file" / below
    with pytest.raises(OutputError, match="cannot be created") as caught, publishing(output, IDENTITY):
        pytest.fail("there is nowhere to write")
    assert f"{output}.partial" in str(caught.value)
    assert "another output" in caught.value.remedy
    assert tree(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "precious"


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="name too long"), publishing(tmp_path / ("x" * 250), IDENTITY):
        pytest.fail("there is nowhere to write")
    assert tree(tmp_path) == set()


def test_two_conversions_to_one_output_do_not_mix(tmp_path, output):
    with publishing(output, IDENTITY) as workspace:
        (workspace.files / "file").touch()
        before = tree(tmp_path)
        for restart in (False, True):
            with pytest.raises(OutputError, match="Another conversion"), publishing(output, OTHER, restart=restart):
                pytest.fail("the directory is another's")
        assert tree(tmp_path) == before
    assert tree(tmp_path) == {"output", "output/file"}


def fill(partial: Path, kind: str) -> None:
    if kind == "file":
        partial.write_text("precious")
    elif kind == "dangling link":
        partial.symlink_to("nowhere")
    elif kind.startswith("link to "):
        elsewhere = partial.with_name("elsewhere")
        elsewhere.mkdir()
        if kind == "link to full":
            (elsewhere / "precious").touch()
        partial.symlink_to("elsewhere")
    elif kind == "fifo":
        os.mkfifo(partial)
    else:
        partial.mkdir()
        (partial / "precious").touch()
        if kind == "with files":
            (partial / "files").mkdir()
            (partial / "files" / "model.safetensors").touch()
        elif kind == "with a journal that is a directory":
            (partial / "journal").mkdir()
        elif kind == "with a diary":
            (partial / "journal").write_text("Dear diary,\ntoday I began a conversion.\n")
        elif kind == "with another program's journal":
            (partial / "journal").write_text('{"time": 1, "event": "begin"}\n')


FOREIGN = ["file", "dangling link", "link to full", "link to empty", "fifo", "directory", "with files"]
FOREIGN += ["with a journal that is a directory", "with a diary", "with another program's journal"]


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_unfinished_output_is_never_touched(tmp_path, output, kind, restart):
    fill(partial_path(output), kind)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(OutputError) as caught, publishing(output, IDENTITY, restart=restart):
        pytest.fail("this is not ours")
    assert str(partial_path(output)) in str(caught.value)
    with pytest.raises(OutputError) as planned:
        finished_files(output, IDENTITY)
    assert str(planned.value) == str(caught.value)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_empty_directory_in_the_place_of_the_partial_output_is_used(tmp_path, output):
    partial_path(output).mkdir()  # a run that was killed before it did anything else leaves that
    with publishing(output, IDENTITY):
        pass
    assert tree(tmp_path) == {"output"}


def test_links_in_an_unfinished_output_are_removed_and_not_followed(tmp_path, output):
    begin(output)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (partial_path(output) / "files" / "link").symlink_to(tmp_path / "elsewhere")
    (partial_path(output) / "link").symlink_to(tmp_path / "elsewhere")
    with publishing(output, IDENTITY):
        pass
    assert tree(tmp_path) == {"elsewhere", "elsewhere/precious", "output", "output/one"}


@pytest.mark.parametrize("restart", [True, False])
def test_a_link_in_the_place_of_the_files_is_not_followed(tmp_path, output, restart):
    begin(output)
    shutil.rmtree(partial_path(output) / "files")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (partial_path(output) / "files").symlink_to(tmp_path / "elsewhere")
    with publishing(output, IDENTITY, restart=restart):
        pass
    assert (tmp_path / "elsewhere" / "precious").exists()
    assert not output.is_symlink()


def test_a_link_in_the_place_of_the_journal_is_not_followed(tmp_path, output):
    (tmp_path / "precious").write_text("mine")
    partial_path(output).mkdir()
    (partial_path(output) / "journal").symlink_to(tmp_path / "precious")
    with pytest.raises((OutputError, OSError)), publishing(output, IDENTITY, restart=True):
        pytest.fail("this is not ours")
    assert (tmp_path / "precious").read_text() == "mine"


# Outputs that must not be


def test_an_output_that_is_not_there_is_fine(tmp_path, source, output):
    check_output(source, output)
    check_output(source, tmp_path / "new" / "newer" / "output")
    assert tree(tmp_path) == {"source", "source/model.safetensors"}


@pytest.mark.parametrize("name", ["source2", "sourc", "source.hf"])
def test_a_name_that_begins_alike_is_another_directory(tmp_path, source, name):
    check_output(source, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_output_with_anything_in_it_is_refused(source, output):
    output.mkdir()
    (output / ".hidden").touch()
    message = refusal(source, output)
    assert f"{output} exists and is not an empty directory" in message
    assert tree(output) == {".hidden"}


def test_a_file_as_output_is_refused(source, output):
    output.write_text("precious")
    assert f"{output} exists and is not an empty directory" in refusal(source, output)
    assert output.read_text() == "precious"


def test_a_link_that_leads_nowhere_as_output_is_refused(source, output):
    output.symlink_to("nowhere")
    assert f"{output} exists and is not an empty directory" in refusal(source, output)


def test_a_link_that_leads_to_itself_as_output_is_refused(source, output):
    output.symlink_to(output)
    assert str(output) in refusal(source, output)


def test_a_link_to_an_empty_directory_is_refused_because_nothing_can_be_renamed_to_it(tmp_path, source, output):
    (tmp_path / "elsewhere").mkdir()
    output.symlink_to("elsewhere")
    assert str(output) in refusal(source, output)


@pytest.mark.parametrize("place", [".", "inside", "deep/inside", "../source/inside", "inside/../../source"])
def test_an_output_in_the_source_is_refused(source, place):
    output = source / place
    message = refusal(source, output)
    is_same = output.resolve() == source
    assert (f"{output} and {source} are the same" if is_same else f"{output} lies inside {source}") in message
    assert f"{source}-converted" in message
    assert tree(source) == {"model.safetensors"}


@pytest.mark.parametrize("place", ["..", "../.."])
def test_a_source_in_the_output_is_refused(source, place):
    assert "lies inside" in refusal(source, source / place)


@pytest.mark.parametrize(("inside", "what"), [("", "are the same directory"), ("inside", "lies inside")])
def test_an_output_that_leads_into_the_source_through_a_link_is_refused(tmp_path, source, inside, what):
    (tmp_path / "link").symlink_to(source)
    assert what in refusal(source, tmp_path / "link" / inside)
    assert what in refusal(tmp_path / "link", source / inside)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("new/..", "lies inside new/.."),
        ("elsewhere/new/..", "elsewhere/new/.. is not a name for a directory."),
        ("new/../output", "new does not exist. Did you mean output?"),
    ],
)
def test_a_way_through_what_is_not_there_makes_nothing(tmp_path, monkeypatch, source, given, words):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(source, Path(given))
    assert tree(tmp_path) == {"source", "source/model.safetensors"}


def test_a_relative_output_in_the_source_is_refused(monkeypatch, source):
    monkeypatch.chdir(source)
    assert "lies inside" in refusal(source, Path("inside"))
    assert "lies inside" in refusal(Path(), source / "inside")


def test_the_working_directory_as_output_is_refused_even_if_it_is_empty(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "output" in refusal(source, Path())


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_place_of_the_partial_output_does_not_matter_to_a_plan(tmp_path, source, output, kind):
    fill(partial_path(output), kind)
    before = tree(tmp_path)
    check_output(source, output)
    assert tree(tmp_path) == before


# Of another user


OTHERS = {
    "the directory": lambda partial: partial,
    "the journal": lambda partial: partial / "journal",
    "the files": lambda partial: partial / "files",
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("restart", [True, False])
def test_an_unfinished_output_of_another_user_is_refused_and_left_alone(tmp_path, output, what, restart):
    begin(output)
    place = OTHERS[what](partial_path(output))
    os.chown(place, 65534, -1)
    before = tree(tmp_path)
    words = f"{place} belongs to another user"
    with pytest.raises(OutputError, match=words), publishing(output, IDENTITY, restart=restart):
        pytest.fail("its owner could put links there")
    assert tree(tmp_path) == before


def test_who_owns_new_directories_owns_an_unfinished_output(tmp_path, output, monkeypatch):
    """As where a server maps root to somebody else."""
    begin(output)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with publishing(output, IDENTITY) as workspace:
        assert workspace.journal.finished == ["one"]
    assert tree(tmp_path) == {"output", "output/one"}


def test_an_empty_directory_of_another_user_is_refused(output, monkeypatch):
    partial_path(output).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(ownership, "owner_of_new", lambda _: 4711)
    with pytest.raises(OutputError, match="belongs to another user"), publishing(output, IDENTITY):
        pytest.fail("its owner could put links there")
    assert partial_path(output).exists()
