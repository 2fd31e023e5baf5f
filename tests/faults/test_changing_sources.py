"""Sources that change while they are being converted, that are links, or that lie where the output should."""

import mmap
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import nullcontext
from errno import EIO
from hashlib import sha256
from pathlib import Path

import pytest
from faults.injecting import (
    CONVERSIONS,
    SHARD,
    Fault,
    command_line,
    contents,
    converted,
    happening,
    in_memory,
    injected,
    make_sources,
    names,
    never,
    once,
    rewritten,
    small_steps,
    state,
)
from faults.test_file_systems import powerless
from support import copy_custom
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.convert.run import carry_out
from internvl_bridge.errors import BridgeError, CheckpointError, OutputError
from internvl_bridge.mapping.formats import Format

EARLY = ("pwrite of weights", 0)
"""The first file of weights is being written: nothing is finished."""
LATE = ("write", 2)
"""The journal learns that the second one is finished: three of the five are to come."""
SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
COMMANDS = {"to_hf": "to-hf", "to_custom": "to-custom", "repair": "repair"}


@pytest.fixture(scope="module")
def originals():
    with small_steps(), in_memory() as directory:
        yield make_sources(directory)


@pytest.fixture
def sources(originals: Path, tmp_path: Path) -> Path:
    """Sources that may be spoiled; ``tmp_path/sources`` holds nothing else."""
    for name in ("custom", "hf"):
        shutil.copytree(originals / name, tmp_path / "sources" / name)
    return tmp_path / "sources"


def but(name: str, found: dict[str, tuple]) -> dict[str, tuple]:
    """A state without one file, what it may have been replaced by, and the directory, which notices that."""
    return {path: value for path, value in found.items() if path not in {name, ".", "new", "another"}}


# Changes while a conversion is running


@pytest.mark.parametrize("name", ["to_hf", "to_custom"])
@pytest.mark.parametrize("moment", [EARLY, LATE])
@pytest.mark.parametrize("action", ["truncated", "grown", "rewritten", "replaced", "relinked", "deleted"])
def test_a_source_that_changes(
    action: str, moment: tuple[str, int], name: str, sources: Path, originals: Path, tmp_path: Path
):
    source, output = sources / CONVERSIONS[name], tmp_path / "output"
    victim = source / SHARDS[0 if moment is EARLY else 2]
    before = state(source)
    result = happening(moment, action, victim, command_line(COMMANDS[name], source, output))
    # Nothing of the source is mapped into memory, so that no signal comes of it. What was read back may differ (1).
    assert result.returncode in ((1, 2) if action in {"rewritten", "replaced", "relinked"} else (2,)), result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert "model-0000" in result.stderr
    assert "defect" not in result.stderr
    assert not output.exists()
    assert but(victim.name, state(source)) == but(victim.name, before)
    changed = state(source)
    kept = (tmp_path / "output.partial").exists()
    assert kept == (moment is LATE and action == "deleted")  # nothing could go on from another source
    if action in {"truncated", "grown", "deleted"}:
        with pytest.raises(CheckpointError, match=victim.name):
            converted(name, sources, output)
    else:
        converted(name, sources, output)
    assert state(source) == changed
    if output.exists():
        converted(name, sources, tmp_path / "fresh")
        assert contents(output) == contents(tmp_path / "fresh")
        assert contents(output) != contents(originals / "expected" / name)
        assert not (tmp_path / "output.partial").exists()


@pytest.mark.parametrize("moment", [EARLY, LATE])
def test_a_source_that_may_no_longer_be_read(moment: tuple[str, int], sources: Path, originals: Path, tmp_path: Path):
    victim = sources / "custom" / SHARDS[2]
    arguments = command_line("to-hf", sources / "custom", tmp_path / "output")
    result = happening(moment, "forbidden", victim, arguments, before=powerless())
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: {victim}: Permission denied.")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "output").exists()
    victim.chmod(0o644)  # that changes no bytes: what is finished is still good
    report = converted("to_hf", sources, tmp_path / "output")
    assert len(report.kept) >= (1 if moment is EARLY else 2)
    assert contents(tmp_path / "output") == contents(originals / "expected" / "to_hf")


