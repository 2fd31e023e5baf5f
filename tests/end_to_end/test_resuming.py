"""A conversion that was stopped goes on where it was, with what proves to be right, or says why it does not."""

import errno
import json
import os
import runpy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support import ROOT, copy_custom, edit_json, shard
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import identity, write_weights
from internvl_bridge.errors import BridgeError, CheckpointError, DifferenceError, OutputError
from internvl_bridge.storage import shard_jobs
from internvl_bridge.storage.publishing import partial_path
from internvl_bridge.storage.shard_jobs import ShardJob

EXAMPLE = ROOT / "examples" / "synthetic.py"
SIZE = "200KB"
FINISHED = 3


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("resuming") / "source"
    example = runpy.run_path(str(EXAMPLE))
    example["make"](directory, example["PRESETS"]["tiny"])
    return directory


@pytest.fixture(scope="module")
def expected(original: Path) -> Mapping[str, bytes]:
    output = original.with_name("expected")
    internvl_bridge.to_hf(original, output, max_shard_size=SIZE)
    return snapshot(output)


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "source"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Converts until some files are finished; then the disk fails."""

    def run(source: Path, output: Path, finished: int = FINISHED, **options: object) -> None:
        written = []
        write = shard_jobs.write_file

        def failing(path: Path, *arguments: object):
            if len(written) == finished:
                path.write_bytes(b"half")
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            written.append(path.name)
            return write(path, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(shard_jobs, "write_file", failing)
            with pytest.raises(OSError, match="Input/output error"):
                internvl_bridge.to_hf(source, output, **{"max_shard_size": SIZE, "workers": 1, **options})
        assert journal_of(output)[1:] == [{"finished": name} for name in written]

    return run


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files of weights that are written from here on."""
    names: list[str] = []
    write = shard_jobs.write_file

    def writing(path: Path, *arguments: object):
        names.append(path.name)
        return write(path, *arguments)

    monkeypatch.setattr(shard_jobs, "write_file", writing)
    return names


