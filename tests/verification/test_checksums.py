"""The checksums of an output: written when it is made, compared when somebody asks."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash
from safetensors import safe_open
from support import DATA, copy_custom, edit_json
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import write_small_files as conversion
from internvl_bridge.errors import CheckpointError, DifferenceError
from internvl_bridge.metadata.sidecar import OF_EVERY_OUTPUT
from internvl_bridge.storage import shard_jobs, small_files
from internvl_bridge.storage.copying import WrittenFile

SIDECAR = "internvl_bridge.json"
HF = DATA / "hf" / "qwen3moe-6b@5.4.0"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output in two files of weights."""
    home = tmp_path_factory.mktemp("checksums")
    internvl_bridge.to_hf(copy_custom("qwen3-300m", home / "source"), home / "output", max_shard_size="60KB")
    assert len([*(home / "output").glob("*.safetensors")]) > 1
    return home / "output"


@pytest.fixture
def output(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "output"))


def manifest(directory: Path) -> dict[str, str]:
    stated = json.loads((directory / SIDECAR).read_bytes())["checksums"]
    assert stated.keys() == {"algorithm", "files", "weights"}
    assert stated["algorithm"] == "xxh3_128"
    for name, record in stated["weights"].items():
        assert record["size"] == (directory / name).stat().st_size
        with safe_open(directory / name, "np") as file:
            summed_tensors = {key: stored_checksum(directory / name, key) for key in file.keys()}  # noqa: SIM118
        assert record["tensors"] in (summed_tensors, {})  # none of what was cloned and not read back
        assert (record["tensors"] == {}) == (name not in stated["files"])
    return stated["files"]


def stored_checksum(path: Path, key: str) -> str:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:start])[key]["data_offsets"]
    return xxhash.xxh3_128_hexdigest(data[start + begin : start + end])


def summed(directory: Path) -> dict[str, str]:
    """What the checksums must be, by xxhash itself."""
    return {
        path.name: xxhash.xxh3_128_hexdigest(path.read_bytes())
        for path in sorted(directory.iterdir())
        if path.name != SIDECAR
    }


def command(*arguments: object):
    return CliRunner().invoke(app, ["verify", "--checksums", *map(str, arguments)])


# Written


@pytest.mark.parametrize(
    "options", [{}, {"verify": False}, {"max_shard_size": "60KB"}, {"workers": 1}, {"order": "name"}]
)
def test_the_manifest_has_the_checksum_of_every_other_file(tmp_path, options):
    output = tmp_path / "hf"
    internvl_bridge.to_hf(copy_custom("qwen3-300m", tmp_path / "source"), output, **options)
    assert manifest(output) == summed(output)
    assert [*manifest(output)] == sorted(manifest(output))
    internvl_bridge.to_custom(output, tmp_path / "custom", **options)
    assert manifest(tmp_path / "custom") == summed(tmp_path / "custom")
    internvl_bridge.repair(output, tmp_path / "repaired", **options)
    assert manifest(tmp_path / "repaired") == summed(tmp_path / "repaired")