@pytest.mark.parametrize("call", ["preadv", "pwrite", "fsync", "write"])
def test_no_moment_is_safe_for_a_change(call: str, sources: Path, tmp_path: Path):
    # The last call of each kind: everything was read, and compared.
    with injected(never(call), tmp_path) as counting:
        converted("to_hf", sources, tmp_path / "counted")
    last = counting.calls - (5 if call == "fsync" else 1)  # its last four come when the source has been looked at
    victim = sources / "custom" / SHARDS[0]
    with injected(Fault(call, lambda: rewritten(victim), at=last), tmp_path), pytest.raises(BridgeError) as caught:
        converted("to_hf", sources, tmp_path / "output")
    assert f"{victim} was changed while it was being converted" in str(caught.value)
    assert not (tmp_path / "output").exists()


def test_a_change_between_two_runs(sources: Path, tmp_path: Path):
    with injected(Fault("rename", EIO, at=1), tmp_path), pytest.raises(OSError, match="Input/output"):
        converted("to_hf", sources, tmp_path / "output")
    os.utime(sources / "custom" / SHARDS[1])
    with pytest.raises(OutputError, match=f"from another source: {SHARDS[1]} was changed"):
        converted("to_hf", sources, tmp_path / "output")
    result = CliRunner().invoke(app, command_line("to-hf", sources / "custom", tmp_path / "output", "--restart"))
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "sources"]


# Changes that keep sizes and times


def in_place(source: Path, other: Path) -> None:
    for path in other.glob("*.safetensors"):
        (source / path.name).write_bytes(path.read_bytes())
        same_time(source / path.name, path)


def by_rename(source: Path, other: Path) -> None:
    """As rsync -t, tar and cp -p do it."""
    for path in other.glob("*.safetensors"):
        shutil.copy2(path, source / "new")
        (source / "new").replace(source / path.name)


def by_link(source: Path, other: Path) -> None:
    """As a link that a trainer moves to its newest step."""
    source.rename(source.with_name("former"))
    source.symlink_to(other)


def through_memory(source: Path, other: Path) -> None:
    """As a program does that has mapped the files; the system may write them much later."""
    for path in other.glob("*.safetensors"):
        with (source / path.name).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = path.read_bytes()
        same_time(source / path.name, path)


def same_time(path: Path, other: Path) -> None:
    os.utime(path, ns=(other.stat().st_atime_ns, other.stat().st_mtime_ns))


def other_step(source: Path, directory: Path) -> Path:
    """The same model with other weights, in files of the same sizes and times."""
    shutil.copytree(source, directory)
    for path in directory.glob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-64:] = bytes(byte ^ 1 for byte in data[-64:])
        path.write_bytes(data)
        same_time(path, source / path.name)
    return directory


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("change", [in_place, by_rename, by_link, through_memory])
def test_weights_that_become_others_of_the_same_size_and_time(
    change: Callable[[Path, Path], None], share: float, verify: bool, sources: Path, tmp_path: Path
):
    source, output = sources / "custom", tmp_path / "output"
    other = other_step(source, tmp_path / "other")
    progress = once(lambda: change(source, other), share)
    with pytest.raises(CheckpointError, match=r"was changed while it was being converted") as caught:
        internvl_bridge.to_hf(source, output, max_shard_size=SHARD, workers=1, verify=verify, progress=progress)
    assert "model-0000" in str(caught.value)
    assert not output.exists()
    assert not (tmp_path / "output.partial").exists()


@pytest.mark.parametrize("change", ["chmod", "link", "same bytes"])
def test_what_touches_no_bit_of_the_source_is_no_change(change: str, sources: Path, originals: Path, tmp_path: Path):
    victim = sources / "custom" / SHARDS[0]
    shutil.copytree(victim.parent, tmp_path / "copy")
    touch = {
        "chmod": lambda: victim.chmod(0o600),
        "link": lambda: (tmp_path / "second name").hardlink_to(victim),
        "same bytes": lambda: by_rename(victim.parent, tmp_path / "copy"),
    }[change]
    tasks: list[str] = []
    progress = once(touch, 0.6)

    def noted(task: str, total: int, files: int) -> Callable[[int, int], None]:
        tasks.append(task)
        return progress(task, total, files)

    internvl_bridge.to_hf(sources / "custom", tmp_path / "output", max_shard_size=SHARD, workers=1, progress=noted)
    assert contents(tmp_path / "output") == contents(originals / "expected" / "to_hf")
    assert tasks[-1] == "Comparing once more"