def snapshot(directory: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def journal_of(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (partial_path(output) / "journal").read_bytes().splitlines()]


def names(numbers: range, of: int) -> tuple[str, ...]:
    return tuple(f"model-{number:05d}-of-{of:05d}.safetensors" for number in numbers)


@pytest.fixture
def count(expected: Mapping[str, bytes]) -> int:
    """How many files of weights there are."""
    return sum(name.endswith(".safetensors") for name in expected)


def hf(source: Path, output: Path, **options: object):
    return internvl_bridge.to_hf(source, output, **{"max_shard_size": SIZE, **options})


# Going on


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("workers", [1, 4])
def test_what_is_finished_is_not_written_again(source, output, stop, written, expected, count, verify, workers):  # noqa: PLR0917
    stop(source, output, verify=True)
    files = partial_path(output) / "files"
    before = {
        name: ((files / name).stat().st_ino, (files / name).stat().st_mtime_ns) for name in names(range(1, 4), count)
    }
    written.clear()
    report = hf(source, output, verify=verify, workers=workers)
    assert report.kept == (*before,)
    assert sorted(written) == [*names(range(4, count + 1), count)]
    assert {name: ((output / name).stat().st_ino, (output / name).stat().st_mtime_ns) for name in before} == before
    assert snapshot(output) == expected
    assert not partial_path(output).exists()


def test_a_run_that_did_not_verify_can_be_gone_on_with_by_one_that_does(source, output, stop, expected, count):
    stop(source, output, verify=False)
    report = hf(source, output, verify=True)
    assert report.kept == names(range(1, 4), count)
    assert report.verification.identical
    assert snapshot(output) == expected


def test_what_was_kept_is_told(source, output, stop, count):
    stop(source, output)
    arguments = ["to-hf", str(source), str(output), "--accept", "small-shards", "--max-shard-size", SIZE]
    planned = json.loads(CliRunner().invoke(app, [*arguments, "--dry-run", "--json"]).stdout)["result"]["budget"]
    files = partial_path(output) / "files"
    kept = sum((files / name).stat().st_size for name in names(range(1, 4), count))
    assert planned["kept"] == kept
    assert "Would keep" in CliRunner().invoke(app, [*arguments, "--dry-run"]).stdout
    assert len(journal_of(output)) == 1 + FINISHED  # a dry run changes nothing
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(result.stdout)["result"]["kept"] == [*names(range(1, 4), count)]


def test_what_was_kept_is_told_in_words(source, output, stop, count):
    stop(source, output)
    result = CliRunner().invoke(
        app, ["to-hf", str(source), str(output), "--accept", "small-shards", "--max-shard-size", SIZE]
    )
    assert result.stderr == f"Resuming: 3 of {count} files are done.\n"
    assert "3 file(s) that an earlier run had finished were compared with the source and kept" in result.stdout
    result = CliRunner().invoke(
        app, ["to-hf", str(source), f"{output}2", "--accept", "small-shards", "--max-shard-size", SIZE]
    )
    assert "Resumed" not in result.stdout
    assert result.stderr == ""


def test_a_plan_with_restart_keeps_nothing(source, output, stop):
    stop(source, output)
    arguments = [
        "to-hf",
        str(source),
        str(output),
        "--accept",
        "small-shards",
        "--max-shard-size",
        SIZE,
        "--dry-run",
        "--json",
        "--restart",
    ]
    assert json.loads(CliRunner().invoke(app, arguments).stdout)["result"]["budget"]["kept"] == 0
    assert len(journal_of(output)) == 1 + FINISHED


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    "spoil", ["first byte", "header", "data", "last byte", "truncated", "empty", "longer", "gone", "other", "folder"]
)
def test_what_is_kept_is_compared_and_made_again_if_it_differs(  # noqa: PLR0917
    source, output, stop, written, expected, count, spoil, verify
):
    stop(source, output)
    path = partial_path(output) / "files" / names(range(2, 3), count)[0]
    data = bytearray(path.read_bytes())
    places = {"first byte": 0, "header": 40, "data": len(data) - 5000, "last byte": len(data) - 1}
    if spoil in places:
        data[places[spoil]] ^= 4
        path.write_bytes(data)
    elif spoil == "longer":
        path.write_bytes(data + b"\0")
    elif spoil in {"truncated", "empty"}:
        path.write_bytes(data[: len(data) // 2 if spoil == "truncated" else 0])
    elif spoil == "other":
        shutil.copy(path.with_name(names(range(1, 2), count)[0]), path)
    else:
        path.unlink()
        if spoil == "folder":
            path.mkdir()
            (path / "inner").touch()
    written.clear()
    report = hf(source, output, verify=verify, workers=1)
    assert written == [*names(range(2, 3), count), *names(range(4, count + 1), count)]
    assert report.kept == names(range(1, 4, 2), count)
    assert snapshot(output) == expected


def test_a_kept_file_whose_space_in_the_header_differs_is_made_again(source, output, stop, written, expected, count):
    stop(source, output)
    name = names(range(1, 2), count)[0]
    path = partial_path(output) / "files" / name
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    path.write_bytes((size + 8).to_bytes(8, "little") + data[8 : 8 + size] + b" " * 8 + data[8 + size :])
    written.clear()
    hf(source, output, workers=1)
    assert name in written
    assert snapshot(output) == expected


def test_a_source_that_rots_while_the_run_is_stopped_does_not_spoil_the_output_in_silence(source, output, stop):
    # size, time and header are what they were: only the comparison of what is kept can tell, and makes it again
    stop(source, output)
    path = min(source.glob("*.safetensors"))
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    hf(source, output)
    assert internvl_bridge.verify(source, output).identical


def test_stopped_after_the_last_file_of_weights(source, output, written, expected, count, monkeypatch):
    from internvl_bridge.convert import run as conversion

    def fail(_stamps: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "check_unchanged", fail)
        with pytest.raises(KeyboardInterrupt) as caught:
            hf(source, output)
    assert f"{count} finished file(s) are kept in {partial_path(output)}" in caught.value.__notes__[0]
    written.clear()
    assert hf(source, output).kept == names(range(1, count + 1), count)
    assert written == []
    assert snapshot(output) == expected


def test_what_is_half_written_is_not_kept(source, output, stop, expected, count):
    stop(source, output)
    files = partial_path(output) / "files"
    assert (files / names(range(4, 5), count)[0]).read_bytes() == b"half"
    (files / "foreign").write_text("of nobody")
    (files / "directory").mkdir()
    (files / "directory" / "inner").touch()
    hf(source, output)
    assert snapshot(output) == expected


@pytest.mark.parametrize("direction", ["custom", "repair"])
def test_the_other_commands_go_on_too(original, output, direction, tmp_path, monkeypatch):
    source, convert = (
        tmp_path / "hf",
        {"custom": internvl_bridge.to_custom, "repair": internvl_bridge.repair}[direction],
    )
    internvl_bridge.to_hf(original, source)
    convert(source, tmp_path / "whole")
    write, calls = shard_jobs.write_file, []

    def failing(*arguments: object):
        calls.append(arguments)
        if len(calls) >= 2:  # and whatever is begun before that is noticed
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(KeyboardInterrupt):
            convert(source, output, workers=1)
    assert convert(source, output).kept == ("model-00001-of-00003.safetensors",)
    assert snapshot(output) == snapshot(tmp_path / "whole")


# The same command, or another one


def test_the_same_command_from_another_directory_with_relative_paths(
    source, output, stop, count, expected, monkeypatch
):
    (source.parent / "deep" / "er").mkdir(parents=True)
    reference = source.parent / "reference"
    hf(source, reference)
    monkeypatch.chdir(source.parent)
    stop(Path("source"), Path("output"), reference=Path("reference"), tokenizer="source")
    monkeypatch.chdir(source.parent / "deep" / "er")
    report = hf("../../source", "../../output", reference="../../reference", tokenizer=Path("../../source/"))
    assert report.kept == names(range(1, 4), count)
    assert snapshot(output).keys() == expected.keys()


def test_a_source_that_is_reached_through_a_link_is_the_same(source, output, stop, count, tmp_path):
    stop(source, output)
    (tmp_path / "link").symlink_to("source")
    assert hf(tmp_path / "link", output).kept == names(range(1, 4), count)


def refused(source: Path, output: Path, error: type[BridgeError] = OutputError, **options: object) -> str:
    """The reason why the conversion is refused; what an earlier run has left is all there."""
    before = snapshot(output.parent)
    with pytest.raises(error) as caught:
        hf(source, output, **options)
    assert snapshot(output.parent) == before
    assert "--restart (restart=True) to start over" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("layout", "l2", "with --layout l1, and this one has --layout l2", "Give --layout l1"),
        ("order", "name", "with --order source, and this one has --order name", "Give --order source"),
        (
            "system_message",
            "Be kind.",
            "without --system-message, and this one has --system-message 'Be kind.'",
            "Leave out --system-message",
        ),
        (
            "max_shard_size",
            "250KB",
            "with --max-shard-size 200KB, and this one has --max-shard-size 250KB",
            "Give --max-shard-size 200KB",
        ),
        (
            "max_shard_size",
            None,
            "with --max-shard-size 200KB, and this one is without --max-shard-size",
            "Give --max-shard-size 200KB",
        ),
        ("experts", "fused", "with --experts split, and this one has --experts fused", "Give --experts split"),
    ],
)
def test_other_parameters_are_refused(source, output, stop, expected, name, value, what, remedy):  # noqa: PLR0917
    stop(source, output)
    message = refused(source, output, **{name: value})
    assert f"{partial_path(output)} is the unfinished output of a conversion that was begun" in message
    assert f"begun {what}. {remedy} to go on with it, or add --restart" in message
    hf(source, output)  # the refusal has spoilt nothing
    assert snapshot(output) == expected


