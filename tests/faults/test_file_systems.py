"""Real file systems that fill up, that cannot be written to, that go away, and that are not the source's."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from errno import EIO, ENOSPC, EOPNOTSUPP
from pathlib import Path

import pytest
from faults.injecting import (
    CONVERSIONS,
    Fault,
    command_line,
    contents,
    converted,
    filled,
    happening,
    injected,
    make_sources,
    names,
    never,
    small_steps,
    state,
)

from internvl_bridge.errors import OutputError

Mounted = Callable[..., Path]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory):
    with small_steps():
        yield make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(autouse=True)
def _small_steps(sources: Path) -> None:
    """Every conversion of this file is made in small steps: they last as long as ``sources``."""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """Mounts something at a new directory, until the test is over."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount file systems")
    with ExitStack() as stack:

        def mount(what: str, *options: str) -> Path:
            place = tmp_path / f"mount{len(names(tmp_path))}"
            place.mkdir()
            _mount(what, place, *options)
            stack.callback(subprocess.run, ["umount", "--lazy", str(place)], capture_output=True, check=False)
            return place

        yield mount


def _mount(what: str, place: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, what, str(place)], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode:
        pytest.skip(f"this machine does not mount that: {done.stderr.strip()}")


def tmpfs(mounted: Mounted, options: str) -> Path:
    return mounted("tmpfs", "-t", "tmpfs", "-o", options)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty ext4 in a file."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not on the PATH")
    path = tmp_path / "image"
    with path.open("xb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True, capture_output=True)  # noqa: S607
    return path


def finishes(sources: Path, output: Path, name: str = "to_hf") -> tuple[str, ...]:
    """Convert, now that nothing stands in the way; the files that were there already."""
    report = converted(name, sources, output)
    assert contents(output) == contents(sources / "expected" / name)
    assert f"{output.name}.partial" not in names(output.parent)
    return report.kept


def refused(result: subprocess.CompletedProcess[str], *words: str, codes: tuple[int, ...] = (2,)) -> None:
    """The command line ended by itself, with one paragraph that says what is wrong."""
    assert result.returncode in codes, (result.returncode, result.stderr)
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert "defect" not in result.stderr
    for word in words:
        assert word in result.stderr


# Full


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(name: str, sources: Path, mounted: Mounted):
    small = tmpfs(mounted, "size=1m")
    with injected(never("pwrite"), small) as writing, pytest.raises(OutputError, match=r"has only .* free") as caught:
        converted(name, sources, small / "output")
    assert str(small / "output") in str(caught.value)
    assert writing.calls == 0
    assert names(small) == []


@pytest.mark.parametrize("claims", [True, False])
@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_disk_that_somebody_else_fills_meanwhile(name: str, claims: bool, sources: Path, mounted: Mounted):
    # Where the blocks of a file can be claimed beforehand, the file after it does not fit; else the write itself fails.
    small, before = tmpfs(mounted, "size=3m"), state(sources / CONVERSIONS[name])
    full = Fault("pwrite of weights", lambda: filled(small / "filler"), at=22)
    no_claims = Fault("fallocate", EOPNOTSUPP, at=-1 if claims else 0, lasting=not claims)
    with injected(full, small), injected(no_claims, small), pytest.raises(OSError, match=str(small)) as caught:
        converted(name, sources, small / "output")
    assert full.hits == 1
    assert caught.value.errno == ENOSPC
    assert caught.value.filename.startswith(f"{small}/output.partial/files/model-0000")
    assert "2 finished file(s) are kept" in caught.value.__notes__[0] or "1 finished" in caught.value.__notes__[0]
    assert names(small) == ["filler", "output.partial"]
    with pytest.raises((OSError, OutputError), match=str(small)):  # still full
        converted(name, sources, small / "output")
    assert names(small) == ["filler", "output.partial"]
    (small / "filler").unlink()
    assert finishes(sources, small / "output", name)
    assert state(sources / CONVERSIONS[name]) == before


@pytest.mark.parametrize("at", [0, 5, 15])
def test_a_disk_without_room_for_names(at: int, sources: Path, mounted: Mounted):
    # Every file and directory takes an inode: that the check beforehand cannot foresee.
    small = tmpfs(mounted, f"size=8m,nr_inodes={at + 3}")
    with pytest.raises((OSError, OutputError), match="No space left on device") as caught:
        converted("to_hf", sources, small / "output")
    assert str(small) in f"{getattr(caught.value, 'filename', '')} {caught.value}"
    assert "output" not in names(small)
    subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(small)], check=True)  # noqa: S607
    finishes(sources, small / "output")


def test_a_limit_on_the_size_of_files(sources: Path, tmp_path: Path):
    # Python has SIGXFSZ ignored, so that the call fails instead.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            converted("to_hf", sources, tmp_path / "output")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename.startswith(f"{tmp_path}/output.partial/files/model-0000")
    finishes(sources, tmp_path / "output")


# Not to be written to


