"""Pickled weights are located bit for bit without being loaded, and nothing in them is run."""

import io
import json
import os
import subprocess
import sys
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from internvl_bridge.checkpoint.dumps import archive as archive_module
from internvl_bridge.checkpoint.dumps.archive import find_tensor, read_archive
from internvl_bridge.checkpoint.dumps.detection import (
    PICKLED_FILE,
    PICKLED_INDEX,
    has_distributed_weights,
    has_pickled_weights,
)
from internvl_bridge.checkpoint.dumps.pickled import open_pickled
from internvl_bridge.checkpoint.opened_weights import OpenedWeights
from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.reading import FileReader

FIRST, SECOND = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"


def anything(_: Collection[str]) -> bool:
    return True


def save(directory: Path, content: Any, name: str = PICKLED_FILE, **options: Any) -> Path:
    torch.save(content, directory / name, **options)
    return directory / name


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def data_of(dump: OpenedWeights) -> dict[str, bytes]:
    return {
        key: tensor.data.path.read_bytes()[tensor.data.offset :][: tensor.data.length]
        for key, tensor in dump.checkpoint.tensors.items()
    }


def refusal(directory: Path, *, of: str = PICKLED_FILE) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_pickled(directory, anything)
    message = str(caught.value)
    assert str(directory / of) in message
    assert caught.value.remedy.endswith(".")
    assert "\n" not in message
    assert "weights_only" not in message
    return message