def test_another_reference_and_another_tokenizer_are_refused(source, output, stop, tmp_path):
    stop(source, output)
    hf(source, tmp_path / "reference")
    shutil.copytree(source, tmp_path / "tokenizer")
    assert "begun without --reference, and this one has --reference /" in refused(
        source, output, reference=tmp_path / "reference"
    )
    assert "begun without --tokenizer, and this one has --tokenizer /" in refused(
        source, output, tokenizer=tmp_path / "tokenizer"
    )


def test_another_direction_is_refused(original, output, tmp_path, stop):
    source = tmp_path / "hf"
    internvl_bridge.to_hf(original, source)
    stop(original, output)
    before = snapshot(partial_path(output))
    with pytest.raises(OutputError, match=r"begun by 'to-hf', and this is 'to-custom'\. Use 'to-hf' to go on"):
        internvl_bridge.to_custom(source, output, max_shard_size=SIZE)
    with pytest.raises(OutputError, match="begun by 'to-hf', and this is 'repair'"):
        internvl_bridge.repair(source, output, max_shard_size=SIZE)
    assert snapshot(partial_path(output)) == before


def test_another_version_is_refused(source, output, stop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(identity, "__version__", "0.0.1")
        stop(source, output)
    message = refused(source, output)
    assert f"begun by internvl-bridge '0.0.1', and this is {internvl_bridge.__version__}." in message


def test_a_source_that_was_written_since_is_refused_even_if_it_has_the_size_that_it_had(source, output, stop, expected):
    stop(source, output)
    path = sorted(source.glob("*.safetensors"))[1]
    data, status = path.read_bytes(), path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert f"from another source: {path.name} was changed, added or removed since" in refused(source, output)
    hf(source, output, restart=True)
    assert snapshot(output) == expected


def test_a_source_with_another_header_is_refused(source, output, stop):
    stop(source, output)
    path = min(source.glob("*.safetensors"))
    status = path.stat()
    data = path.read_bytes().replace(b'"format":"pt"', b'"format":"np"', 1)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert f"from another source: {path.name} was changed" in refused(source, output)


def test_another_set_of_source_files_is_refused(tmp_path, output, stop):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    whole = load_file(source / "model.safetensors")
    shard(source, lambda key: int(key.startswith("language_model")))
    stop(source, output, finished=1)
    for path in source.glob("*.safetensors*"):
        path.unlink()
    save_file(whole, source / "model.safetensors", metadata={"format": "pt"})
    assert "from another source: model-00001-of-00002.safetensors was changed, added or removed" in refused(
        source, output
    )


def test_a_file_that_was_added_to_the_source_is_refused(source, output, stop):
    stop(source, output)
    index = source / "model.safetensors.index.json"
    old = min(source.glob("*.safetensors"))
    tensors = load_file(old)
    key = min(tensors)
    status = old.stat()
    added = "model-00004-of-00004.safetensors"
    save_file({key: tensors.pop(key)}, source / added, metadata={"format": "pt"})
    save_file(tensors, old, metadata={"format": "pt"})
    os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))
    edit_json(index, lambda values: values["weight_map"].update({key: added}))
    message = refused(source, output)
    assert "from another source: model-0000" in message


