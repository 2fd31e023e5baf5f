"""Whether an output fits is known before anything is written, and what it costs is told as it is."""

import errno
import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support import ROOT
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import disk_budget as module
from internvl_bridge.errors import OutputError
from internvl_bridge.storage import shard_jobs
from internvl_bridge.storage.free_space import allocate, existing_ancestor, free_bytes
from internvl_bridge.storage.publishing import partial_path

EXAMPLE = ROOT / "examples" / "synthetic.py"
SIZE = "200KB"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("room") / "source"
    example = runpy.run_path(str(EXAMPLE))
    example["make"](directory, example["PRESETS"]["tiny"])
    return directory


def budget(source: Path, output: Path, *flags: str, code: int = 0) -> Mapping[str, int]:
    result = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--dry-run", "--json", *flags])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)["result"]["budget"]


def sizes(directory: Path) -> Mapping[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def stopped(source: Path, output: Path, finished: int) -> None:
    """Convert until some files are finished, and a part of the next is written."""
    done, write = [], shard_jobs.write_file

    def failing(path: Path, *arguments: object):
        if len(done) == finished:
            path.write_bytes(bytes(1000))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done.append(path)
        return write(path, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(OSError, match="Input/output"):
            internvl_bridge.to_hf(source, output, max_shard_size=SIZE, workers=1)


# What it costs


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--no-verify"],
        ["--accept", "small-shards", "--max-shard-size", "60KB"],
        ["--accept", "small-shards", "--max-shard-size", "2MB"],
    ],
)
def test_the_numbers_are_those_of_what_is_then_written(source, tmp_path, flags):
    output = tmp_path / "output"
    told = budget(source, output, *flags)
    assert not partial_path(output).exists()
    assert CliRunner().invoke(app, ["to-hf", str(source), str(output), *flags]).exit_code == 0
    made = sizes(output)
    weights = sum(size for name, size in made.items() if name.endswith(".safetensors"))
    headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in output.glob("*.safetensors"))
    assert told["cloned"] + told["read"] == weights - headers
    assert told["verified"] == (0 if "--no-verify" in flags else weights)
    assert told["kept"] == 0
    assert told["fits"] is True
    assert told["room"] == told["written"]
    # the sidecar and the index are not made yet: their sizes are estimates, which must not be far too small
    whole = sum(made.values())
    assert abs(told["written"] + told["cloned"] - whole) < 0.1 * whole
    assert told["written"] + told["cloned"] >= whole


def test_the_free_bytes_are_those_of_the_file_system_of_the_output(source, tmp_path):
    there = os.statvfs(tmp_path)
    told = budget(source, tmp_path / "not" / "there" / "yet")["free"]
    assert told == pytest.approx(there.f_bavail * there.f_frsize, rel=0.2)  # others write to it, too
    assert not (tmp_path / "not").exists()


def test_what_is_kept_is_neither_read_nor_written_again_but_compared(source, tmp_path):
    output = tmp_path / "output"
    whole = budget(source, output, "--accept", "small-shards", "--max-shard-size", SIZE)
    stopped(source, output, 3)
    names = [f"model-{n:05d}-of-00007.safetensors" for n in (1, 2, 3)]
    kept = sum(sizes(partial_path(output) / "files")[name] for name in names)
    for flags, verified in (([], whole["verified"]), (["--no-verify"], kept)):
        told = budget(source, output, "--accept", "small-shards", "--max-shard-size", SIZE, *flags)
        assert told["kept"] == kept
        assert told["verified"] == verified
        assert told["written"] + told["cloned"] == whole["written"] + whole["cloned"] - kept
        assert told["room"] == whole["room"] - kept or told["cloned"]
    assert budget(source, tmp_path / "other", "--accept", "small-shards", "--max-shard-size", SIZE)["kept"] == 0