def repack(
    path: Path,
    change: Callable[[dict[str, bytes]], Mapping[str, bytes]] = dict,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Pack the archive again with Python's zipfile, with what ``change`` makes of its records."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in change(records).items():
            archive.writestr(name, data)


def patch(path: Path, old: bytes, new: bytes, count: int = 1) -> None:
    raw = path.read_bytes()
    assert raw.count(old) >= 1
    assert len(old) == len(new)
    path.write_bytes(raw.replace(old, new, count))


# What is found


def example() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    big = torch.randn(6, 5, generator=generator)
    return {
        "z": torch.randn(3, 4, generator=generator).to(torch.bfloat16),
        "view": big[2:4],
        "row": big[5],
        "big": big,
        "parameter": torch.nn.Parameter(torch.randn(2, 2, 3, generator=generator)),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.empty(0, 4, dtype=torch.float16),
        "empty.view": big[3:3],
        "a": torch.arange(9, dtype=torch.int64),
    }


def test_the_bytes_of_every_tensor_are_found(tmp_path):
    tensors = example()
    path = save(tmp_path, tensors)
    dump = open_pickled(tmp_path, anything)
    assert data_of(dump) == {key: bits(tensor) for key, tensor in tensors.items()}
    stored = dump.checkpoint.tensors
    assert {key: tensor.shape for key, tensor in stored.items()} == {k: tuple(t.shape) for k, t in tensors.items()}
    assert {key: TORCH_DTYPES[tensor.dtype] for key, tensor in stored.items()} == {
        key: tensor.dtype for key, tensor in tensors.items()
    }
    offsets = [tensor.data.offset for tensor in stored.values()]
    assert offsets == sorted(offsets)
    assert next(iter(stored)) == "z"
    assert dump.checkpoint.directory == tmp_path
    assert [(shard.path, shard.metadata) for shard in dump.checkpoint.shards] == [(path, {})]
    assert dump.checkpoint.index_metadata == {}
    assert dump.assembly is None
    assert dump.left_out == ()


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_every_dtype_that_safetensors_has_is_found(tmp_path, name):
    raw = torch.arange(1, 33, dtype=torch.uint8)
    tensor = (raw % 2).bool() if name == "BOOL" else raw.view(TORCH_DTYPES[name])
    save(tmp_path, {"x": tensor})
    [stored] = open_pickled(tmp_path, anything).checkpoint.tensors.values()
    assert (stored.dtype, stored.shape) == (name, tuple(tensor.shape))
    assert data_of(open_pickled(tmp_path, anything)) == {"x": bits(tensor)}


def test_tied_weights_have_one_range(tmp_path):
    tied = torch.arange(6.0)
    save(tmp_path, {"head": tied, "between": torch.ones(3), "embedding": tied})
    stored = open_pickled(tmp_path, anything).checkpoint.tensors
    assert stored["head"] == stored["embedding"]
    assert list(stored) == ["head", "embedding", "between"]


def test_many_storages_keep_their_numbers(tmp_path):
    tensors = {f"t.{number}": torch.full((1 + number % 3,), float(number)) for number in range(120)}
    save(tmp_path, tensors)
    assert data_of(open_pickled(tmp_path, anything)) == {key: bits(tensor) for key, tensor in tensors.items()}


def test_a_model_that_was_saved_from_a_gpu_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
    save(tmp_path, {"x": torch.arange(5.0)})
    assert data_of(open_pickled(tmp_path, anything)) == {"x": bits(torch.arange(5.0))}


def test_files_that_torch_wrote_without_checksums_are_found(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save(tmp_path, example())
    finally:
        torch.serialization.set_crc32_options(True)
    assert data_of(open_pickled(tmp_path, anything)) == {key: bits(tensor) for key, tensor in example().items()}


def test_files_of_an_older_torch_are_found(tmp_path):
    """Before torch 2.6 there was no .format_version, and storages stood in the order of their names as text."""

    def older(records: dict[str, bytes]) -> dict[str, bytes]:
        new = ("/.format_version", "/.storage_alignment", "/byteorder")
        kept = {name: data for name, data in records.items() if not name.endswith(new)}
        return dict(sorted(kept.items(), key=lambda item: ("/data/" in item[0], item[0])))

    tensors = {f"t.{number}": torch.full((4,), float(number)) for number in range(12)}
    repack(save(tmp_path, tensors), older)
    dump = open_pickled(tmp_path, anything)
    assert data_of(dump) == {key: bits(tensor) for key, tensor in tensors.items()}
    assert list(dump.checkpoint.tensors)[:4] == ["t.0", "t.1", "t.10", "t.11"]


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_a_nested_state_dict_is_found_and_its_neighbours_are_named(tmp_path, wrapper):
    tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
    optimizer = {"state": {0: {"exp_avg": torch.ones(7)}}, "lr": 0.1}
    save(tmp_path, {"epoch": 3, wrapper: tensors, "optimizer": optimizer, "ema": torch.ones(1)})
    dump = open_pickled(tmp_path, anything)
    assert data_of(dump) == {key: bits(tensor) for key, tensor in tensors.items()}
    assert dump.left_out == ("epoch", "optimizer", "ema")


def test_other_files_of_a_trainer_are_no_weights(tmp_path):
    save(tmp_path, {"x": torch.ones(2)})
    for name in ("training_args.bin", "optimizer.bin", "scheduler.bin"):
        (tmp_path / name).write_bytes(b"whatever")
    assert list(open_pickled(tmp_path, anything).checkpoint.tensors) == ["x"]


def test_no_tensor_data_is_read(tmp_path, monkeypatch):
    size = 64 << 20
    path = save(tmp_path, {"x": torch.empty(0), "large": torch.zeros(size, dtype=torch.uint8), "y": torch.ones(2)})
    start = open_pickled(tmp_path, anything).checkpoint.tensors["large"].data.offset
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read.append((at, n)) or pread(fd, n, at))
    tracemalloc.start()
    open_pickled(tmp_path, anything)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(length for _, length in read) < 20_000
    assert not [at for at, length in read if at < start + size - 8192 and at + length > start + 1000]
    assert peak < 4 << 20
    assert path.stat().st_size > size


def test_nothing_warns_and_detection_needs_no_torch(tmp_path):
    assert not has_pickled_weights(tmp_path)
    assert not has_distributed_weights(tmp_path)
    save(tmp_path, {"x": torch.ones(2)})
    assert has_pickled_weights(tmp_path)
    assert not has_distributed_weights(tmp_path)
    code = """if True:
        import sys, pathlib
        from internvl_bridge.checkpoint.dumps import detection
        assert detection.has_pickled_weights(pathlib.Path(sys.argv[1]))
        assert "torch" not in sys.modules
        from internvl_bridge.checkpoint.dumps.pickled import open_pickled
        print(list(open_pickled(pathlib.Path(sys.argv[1]), all).checkpoint.tensors))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("['x']\n", "")


# Nothing is run


class Evil:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self._reduced


@pytest.mark.parametrize("function", [os.mkdir, io.open, exec, Path, getattr])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, function):
    victim = tmp_path / "victim"
    arguments = {
        os.mkdir: (str(victim),),
        io.open: (str(victim), "w"),
        exec: (f"open({str(victim)!r}, 'w')",),
        Path: (str(victim),),
        getattr: (victim, "touch"),
    }[function]
    path = save(tmp_path, {"x": torch.ones(2), "evil": Evil(function, *arguments)})
    before = torch.load
    message = refusal(tmp_path)
    assert not victim.exists()
    assert message.startswith(f"{path} holds more than tensors: it needs '")
    assert function.__name__ in message.split("needs ")[1].split(". ")[0] or function is Path
    assert "torch.save(model.state_dict(), ...)" in message
    assert torch.load is before


def test_torch_may_be_told_to_trust_everything_and_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    victim = tmp_path / "victim"
    save(tmp_path, {"x": torch.ones(2), "evil": Evil(os.mkdir, str(victim))})
    assert "mkdir" in refusal(tmp_path)
    assert not victim.exists()


# What is no file of torch.save


def test_a_legacy_file_is_refused(tmp_path):
    save(tmp_path, {"x": torch.ones(2)}, _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(tmp_path)
    assert "save it again" in refusal(tmp_path)


def test_a_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / PICKLED_FILE, "w") as archive:
        archive.addfile(tarfile.TarInfo("sys_info"))
    assert "before 1.6" in refusal(tmp_path)


def test_torchscript_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: TorchScript is deprecated
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / PICKLED_FILE))
    assert "TorchScript" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04", "its zip directory cannot be read"),
        (b"\x93NUMPY" * 200, "it is not a zip archive"),
        (b"<!DOCTYPE html>", "it is not a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
        (bytes(range(256)) * 40, "it is not a zip archive"),
    ],
)
def test_other_bytes_are_refused(tmp_path, raw, reason):
    (tmp_path / PICKLED_FILE).write_bytes(raw)
    assert reason in refusal(tmp_path)


def test_every_truncation_is_refused(tmp_path):
    raw = save(tmp_path, {"x": torch.ones(2)}).read_bytes()
    for length in {*range(0, len(raw), 37), len(raw) - 1}:
        (tmp_path / PICKLED_FILE).write_bytes(raw[:length])
        refusal(tmp_path)


def test_another_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / PICKLED_FILE, "w") as archive:
        archive.writestr("folder/readme", "hello")
    assert "it has no data.pkl" in refusal(tmp_path)
    with zipfile.ZipFile(tmp_path / PICKLED_FILE, "w") as archive:
        archive.writestr("folder/data.pkl", b"\x80\x02}.")
        archive.writestr("other/data/0", b"")
    assert "not in one folder" in refusal(tmp_path)


def test_a_compressed_file_is_refused(tmp_path):
    repack(save(tmp_path, {"x": torch.ones(2)}), compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(tmp_path)


def test_a_file_that_was_packed_again_without_padding_is_refused_or_found_but_not_misread(tmp_path):
    """Since 2.8 or so, torch computes offsets as if the padding were there."""
    tensors = {"x": torch.ones(2), "y": torch.zeros(3)}
    repack(save(tmp_path, tensors))
    try:
        dump = open_pickled(tmp_path, anything)
    except CheckpointError as error:
        assert "is not one of its records" in str(error)  # noqa: PT017
    else:
        assert data_of(dump) == {key: bits(tensor) for key, tensor in tensors.items()}


def swapped(records: dict[str, bytes]) -> dict[str, bytes]:
    """Storages 1 and 2 in each other's place."""
    place = {"1": "2", "2": "1"}
    order = sorted(records, key=lambda name: ("/data/" in name, place.get(name[-1], name[-1])))
    return {name: records[name] for name in order}


def test_a_file_that_was_packed_again_in_another_order_is_not_misread(tmp_path):
    """torch computes offsets from the order: where sizes agree, it would take one storage for another."""
    path = save(tmp_path, {"x": torch.zeros(4), "y": torch.ones(4), "z": torch.full((4,), 2.0)})
    raw = path.read_bytes()
    one, two = bits(torch.ones(4)), bits(torch.full((4,), 2.0))
    assert raw.count(one) == raw.count(two) == 1
    # what a packer does that keeps torch's padding: the names (of equal length) of two records change places
    path.write_bytes(
        raw.replace(b"/data/1", b"/data/#").replace(b"/data/2", b"/data/1").replace(b"/data/#", b"/data/2")
    )
    assert "another order" in refusal(tmp_path)
    repack(path, swapped)
    refusal(tmp_path)


def test_a_big_endian_file_is_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(2)})
    repack(path, lambda records: {k: b"big" if k.endswith("byteorder") else v for k, v in records.items()})
    assert "little-endian" in refusal(tmp_path)


