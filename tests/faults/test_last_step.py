"""What would fail in the last step, hours later, is found before the first, and nothing is left of the trial."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.injecting import command_line, names
from faults.test_file_systems import Mounted, mounted, tmpfs
from support import copy_custom
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import run
from internvl_bridge.errors import OutputError

__all__ = ["mounted"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_custom("qwen2-300m", tmp_path / "source")


@pytest.fixture(autouse=True)
def work_may_begin(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fail if a refusal comes after the first byte; what is returned allows it."""

    def written(*_: object, **__: object) -> None:
        pytest.fail("the work would be in vain")

    monkeypatch.setattr(run, "settled_stamps", written)
    return monkeypatch.undo


def volume(mounted: Mounted, _tmp_path: Path) -> Path:
    return tmpfs(mounted, "size=50m")


def same_file_system(mounted: Mounted, tmp_path: Path) -> Path:
    """A bind mount, which has the device of the directory around it."""
    (tmp_path / "elsewhere").mkdir()
    return mounted(str(tmp_path / "elsewhere"), "--bind")


@pytest.mark.parametrize("kind", [volume, same_file_system])
def test_a_mount_point_is_refused_and_a_directory_in_it_is_not(
    kind: Callable[[Mounted, Path], Path],
    source: Path,
    mounted: Mounted,
    tmp_path: Path,
    work_may_begin: Callable[[], None],
):
    output = kind(mounted, tmp_path)
    before = names(tmp_path)
    with pytest.raises(OutputError, match=f"{output} is a mount point") as caught:
        internvl_bridge.to_hf(source, output)
    assert names(tmp_path) == before
    assert names(output) == []
    inside = output / "converted"
    assert caught.value.remedy == f"Give a directory inside it, for instance {inside}"
    work_may_begin()
    internvl_bridge.to_hf(source, inside)
    assert names(output) == ["converted"]
    shutil.rmtree(inside)


def test_a_plan_says_that_the_output_is_a_mount_point(source: Path, mounted: Mounted, tmp_path: Path):
    output = volume(mounted, tmp_path)
    for arguments in (["plan", str(source), str(output)], [*command_line("to-hf", source, output), "--dry-run"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert f"{output} is a mount point" in result.stderr


@pytest.fixture
def overlay(mounted: Mounted) -> Path:
    """A mount whose lower layer has the directories empty and full."""
    layers = tmpfs(mounted, "size=100m")  # an overlay is not always possible on another
    for name in ("lower/empty", "lower/full", "upper", "work"):
        (layers / name).mkdir(parents=True)
    (layers / "lower/full/config.json").write_text("{}")
    options = ",".join(f"{name}dir={layers / name}" for name in ("lower", "upper", "work"))
    return mounted("overlay", "-t", "overlay", "-o", options)


def test_what_lies_in_a_lower_layer_is_not_replaced_but_can_be_removed(
    source: Path, overlay: Path, work_may_begin: Callable[[], None]
):
    output = overlay / "full"
    with pytest.raises(OutputError, match=f"{output} cannot be replaced, because it cannot be renamed") as caught:
        internvl_bridge.to_hf(source, output, overwrite=True)
    assert names(overlay) == ["empty", "full"]
    assert caught.value.remedy.startswith("Remove it and leave out --overwrite")
    work_may_begin()
    shutil.rmtree(output)
    internvl_bridge.to_hf(source, output)
    assert internvl_bridge.verify_checksums(output).intact


def test_an_empty_directory_in_a_lower_layer_is_used(source: Path, overlay: Path, work_may_begin: Callable[[], None]):
    work_may_begin()
    internvl_bridge.to_hf(source, overlay / "empty")
    assert internvl_bridge.verify_checksums(overlay / "empty").intact
    assert names(overlay) == ["empty", "full"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_that_renames_no_directories(
    number: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(name: str, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OutputError, match=f"{tmp_path} is on a file system that cannot rename an output") as caught:
        internvl_bridge.to_hf(source, tmp_path / "output")
    assert "on another disk" in caught.value.remedy
    assert names(tmp_path) == ["source"]


def test_what_is_there_already_is_not_touched_by_the_trial(source: Path, tmp_path: Path):
    output = tmp_path / "output"
    output.mkdir()
    output.chmod(0o750)
    before = output.stat()
    with pytest.raises(pytest.fail.Exception):
        internvl_bridge.to_hf(source, output)
    assert names(tmp_path) == ["output", "source"]
    assert (output.stat().st_ino, output.stat().st_mode) == (before.st_ino, before.st_mode)


def test_a_file_system_that_renames_even_what_must_not_be_loses_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A directory takes the name of another one that is not empty: as no file system should do it."""
    output = tmp_path / "output"
    output.mkdir()
    (output / "config.json").write_text("old")
    rename = os.rename

    def careless(name: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        shutil.rmtree(new, ignore_errors=True, dir_fd=dst_dir_fd)
        rename(name, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", careless)
    with pytest.raises(pytest.fail.Exception):
        internvl_bridge.to_hf(source, output, overwrite=True)
    assert (output / "config.json").read_text() == "old"
    assert names(tmp_path) == ["output", "source"]
