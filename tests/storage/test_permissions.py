"""New files get no more permissions than those have from which they are made, and their owner can always write."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_bridge.storage.journal import Identity
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.permissions import Permissions, for_another_group, permissions_of
from internvl_bridge.storage.publishing import publishing
from internvl_bridge.storage.small_files import write_bytes

IDENTITY = Identity("1", {}, {}, "plan")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another group")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def published(output: Path, permissions: Permissions, *, overwrite: bool = False) -> tuple[int, int]:
    """Publish one file; the modes of the directory and of the file."""
    with publishing(output, IDENTITY, permissions=permissions, overwrite=overwrite) as workspace:
        write_bytes(workspace.files / "config.json", b"{}", workspace.target)
        assert mode(partial_path(output)) == 0o700
    return mode(output), mode(output / "config.json")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def source(tmp_path: Path, directory: int, *files: int, group: int = -1) -> Permissions:
    """The permissions of a source whose directory and files have these modes."""
    place = tmp_path / "source"
    place.mkdir()
    paths = [place / str(number) for number, _ in enumerate(files)]
    for path, bits in [*zip(paths, files, strict=True), (place, directory)]:
        if path != place:
            path.touch()
        os.chown(path, -1, group)
        path.chmod(bits)
    return permissions_of(place, paths)


@pytest.mark.parametrize(
    ("directory", "files", "expected"),
    [
        (0o700, [0o600], (0o700, 0o600)),
        (0o750, [0o640, 0o644], (0o750, 0o640)),
        (0o555, [0o444], (0o755, 0o644)),  # what may not be written was protected, and the output is new
        (0o777, [0o666], (0o755, 0o644)),  # the umask
        (0o711, [0o604, 0o640], (0o711, 0o600)),  # only what all of them allow
    ],
)
def test_an_output_is_as_private_as_its_source(tmp_path, output, directory, files, expected):
    assert published(output, source(tmp_path, directory, *files)) == expected


@pytest.mark.parametrize(("mask", "expected"), [(0o077, (0o700, 0o600)), (0o277, (0o700, 0o600))])
def test_the_umask_takes_nothing_from_the_owner(tmp_path, output, mask, expected):
    allowed = source(tmp_path, 0o755, 0o644)
    os.umask(mask)
    assert published(output, allowed) == expected


@as_root
def test_what_a_group_could_read_another_group_cannot(tmp_path, output):
    allowed = source(tmp_path, 0o750, 0o640, group=4711)
    assert published(output, allowed) == (0o700, 0o600)


@pytest.mark.parametrize(("before", "after"), [(0o750, 0o700), (0o705, 0o705), (0o755, 0o755), (0o604, 0o604)])
def test_another_group_gets_what_both_group_and_others_could_do(before, after):
    assert for_another_group(before) == after


@pytest.mark.parametrize("prepared", [0o2770, 0o700, 0o777])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_directory_that_is_there_keeps_its_mode(tmp_path, output, prepared, overwrite):
    output.mkdir()
    if overwrite:
        (output / "config.json").touch()
    output.chmod(prepared)
    assert published(output, source(tmp_path, 0o755, 0o644), overwrite=overwrite)[0] == prepared


@as_root
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_directory_that_is_there_keeps_its_group_and_gives_it_to_the_files_if_it_did(tmp_path, output, overwrite):
    output.mkdir()
    if overwrite:
        (output / "config.json").touch()
    os.chown(output, -1, 4711)
    output.chmod(0o2770)
    assert published(output, source(tmp_path, 0o755, 0o644), overwrite=overwrite) == (0o2770, 0o644)
    assert {output.stat().st_gid, (output / "config.json").stat().st_gid} == {4711}


@as_root
def test_a_group_that_cannot_be_kept_gets_no_more_than_others(tmp_path, output, monkeypatch):
    def refused(_handle: int, _user: int, _group: int) -> None:
        raise PermissionError

    output.mkdir()
    os.chown(output, -1, 4711)
    output.chmod(0o2770)
    monkeypatch.setattr(os, "fchown", refused)
    assert published(output, source(tmp_path, 0o755, 0o644))[0] == 0o700
