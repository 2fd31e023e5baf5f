"""Files of an output that equal files of the source are links to them: nothing of them is read, and nothing guessed."""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support import copy_custom, files_of, shard
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import link_weights
from internvl_bridge.errors import BridgeError, CheckpointError, OptionError, OutputError
from internvl_bridge.storage import local_files
from internvl_bridge.storage.publishing import partial_path
from internvl_bridge.storage.stamps import stamp_of

LANGUAGE = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors")
"""The shards that hold tensors of the language model alone."""
VISION = "model-00003-of-00003.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = copy_custom("qwen3-300m", tmp_path / "source")
    shard(directory, lambda key: 2 if not key.startswith("language_model.") else int("layers.0." in key))
    return directory


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many bytes are read of each file from here on."""
    counts: Counter[str] = Counter()
    real = local_files.LocalSource.read_into

    def counting(self: local_files.LocalSource, window: memoryview, offset: int) -> int:
        counts[self._path.name] += len(window)
        return real(self, window, offset)

    monkeypatch.setattr(local_files.LocalSource, "read_into", counting)
    return counts


def linked(output: Path, source: Path) -> list[str]:
    return sorted(path.name for path in source.glob("*.safetensors") if (output / path.name).samefile(path))


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_equal_files_are_links_and_are_not_read(source, output, read, link):
    report = internvl_bridge.to_hf(source, output, link=link)

    assert report.linked.files == report.linked.unread == LANGUAGE
    assert linked(output, source) == [*LANGUAGE]
    assert [(output / name).is_symlink() for name in LANGUAGE] == [link == "symbolic"] * 2
    assert not read.keys() & {*LANGUAGE}
    assert internvl_bridge.verify(source, output).identical
    found = internvl_bridge.verify_checksums(output)
    assert found.linked == found.unproved == LANGUAGE
    assert not found.changed + found.missing


def test_the_same_tensors_as_without_links(source, output, tmp_path):
    internvl_bridge.to_hf(source, output, link="hard")
    plain = internvl_bridge.to_hf(source, tmp_path / "plain")
    assert plain.linked is None
    ours, theirs = files_of(output), files_of(tmp_path / "plain")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours.keys() - {*LANGUAGE, "internvl_bridge.json"})
    assert internvl_bridge.verify(output, tmp_path / "plain").identical


def test_links_that_are_read_have_checksums(source, output):
    report = internvl_bridge.to_hf(source, output, link="hard", read_links=True)
    assert report.linked.unread == ()
    assert internvl_bridge.verify_checksums(output).intact
    data = bytearray((source / LANGUAGE[0]).read_bytes())
    data[-1] ^= 1
    (source / LANGUAGE[0]).write_bytes(data)
    assert internvl_bridge.verify_checksums(output).changed == (LANGUAGE[0],)


def test_checksums_are_inherited_where_the_source_has_them(source, tmp_path, read):
    first, second = tmp_path / "first", tmp_path / "second"
    internvl_bridge.to_hf(source, first)
    read.clear()
    report = internvl_bridge.to_custom(first, second, link="hard")
    assert report.linked.unread == ()
    assert sum(read[name] for name in LANGUAGE) < 100_000  # a sample shows whether weights were trained
    assert internvl_bridge.verify_checksums(second).intact
    assert any("tensors" in note for note in report.notes) is False


def test_checksums_of_a_file_that_is_newer_than_them_are_not_inherited(source, output, tmp_path):
    first = tmp_path / "first"
    internvl_bridge.to_hf(source, first)
    tensors = load_file(first / LANGUAGE[1])
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, first / LANGUAGE[1], metadata={"format": "pt"})
    report = internvl_bridge.to_custom(first, output, link="hard")
    assert report.linked.unread == (LANGUAGE[1],)
    assert internvl_bridge.verify_checksums(output).linked == (LANGUAGE[1],)


def test_of_a_hub_cache_the_blob_is_linked(source, output, tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        shutil.move(path, blobs / f"blob-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/blob-{path.name}")
    internvl_bridge.to_hf(snapshot, output, link="hard")
    for name in LANGUAGE:
        assert not (output / name).is_symlink()
        assert (output / name).samefile(blobs / f"blob-{name}")
    internvl_bridge.to_hf(snapshot, output, link="symbolic", overwrite=True)
    assert [(output / name).readlink() for name in LANGUAGE] == [blobs / f"blob-{name}" for name in LANGUAGE]


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.EXDEV, "another file system", "--link symbolic"),
        (errno.EPERM, "does not have such links", "--link symbolic"),
        (errno.EMLINK, "as many links", "--link symbolic"),
        (errno.EIO, "Input/output error", None),
    ],
)
def test_a_link_that_is_refused_leaves_nothing(source, output, monkeypatch, number, reason, remedy):
    calls = iter(range(9))

    def refuse(*_: object, **__: object) -> None:
        if next(calls):  # the first one succeeds
            raise OSError(number, os.strerror(number))
        real(*_, **__)

    real = os.link
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError if remedy is None else OutputError, match=reason) as caught:
        internvl_bridge.to_hf(source, output, link="hard")
    if isinstance(caught.value, BridgeError):
        assert remedy in caught.value.remedy
    assert not output.exists()
    assert not partial_path(output).exists()
    assert {path.stat().st_nlink for path in source.iterdir()} == {1}


def test_a_link_that_leads_elsewhere_is_refused(source, output, monkeypatch):
    monkeypatch.setattr(
        os, "link", lambda _, name, dst_dir_fd, **__: os.close(os.open(name, os.O_CREAT, dir_fd=dst_dir_fd))
    )
    with pytest.raises(OutputError, match="another file"):
        internvl_bridge.to_hf(source, output, link="hard")
    assert not partial_path(output).exists()


def test_a_source_that_changes_just_before_it_is_linked_is_refused(source, output, monkeypatch):
    real = link_weights.make_link

    def changing(directory, name, path, kind):
        stamp = stamp_of(path)
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        os.utime(path, ns=(stamp.modified + 1, stamp.modified + 1))
        real(directory, name, path, kind)

    monkeypatch.setattr(link_weights, "make_link", changing)
    with pytest.raises(CheckpointError, match="was changed while"):
        internvl_bridge.to_hf(source, output, link="hard")
    assert not output.exists()


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_links_that_are_touched_before_they_are_published_are_refused(source, output, monkeypatch, change):
    real = link_weights.written_links

    def meddling(links, workspace, checksums):
        found = real(links, workspace, checksums)
        name = workspace.files / LANGUAGE[0]
        data = name.read_bytes()
        name.unlink()
        if change == "replaced":
            name.write_bytes(data)
        return found

    monkeypatch.setattr("internvl_bridge.convert.make_weights.written_links", meddling)
    with pytest.raises(OutputError, match="was removed" if change == "removed" else "was changed"):
        internvl_bridge.to_hf(source, output, link="hard")
    assert not output.exists()


def test_shards_are_cut_where_the_sources_end_if_that_takes_one_file_more(source, output, tmp_path):
    sizes = [(source / name).stat().st_size for name in (*LANGUAGE, VISION)]
    just_above = max(sizes) + 1000
    report = internvl_bridge.to_hf(source, output, link="hard", max_shard_size=just_above)
    assert len(report.linked.files) == 2
    report = internvl_bridge.to_hf(source, tmp_path / "one", link="hard", max_shard_size="1GB")
    assert report.linked.files == ()
    assert any("nothing to link" in warning for warning in report.warnings)


@pytest.mark.parametrize("options", [{"layout": "l2"}, {"order": "name"}])
def test_files_that_hold_something_else_are_written(source, output, options):
    report = internvl_bridge.to_hf(source, output, link="hard", **options)
    assert report.linked.files == tuple(linked(output, source))
    assert internvl_bridge.verify(source, output).identical


def test_a_header_without_the_format_is_written_anew(source, output):
    tensors = load_file(source / LANGUAGE[0])
    save_file(tensors, source / LANGUAGE[0])
    report = internvl_bridge.to_hf(source, output, link="hard")
    assert report.linked.files == (LANGUAGE[1],)


def test_to_read_links_there_must_be_some(source, output):
    with pytest.raises(OptionError, match="--read-links"):
        internvl_bridge.to_hf(source, output, read_links=True)


def test_plan_and_report_say_what_is_linked(source, output):
    run: Callable[..., object] = CliRunner().invoke
    planned = run(app, ["plan", str(source), str(output), "--link", "hard"])
    assert "2 of 3 files of weights are hard links" in " ".join(planned.stdout.split())
    converted = run(app, ["to-hf", str(source), str(output), "--link", "hard"])
    text = " ".join(converted.stdout.split())
    assert "2 of 3 files of weights are hard links" in text
    assert "A program that writes into one of them changes the source and the output alike." in text
    assert "linked, not read" in text
    checked = run(app, ["verify", "--checksums", str(output)])
    assert checked.exit_code == 1
    assert "(linked, not read)" in checked.stdout
    (output / LANGUAGE[0]).unlink()
    assert f"missing: {LANGUAGE[0]}" in run(app, ["verify", "--checksums", str(output)]).stdout