def test_a_small_file_that_was_changed_since_is_in_the_output(source, output, stop):
    stop(source, output)
    edit_json(source / "generation_config.json", lambda values: values.update(temperature=0.5))
    report = hf(source, output)
    assert len(report.kept) == FINISHED
    assert json.loads((output / "generation_config.json").read_bytes())["temperature"] == 0.5


@pytest.mark.parametrize("change", [{"layout": "l2"}, {"max_shard_size": "90KB"}, {}])
def test_restart_starts_over(source, output, stop, written, change, tmp_path):
    stop(source, output)
    hf(source, tmp_path / "whole", **change)
    written.clear()
    report = hf(source, output, restart=True, **change)
    assert report.kept == ()
    assert len(written) == sum(name.endswith(".safetensors") for name in report.files)
    assert snapshot(output) == snapshot(tmp_path / "whole")
    assert not partial_path(output).exists()


def test_restart_where_nothing_was_begun(source, output, expected):
    hf(source, output, restart=True)
    assert snapshot(output) == expected


def test_a_source_that_changes_while_it_is_converted_is_refused_and_not_gone_on_with(source, output, monkeypatch):
    write = shard_jobs.write_file

    def writing(path: Path, *arguments: object):
        done = write(path, *arguments)
        os.utime(min(source.glob("*.safetensors")))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", writing)
        with pytest.raises(CheckpointError, match="was changed while it was being converted"):
            hf(source, output)
    assert not output.exists()
    assert not partial_path(output).exists()  # there is nothing to go on with