def test_a_storage_that_is_larger_or_smaller_than_its_record_is_refused(tmp_path):
    for size in (15, 17, 0):
        path = save(tmp_path, {"x": torch.ones(4)})
        repack(
            path, lambda records, n=size: {k: v.ljust(n, b"x")[:n] if "/data/" in k else v for k, v in records.items()}
        )
        assert "the storage of x is not one of its records" in refusal(tmp_path)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    """On the meta device torch enlarges the storage instead of complaining."""
    path = save(tmp_path, {"x": torch.ones(4)}, pickle_protocol=2)
    for old, new in [
        (b"K\x04\x85", b"K\x05\x85"),
        (b"K\x04\x85", b"K\x10\x85"),
        (b"K\x00K\x04\x85", b"K\x01K\x04\x85"),
    ]:
        raw = path.read_bytes()
        path.write_bytes(raw)
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(archive.namelist()[0])
        assert pickled.count(old) == 1
        changed = pickled.replace(old, new)
        broken = raw.replace(pickled, changed)
        for crc in (zipfile.crc32(pickled).to_bytes(4, "little"),):
            broken = broken.replace(crc, zipfile.crc32(changed).to_bytes(4, "little"))
        path.write_bytes(broken)
        assert "x is not one of its records" in refusal(tmp_path) or "x reaches beyond" in refusal(tmp_path)
        path.write_bytes(raw)