@pytest.mark.parametrize("below", ["output", "new/output"])
def test_a_file_system_that_is_read_only(below: str, sources: Path, mounted: Mounted, tmp_path: Path):
    (tmp_path / "there").mkdir()
    place = mounted(str(tmp_path / "there"), "--bind")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)  # noqa: S607
    with pytest.raises(OutputError, match="Read-only file system") as caught:
        converted("to_hf", sources, place / below)
    assert str((place / below).with_name("output.partial")) in str(caught.value)
    assert names(place) == []


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_source_that_is_read_only(name: str, sources: Path, mounted: Mounted, tmp_path: Path):
    place = mounted(str(sources), "--bind")
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)  # noqa: S607
    converted(name, place, tmp_path / "output")
    assert contents(tmp_path / "output") == contents(sources / "expected" / name)


def powerless() -> list[str]:
    """What makes a command one of a user who may not write everywhere: root is that only by its capabilities."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv, which takes root's capabilities away, is not on the PATH")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


@pytest.mark.parametrize("below", ["output", "new/output"])
def test_a_directory_that_may_not_be_written_to(below: str, sources: Path, tmp_path: Path):
    place = tmp_path / "place"
    place.mkdir(mode=0o555)
    program = [*powerless(), sys.executable, "-P", "-m", "internvl_bridge"]
    arguments = command_line("to-hf", sources / "custom", place / below)
    result = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    refused(result, "output.partial cannot be created: ", "Permission denied. Choose another output")
    assert names(place) == []
    place.chmod(0o755)
    finishes(sources, place / below)


def test_a_directory_whose_permission_goes_meanwhile(sources: Path, tmp_path: Path):
    place = tmp_path / "place"
    place.mkdir()
    arguments = command_line("to-hf", sources / "custom", place / "output")
    result = happening(("write", 2), "forbidden", place, arguments, before=powerless())
    refused(result, f"{place}/output.partial", "Permission denied")
    place.chmod(0o755)
    assert names(place) == ["output.partial"]
    assert len(finishes(sources, place / "output")) in {1, 2}


# Gone


@pytest.mark.parametrize("moment", [("pwrite", 0), ("pwrite", 30), ("preadv", 90), ("write", 3), ("rename", 0)])
def test_a_disk_that_dies(moment: tuple[str, int], sources: Path, mounted: Mounted, image: Path):
    place = mounted(str(image), "-o", "loop")
    output = place / "deep" / "output"
    output.parent.mkdir()
    result = happening(moment, "shut_down", place, command_line("to-hf", sources / "custom", output))
    refused(result, str(place), os.strerror(EIO))
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607
    _mount(str(image), place, "-o", "loop")
    assert not output.exists()
    finishes(sources, output)
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607
    checked = subprocess.run(["fsck.ext4", "-f", "-n", str(image)], capture_output=True, text=True, check=False)  # noqa: S607
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("moment", [("pwrite", 0), ("pwrite", 30)])
def test_a_source_on_a_disk_that_dies(moment: tuple[str, int], sources: Path, mounted: Mounted, image: Path):
    place, output = mounted(str(image), "-o", "loop"), image.with_name("output")
    shutil.copytree(sources / "custom", place / "custom")
    os.sync()  # else the copy dies, too
    before = state(place / "custom")
    result = happening(moment, "shut_down", place, command_line("to-hf", place / "custom", output))
    # What was read before is still in memory, and can be read again.
    refused(result, str(place / "custom"), os.strerror(EIO))
    assert not output.exists()
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607
    _mount(str(image), place, "-o", "loop")
    assert state(place / "custom") == before
    converted("to_hf", place, output)
    assert contents(output) == contents(sources / "expected" / "to_hf")


@pytest.mark.parametrize("moment", [("pwrite", 0), ("write", 2), ("rename", 0)])
def test_a_mount_that_vanishes(moment: tuple[str, int], sources: Path, mounted: Mounted, image: Path):
    place = mounted(str(image), "-o", "loop")
    result = happening(moment, "unmounted", place, command_line("to-hf", sources / "custom", place / "output"))
    # Files that are open work on. What is read back then is not there: it differs from what was written (1).
    refused(result, str(place / "output"), codes=(1, 2))
    assert names(place) == []  # the directory that was beneath
    _mount(str(image), place, "-o", "loop")
    assert "output" not in names(place)
    finishes(sources, place / "output")


# Another file system than the source's


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("workers", [1, 3])
def test_there_and_back_between_file_systems(
    workers: int, name: str, sources: Path, mounted: Mounted, image: Path, tmp_path: Path
):
    memory, disk = tmpfs(mounted, "size=16m"), mounted(str(image), "-o", "loop")
    expected = contents(sources / "expected" / name)
    shutil.copytree(sources / CONVERSIONS[name], memory / CONVERSIONS[name])
    shutil.copytree(sources / CONVERSIONS[name], disk / CONVERSIONS[name])
    for source, target in ((memory, disk), (disk, memory), (memory, tmp_path), (disk, disk), (memory, memory)):
        before = state(source / CONVERSIONS[name])
        converted(name, source, target / "output", workers=workers)
        assert contents(target / "output") == expected
        assert state(source / CONVERSIONS[name]) == before
        shutil.rmtree(target / "output")
