"""A source that is deleted as it is converted: nothing goes that is not in the output, and what was begun can go on."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import copy_custom, edit_json, files_of, shard
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli import confirming
from internvl_bridge.cli.app import app
from internvl_bridge.convert import consuming
from internvl_bridge.convert.disk_budget import budget_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.errors import BridgeError, CheckpointError, DifferenceError, OptionError, OutputError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage import shard_jobs
from internvl_bridge.storage.abandoned import abandoned_outputs
from internvl_bridge.storage.publishing import partial_path

SHARDS = tuple(f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return sharded(copy_custom("qwen3-300m", tmp_path / "source"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> Mapping[str, bytes]:
    internvl_bridge.to_hf(source, tmp_path / "whole")
    return files_of(tmp_path / "whole")


def sharded(directory: Path) -> Path:
    shard(directory, lambda key: 2 if not key.startswith("language_model.") else int("layers.0." in key))
    return directory


def there(source: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in source.glob("*.safetensors")))


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Converts and deletes until some files are written; then the disk is full."""

    def run(source: Path, output: Path, finished: int = 1, **options: object) -> None:
        write, written = shard_jobs.write_file, []

        def failing(path: Path, *arguments: object):
            if len(written) == finished:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            written.append(path)
            return write(path, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(shard_jobs, "write_file", failing)
            with pytest.raises(OSError, match="No space left") as caught:
                internvl_bridge.to_hf(source, output, consume=True, **options)
        assert "Do not remove that directory" in caught.value.__notes__[0]
        assert there(source) == SHARDS[finished:]

    return run


# Going on


@pytest.mark.parametrize("finished", [1, 2])
def test_the_same_command_goes_on_with_what_is_left(source, output, expected, stop, finished):
    stop(source, output, finished)
    report = internvl_bridge.to_hf(source, output, consume=True)
    assert report.consumed == SHARDS
    assert report.kept == SHARDS[:finished]
    assert there(source) == ()
    assert files_of(output) == expected
    assert not partial_path(output).exists()


def test_what_only_deleted_data_shows_is_remembered(tmp_path, output, stop):
    """Of a tied model the head is a copy of the embeddings: when both are gone, nothing else shows it."""
    source = copy_custom("qwen3-300m-tied", tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    tensors[head] = tensors[embeddings].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    shard(source, lambda key: 0 if key in {head, embeddings} else 1 + int("vision" in key))
    internvl_bridge.to_hf(source, tmp_path / "whole")
    stop(source, output)
    internvl_bridge.to_hf(source, output, consume=True)
    assert files_of(output) == files_of(tmp_path / "whole")


def test_another_command_is_told_what_was_begun(source, output, stop):
    stop(source, output)
    with pytest.raises(OutputError, match="with --consume, and this one is without") as caught:
        internvl_bridge.to_hf(source, output)
    assert "restart" not in caught.value.remedy
    with pytest.raises(OutputError, match="deleted files of its source"):
        internvl_bridge.to_hf(source, output, consume=True, max_shard_size="1GB")
    with pytest.raises(OutputError, match="only copy"):
        internvl_bridge.to_hf(source, output, consume=True, restart=True)
    [found] = abandoned_outputs(output.parent)
    assert "only copy" in found.reason_to_keep
    cleaned = CliRunner().invoke(app, ["clean", str(output.parent), "--yes"])
    assert "--consume" in cleaned.stdout
    assert internvl_bridge.to_hf(source, output, consume=True).consumed == SHARDS


def test_an_output_file_that_is_damaged_after_its_source_is_gone_is_never_published(source, output, stop):
    kept = source.with_name("kept")
    shutil.copytree(source, kept)
    stop(source, output)
    path = partial_path(output) / "files" / SHARDS[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DifferenceError, match="is not what was written") as caught:
        internvl_bridge.to_hf(source, output, consume=True)
    assert SHARDS[0] in caught.value.remedy
    assert there(source) == SHARDS[1:]
    shutil.copy2(kept / SHARDS[0], source / SHARDS[0])  # as the remedy says
    assert internvl_bridge.to_hf(source, output, consume=True).consumed == SHARDS
    assert internvl_bridge.verify(kept, output).identical


def test_a_file_that_is_left_and_was_changed_meanwhile_is_refused(source, output, stop):
    stop(source, output)
    os.utime(source / SHARDS[1])
    with pytest.raises(OutputError, match=f"{SHARDS[1]} was changed") as caught:
        internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS[1:]
    touch = re.search(r"touch [^)]*", caught.value.remedy)
    assert touch is not None
    subprocess.run(touch[0].split(), check=True, cwd=source)
    assert internvl_bridge.to_hf(source, output, consume=True).consumed == SHARDS


def test_a_file_that_was_put_back_but_is_another_one_is_refused(source, output, stop):
    stop(source, output)
    shutil.copy(source / SHARDS[1], source / SHARDS[0])
    with pytest.raises(BridgeError):
        internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS


def spoil(path: Path) -> None:
    """Change the last byte, and nothing that shows it."""
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))