def test_a_pickle_with_another_checksum_is_refused(tmp_path):
    path = save(tmp_path, {"some.name": torch.ones(2)})
    patch(path, b"some.name", b"some.game")
    assert "does not have the checksum" in refusal(tmp_path)


def test_records_that_overlap_or_lie_elsewhere_are_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(2), "y": torch.zeros(2)})
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        x, y = (info for info in archive.infolist() if "/data/" in info.filename and "serial" not in info.filename)
        directory = archive.start_dir

    def with_directory(old: int, new: int, width: int = 4) -> None:
        head, tail = raw[:directory], raw[directory:]
        entry = tail.index(y.filename.encode()) - 46
        at = entry + {x.header_offset: 42, y.header_offset: 42, y.file_size: 20}.get(old, 42)
        assert int.from_bytes(tail[at : at + width], "little") == old
        path.write_bytes(head + tail[:at] + new.to_bytes(width, "little") + tail[at + width :])

    with_directory(y.header_offset, x.header_offset)
    refusal(tmp_path)
    with_directory(y.header_offset, y.header_offset + 1)
    assert "does not fill its place" in refusal(tmp_path)
    with_directory(y.header_offset, len(raw) * 2)
    refusal(tmp_path)
    # both sizes of the second storage, so large that it would contain the directory
    head, tail = raw[:directory], raw[directory:]
    entry = tail.index(y.filename.encode()) - 46
    size = (100_000).to_bytes(4, "little") * 2
    path.write_bytes(head + tail[: entry + 20] + size + tail[entry + 28 :])
    assert "does not fill its place" in refusal(tmp_path)


def data_record(path: Path, number: int) -> zipfile.ZipInfo:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"{PICKLED_FILE.removesuffix('.bin')}/data/{number}")