def test_files_that_are_copied_as_they_are_have_checksums(tmp_path):
    source = copy_custom("internlm2-300m", tmp_path / "source")
    (source / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert manifest(tmp_path / "back") == summed(tmp_path / "back")
    assert "tokenizer.model" in manifest(tmp_path / "back")


@pytest.mark.parametrize("verify", [True, False])
def test_what_an_earlier_run_has_written_has_checksums_too(tmp_path, monkeypatch, verify):
    source, output = copy_custom("qwen3-300m", tmp_path / "source"), tmp_path / "output"
    write, calls = shard_jobs.write_file, []

    def failing(*arguments: object) -> WrittenFile:
        calls.append(arguments)
        if len(calls) >= 2:  # and whatever is begun before that is noticed
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(KeyboardInterrupt):
            internvl_bridge.to_hf(source, output, max_shard_size="60KB", workers=1, verify=verify)
    assert len(internvl_bridge.to_hf(source, output, max_shard_size="60KB", verify=verify).kept) == 1
    assert manifest(output) == summed(output)


@pytest.mark.parametrize("verify", [True, False])
def test_a_file_whose_bytes_nobody_saw_has_no_checksum(tmp_path, monkeypatch, verify):
    # where the file system shares blocks with the source, only the comparison reads them
    source, output = copy_custom("qwen3-300m", tmp_path / "source"), tmp_path / "output"
    write = shard_jobs.write_file

    def shared(*arguments: object) -> WrittenFile:
        written = write(*arguments)
        return WrittenFile(4096, None) if arguments[0].name == "model.safetensors" else written

    monkeypatch.setattr(shard_jobs, "write_file", shared)
    converted = internvl_bridge.to_hf(source, output, verify=verify)
    expected = summed(output)
    if not verify:
        del expected["model.safetensors"]
    assert manifest(output) == expected
    report = internvl_bridge.verify_checksums(output)
    assert report.intact == verify
    assert report.unknown == report.unproved == (() if verify else ("model.safetensors",))
    result = command(output)
    assert result.exit_code == (0 if verify else 1)
    if not verify:
        assert result.stdout.startswith("Not proved: ")
        assert "  no checksum: model.safetensors\n" in result.stdout
        assert "internvl-bridge verify SOURCE OUTPUT" in result.stdout
        assert "1 file(s) of weights were cloned and not read back" in " ".join(converted.notes)


def test_the_same_conversion_writes_the_same_manifest(original, tmp_path):
    internvl_bridge.to_hf(original.with_name("source"), tmp_path / "again", max_shard_size="60KB", workers=3)
    assert (tmp_path / "again" / SIDECAR).read_bytes() == (original / SIDECAR).read_bytes()


# Compared


@pytest.mark.parametrize("workers", [None, 1, 4])
def test_an_output_as_it_was_made_is_intact(output, workers):
    report = internvl_bridge.verify_checksums(output, workers=workers)
    assert report.intact
    assert report.equal == (*summed(output),)
    assert (report.changed, report.missing, report.unknown) == ((), (), ())
    result = command(output)
    assert result.exit_code == 0
    assert (
        result.stdout
        == f"Intact: all {len(report.equal)} files of {output} have the checksum that they were written with.\n"
    )
    assert json.loads(command(output, "--json").stdout)["result"] == {
        "path": str(output),
        "intact": True,
        "equal": [*report.equal],
        "changed": [],
        "missing": [],
        "unknown": [],
        "linked": [],
    }
    assert command(output, "--quiet").output == ""


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
}