def test_a_file_that_was_put_back_is_never_trusted_more_than_what_was_made_of_it(source, output, expected, stop):
    kept = Path(shutil.copytree(source, source.with_name("kept")))
    stop(source, output)
    shutil.copy(kept / SHARDS[0], source / SHARDS[0])
    spoil(source / SHARDS[0])
    with pytest.raises(CheckpointError, match="is not what it was when") as caught:
        internvl_bridge.to_hf(source, output, consume=True)
    assert f"remove {SHARDS[0]}" in caught.value.remedy
    assert there(source) == SHARDS
    (source / SHARDS[0]).unlink()
    internvl_bridge.to_hf(source, output, consume=True)
    assert files_of(output) == expected


def test_a_wrong_file_that_was_put_back_for_a_damaged_output_is_refused(source, output, stop):
    kept = Path(shutil.copytree(source, source.with_name("kept")))
    stop(source, output)
    spoil(partial_path(output) / "files" / SHARDS[0])
    shutil.copy(kept / SHARDS[0], source / SHARDS[0])
    spoil(source / SHARDS[0])
    with pytest.raises(DifferenceError, match="is not the file that was deleted"):
        internvl_bridge.to_hf(source, output, consume=True)
    shutil.copy(kept / SHARDS[0], source / SHARDS[0])  # of another time: what it holds counts
    internvl_bridge.to_hf(source, output, consume=True)
    assert internvl_bridge.verify(kept, output).identical


def renamed(partial: Path) -> None:
    (partial / "files").rename(partial / "elsewhere")


def emptied(partial: Path) -> None:
    (partial / "journal").write_bytes(b"")


def cut(partial: Path) -> None:
    journal = partial / "journal"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])


@pytest.mark.parametrize("change", [renamed, emptied, cut])
@pytest.mark.parametrize("consume", [True, False])
def test_what_is_left_is_never_removed_whatever_became_of_it(source, output, stop, change, consume):
    stop(source, output)
    partial = partial_path(output)
    change(partial)
    before = sorted(path.name for path in partial.rglob("*"))
    with pytest.raises(BridgeError):
        internvl_bridge.to_hf(source, output, consume=consume)
    assert CliRunner().invoke(app, ["clean", str(output.parent), "--yes"]).exit_code == 0
    assert sorted(path.name for path in partial.rglob("*")) == before


def test_a_kept_header_is_needed_only_while_its_file_is_gone(source, output, stop):
    kept = Path(shutil.copytree(source, source.with_name("kept")))
    stop(source, output)
    (partial_path(output) / "headers" / SHARDS[0]).write_bytes(b"")
    with pytest.raises(OutputError, match="is not what was kept"):
        internvl_bridge.to_hf(source, output, consume=True)
    shutil.copy(kept / SHARDS[0], source / SHARDS[0])
    internvl_bridge.to_hf(source, output, consume=True)
    assert internvl_bridge.verify(kept, output).identical


