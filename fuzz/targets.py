"""What is fuzzed: functions that take bytes, give them to a parser, and raise LawBroken if it breaks the law.

The law: a parser gives a value or raises a BridgeError, in bounded time, and accepts nothing that the safetensors
library refuses. The suite calls these functions with structured inputs, ``fuzz/run.py`` with those of a fuzzer.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import safetensors

import internvl_bridge
from internvl_bridge.convert.options import Options
from internvl_bridge.convert.prepare import prepare
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.storage.header import read_header
from internvl_bridge.storage.index import read_index
from internvl_bridge.storage.source_shards import open_checkpoint

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"

INDEX, CONFIG, SIDECAR = "model.safetensors.index.json", "config.json", "internvl_bridge.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BESIDE = (
    SIDECAR,
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "vocab.json",
)
"""The files that :func:`fuzz_beside` replaces; the first byte of its input says which."""

_SECONDS = 5.0
"""Of processor time, for an input of at most some hundred kilobytes; far more than any takes."""


class LawBroken(Exception):  # noqa: N818 (it is a verdict)
    """A parser did what it never may."""


def fuzz_header(data: bytes) -> bool:
    """Read ``data`` as a safetensors file; whether it was accepted."""
    path = _workspace() / "model.safetensors"
    path.write_bytes(data)
    header = _lawful(lambda: read_header(path))
    if header is None:
        return False
    try:
        theirs = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
        with safetensors.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            opened = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is not a mapping)
            described = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in opened.items()}
    except safetensors.SafetensorError as error:
        raise LawBroken(f"accepted what the safetensors library refuses: {error}") from error
    ours = {
        key: {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data": data[header.data_start + entry.start : header.data_start + entry.stop],
        }
        for key, entry in header.entries.items()
    }
    if ours != theirs or header.metadata != metadata:
        raise LawBroken(f"read {ours} with {header.metadata}, the library {theirs} with {metadata}")
    if described != {key: (entry.dtype, entry.shape) for key, entry in header.entries.items()}:
        raise LawBroken(f"read {header.entries}, the library opens {described}")
    return True


def fuzz_index(data: bytes) -> bool:
    """Read ``data`` as the index of two shards; whether these were accepted as a checkpoint."""
    directory = _indexed()
    (directory / INDEX).write_bytes(data)
    found = _lawful(lambda: read_index(directory / INDEX, ".safetensors"))
    if found is not None:
        for name in set((found[0] or {}).values()):
            if (directory / name).parent != directory or name in {"", ".", ".."} or not name.endswith(".safetensors"):
                raise LawBroken(f"accepted the file name {name!r}")
    checkpoint = _lawful(lambda: open_checkpoint(directory))
    if checkpoint is None:
        return False
    stored = {key: checkpoint.shards[tensor.shard].path.name for key, tensor in checkpoint.tensors.items()}
    if found is None or (found[0] != stored and stored != dict(zip("ab", SHARDS, strict=True))):
        raise LawBroken(f"accepted {found}, but {stored} is stored")
    return True


def fuzz_config(data: bytes) -> bool:
    """Read ``data`` as config.json of a checkpoint of either format; whether one of them could be converted."""
    return any([_converts(kind, CONFIG, data) for kind in ("custom", "moe", "hf")])  # noqa: C419 (each of them is asked)


def fuzz_beside(data: bytes) -> bool:
    """Read ``data``, but for its first byte, as a file beside a checkpoint; whether one could be converted with it."""
    name = BESIDE[data[0] % len(BESIDE)] if data else BESIDE[0]
    return any([_converts(kind, name, data[1:]) for kind in ("custom", "hf")])  # noqa: C419 (each of them is asked)


TARGETS: Mapping[str, Callable[[bytes], bool]] = {
    "header": fuzz_header,
    "index": fuzz_index,
    "config": fuzz_config,
    "beside": fuzz_beside,
}


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Valid inputs of a target, of which a fuzzer makes others."""
    match target:
        case "header":
            return tuple(_SMALL_FILES)
        case "index":
            return ((_indexed() / INDEX).read_bytes(),)
        case "config":
            return tuple((_checkpoint(kind) / CONFIG).read_bytes() for kind in ("custom", "moe", "hf"))
        case _:
            files = [(number, _checkpoint("hf") / name) for number, name in enumerate(BESIDE)]
            return tuple(bytes([number]) + path.read_bytes() for number, path in files if path.exists())