def test_a_finished_file_that_cannot_be_read_any_more_is_made_again(source, output, stop, expected, monkeypatch):
    stop(source, output)
    broken = min((partial_path(output) / "files").glob("*.safetensors"))
    inode, check = broken.stat().st_ino, write_weights.check

    def reading(job: ShardJob, *arguments: object, **options: object) -> str:
        if job.path.exists() and job.path.stat().st_ino == inode:
            raise OSError(errno.EIO, "Input/output error", str(job.path))
        return check(job, *arguments, **options)

    with broken.open("rb"):  # lest its inode is used again
        monkeypatch.setattr(write_weights, "check", reading)
        report = hf(source, output)
    assert broken.name not in report.kept
    assert report.kept
    assert snapshot(output) == expected


def test_a_damaged_file_that_is_being_made_again_does_not_count_as_finished(source, output, stop, count, monkeypatch):
    stop(source, output)
    damaged = partial_path(output) / "files" / names(range(2, 3), count)[0]
    damaged.write_bytes(b"damaged")

    def failing(path: Path, *_: object):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(OSError, match="No space left") as caught:
            hf(source, output, workers=1)
    (note,) = caught.value.__notes__
    assert note.startswith(f"{FINISHED - 1} finished file(s) are kept in")
    assert not damaged.exists()
    report = hf(source, output)
    assert report.kept == names(range(1, 4, 2), count)


def test_a_source_that_shrinks_does_not_spoil_what_is_finished(source, output, stop, monkeypatch):
    """That is no fault of the file that was kept."""
    stop(source, output)
    finished = {name: data for name, data in snapshot(partial_path(output)).items() if data != b"half"}
    reading = write_weights.check

    def shrunk(job: ShardJob, *arguments: object, **options: object) -> str:
        reading(job, *arguments, **options)
        raise CheckpointError(f"{source} ended.", "Convert again.")

    with monkeypatch.context() as patch:
        patch.setattr(write_weights, "check", shrunk)
        with pytest.raises(CheckpointError, match="ended") as caught:
            hf(source, output)
    assert finished.items() - snapshot(partial_path(output)).items() <= {
        ("journal", finished["journal"])
    }  # names the run
    assert caught.value.__notes__[0].startswith(f"{FINISHED} finished file(s) are kept in")


def test_a_source_that_cannot_be_read_any_more_does_not_spoil_what_is_finished(source, output, stop, monkeypatch):
    stop(source, output)
    before, victim = snapshot(partial_path(output)), min(source.glob("*.safetensors"))

    def reading(*_: object, **__: object) -> str:
        raise OSError(errno.EIO, "Input/output error", str(victim))

    with monkeypatch.context() as patch:
        patch.setattr(write_weights, "check", reading)
        with pytest.raises(OSError, match="Input/output error"):
            hf(source, output)
    finished = {name: data for name, data in before.items() if name.endswith(".safetensors") and data != b"half"}
    assert finished
    assert finished.items() <= snapshot(partial_path(output)).items()


def test_what_was_written_wrongly_is_never_finished(source, output, monkeypatch, count):
    write = shard_jobs.write_file

    def wrong(path: Path, *arguments: object):
        done = write(path, *arguments)
        if path.name == names(range(2, 3), count)[0]:
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                last = file.read(1)[0]
                file.seek(-1, os.SEEK_END)
                file.write(bytes([last ^ 128]))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", wrong)
        with pytest.raises(DifferenceError, match="differs"):
            hf(source, output, workers=1)
    finished = {line["finished"] for line in journal_of(output)[1:]}  # of the next files, some may have been begun
    assert finished >= {*names(range(1, 2), count)}
    assert finished.isdisjoint(names(range(2, 3), count))
    assert not output.exists()
    assert {*hf(source, output).kept} == finished