def test_an_output_file_that_is_missing_is_named(source, output, stop):
    stop(source, output)
    (partial_path(output) / "files" / SHARDS[0]).unlink()
    with pytest.raises(DifferenceError, match="is not what was written") as caught:
        internvl_bridge.to_hf(source, output, consume=True)
    assert f"Bring {SHARDS[0]} back" in caught.value.remedy


def test_another_model_in_the_place_of_the_source_is_told_apart(source, output, stop, tmp_path):
    stop(source, output)
    shutil.rmtree(source)
    copy_custom("qwen2-300m", source)
    with pytest.raises(OutputError, match=r"output\.partial is the unfinished output"):
        internvl_bridge.to_hf(source, output, consume=True)
    assert internvl_bridge.to_hf(source, tmp_path / "other").tensors


def test_what_was_found_about_deleted_files_is_said_at_the_end(source, output, tmp_path, monkeypatch):
    """Tensors that were trained since the source's own checksums were taken."""
    made = tmp_path / "made"
    internvl_bridge.to_hf(source, made)
    tensors = load_file(made / SHARDS[0])
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, made / SHARDS[0], metadata={"format": "pt"})
    again = Path(shutil.copytree(made, tmp_path / "again"))
    whole = internvl_bridge.to_custom(again, tmp_path / "whole")
    assert any("trained since" in warning for warning in whole.warnings)
    write, written = shard_jobs.write_file, []

    def failing(path: Path, *arguments: object):
        if written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        return write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(OSError, match="No space"):
            internvl_bridge.to_custom(made, output, consume=True)
    report = internvl_bridge.to_custom(made, output, consume=True)
    assert report.warnings == whole.warnings
    assert files_of(output) == files_of(tmp_path / "whole")


def test_a_file_that_cannot_be_deleted_is_not_called_deleted(source, output, monkeypatch):
    def failing(_directory, name, _stamp):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)

    monkeypatch.setattr(consuming, "_unlink", failing)
    with pytest.raises(PermissionError) as caught:
        internvl_bridge.to_hf(source, output, consume=True)
    assert "deleted" not in "".join(caught.value.__notes__)
    monkeypatch.undo()
    internvl_bridge.to_hf(source, output, restart=True)
    assert there(source) == SHARDS


def test_a_file_that_is_gone_is_called_deleted_whatever_fails_next(source, output, expected, monkeypatch):
    real = consuming.sync_directory

    def failing(directory: Path) -> None:
        if directory == source and there(source) != SHARDS:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(directory))
        real(directory)

    with monkeypatch.context() as patch:
        patch.setattr(consuming, "sync_directory", failing)
        with pytest.raises(OSError, match="Input/output") as caught:
            internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS[1:]
    assert "Do not remove that directory" in caught.value.__notes__[0]
    assert internvl_bridge.to_hf(source, output, consume=True).consumed == SHARDS
    assert files_of(output) == expected


def test_a_second_name_that_comes_meanwhile_keeps_the_file(source, output, monkeypatch):
    real = consuming.Consuming._write_down

    def linking(self, path, *arguments):
        real(self, path, *arguments)
        os.link(path, path.with_name("second"))

    monkeypatch.setattr(consuming.Consuming, "_write_down", linking)
    with pytest.raises(CheckpointError, match="was changed while"):
        internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS


def test_a_base_that_changes_does_not_take_what_is_deleted_along(source, output, tmp_path, monkeypatch):
    base = Path(shutil.copytree(source, tmp_path / "base"))
    index = source / "model.safetensors.index.json"
    (source / SHARDS[2]).unlink()
    edit_json(
        index,
        lambda values: [values["weight_map"].pop(k) for k, n in [*values["weight_map"].items()] if n == SHARDS[2]],
    )
    real = consuming.Consuming._delete

    def changing(self, path):
        real(self, path)
        os.utime(base / SHARDS[2], ns=(1, 1))

    monkeypatch.setattr(consuming.Consuming, "_delete", changing)
    with pytest.raises(CheckpointError, match="was changed while"):
        internvl_bridge.to_hf(source, output, fill_from=base, consume=True)
    monkeypatch.undo()
    assert there(source) == ()
    assert internvl_bridge.to_hf(source, output, fill_from=base, consume=True).consumed == SHARDS[:2]


def test_a_source_file_that_two_output_files_need_is_deleted_after_both(source, output, tmp_path):
    kept = Path(shutil.copytree(source, tmp_path / "kept"))
    largest = max((source / name).stat().st_size for name in SHARDS)
    report = internvl_bridge.to_hf(source, output, consume=True, max_shard_size=largest // 2)
    assert report.consumed == SHARDS
    assert internvl_bridge.verify(kept, output).identical


# What is not deleted


def test_a_source_that_changes_is_not_deleted(source, output, monkeypatch):
    write = shard_jobs.write_file

    def changing(path: Path, *arguments: object):
        written = write(path, *arguments)
        with (source / path.name).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        return written

    monkeypatch.setattr(shard_jobs, "write_file", changing)
    with pytest.raises(BridgeError):
        internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS


def test_an_output_that_changes_keeps_its_source(source, output, monkeypatch):
    real = shard_jobs.check

    def meddling(job, *arguments, **options):
        found = real(job, *arguments, **options)
        os.utime(job.path)
        return found

    monkeypatch.setattr(shard_jobs, "check", meddling)
    with pytest.raises(OutputError, match="was changed by somebody else"):
        internvl_bridge.to_hf(source, output, consume=True)
    assert there(source) == SHARDS


def test_a_file_that_is_damaged_by_its_own_checksums_is_not_deleted(source, output, tmp_path):
    made = tmp_path / "made"
    internvl_bridge.to_hf(source, made)
    path = made / SHARDS[1]
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    with pytest.raises(CheckpointError, match="damaged"):
        internvl_bridge.to_custom(made, output, consume=True)
    assert SHARDS[1] in there(made)
    internvl_bridge.to_custom(made, output, consume=True, accept=["checksums"])
    assert there(made) == ()


def test_split_tensors_are_compared_with_the_record_before_they_are_gone(source, output, tmp_path):
    made = tmp_path / "made"
    internvl_bridge.to_hf(source, made)
    report = internvl_bridge.to_custom(made, output, consume=True)
    assert not any("not compared" in note for note in report.notes)
    assert internvl_bridge.verify(source, output).identical


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"verify": False}, "read back"),
        ({"link": "hard"}, "--link"),
        ({"overwrite": True}, "--overwrite"),
        ({"reference": "source"}, "--reference"),
        ({"tokenizer": "source/inner"}, "--tokenizer"),
        ({"fill_from": "source"}, "--fill-from"),
    ],
)
def test_options_that_would_lose_something_are_refused(source, output, tmp_path, options, match):
    (source / "inner").mkdir()
    options = {
        name: tmp_path / value if isinstance(value, str) and name != "link" else value
        for name, value in options.items()
    }
    with pytest.raises(OptionError, match=match):
        internvl_bridge.to_hf(source, output, consume=True, **options)
    assert there(source) == SHARDS


def linked_file(source: Path) -> Path:
    path = source / SHARDS[0]
    path.rename(source.with_name("elsewhere"))
    path.symlink_to(source.with_name("elsewhere"))
    return source


def second_name(source: Path) -> Path:
    os.link(source / SHARDS[0], source.with_name("second"))
    return source


def linked_directory(source: Path) -> Path:
    source.with_name("link").symlink_to(source)
    return source.with_name("link")


