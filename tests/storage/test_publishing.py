"""An output directory appears complete, or there is no trace of it."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.publishing import check_output, partial_path, publishing, write_bytes, write_json


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
    with publishing(output) as directory:
        (directory / "first").write_text("1")
        (directory / "sub").mkdir()
        assert not output.exists()
        (directory / "sub" / "second").write_text("2")
        assert directory.parent == output.parent
    assert tree(tmp_path) == {"output", "output/first", "output/sub", "output/sub/second"}
    assert (output / "first").read_text() == "1"


def test_the_directories_above_are_made(tmp_path):
    output = tmp_path / "new" / "newer" / "output"
    with publishing(output) as directory:
        (directory / "file").touch()
    assert tree(tmp_path) == {"new", "new/newer", "new/newer/output", "new/newer/output/file"}


def test_an_empty_directory_is_replaced(source, output):
    output.mkdir()
    check_output(source, output)
    with publishing(output) as directory:
        (directory / "file").touch()
    assert tree(output) == {"file"}
    assert not partial_path(output).exists()


@pytest.mark.parametrize("name", ["model.v1.5", "a b", "\u00e9", ".hidden"])
def test_a_name_is_kept_whole(tmp_path, name):
    with publishing(tmp_path / name):
        assert os.listdir(tmp_path) == [f"{name}.partial"]  # noqa: PTH208 - the names as they are on disk
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


def test_the_names_reach_the_disk_before_and_after_they_appear(tmp_path, monkeypatch, output):
    synced = []

    def fsync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, output.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with publishing(output) as directory:
        inside = directory.stat().st_ino
    assert synced == [(inside, False), (tmp_path.stat().st_ino, True)]


# Vanishing


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_fails_nothing_is_left_behind(tmp_path, output, error):
    def fail(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_bytes(b"half")
        raise error

    with pytest.raises(error), publishing(output) as directory:
        fail(directory)
    assert tree(tmp_path) == set()


def test_an_empty_output_survives_a_failure(tmp_path, output):
    output.mkdir()
    with pytest.raises(RuntimeError), publishing(output):
        raise RuntimeError
    assert tree(tmp_path) == {"output"}


def test_an_output_that_someone_else_filled_meanwhile_is_kept(tmp_path, output):
    with pytest.raises(OSError, match="not empty"), publishing(output) as directory:  # noqa: PT012 - the end of with fails
        (directory / "file").touch()
        output.mkdir()
        (output / "precious").touch()
    assert tree(tmp_path) == {"output", "output/precious"}


def test_what_cannot_reach_the_disk_does_not_appear(tmp_path, monkeypatch, output):
    def fsync(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"), publishing(output):
        pass
    assert tree(tmp_path) == set()


# Directories that cannot be made


@pytest.mark.parametrize("below", ["output", "deep/er/output"])
def test_a_file_in_the_way_of_the_parent_is_named(tmp_path, below):
    (tmp_path / "file").write_text("precious")
    output = tmp_path / "file" / below
    with pytest.raises(OutputError, match="cannot be created") as caught, publishing(output):
        pytest.fail("there is nowhere to write")
    assert f"{output}.partial" in str(caught.value)
    assert "another output" in caught.value.remedy
    assert tree(tmp_path) == {"file"}
    assert (tmp_path / "file").read_text() == "precious"


def test_a_name_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(OutputError, match="name too long"), publishing(tmp_path / ("x" * 250)):
        pytest.fail("there is nowhere to write")
    assert tree(tmp_path) == set()


def test_two_conversions_to_one_output_do_not_mix(tmp_path, output):
    with publishing(output) as directory:
        (directory / "file").touch()
        with pytest.raises(OutputError, match="cannot be created: File exists"), publishing(output):
            pytest.fail("the directory is another's")
        assert tree(tmp_path) == {"output.partial", "output.partial/file"}
    assert tree(tmp_path) == {"output", "output/file"}


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
    assert f"{output} and {source} lie within each other" in message
    assert tree(source) == {"model.safetensors"}


@pytest.mark.parametrize("place", ["..", "../.."])
def test_a_source_in_the_output_is_refused(source, place):
    assert "lie within each other" in refusal(source, source / place)


@pytest.mark.parametrize("inside", ["", "inside"])
def test_an_output_that_leads_into_the_source_through_a_link_is_refused(tmp_path, source, inside):
    (tmp_path / "link").symlink_to(source)
    assert "lie within each other" in refusal(source, tmp_path / "link" / inside)
    assert "lie within each other" in refusal(tmp_path / "link", source / inside)


def test_a_relative_output_in_the_source_is_refused(monkeypatch, source):
    monkeypatch.chdir(source)
    assert "lie within each other" in refusal(source, Path("inside"))
    assert "lie within each other" in refusal(Path(), source / "inside")


def test_the_working_directory_as_output_is_refused_even_if_it_is_empty(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "output" in refusal(source, Path())


@pytest.mark.parametrize("name", ["output", "a b", "it's"])
def test_the_remains_of_a_killed_conversion_are_named_with_the_remedy(tmp_path, source, name):
    output = tmp_path / name
    remains = tmp_path / f"{name}.partial"
    remains.mkdir()
    (remains / "file").touch()
    message = refusal(source, output)
    assert f"{remains} exists: another conversion to {output} is running or was killed" in message
    assert (remains / "file").exists()
    remedy = message[message.index("rm -r") :]
    assert shlex.split(remedy) == ["rm", "-r", str(remains)]
    subprocess.run(["rm", "-r", str(remains)], check=True)  # noqa: S607
    check_output(source, output)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_anything_in_the_place_of_the_partial_output_is_refused(source, output, kind):
    if kind == "file":
        partial_path(output).touch()
    else:
        partial_path(output).symlink_to("nowhere")
    assert f"{partial_path(output)} exists" in refusal(source, output)


# Small files


JSON = {"z": [1, 0.5, None, True], "a": {"\u00e9": "\U0001f600\r\n"}, "empty": {}}


def test_bytes_are_written_as_they_are(tmp_path):
    write_bytes(tmp_path / "file", b"\x00\r\n\xff")
    assert (tmp_path / "file").read_bytes() == b"\x00\r\n\xff"


def test_json_is_written_in_order_indented_and_with_a_newline_at_the_end(tmp_path):
    write_json(tmp_path / "file", {"z": [1], "a": {"\u00e9": "\r\n"}})
    assert (
        (tmp_path / "file").read_bytes()
        == b"""{
  "z": [
    1
  ],
  "a": {
    "\xc3\xa9": "\\r\\n"
  }
}
"""
    )


def test_json_is_read_back_as_it_was(tmp_path):
    write_json(tmp_path / "file", JSON)
    assert json.loads((tmp_path / "file").read_bytes()) == JSON


@pytest.mark.parametrize("write", [write_bytes, write_json])
def test_a_small_file_is_not_written_over_another(tmp_path, write):
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write(tmp_path / "file", b"")
    assert (tmp_path / "file").read_bytes() == b"precious"


@pytest.mark.parametrize(("write", "value"), [(write_bytes, b"12345"), (write_json, JSON)])
def test_a_small_file_reaches_the_disk_complete(tmp_path, monkeypatch, write, value):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda handle: sizes.append(os.fstat(handle).st_size))
    write(tmp_path / "file", value)
    assert sizes == [(tmp_path / "file").stat().st_size]


def test_a_second_interruption_does_not_stop_the_cleaning_up(output, monkeypatch):
    remove, attempts = shutil.rmtree, []

    def impatient(path, **options):
        attempts.append(path)
        if len(attempts) < 3:
            raise KeyboardInterrupt
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", impatient)
    with pytest.raises(KeyboardInterrupt), publishing(output):
        raise KeyboardInterrupt
    assert len(attempts) == 3
    assert not partial_path(output).exists()
    assert not output.exists()