@pytest.mark.parametrize(("model", "refused"), [("qwen3-300m-tied", True), ("qwen3-300m", False)])
def test_what_is_touched_before_the_work_begins(model: str, refused: bool, tmp_path: Path):
    """What the output head of a tied model is was decided by its data."""
    source = copy_custom(model, tmp_path / "source")
    conversion = prepare(source, tmp_path / "output", (Format.CUSTOM, Format.HF), Options())
    (source / "model.safetensors").chmod(0o600)
    with pytest.raises(CheckpointError, match="was changed") if refused else nullcontext():
        carry_out(conversion)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json", "new_LICENSE"])
def test_a_small_file_that_changes(name: str, sources: Path, tmp_path: Path):
    victim = sources / "custom" / name.removeprefix("new_")

    def change() -> None:
        victim.write_bytes(victim.read_bytes() + b" " if victim.exists() else b"mine")

    with pytest.raises(CheckpointError, match=f"{victim} was changed while it was being converted"):
        internvl_bridge.to_hf(sources / "custom", tmp_path / "output", max_shard_size=SHARD, progress=once(change, 0.6))
    assert not (tmp_path / "output").exists()
    assert (tmp_path / "output.partial").exists()  # the weights are as they were


# A cache of the hub: links to files that belong to it


@pytest.fixture
def cache(originals: Path, tmp_path: Path) -> Path:
    """The cache of a custom checkpoint: snapshots/main holds links only, to blobs that nobody may write to."""
    cache = tmp_path / "models--tiny"
    snapshot = cache / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in (originals / "custom").iterdir():
        blob = cache / "blobs" / sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        blob.chmod(0o444)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    return cache


@pytest.mark.parametrize("linked", [False, True])
def test_a_cache_is_read_through_its_links_and_left_alone(linked: bool, cache: Path, originals: Path, tmp_path: Path):
    source, before = cache / "snapshots" / "main", state(cache)
    if linked:
        (tmp_path / "link").symlink_to(source)
        source = tmp_path / "link"
    internvl_bridge.to_hf(source, tmp_path / "output", max_shard_size=SHARD)
    assert contents(tmp_path / "output") == contents(originals / "expected" / "to_hf")
    for path in (tmp_path / "output").iterdir():
        status = path.lstat()
        assert stat.S_ISREG(status.st_mode)
        assert status.st_nlink == 1  # no other name for a blob
        assert status.st_mode & stat.S_IWUSR
    internvl_bridge.to_hf(source, tmp_path / "output", overwrite=True)
    assert state(cache) == before


@pytest.mark.parametrize("name", [SHARDS[1], "config.json", "tokenizer.json", "model.safetensors.index.json"])
def test_a_link_that_leads_nowhere(name: str, cache: Path, tmp_path: Path):
    link = cache / "snapshots" / "main" / name
    link.resolve().unlink()
    before = state(cache)
    result = CliRunner().invoke(app, ["to-hf", str(link.parent), str(tmp_path / "output")])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert name in result.stderr
    assert names(tmp_path) == [cache.name]
    assert state(cache) == before


def test_a_link_that_leads_to_another_blob_meanwhile(cache: Path, tmp_path: Path):
    link = cache / "snapshots" / "main" / SHARDS[2]
    arguments = command_line("to-hf", link.parent, tmp_path / "output")
    result = happening(LATE, "relinked", link, arguments)
    assert result.returncode in {1, 2}
    assert not (tmp_path / "output").exists()
    if (tmp_path / "output.partial").exists():
        with pytest.raises(OutputError, match=f"from another source: {link.name}"):
            internvl_bridge.to_hf(link.parent, tmp_path / "output", max_shard_size=SHARD, workers=1)
    else:
        assert f"{link} was changed while it was being converted" in result.stderr


# Outputs within sources, and sources within outputs


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("source", ["{}", "{}/.", "link-to-{}"])
@pytest.mark.parametrize("output", ["{}", "{}/output", "{}/new/output", "link-to-{}", "link-to-{}/output", ".", "up"])
def test_directories_within_each_other(output: str, source: str, overwrite: bool, name: str, sources: Path):
    kind = CONVERSIONS[name]
    (sources / f"link-to-{kind}").symlink_to(kind)
    (sources / "up").symlink_to(".")
    before = state(sources.parent)
    place = sources / output.format(kind)
    with pytest.raises(OutputError, match=r"lies inside|are the same"):
        getattr(internvl_bridge, name)(sources / source.format(kind), place, overwrite=overwrite)
    assert state(sources.parent) == before