@pytest.mark.parametrize("name", ["model-00001", "config.json", "tokenizer.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_told(output, name, change):
    path = next(path for path in output.iterdir() if path.name.startswith(name))
    CHANGES[change](path)
    report = internvl_bridge.verify_checksums(output)
    assert not report.intact
    assert report.changed == (path.name,)
    assert path.name not in report.equal
    assert len(report.equal) == len(summed(output)) - 1
    result = command(output)
    assert result.exit_code == 1
    assert result.stdout.startswith("Changed or damaged: 1 of ")
    assert result.stdout.endswith(f"\n  changed: {path.name}\n")
    assert command(output, "--quiet").exit_code == 1


def test_a_bit_that_rots_is_told_wherever_it_is(output):
    path = min(output.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data, status = path.read_bytes(), path.stat()
    for place in range(0, len(data), max(1, len(data) // 40)):
        rotten = bytearray(data)
        rotten[place] ^= 1 << place % 8
        path.write_bytes(rotten)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert internvl_bridge.verify_checksums(output).changed == (path.name,), place


@pytest.mark.parametrize("how", ["removed", "directory", "dangling link"])
def test_a_file_that_is_gone_is_told(output, how):
    path = output / "config.json"
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "dangling link":
        path.symlink_to("nowhere")
    report = internvl_bridge.verify_checksums(output)
    assert (report.missing, report.changed, report.intact) == (("config.json",), (), False)
    result = command(output)
    assert result.exit_code == 1
    assert "  missing: config.json\n" in result.stdout


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "internvl_bridge.json", "config.json"])
def test_a_small_file_that_is_written_wrongly_is_not_published(tmp_path, monkeypatch, name):
    source, output = copy_custom("qwen3-300m", tmp_path / "source"), tmp_path / "output"

    def wrong(write):
        def writing(path, value, files):
            write(path, value, files)
            if path.name == name:
                path.write_bytes(path.read_bytes().replace(b"model", b"m0del", 1))

        return writing

    for module in (conversion, small_files):
        monkeypatch.setattr(module, "write_bytes", wrong(module.write_bytes))
    monkeypatch.setattr(conversion, "write_json", wrong(conversion.write_json))
    with pytest.raises(DifferenceError, match=f"{name} is not what was to be written"):
        internvl_bridge.to_hf(source, output, max_shard_size="100KB")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["source"], ["output.partial", "source"])


def test_a_file_that_was_added_is_told_and_is_no_damage(output):
    (output / "README.md").write_text("mine")
    report = internvl_bridge.verify_checksums(output)
    assert report.unknown == ("README.md",)
    assert report.unproved == ()
    assert report.intact
    result = command(output)
    assert result.exit_code == 0
    assert result.stdout.endswith("\n  no checksum: README.md\n")


def test_everything_at_once(output):
    flip(output / "config.json")
    (output / "tokenizer.json").unlink()
    (output / "extra").touch()
    found = json.loads(command(output, "--json").stdout)["result"]
    assert (found["changed"], found["missing"], found["unknown"]) == (["config.json"], ["tokenizer.json"], ["extra"])
    assert found["intact"] is False


def test_links_are_followed(output, tmp_path):
    # as a hub cache has them
    path = output / "config.json"
    path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")
    assert internvl_bridge.verify_checksums(output).intact
    flip(tmp_path / "blob")
    assert internvl_bridge.verify_checksums(output).changed == ("config.json",)


def test_a_copy_elsewhere_is_intact(output, tmp_path, monkeypatch):
    shutil.copytree(output, tmp_path / "elsewhere" / "copy")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command("copy").exit_code == 0
    monkeypatch.chdir("copy")
    assert command(".").exit_code == 0


# Manifests that cannot be compared with


def refused(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        internvl_bridge.verify_checksums(directory)
    result = command(directory)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"Error: {caught.value}\n"
    return str(caught.value)


@pytest.mark.parametrize(
    "stated",
    [
        5,
        "text",
        [],
        {},
        {"algorithm": "xxh3_128"},
        {"files": {}},
        {"algorithm": 5, "files": {}},
        {"algorithm": "xxh3_128", "files": []},
        {"algorithm": "xxh3_128", "files": {"config.json": 5}},
        {"algorithm": "xxh3_128", "files": {"config.json": None}},
        {"algorithm": "xxh3_128", "files": {"../config.json": "00"}},
        {"algorithm": "xxh3_128", "files": {"/etc/hostname": "00"}},
        {"algorithm": "xxh3_128", "files": {"a/b": "00"}},
        {"algorithm": "xxh3_128", "files": {"a\0b": "00"}},
        {"algorithm": "xxh3_128", "files": {".": "00"}},
        {"algorithm": "xxh3_128", "files": {"..": "00"}},
        {"algorithm": "xxh3_128", "files": {"": "00"}},
    ],
)
def test_a_malformed_manifest_is_a_paragraph(output, stated):
    edit_json(output / SIDECAR, lambda values: values.update(checksums=stated))
    assert f"{output / SIDECAR} cannot be used: its checksums are not a map of file names to texts." in refused(output)


def test_a_manifest_of_another_kind_is_a_paragraph(output):
    edit_json(output / SIDECAR, lambda values: values["checksums"].update(algorithm="sha999" * 100))
    message = refused(output)
    assert "has checksums of the kind 'sha999" in message
    assert "this program knows xxh3_128" in message
    assert len(message) < 600


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00", '{"checksums": 1, "checksums": 2}', "[" * 100_000])
def test_a_sidecar_that_is_no_json_object_is_a_paragraph(output, text):
    (output / SIDECAR).write_text(text)
    assert f"{output / SIDECAR} cannot be used" in refused(output)


def test_without_a_manifest_there_is_nothing_to_compare_with(output, tmp_path):
    edit_json(output / SIDECAR, lambda values: values.pop("checksums"))
    assert "is not there, or has no checksums" in refused(output)
    (output / SIDECAR).unlink()
    assert "internvl-bridge verify LEFT RIGHT" in refused(output)
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")
    assert "config.json is a file" in refused(output / "config.json")


def test_a_name_that_no_file_system_has_is_a_missing_file(output):
    edit_json(output / SIDECAR, lambda values: values["checksums"]["files"].update({"x" * 5000: "00"}))
    result = command(output)
    assert result.exit_code == 1
    assert "missing: xxx" in result.stdout


def test_right_and_checksums_exclude_each_other(output):
    assert command(output, output).exit_code == 2
    assert CliRunner().invoke(app, ["verify", str(output)]).exit_code == 2


# What later conversions make of a manifest


def test_a_manifest_says_nothing_about_the_way_back(output, tmp_path):
    source = tmp_path / "plain"
    shutil.copytree(output, source)
    edit_json(source / SIDECAR, lambda values: values.pop("checksums"))
    internvl_bridge.to_custom(output, tmp_path / "one")
    internvl_bridge.to_custom(source, tmp_path / "two")
    assert summed(tmp_path / "one") == summed(tmp_path / "two")
    assert (tmp_path / "one" / SIDECAR).read_bytes() == (tmp_path / "two" / SIDECAR).read_bytes()


def foreign(directory: Path) -> Path:
    """An HF checkpoint that transformers wrote, without any sidecar."""
    shutil.copytree(HF, directory)
    shutil.copytree(DATA / "tokenizers" / "bpe", directory, dirs_exist_ok=True)
    assert not (directory / SIDECAR).exists()
    return directory


@pytest.mark.parametrize("kind", ["converted", "foreign"])
def test_to_repair_twice_is_to_repair_once(output, tmp_path, kind):
    source = output if kind == "converted" else foreign(tmp_path / "foreign")
    internvl_bridge.repair(source, tmp_path / "once")
    internvl_bridge.repair(tmp_path / "once", tmp_path / "twice")
    once, twice = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("once", "twice"))
    sidecars = [json.loads(files.pop(SIDECAR)) for files in (once, twice)]
    assert once == twice
    assert all(sidecar.pop("checksum") for sidecar in sidecars)
    records = [sidecar.pop("conversion") for sidecar in sidecars]  # what is repaired needs no note any more
    assert sidecars[0] == sidecars[1]
    assert len(records[0]["notes"]) >= len(records[1]["notes"])
    assert manifest(tmp_path / "twice") == summed(tmp_path / "twice")
    assert command(tmp_path / "twice").exit_code == 0


def test_a_repair_hands_on_what_the_sidecar_knows_and_its_own_checksums(output, tmp_path):
    internvl_bridge.repair(output, tmp_path / "repaired", max_shard_size="2MB")
    before, after = (json.loads((home / SIDECAR).read_bytes()) for home in (output, tmp_path / "repaired"))
    assert before.pop("checksums") != after.pop("checksums")
    assert before.pop("checksum") != after.pop("checksum")
    assert before.pop("conversion")["options"] == {"max_shard_size": "60KB"}
    assert after.pop("conversion")["options"] == {"max_shard_size": "2MB"}
    assert before == after


def test_an_output_that_has_nothing_but_a_manifest_is_converted_as_one_without(tmp_path):
    source = foreign(tmp_path / "foreign")
    internvl_bridge.repair(source, tmp_path / "repaired")
    assert json.loads((tmp_path / "repaired" / SIDECAR).read_bytes()).keys() == {*OF_EVERY_OUTPUT, "version"}
    report = internvl_bridge.to_custom(tmp_path / "repaired", tmp_path / "custom")
    assert not [note for note in report.warnings if "sidecar" in note and "left behind" in note]
    shutil.copytree(tmp_path / "repaired", tmp_path / "bare")
    (tmp_path / "bare" / SIDECAR).unlink()
    internvl_bridge.to_custom(tmp_path / "bare", tmp_path / "expected")
    assert summed(tmp_path / "custom") == summed(tmp_path / "expected")
    again = internvl_bridge.repair(tmp_path / "repaired", tmp_path / "again")
    assert not [note for note in again.warnings if "left behind" in note]


def test_a_conversion_from_a_damaged_manifest_names_it(output, tmp_path):
    # the checksums themselves are nothing that a conversion needs
    edit_json(output / SIDECAR, lambda values: values.update(checksums="gone"))
    internvl_bridge.to_custom(output, tmp_path / "custom")
    assert manifest(tmp_path / "custom") == summed(tmp_path / "custom")