@pytest.mark.parametrize("command", [["plan"], ["to-hf", "--dry-run"]])
def test_what_another_conversion_has_begun_is_refused_by_its_plan_too(source, tmp_path, command):
    output = tmp_path / "output"
    stopped(source, output, 3)
    arguments = [
        *command,
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        SIZE,
        "--order",
        "name",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "begun with --order source, and this one has --order name. Give --order source to go on" in result.stderr
    assert result.stdout == ""
    if command != ["plan"]:
        restarted = CliRunner().invoke(app, [*arguments, "--restart", "--json"])
        assert json.loads(restarted.stdout)["result"]["budget"]["kept"] == 0


# What does not fit


def test_what_does_not_fit_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    output = tmp_path / "new" / "output"
    room = budget(source, output)["room"]
    monkeypatch.setattr(module, "free_bytes", lambda _: room - 1)
    monkeypatch.setattr(shard_jobs, "write_file", lambda *_: pytest.fail("it does not fit"))
    with pytest.raises(OutputError) as caught:
        internvl_bridge.to_hf(source, output)
    assert f"{output} needs 1.1 MiB, but its file system has only 1.1 MiB free." in str(caught.value)
    assert "Make room, or choose an output on another disk." in str(caught.value)
    assert not output.exists()
    assert not partial_path(output).exists()
    result = CliRunner().invoke(app, ["to-hf", str(source), str(output)])
    assert result.exit_code == 2
    assert result.stderr == f"Error: {caught.value}\n"


def test_what_just_fits_is_converted(source, tmp_path, monkeypatch):
    room = budget(source, tmp_path / "output")["room"]
    monkeypatch.setattr(module, "free_bytes", lambda _: room)
    internvl_bridge.to_hf(source, tmp_path / "output")
    assert internvl_bridge.verify(source, tmp_path / "output").identical


@pytest.mark.parametrize("command", [["to-hf", "--dry-run"], ["plan"]])
def test_a_plan_that_does_not_fit_is_printed_and_exits_with_2(source, tmp_path, monkeypatch, command):
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    name, *flags = command
    result = CliRunner().invoke(app, [name, str(source), str(tmp_path / "output"), *flags])
    assert result.exit_code == 2
    assert "needs 1.1 MiB, and 1000 B are free" in result.stdout
    assert "has only 1000 B free" in result.stderr
    result = CliRunner().invoke(app, [name, str(source), str(tmp_path / "output"), *flags, "--json"])
    assert json.loads(result.stdout)["result"]["budget"]["fits"] is False
    assert [*tmp_path.iterdir()] == []


def test_what_is_kept_needs_no_room(source, tmp_path, monkeypatch):
    output = tmp_path / "output"
    whole = budget(source, output, "--accept", "small-shards", "--max-shard-size", SIZE)["room"]
    stopped(source, output, 3)
    rest = budget(source, output, "--accept", "small-shards", "--max-shard-size", SIZE)["room"]
    assert rest < whole - 300_000
    monkeypatch.setattr(module, "free_bytes", lambda _: rest)
    assert len(internvl_bridge.to_hf(source, output, max_shard_size=SIZE).kept) == 3


def test_what_is_kept_is_still_there_after_the_rest_did_not_fit(source, tmp_path, monkeypatch):
    output = tmp_path / "output"
    stopped(source, output, 3)
    with monkeypatch.context() as patch:
        patch.setattr(module, "free_bytes", lambda _: 1000)
        with pytest.raises(OutputError, match="has only 1000 B free") as caught:
            internvl_bridge.to_hf(source, output, max_shard_size=SIZE)
    assert "3 finished file(s) are kept" in caught.value.__notes__[0]
    assert len(internvl_bridge.to_hf(source, output, max_shard_size=SIZE).kept) == 3


def test_an_old_output_needs_its_room_until_the_new_one_is_complete(source, tmp_path, monkeypatch):
    output = tmp_path / "output"
    internvl_bridge.to_hf(source, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    room = budget(source, output, "--overwrite")["room"]
    monkeypatch.setattr(module, "free_bytes", lambda _: room - 1)
    with pytest.raises(OutputError, match="needs"):
        internvl_bridge.to_hf(source, output, overwrite=True)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_what_can_be_shared_needs_no_room(source, tmp_path, monkeypatch):
    plain = budget(source, tmp_path / "output")
    monkeypatch.setattr(module, "can_clone", lambda *_: True)
    shared = budget(source, tmp_path / "output")
    monkeypatch.setattr(module, "can_clone", lambda *_: False)
    copied = budget(source, tmp_path / "output")
    assert shared["cloned"] > 0
    assert copied["cloned"] == 0
    for name in ("read", "written", "room"):
        assert shared[name] + shared["cloned"] == copied[name] == plain[name] + plain["cloned"]


# A small disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one and a half megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1536k", "none", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)  # noqa: S607


def test_a_small_disk_takes_one_output_and_refuses_the_second(disk, source):
    internvl_bridge.to_hf(source, disk / "one")
    before = sorted(disk.iterdir())
    with pytest.raises(OutputError, match="its file system has only"):
        internvl_bridge.to_hf(source, disk / "two")
    assert sorted(disk.iterdir()) == before
    with pytest.raises(OutputError, match="its file system has only"):
        internvl_bridge.to_hf(source, disk / "one", layout="l2", overwrite=True)
    assert sorted(disk.iterdir()) == before
    assert internvl_bridge.verify(source, disk / "one").identical


def test_a_disk_that_somebody_else_fills_meanwhile(disk, source, monkeypatch):
    output, write = disk / "output", shard_jobs.write_file

    def writing(path: Path, *arguments: object):
        if path.name.startswith("model-00004"):
            with (disk / "other").open("wb") as other:
                other.write(bytes(free_bytes(disk) - 8192))
        return write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", writing)
        result = CliRunner().invoke(
            app,
            ["to-hf", str(source), str(output), "--accept", "small-shards", "--max-shard-size", SIZE, "--workers", "1"],
        )
    assert result.exit_code == 2
    assert "model-00004-of-00007.safetensors: No space left on device" in result.stderr
    assert "3 finished file(s) are kept" in result.stderr
    assert not output.exists()
    (disk / "other").unlink()
    assert len(internvl_bridge.to_hf(source, output, max_shard_size=SIZE).kept) == 3
    assert internvl_bridge.verify(source, output).identical


# Rooms


def test_the_nearest_directory_that_exists(tmp_path, monkeypatch):
    assert existing_ancestor(tmp_path / "a" / "b" / "c") == tmp_path
    assert existing_ancestor(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert existing_ancestor(Path("a/b")) == tmp_path


def test_to_allocate_is_to_learn_that_the_disk_is_full(disk):
    with (disk / "file").open("wb") as file:
        allocate(file.fileno(), 1000)
        assert os.fstat(file.fileno()).st_size == 1000
        allocate(file.fileno(), 0)
        with pytest.raises(OSError, match="No space left"):
            allocate(file.fileno(), 4_000_000)