def framed(fields: object, data: bytes = b"") -> bytes:
    """A safetensors file whose header is ``fields``, or the text of it."""
    raw = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return len(raw).to_bytes(8, "little") + raw + data


_SMALL_FILES = (
    framed({}),
    framed({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"data"),
    framed(
        {
            "__metadata__": {"format": "pt", "\u00e9": "\U0001f600"},
            "w": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [8, 20]},
            "e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [20, 20]},
            "b": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
            "packed": {"dtype": "F4", "shape": [2, 2], "data_offsets": [20, 22]},
        },
        bytes(range(22)),
    ),
)


def _lawful(read: Callable[[], Any]) -> Any:
    """What ``read`` gives, None if it refuses."""
    before = time.process_time()
    try:
        return read()
    except BridgeError:
        return None
    except Exception as error:  # noqa: BLE001 (that is what is looked for)
        _break(f"{type(error).__name__} instead of a BridgeError: {error}", error)
    finally:
        if (taken := time.process_time() - before) > _SECONDS:
            _break(f"it took {taken:.1f} s", None)


def _break(what: str, error: Exception | None) -> NoReturn:
    raise LawBroken(what) from error


def _converts(kind: str, name: str, data: bytes) -> bool:
    """Whether a checkpoint of that kind could be converted if its file ``name`` were ``data``; nothing is written."""
    directory = _checkpoint(kind)
    path, output = directory / name, directory.parent / "output"
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    routes = [(Format.HF, Format.CUSTOM), (Format.HF, Format.HF)] if kind == "hf" else [(Format.CUSTOM, Format.HF)]
    try:
        inspected = _lawful(lambda: internvl_bridge.inspect(directory))
        plans = [_lawful(partial(_planned, directory, output, route)) for route in routes]
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    if inspected is None and plans[0] is not None:
        raise LawBroken("converts what it cannot inspect")
    return any(plan is not None for plan in plans)


def _planned(directory: Path, output: Path, route: tuple[Format, Format]) -> Mapping[str, bytes]:
    """The texts of an output, as they would be written."""
    conversion = prepare(directory, output, route, Options())
    for name in conversion.files:
        if "/" in name or name in {"", ".", ".."} or "\0" in name:
            raise LawBroken(f"would write a file {name!r}")
    for name, text in conversion.texts.items():
        if name.endswith(".json"):
            json.loads(text, parse_constant=_not_json)
    return {name: text.encode() for name, text in conversion.texts.items()}


def _not_json(constant: str) -> NoReturn:
    raise LawBroken(f"would write {constant}, which is not JSON")


@cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="internvl-bridge-fuzz-")


def _workspace() -> Path:
    return Path(_home().name)


@cache
def _indexed() -> Path:
    directory = _workspace() / "indexed"
    directory.mkdir()
    weight_map = {}
    for key, name in zip(("a", "b"), SHARDS, strict=True):
        (directory / name).write_bytes(framed({key: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"data"))
        weight_map[key] = name
    index: dict[str, Any] = {"metadata": {"total_size": 8}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))
    return directory


@cache
def _checkpoint(kind: str) -> Path:
    """A valid checkpoint: ``custom``, ``moe`` (custom, with experts) or ``hf``."""
    directory = _workspace() / kind / "checkpoint"
    if kind == "hf":
        internvl_bridge.to_hf(_checkpoint("custom"), directory)
        return directory
    shutil.copytree(DATA / "custom" / ("qwen3moe-6b" if kind == "moe" else "qwen2-300m"), directory)
    shutil.copytree(DATA / "tokenizers" / "bpe", directory, dirs_exist_ok=True)
    return directory