def overwrite(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
        file.write(data)


@pytest.mark.parametrize("packer", ["torch", "zipfile"])
@pytest.mark.parametrize("more", [1, 4, 16, -1])
def test_a_header_that_moves_the_data_is_refused(tmp_path, packer, more):
    """Behind the name of a record come padding, the length of which the header has, and its data."""
    path = save(tmp_path, {"x": torch.ones(8), "y": torch.zeros(8)})
    if packer == "zipfile":
        repack(path, lambda records: {k: v for k, v in records.items() if not k.endswith(".format_version")})
        assert len(open_pickled(tmp_path, anything).checkpoint.tensors) == 2
    header = data_record(path, 1).header_offset
    field = 28 if packer == "torch" else 26  # zipfile writes no padding: make the name longer
    length = int.from_bytes(path.read_bytes()[header + field :][:2], "little")
    overwrite(path, header + field, (length + more).to_bytes(2, "little"))
    assert "does not fill its place" in refusal(tmp_path)


def test_a_record_without_a_header_is_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(8), "y": torch.zeros(8)})
    overwrite(path, data_record(path, 1).header_offset, b"XX")
    assert "does not fill its place" in refusal(tmp_path)


def test_an_encrypted_record_is_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(8), "y": torch.zeros(8)})
    record = data_record(path, 1)
    entry = path.read_bytes().rindex(record.filename.encode()) - 46
    overwrite(path, entry + 8, (record.flag_bits | 1).to_bytes(2, "little"))
    assert "does not fill its place" in refusal(tmp_path)


def test_a_directory_at_another_place_than_it_says_is_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(8)})
    field = path.read_bytes().rindex(b"PK\x06\x06") + 48
    place = int.from_bytes(path.read_bytes()[field : field + 8], "little")
    for move in (-64, 64, 1 << 40):
        overwrite(path, field, (place + move).to_bytes(8, "little"))
        refusal(tmp_path)


def test_a_gigantic_directory_is_refused_unread(tmp_path, monkeypatch):
    path, size = tmp_path / PICKLED_FILE, 150_000_000
    end = b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + size.to_bytes(4, "little") + bytes(6)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(size)
        file.seek(size)
        file.write(end)
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: read.append(n) or pread(fd, n, at))
    assert "150000000 bytes of directory are too many" in refusal(tmp_path)
    assert sum(read) < 200_000


def test_a_pickle_of_another_protocol_is_found_without_a_warning(tmp_path):
    save(tmp_path, {"x": torch.ones(3)}, pickle_protocol=3)
    assert data_of(open_pickled(tmp_path, anything)) == {"x": bits(torch.ones(3))}


def test_a_pickle_that_torch_does_not_understand_is_refused_in_a_line(tmp_path):
    path = save(tmp_path, {"x": torch.ones(3)}, pickle_protocol=4)
    message = refusal(tmp_path)
    assert message.startswith(f"{path} cannot be read as tensors only: 'Unsupported operand 149'. Save tensors only")


def test_a_tensor_of_another_class_is_refused(tmp_path):
    save(tmp_path, {"x": torch.ones(3)})
    byte_range = ByteRange(tmp_path / PICKLED_FILE, 0, (tmp_path / PICKLED_FILE).stat().st_size)
    with FileReader() as files:
        archive = read_archive(byte_range, files, FakeTensorMode())
    with pytest.raises(CheckpointError, match=r"^x in .* is not a plain dense tensor"):
        find_tensor(archive, "x", torch.ones(3), 0)