def twice(source: Path) -> Path:
    key, tensor = next(iter(load_file(source / SHARDS[0]).items()))
    save_file({**load_file(source / SHARDS[1]), key: tensor}, source / SHARDS[1], metadata={"format": "pt"})
    return source


def unused(source: Path) -> Path:
    """A tensor that belongs to the model's own code, and that no output has."""
    key = "language_model.model.rotary_emb.inv_freq"
    path = source / SHARDS[0]
    save_file({**load_file(path), key: torch.ones(4)}, path, metadata={"format": "pt"})
    edit_json(source / "model.safetensors.index.json", lambda index: index["weight_map"].update({key: SHARDS[0]}))
    return source


def dump(source: Path) -> Path:
    tensors = {}
    for name in SHARDS:
        tensors |= load_file(source / name)
        (source / name).unlink()
    (source / "model.safetensors.index.json").unlink()
    torch.save(tensors, source / "pytorch_model.bin")
    return source


def adapter(source: Path) -> Path:
    for name in (*SHARDS, "model.safetensors.index.json", "config.json"):
        (source / name).unlink()
    (source / "adapter_config.json").write_text("{}")
    return source


@pytest.mark.parametrize("change", [adapter, unused, linked_file, second_name, linked_directory, twice, dump])
def test_what_would_free_nothing_or_lose_something_is_refused(source, output, change):
    place = change(source)
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(BridgeError) as caught:
        internvl_bridge.to_hf(place, output, consume=True)
    assert "consume" in str(caught.value.remedy) + str(caught.value.reason)
    assert sorted(path.name for path in source.iterdir()) == before
    assert not output.exists()


def without_last(index: dict) -> None:
    index["weight_map"] = {key: name for key, name in index["weight_map"].items() if name != SHARDS[2]}


def test_files_of_a_base_are_never_deleted(source, output, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(source, base)
    (source / SHARDS[2]).unlink()
    index = source / "model.safetensors.index.json"
    edit_json(
        index,
        lambda values: [values["weight_map"].pop(k) for k, n in [*values["weight_map"].items()] if n == SHARDS[2]],
    )
    report = internvl_bridge.to_hf(source, output, fill_from=base, consume=True)
    assert report.consumed == SHARDS[:2]
    assert there(base) == SHARDS


# What is asked, and what is said


def test_the_room_is_that_of_the_largest_file(source, output):
    sizes = [(source / name).stat().st_size for name in SHARDS]
    plans = [
        prepare(source, output, (Format.CUSTOM, Format.HF), Options(), Execution(consume=consume))
        for consume in (True, False)
    ]
    consuming, usual = (budget_of(plan).room for plan in plans)
    assert usual - consuming == pytest.approx(sum(sizes) - max(sizes), abs=40_000)  # headers are kept
    assert budget_of(plans[0]).consumed == sum(sizes)


def test_without_a_terminal_yes_is_needed(source, output):
    run = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--consume"])
    assert run.exit_code == 2
    assert "--yes" in run.stderr
    assert there(source) == SHARDS
    planned = CliRunner().invoke(app, ["plan", str(source), str(output), "--consume"])
    assert "Would delete" in planned.stdout
    done = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--consume", "--yes"])
    assert done.exit_code == 0
    assert "Deleted: 3 file(s) of weights" in " ".join(done.stdout.split())
    again = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--consume", "--yes"])
    assert again.exit_code == 2
    assert "verify --checksums" in again.stderr


@pytest.mark.parametrize("answer", ["n", "y"])
def test_on_a_terminal_it_is_asked(source, output, monkeypatch, answer):
    monkeypatch.setattr(confirming, "has_terminal", lambda: True)
    run = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--consume"], input=f"{answer}\n")
    assert "Go on?" in run.stderr
    assert there(source) == (SHARDS if answer == "n" else ())
    assert run.exit_code == (2 if answer == "n" else 0)