# Journals that nobody wrote like that


def spoilt(output: Path, change: Callable[[bytes], bytes]) -> None:
    path = partial_path(output) / "journal"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_last_line_that_was_cut_off_counts_for_nothing(source, output, stop, written, expected, count, cut):  # noqa: PLR0917
    stop(source, output)
    spoilt(output, lambda data: data[:-cut])
    written.clear()
    assert hf(source, output, workers=1).kept == names(range(1, 3), count)
    assert written[0] == names(range(3, 4), count)[0]
    assert snapshot(output) == expected


def test_a_line_that_was_cut_off_is_survived_twice(source, output, stop, expected):
    stop(source, output)
    spoilt(output, lambda data: data[:-10])
    stop_again(source, output)
    assert hf(source, output).kept
    assert snapshot(output) == expected


def stop_again(source: Path, output: Path) -> None:
    """Go on, and be stopped by a disk that is full when everything but the sidecar is written."""
    from internvl_bridge.convert import run as conversion

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "check_unchanged", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            hf(source, output)


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"",
        b"[1]",
        b"null",
        b"{}",
        b'{"finished": 5}',
        b'{"finished": null}',
        b'{"finished": ["a"]}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"\0" * 512,
        b'{"finished": "nowhere.safetensors"}',
        b'{"finished": "../../precious"}',
        b'{"finished": "../journal"}',
        b'{"finished": ".."}',
        b'{"finished": ""}',
        b'{"finished": "/etc/hostname"}',
        b'{"finished": "\\u0000"}',
        b'{"finished": "\\ud800"}',
        b'{"finished": "' + b"x" * 5000 + b'"}',
    ],
)
def test_lines_that_mean_nothing_change_nothing(source, output, stop, expected, count, line):
    precious = output.parent / "precious"
    precious.write_text("mine")
    stop(source, output)
    spoilt(output, lambda data: data + line + b"\n" + line + b"\n")
    before = snapshot(partial_path(output))
    arguments = ["to-hf", str(source), str(output), "--accept", "small-shards", "--max-shard-size", SIZE, "--dry-run"]
    planned = CliRunner().invoke(app, arguments)
    assert planned.exit_code == 0, planned.output
    assert snapshot(partial_path(output)) == before
    assert hf(source, output).kept == names(range(1, 4), count)
    assert snapshot(output) == expected
    assert precious.read_text() == "mine"
    assert sorted(path.name for path in output.parent.iterdir()) == ["output", "precious", "source"]


@pytest.mark.parametrize("name", ["extra.safetensors", "config.json", "internvl_bridge.json"])
def test_a_file_that_no_conversion_wrote_is_not_published_because_the_journal_names_it(
    source, output, stop, expected, name
):
    stop(source, output)
    (partial_path(output) / "files" / name).write_text("not ours")
    spoilt(output, lambda data: data + json.dumps({"finished": name}).encode() + b"\n")
    hf(source, output)
    assert snapshot(output) == expected


@pytest.mark.parametrize("first", [b"", b'{"program": "0', b'{"program": "0.1"'])
def test_a_first_line_that_never_reached_the_disk_is_begun_again(source, output, expected, first):
    # the program was killed, or the machine crashed, before it had written anything but that
    partial_path(output).mkdir()
    (partial_path(output) / "journal").write_bytes(first)
    assert hf(source, output).kept == ()
    assert snapshot(output) == expected


@pytest.mark.parametrize("key", ["program", "options", "source", "plan"])
@pytest.mark.parametrize("value", [None, 1, [], "text", {"a": 1}, {}])
def test_an_identity_of_another_shape_is_another_one(source, output, stop, key, value):
    stop(source, output)
    first, *others = journal_of(output)
    (partial_path(output) / "journal").write_text(
        "".join(json.dumps(line) + "\n" for line in [{**first, key: value}, *others])
    )
    assert "is the unfinished output of a conversion that was begun" in refused(source, output)
    (partial_path(output) / "journal").write_text(
        "".join(json.dumps(line) + "\n" for line in [{k: v for k, v in first.items() if k != key}, *others])
    )
    refused(source, output)