def test_two_records_of_one_name_are_refused(tmp_path):
    path = save(tmp_path, {"x": torch.ones(2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{PICKLED_FILE.removesuffix('.bin')}/DATA.pkl", b"")
    assert "two of its records have one name" in refusal(tmp_path)


def test_a_gigantic_pickle_is_refused(tmp_path, monkeypatch):
    save(tmp_path, {"x" * 900: torch.ones(2)})
    monkeypatch.setattr(archive_module, "_LARGEST_READ", 900)
    assert "zip directory" in refusal(tmp_path) or "data.pkl has more than" in refusal(tmp_path)


# What is no state dict of plain tensors


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([torch.ones(2)], "holds a value of type list instead of a state dict"),
        (torch.ones(2), "holds a tensor instead of a state dict"),
        ({}, "holds no tensors"),
        ({"model": {}}, "holds no tensors"),
        ({"x": torch.ones(2), "epoch": 3}, "holds a value of type int at 'epoch'"),
        ({"x": torch.ones(2), 5: torch.ones(2)}, "holds a tensor at 5"),
        ({"x": {"y": 2}}, "holds a value of type dict at 'x'"),
        ({"model": {"x": torch.ones(2), "deep": [1]}}, "holds a value of type list at 'deep'"),
        (
            {"model": {"x": torch.ones(1)}, "state_dict": {"x": torch.ones(1)}},
            "holds 2 models with the same keys: model, state_dict",
        ),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, reason):
    save(tmp_path, content)
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.ones(2, 3).t(), "Call .contiguous()"),
        (torch.ones(4)[::2], "Call .contiguous()"),
        (torch.ones(1).expand(4), "Call .contiguous()"),
        (torch.view_as_complex(torch.ones(2, 2)).conj(), "Call .contiguous()"),
        (torch._neg_view(torch.ones(3)), "Call .contiguous()"),
        (torch.ones(2, dtype=torch.complex128), "torch.complex128"),
        (torch.empty(2, dtype=torch.float4_e2m1fn_x2) if hasattr(torch, "float4_e2m1fn_x2") else None, "float4"),
        (torch.ones(3, 3).to_sparse(), "not a plain dense tensor"),
        (torch.empty(3, device="meta"), "saved without data"),
    ],
)
def test_a_tensor_that_is_not_stored_plainly_is_refused_by_name(tmp_path, tensor, reason):
    if tensor is None:
        pytest.skip("this torch has no such dtype")
    save(tmp_path, {"fine": torch.ones(2), "some.weight": tensor})
    message = refusal(tmp_path)
    if not tensor.is_sparse or "torch cannot read it" not in message:  # torch 2.7 cannot read sparse tensors this way
        assert message.startswith("some.weight in ")
        assert reason in message


