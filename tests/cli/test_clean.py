"""``internvl-bridge clean``: what runs have left, what goes on with it, and what is removed of it."""

import errno
import fcntl
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.injecting import names, once
from support import copy_custom, load_all, shard
from typer.testing import CliRunner, Result

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.storage import replacing
from internvl_bridge.storage.abandoned import abandoned_outputs


class StoppedError(Exception):
    """Stands for whatever ends a run before its time."""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def clean(*arguments: object) -> str:
    result = invoke("clean", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = copy_custom("qwen2-300m", tmp_path / "source")
    keys = sorted(load_all(directory))
    shard(directory, lambda key: 4 * keys.index(key) // len(keys))
    return directory


def stop() -> None:
    raise StoppedError


def stopped(source: Path, output: Path, **options: object) -> None:
    """A run that was stopped when some of its files were finished."""
    with pytest.raises(StoppedError):
        internvl_bridge.to_hf(source, output, workers=1, progress=once(stop, 0.95), **options)


def test_the_command_that_is_printed_goes_on(source: Path, tmp_path: Path):
    stopped(source, tmp_path / "out put", order="name", system_message="Be kind.")
    printed = clean(tmp_path)
    assert re.search(r"out put\.partial: .* KiB, less than a minute old\. [123] file\(s\) of weights are fin", printed)
    assert "Add --yes to remove 1, " in printed
    (command,) = re.findall("Goes on with: internvl-bridge (.*)", printed)
    result = invoke(*shlex.split(command))
    assert result.exit_code == 0
    assert "Resumed: " in result.stdout
    assert clean(tmp_path) == f"Nothing unfinished is left in {tmp_path}.\n"


def test_the_command_of_a_repair_is_a_repair_and_one_for_an_output_that_is_there_overwrites_it(
    source: Path, tmp_path: Path
):
    hf, output = tmp_path / "hf", tmp_path / "output"
    internvl_bridge.to_hf(source, hf)
    internvl_bridge.to_hf(source, output)
    with pytest.raises(StoppedError):
        internvl_bridge.repair(hf, output, overwrite=True, workers=1, progress=once(stop, 0.95))
    assert f"Goes on with: internvl-bridge repair {hf} {output} --overwrite\n" in clean(tmp_path)
    shutil.rmtree(hf)
    assert "Goes on with" not in clean(tmp_path)  # there is nothing to go on from


@pytest.mark.parametrize("given", ["the directory around it", "itself"])
def test_what_was_left_is_removed_if_that_is_said(source: Path, tmp_path: Path, given: str):
    stopped(source, tmp_path / "output")
    place = tmp_path if given == "the directory around it" else tmp_path / "output.partial"
    assert "Removed 1 of 1, " in clean(place, "--yes")
    assert names(tmp_path) == ["source"]


def of_another_user(partial: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory to another user")
    os.chown(partial, 65534, -1)


def of_another_program(partial: Path) -> None:
    (partial / "journal").write_text("Dear diary,\ntoday I began a conversion.\n")


def without_a_journal(partial: Path) -> None:
    (partial / "journal").unlink()


def behind_a_link(partial: Path) -> None:
    partial.rename(partial.with_name("elsewhere"))
    partial.symlink_to("elsewhere")


@pytest.mark.parametrize("kind", [of_another_user, of_another_program, without_a_journal, behind_a_link])
def test_what_is_not_ours_is_left_alone(source: Path, tmp_path: Path, kind: Callable[[Path], None]):
    stopped(source, tmp_path / "output")
    kind(tmp_path / "output.partial")
    before = sorted(tmp_path.rglob("*"))
    assert clean(tmp_path, "--yes") == f"Nothing unfinished is left in {tmp_path}.\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_run_works_on_is_left_alone(source: Path, tmp_path: Path):
    found: list[object] = []
    look = once(lambda: found.append(abandoned_outputs(tmp_path)), 0.95)
    internvl_bridge.to_hf(source, tmp_path / "output", progress=look)
    assert found == [[]]
    assert internvl_bridge.verify_checksums(tmp_path / "output").intact


def test_an_output_that_is_nowhere_else_is_never_removed(source: Path, tmp_path: Path):
    output = tmp_path / "output"
    internvl_bridge.to_hf(source, output)
    stopped(source, output, overwrite=True, order="name")
    output.rename(tmp_path / "output.partial" / replacing.REPLACED)  # killed between two renames
    printed = clean(tmp_path, "--yes")
    assert f"Not to be removed: {tmp_path}/output.partial/replaced is what {output} was" in printed
    (command,) = re.findall("Bring it back: mv (.*)", printed)
    shutil.move(*shlex.split(command))
    assert internvl_bridge.verify_checksums(output).intact
    clean(tmp_path, "--yes")
    assert names(tmp_path) == ["output", "source"]


def test_what_is_left_of_a_replacement_that_is_complete_can_go(source: Path, tmp_path: Path):
    output, partial = tmp_path / "output", tmp_path / "output.partial"
    stopped(source, output)
    shutil.rmtree(partial / "files")
    internvl_bridge.to_hf(source, tmp_path / "other")
    (tmp_path / "other").rename(output)
    shutil.copytree(output, partial / "replaced")
    printed = clean(tmp_path, "--yes")
    assert f"{output} is complete, and this is what was left of the work." in printed
    assert names(tmp_path) == ["output", "source"]


def test_where_nobody_can_say_who_works_nothing_is_removed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    stopped(source, tmp_path / "output")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "Not to be removed: this file system has no locks" in clean(tmp_path, "--yes")
    assert names(tmp_path) == ["output.partial", "source"]


def test_a_place_that_is_not_there(tmp_path: Path):
    result = invoke("clean", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path}/nowhere is not a directory.")