def test_a_quantized_tensor_is_refused_by_name(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: quantized tensors are deprecated
        tensor = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
        save(tmp_path, {"some.weight": tensor})
    refusal(tmp_path)


# Shards


def sharded(directory: Path, weight_map: Any, **more: Any) -> Path:
    save(directory, {"a": torch.ones(2), "b": torch.zeros(3)}, FIRST)
    save(directory, {"c": torch.full((2, 2), 2.0)}, SECOND)
    (directory / PICKLED_INDEX).write_text(json.dumps({"metadata": {"n": 1}, "weight_map": weight_map, **more}))
    return directory


def test_shards_are_found_one_after_the_other(tmp_path):
    sharded(tmp_path, {"c": SECOND, "b": FIRST, "a": FIRST})
    dump = open_pickled(tmp_path, anything)
    assert [(key, tensor.shard) for key, tensor in dump.checkpoint.tensors.items()] == [("a", 0), ("b", 0), ("c", 1)]
    assert data_of(dump) == {"a": bits(torch.ones(2)), "b": bits(torch.zeros(3)), "c": bits(torch.full((2, 2), 2.0))}
    assert [shard.path.name for shard in dump.checkpoint.shards] == [FIRST, SECOND]
    assert dump.checkpoint.index_metadata == {"n": 1}


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": FIRST, "b": SECOND, "c": SECOND}, f"places b in {SECOND}, but it is in {FIRST}"),
        ({"a": FIRST, "c": SECOND}, f"places b in no file, but it is in {FIRST}"),
        ({"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND}, f"places d in {SECOND}, but it is in no file"),
        ({"a": FIRST, "b": FIRST, "c": "pytorch_model-3.bin"}, "names pytorch_model-3.bin, which is not there"),
        ({"a": f"../{FIRST}"}, "not a .bin file beside it"),
        ({"a": "/etc/x.bin"}, "not a .bin file beside it"),
        ({"a": "x\0.bin"}, "not a .bin file beside it"),
        ({"a": "model.safetensors"}, "not a .bin file beside it"),
        ({"a": 3}, "not a .bin file beside it"),
        ({}, "'weight_map' object that is not empty"),
        ([], "'weight_map' object that is not empty"),
    ],
)
def test_an_index_that_contradicts_the_shards_is_refused(tmp_path, weight_map, reason):
    assert reason in refusal(sharded(tmp_path, weight_map), of=PICKLED_INDEX)


def test_an_odd_index_is_refused(tmp_path):
    sharded(tmp_path, {"a": FIRST}, metadata=3)
    assert "'metadata' is not an object" in refusal(tmp_path, of=PICKLED_INDEX)
    (tmp_path / PICKLED_INDEX).write_text("{")
    assert "not JSON" in refusal(tmp_path, of=PICKLED_INDEX)
    with (tmp_path / PICKLED_INDEX).open("wb") as file:
        file.truncate(100_000_001)
    assert "100000000 bytes" in refusal(tmp_path, of=PICKLED_INDEX)


def test_a_key_in_two_shards_is_refused(tmp_path):
    sharded(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    save(tmp_path, {"c": torch.ones(1), "a": torch.ones(1)}, SECOND)
    message = refusal(tmp_path, of=SECOND)
    assert message.startswith(f"a is both in {tmp_path / FIRST} and in {tmp_path / SECOND}")


def test_stale_files_are_refused(tmp_path):
    sharded(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    save(tmp_path, {"c": torch.ones(1)}, "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"holds pytorch_model.bin, which does not belong"):
        open_pickled(tmp_path, anything)
    (tmp_path / PICKLED_INDEX).unlink()
    with pytest.raises(CheckpointError, match=f"holds {FIRST}, {SECOND}, which does not belong"):
        open_pickled(tmp_path, anything)


def test_a_directory_without_a_file_to_start_from_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds neither pytorch_model.bin nor"):
        open_pickled(tmp_path, anything)
    with pytest.raises(CheckpointError, match="is not a directory"):
        open_pickled(tmp_path / "nowhere", anything)
    save(tmp_path, {"c": torch.ones(1)}, FIRST)
    assert has_pickled_weights(tmp_path)
    with pytest.raises(CheckpointError, match=f"holds {FIRST}, but neither .* restore the index"):
        open_pickled(tmp_path, anything)


# Damage


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, OpenedWeights]:
    directory = tmp_path_factory.mktemp("small")
    tied = torch.arange(6.0).reshape(2, 3)
    raw = save(directory, {"a": tied, "b": tied[1], "c.d": torch.ones(5, dtype=torch.bfloat16)}).read_bytes()
    return directory, raw, open_pickled(directory, anything)


@given(st.data())
def test_damaged_bytes_are_refused_or_found_within_the_file(small, data):
    directory, raw, undamaged = small
    positions = st.integers(0, len(raw) - 1)
    flips = data.draw(st.lists(st.tuples(positions, st.integers(1, 255)), max_size=4))
    length = data.draw(st.one_of(st.just(len(raw)), positions))
    damaged = bytearray(raw)
    for position, change in flips:
        damaged[position] ^= change
    (directory / PICKLED_FILE).write_bytes(damaged[:length])
    try:
        dump = open_pickled(directory, anything)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    for tensor in dump.checkpoint.tensors.values():
        assert 0 <= tensor.data.offset <= tensor.data.offset + tensor.data.length <= length
    if dump.checkpoint.tensors != undamaged.checkpoint.tensors:
        assert flips


def found(dump):
    """All that was found, but for the time when the file was written."""
    return dump.checkpoint.tensors, dump.checkpoint.index_metadata, dump.assembly, dump.left_out, dump.container


def test_damage_in_the_data_changes_nothing_that_is_found(small):
    directory, raw, undamaged = small
    for tensor in undamaged.checkpoint.tensors.values():
        for position in range(tensor.data.offset, tensor.data.offset + tensor.data.length):
            damaged = bytearray(raw)
            damaged[position] ^= 0xFF
            (directory / PICKLED_FILE).write_bytes(damaged)
            assert found(open_pickled(directory, anything)) == found(undamaged)


def test_no_flip_of_a_bit_outside_of_the_data_moves_a_tensor(small):
    directory, raw, undamaged = small
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        headers = [info.header_offset for info in archive.infolist() if "/data/" in info.filename]
    for position in (start + place for start in headers for place in range(30)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[position] ^= 1 << bit
            (directory / PICKLED_FILE).write_bytes(damaged)
            try:
                assert found(open_pickled(directory, anything)) == found(undamaged)
            except CheckpointError:
                continue
