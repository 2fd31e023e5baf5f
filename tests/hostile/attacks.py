"""Attacks on a checkpoint directory: each spoils a valid one, and names the refusal that it has to meet."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

FIRST = "language_model.lm_head.weight"
"""The tensor that lies first in the file, under the same name in both formats."""
VECTOR = "language_model.model.norm.weight"
WEIGHTS, INDEX, CONFIG, SIDECAR = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "internvl_bridge.json",
)
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
MARKER = "code-was-run"
"""A file beside the checkpoint that exists as soon as any code of an attack has run."""

EVERY = frozenset({"to_hf", "to_custom", "repair", "inspect", "verify"})
CONVERSIONS = frozenset({"to_hf", "to_custom", "repair"})
PLANNED = CONVERSIONS | {"inspect"}

ABSENT = object()


@dataclass(frozen=True)
class Attack:
    """``spoil`` is given a directory of the kind ``base``; the functions ``by`` then refuse it with ``error``.

    Every word of ``words`` stands in the message. ``memory`` is what a call may use, where it imports torch.
    """

    name: str
    spoil: Callable[[Path], object]
    words: tuple[str, ...]
    error: str = "CheckpointError"
    base: str = "custom"
    by: frozenset[str] = EVERY
    memory: int | None = None

    @property
    def functions(self) -> list[str]:
        possible = {"custom": {"to_hf"}, "sharded": {"to_hf"}, "moe": {"to_hf"}, "hf": {"to_custom", "repair"}}[
            self.base
        ]
        return sorted(self.by & (possible | {"inspect", "verify"}))


# How files are spoiled


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def opened(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:start]), content[start:]


def write_weights(fields: Any, data: bytes, path: Path) -> None:
    path.write_bytes(framed(json.dumps(fields).encode(), data))


def header_fields(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Let ``change`` edit the fields of the header in place."""

    def spoil(directory: Path) -> None:
        fields, data = opened(directory / WEIGHTS)
        change(fields)
        write_weights(fields, data, directory / WEIGHTS)

    return spoil


def first_tensor(**changes: Any) -> Callable[[Path], None]:
    return header_fields(lambda fields: fields[FIRST].update(changes))


def first_offsets(start: Any, stop: Any) -> Callable[[Path], None]:
    """Replace the offsets of the first tensor, of which None keeps one as it is."""

    def change(fields: dict[str, Any]) -> None:
        old = fields[FIRST]["data_offsets"]
        fields[FIRST]["data_offsets"] = [old[0] if start is None else start, old[1] if stop is None else stop]

    return header_fields(change)


def header_text(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace the text of the header, where no JSON library would write what is wanted."""

    def spoil(directory: Path) -> None:
        fields, data = opened(directory / WEIGHTS)
        text = json.dumps(fields, separators=(",", ":")).encode()
        changed = change(text)
        assert changed != text, "the attack changes nothing"
        (directory / WEIGHTS).write_bytes(framed(changed, data))

    return spoil


def spelled(old: str, new: str) -> Callable[[Path], None]:
    return header_text(lambda text: text.replace(old.encode(), new.encode(), 1))


def header_length(length: Callable[[int], int]) -> Callable[[Path], None]:
    """Lie about the length of the header, whose true one is given to ``length``."""

    def spoil(directory: Path) -> None:
        content = (directory / WEIGHTS).read_bytes()
        true = struct.unpack("<Q", content[:8])[0]
        (directory / WEIGHTS).write_bytes(struct.pack("<Q", length(true)) + content[8:])

    return spoil


def add_tensor(key: str, shape: list[int] | None = None, size: int = 4) -> Callable[[Path], None]:
    """Append a tensor whose bytes are really there."""

    def spoil(directory: Path) -> None:
        fields, data = opened(directory / WEIGHTS)
        description = {"dtype": "BF16", "shape": [2] if shape is None else shape}
        fields[key] = {**description, "data_offsets": [len(data), len(data) + size]}
        write_weights(fields, data + bytes(size), directory / WEIGHTS)

    return spoil


def content(name: str, data: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace the bytes of a file."""

    def spoil(directory: Path) -> None:
        path = directory / name
        new = data(path.read_bytes()) if callable(data) else data
        path.unlink(missing_ok=True)
        path.write_bytes(new)

    return spoil


def sparse(name: str, size: int, first: bytes = b"") -> Callable[[Path], None]:
    """A file of ``size`` bytes that takes no room on the disk."""

    def spoil(directory: Path) -> None:
        content(name, first)(directory)
        os.truncate(directory / name, size)

    return spoil


def values(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Let ``change`` edit a JSON file in place."""

    def spoil(directory: Path) -> None:
        path = directory / name
        read = json.loads(path.read_text())
        change(read)
        path.write_text(json.dumps(read))

    return spoil


def setting(name: str, path: str, value: Any) -> Callable[[Path], None]:
    """Set, or remove, one value of a JSON file; ``path`` has dots between names."""
    *sections, last = path.split(".")

    def change(read: dict[str, Any]) -> None:
        for section in sections:
            read = read[section]
        if value is ABSENT:
            del read[last]
        else:
            read[last] = value

    return values(name, change)


def gone(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def linked(name: str, target: str) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)

    return spoil


def made(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        make(directory / name)

    return spoil


def both(*spoils: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        for one in spoils:
            one(directory)

    return spoil


class _Bomb:
    """Unpickled, it runs a command that leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def write_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Bomb(path.parent.parent / MARKER)))


def write_zipped_bomb(path: Path) -> None:
    """As :func:`write_bomb`, in the archive that torch.save writes."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Bomb(path.parent.parent / MARKER), protocol=2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def write_evil_code(directory: Path) -> None:
    """Python modules of every name that a loader might import, and an auto_map that asks for them."""
    names = ["modeling_internvl_chat", "configuration_internvl_chat", "tokenizer", "conversation", "json", "__init__"]
    for name in [*names, "sitecustomize", "torch", "safetensors"]:
        text = f"from pathlib import Path\nPath({str(directory.parent / MARKER)!r}).touch()\nraise SystemExit(77)\n"
        (directory / f"{name}.py").write_text(text)
    evil = {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        "AutoTokenizer": ["tokenizer.Evil", None],
    }
    for name in (CONFIG, "tokenizer_config.json"):
        setting(name, "auto_map", evil)(directory)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 383312\n"
DEEP_LIST = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
HOSTILE_TEXT = "\x1b[2J\x1b]0;owned\x07\u202egpj.exe\r\nError: none\x9b31m"
"""Escapes that clear a terminal and rename its window, text that runs backwards, a forged line."""

_WORDS_OF_LINKS = dict.fromkeys(["a link in a circle", "a link to nothing"], "and nothing is there")
"""What is said of links that lead to no file."""

_NOT_READ = "is not a file that can be read"

# Things that are no regular file: reading them blocks, never ends, or fails.
ODD_FILES: dict[str, Callable[[str], Callable[[Path], None]]] = {
    "a FIFO": lambda name: made(name, os.mkfifo),
    "a directory": lambda name: made(name, Path.mkdir),
    "an endless device": lambda name: linked(name, "/dev/zero"),
    "a full device": lambda name: linked(name, "/dev/full"),
    "a terminal": lambda name: linked(name, "/dev/tty"),
    "a link in a circle": lambda name: linked(name, name),
    "a link to nothing": lambda name: linked(name, "../blobs/gone"),
    "a link to its directory": lambda name: linked(name, "."),
}

# The header of a safetensors file

_HEADER: list[tuple[str, Callable[[Path], object], tuple[str, ...]]] = [
    ("length 0", header_length(lambda _: 0), ("its header does not start with '{'",)),
    ("length 1", header_length(lambda _: 1), ("its header is not JSON",)),
    ("a length half the true one", header_length(lambda true: true // 2), ("its header is not JSON",)),
    ("a length that reaches into the data", header_length(lambda true: true + 8), ("its header is not",)),
    ("a length beyond the file", header_length(lambda _: 1 << 20), ("header claims 1048576 bytes",)),
    ("length 2^31", header_length(lambda _: 1 << 31), ("header claims 2147483648 bytes",)),
    ("length 2^63 - 1", header_length(lambda _: (1 << 63) - 1), ("header claims 9223372036854775807 bytes",)),
    ("length 2^63", header_length(lambda _: 1 << 63), ("header claims 9223372036854775808 bytes",)),
    ("length 2^64 - 1", header_length(lambda _: (1 << 64) - 1), ("header claims 18446744073709551615 bytes",)),
    (
        "more than 100 MB that are there",
        sparse(WEIGHTS, 1 << 40, struct.pack("<Q", 100_000_001) + b"{"),
        ("header claims 100000001 bytes",),
    ),
    (
        "100 MB of NULs",
        sparse(WEIGHTS, 8 + 100_000_000, struct.pack("<Q", 100_000_000) + b"{"),
        ("its header is not JSON",),
    ),
    ("an empty file", content(WEIGHTS, b""), ("it has only 0 bytes",)),
    ("seven bytes", content(WEIGHTS, lambda old: old[:7]), ("it has only 7 bytes",)),
    ("a file cut in the header", content(WEIGHTS, lambda old: old[:1000]), ("header claims", "file of 1000")),
    (
        "a file without its last byte",
        content(WEIGHTS, lambda old: old[:-1]),
        ("its tensors end at byte", "but the file"),
    ),
    ("a trailing byte", content(WEIGHTS, lambda old: old + b"\0"), ("its tensors end at byte", "but the file")),
    ("a second file behind the first", content(WEIGHTS, lambda old: old + old), ("its tensors end at byte",)),
    ("a pointer of Git LFS", content(WEIGHTS, LFS), ("is a Git LFS pointer", "git lfs pull")),
    ("a web page", content(WEIGHTS, b"<!DOCTYPE html><html>404</html>"), ("header claims",)),
    ("a zip archive", content(WEIGHTS, framed(b"PK\x03\x04", bytes(9))), ("does not start with '{'",)),
    ("no JSON", header_text(lambda text: text[:-1] + b","), ("its header is not JSON",)),
    ("a byte order mark", header_text(lambda text: b"\xef\xbb\xbf" + text), ("does not start with '{'",)),
    ("UTF-16", header_text(lambda text: text.decode().encode("utf-16-le")), ("its header is not JSON",)),
    ("not UTF-8", spelled(VECTOR, VECTOR[:-1] + "\\ud83d"), ("its header is not valid Unicode",)),
    (
        "a byte that is not UTF-8",
        header_text(lambda text: text.replace(b"norm", b"n\xffrm", 1)),
        ("not valid Unicode",),
    ),
    (
        "surrogates as bytes",
        header_text(lambda text: text.replace(b"norm", b"\xed\xa0\x80", 1)),
        ("not valid Unicode",),
    ),
    ("lists, 100,000 deep", content(WEIGHTS, framed(b'{"a":' + DEEP_LIST + b"}")), ("nested too deeply",)),
    ("objects, 100,000 deep", content(WEIGHTS, framed(DEEP_OBJECT)), ("nested too deeply",)),
    ("a deep shape", spelled('"shape":[', '"shape":[' + "[" * 100_000 + "]" * 100_000 + ","), ("nested too deeply",)),
    ("a list at the top", header_text(lambda text: b"[" + text + b"]"), ("does not start with '{'",)),
    ("NaN as an offset", spelled('"data_offsets":[0,', '"data_offsets":[NaN,'), ("NaN is not a number",)),
    ("Infinity as a size", spelled('"shape":[', '"shape":[Infinity,'), ("Infinity is not a number",)),
    ("a size beyond all floats", spelled('"shape":[', '"shape":[1e999,'), ("1e999 is beyond all numbers",)),
    ("a size of 5000 digits", spelled('"shape":[', '"shape":[' + "9" * 5000 + ","), ("its header is not JSON",)),
    ("-0 as an offset", spelled('"data_offsets":[0,', '"data_offsets":[-0,'), ("-0 is not a whole number",)),
    ("a tensor twice", header_text(lambda text: text[:-1] + b"," + text[1:]), ("appears twice",)),
    ("a field twice", spelled('{"dtype":', '{"dtype":"F32","dtype":'), ("the key 'dtype' appears twice",)),
    ("metadata twice", header_text(lambda text: b'{"__metadata__":{},' + text[1:]), ("'__metadata__' appears twice",)),
    ("a float offset", first_offsets(0.0, None), (FIRST, "not a whole number below 2^63")),
    ("a truth value as an offset", first_offsets(False, None), (FIRST, "not a whole number below 2^63")),
    ("a text as an offset", first_offsets("0", None), (FIRST, "not a whole number below 2^63")),
    ("a negative offset", first_offsets(-8, None), (FIRST, "not a whole number below 2^63")),
    ("offset 2^63", first_offsets(None, 1 << 63), (FIRST, "not a whole number below 2^63")),
    ("offset 2^64", first_offsets(1 << 64, (1 << 64) + 1), (FIRST, "not a whole number below 2^63")),
    ("offset 10^400", first_offsets(None, 10**400), (FIRST, "not a whole number below 2^63")),
    ("exchanged offsets", header_fields(lambda f: f[FIRST]["data_offsets"].reverse()), (FIRST, "does not fit")),
    ("a hole", header_fields(lambda f: f.pop(FIRST)), ("leaves a hole before the tensor",)),
    (
        "two tensors at one place",
        header_fields(lambda f: f.update(twin=dict(f[FIRST]))),
        ("overlaps the data of the tensor",),
    ),
    (
        "a tensor within another",
        header_fields(lambda f: f.update(inner={"dtype": "U8", "shape": [2], "data_offsets": [4, 6]})),
        ("overlaps the data of the tensor",),
    ),
    (
        "a tensor beyond the file",
        header_fields(lambda f: f.update(far={"dtype": "U8", "shape": [2], "data_offsets": [1 << 40, (1 << 40) + 2]})),
        ("leaves a hole before the tensor far",),
    ),
    (
        "nothing, beyond the file",
        header_fields(lambda f: f.update(far={"dtype": "U8", "shape": [0], "data_offsets": [1 << 40, 1 << 40]})),
        ("leaves a hole before the tensor far",),
    ),
    (
        "nothing, within a tensor",
        header_fields(lambda f: f.update(inner={"dtype": "U8", "shape": [0], "data_offsets": [4, 4]})),
        ("overlaps the data of the tensor",),
    ),
    ("a shape that is too small", first_tensor(shape=[1]), (FIRST, "does not fit")),
    ("a shape that is too large", first_tensor(shape=[1 << 40, 1 << 20]), (FIRST, "does not fit")),
    ("a shape that overflows to the right size", first_tensor(shape=[1 << 32, 1 << 32]), (FIRST, "does not fit")),
    (
        "an overflow that a zero hides",
        first_tensor(shape=[1 << 62, 4, 0], data_offsets=[0, 0]),
        (FIRST, "does not fit"),
    ),
    ("70,000 dimensions", first_tensor(shape=[1 << 62] * 70_000), (FIRST, "does not fit")),
    ("a negative size", first_tensor(shape=[-2, -2]), (FIRST, "not a whole number below 2^63")),
    ("a truth value as a size", first_tensor(shape=[True]), (FIRST, "not a whole number below 2^63")),
    ("null as a shape", first_tensor(shape=None), (FIRST, "is not described by dtype, shape and data_offsets")),
    ("three offsets", first_tensor(data_offsets=[0, 0, 4]), (FIRST, "is not described by")),
    ("an unknown dtype", first_tensor(dtype="F1"), (FIRST, "unknown dtype F1")),
    ("a dtype of another case", first_tensor(dtype="bf16"), (FIRST, "unknown dtype bf16")),
    ("a dtype with an escape", first_tensor(dtype="\x1b[31m"), (FIRST, "unknown dtype")),
    ("a dtype of 10 MB", first_tensor(dtype="F" * 10_000_000), (FIRST, "unknown dtype")),
    ("a list as a dtype", first_tensor(dtype=["BF16"]), (FIRST, "is not described by")),
    ("a field too many", first_tensor(file="/etc/passwd"), (FIRST, "is not described by")),
    ("a text for a tensor", header_fields(lambda f: f.update({FIRST: "../../x"})), (FIRST, "is not described by")),
    (
        "a list as metadata",
        header_fields(lambda f: f.update(__metadata__=[])),
        ("__metadata__ is not a map of strings",),
    ),
    (
        "null as metadata",
        header_fields(lambda f: f.update(__metadata__=None)),
        ("__metadata__ is not a map of strings",),
    ),
    ("numbers in metadata", header_fields(lambda f: f.update(__metadata__={"format": 1})), ("not a map of strings",)),
    ("objects in metadata", header_fields(lambda f: f.update(__metadata__={"a": {}})), ("not a map of strings",)),
    (
        "a million empty lists",
        header_fields(lambda f: f.update(many=[[]] * 1_000_000)),
        ("the tensor many is not described by",),
    ),
]

# Names of tensors that no checkpoint has: a valid file, and so nothing but the plan can refuse them.
_KEYS = {
    "an empty key": "",
    "a key of spaces": "   ",
    "a key with escapes": HOSTILE_TEXT,
    "a key with a NUL": "mlp1.0.bias\0",
    "a key with a newline": "mlp1.0.bias\n",
    "a key like a path": "../../x",
    "a key like an absolute path": "/etc/passwd",
    "a key like a format": "%s%n{0.__class__}",
    "a key of another script": "mlp1.0.bi\u0430s",
    "a key of other digits": "language_model.model.layers.\u0661.mlp.up_proj.weight",
    "a layer with zeros in front": "language_model.model.layers.007.mlp.up_proj.weight",
    "a layer of 4400 digits": f"language_model.model.layers.{'9' * 4400}.mlp.up_proj.weight",
    "a layer of 400 digits": f"language_model.model.layers.{'9' * 400}.mlp.up_proj.weight",
    "a negative layer": "language_model.model.layers.-1.mlp.up_proj.weight",
    "a key of 10 MB": "k" * 10_000_000,
    "a key of a million dots": "a." * 1_000_000,
}

# The index

_INDEX: list[tuple[str, Callable[[Path], object], tuple[str, ...]]] = [
    *(
        (
            f"an index that names {shown!r:.40}",
            setting(INDEX, "weight_map", {FIRST: name, VECTOR: SHARDS[0]}),
            ("is not a valid index", "it places tensors in", "not a .safetensors file beside it"),
        )
        for shown, name in {
            text if isinstance(text, str) else json.dumps(text): text
            for text in [
                "../evil.safetensors",
                "/tmp/evil.safetensors",  # noqa: S108 (nothing is ever written there)
                "/etc/passwd",
                "sub/evil.safetensors",
                "./evil.safetensors",
                "..",
                ".",
                "",
                "/",
                "evil.safetensors/",
                "evil\0.safetensors",
                "pytorch_model.bin",
                "config.json",
                "model.SAFETENSORS",
                None,
                7,
                True,
                [SHARDS[0]],
                {SHARDS[0]: 1},
            ]
        }.items()
    ),
    (
        "a shard that is missing",
        gone(SHARDS[1]),
        (INDEX, f"names {SHARDS[1]}, which is not there", "incomplete"),
    ),
    (
        "100,000 shards that are missing",
        lambda d: (
            gone(SHARDS[1])(d),
            setting(INDEX, "weight_map", {f"k{n}": f"{n}.safetensors" for n in range(100_000)})(d),
        ),
        (INDEX, "names 0.safetensors", "and 99997 more", "not there"),
    ),
    (
        "a shard with an absurdly long name",
        lambda d: (gone(SHARDS[1])(d), setting(INDEX, "weight_map", {FIRST: "x" * 100_000 + ".safetensors"})(d)),
        (INDEX, "names xxx", "not there"),
    ),
    (
        "a shard with escapes in its name",
        lambda d: (gone(SHARDS[1])(d), setting(INDEX, "weight_map", {FIRST: HOSTILE_TEXT + ".safetensors"})(d)),
        (INDEX, "not there"),
    ),
    (
        "a stale shard",
        lambda d: (d / "model-00003-of-00003.safetensors").write_bytes((d / SHARDS[0]).read_bytes()),
        ("model-00003-of-00003.safetensors", "does not belong to the checkpoint of", "Move the stale files away"),
    ),
    (
        "a stale single file",
        lambda d: (d / WEIGHTS).write_bytes((d / SHARDS[0]).read_bytes()),
        (WEIGHTS, "does not belong to the checkpoint of", "Move the stale files away"),
    ),
    ("a list as an index", content(INDEX, b"[]"), (INDEX, "a JSON object was expected, not list")),
    ("an empty index", content(INDEX, b""), (INDEX, "not JSON")),
    ("an index without a map", content(INDEX, b"{}"), (INDEX, "needs a 'weight_map' object that is not empty")),
    ("an empty map", setting(INDEX, "weight_map", {}), (INDEX, "needs a 'weight_map' object that is not empty")),
    ("a list as a map", setting(INDEX, "weight_map", [SHARDS[0]]), (INDEX, "needs a 'weight_map' object")),
    ("a list as the index's metadata", setting(INDEX, "metadata", []), (INDEX, "its 'metadata' is not an object")),
    (
        "a tensor twice in the index",
        content(INDEX, lambda o: o.replace(b"{", b'{"weight_map":{},', 1)),
        (INDEX, "twice"),
    ),
    ("an index with NaN", content(INDEX, b'{"metadata":{"total_size":NaN}}'), (INDEX, "NaN is not a number")),
    ("an index beyond all floats", content(INDEX, b'{"metadata":{"total_size":1e999}}'), (INDEX, "beyond all numbers")),
    ("an index of 5000 digits", content(INDEX, b'{"metadata":' + b"9" * 5000 + b"}"), (INDEX, "not JSON")),
    ("a deep index", content(INDEX, b'{"weight_map":' + DEEP_LIST + b"}"), (INDEX, "nested too deeply")),
    ("an index that is not UTF-8", content(INDEX, b'{"\xff":1}'), (INDEX, "not valid Unicode")),
    ("an index of more than 100 MB", sparse(INDEX, 1 << 40, b"{"), (INDEX, "more than 100000000 bytes")),
    ("an index that is a pointer", content(INDEX, LFS), (INDEX, "not JSON")),
]

# config.json


def _numbers(base: str, fields: list[str], words: tuple[str, ...] = ()) -> list[Attack]:
    wrong = [10**12, -1, 0, 1e308, 1.5, True, "2", "\x1b[31m", [], [2, 3], {}, 2**63, 10**400]
    return [
        Attack(
            f"{field} {json.dumps(value)[:12]}",
            setting(CONFIG, field, value),
            (CONFIG, field.rpartition(".")[2], "a value that no model has there", *words),
            "ConfigError",
            base,
        )
        for field in fields
        for value in wrong
    ]


_config = partial(Attack, error="ConfigError")
_unsupported = partial(Attack, error="UnsupportedModelError")

_CONFIG = [
    *_numbers("custom", ["llm_config.num_hidden_layers", "vision_config.hidden_size"]),
    *_numbers("hf", ["text_config.num_attention_heads", "vision_config.num_hidden_layers"]),
    _config(
        "a layer count that is null", setting(CONFIG, "llm_config.num_hidden_layers", None), ("num_hidden_layers",)
    ),
    *(
        Attack(
            f"{field} of {count} {base}",
            both(setting(CONFIG, field, count), setting(CONFIG, f"{text}.layer_types", None)),
            ("num_hidden_layers", str(count), "has only 65 tensors" if base == "custom" else "tensors"),
            "ContradictionError",
            base,
            PLANNED,
        )
        for base, text in (("custom", "llm_config"), ("hf", "text_config"))
        for field in (f"{text}.num_hidden_layers", "vision_config.num_hidden_layers")
        for count in (10**6, 2**31 - 1)
    ),
    Attack(
        "experts in all layers",
        setting(CONFIG, "llm_config.num_experts", 2**31 - 1),
        ("num_experts", "has only 81 tensors"),
        "ContradictionError",
        "moe",
        PLANNED,
    ),
    _config("experts of a text", setting(CONFIG, "llm_config.num_experts", "8"), ("num_experts '8'",), base="moe"),
    _config("a sparse step of 0", setting(CONFIG, "llm_config.decoder_sparse_step", 0), ("sparse_step 0",), base="moe"),
    _config("dense layers of texts", setting(CONFIG, "llm_config.mlp_only_layers", ["0"]), ("mlp_only",), base="moe"),
    *(
        Attack(
            f"{field} of 2^31 - 1",
            setting(CONFIG, field, 2**31 - 1),
            ("has shape", "config.json describes"),
            "ContradictionError",
            by=PLANNED,
        )
        for field in ("vision_config.intermediate_size", "llm_config.intermediate_size")
    ),
    _config("heads that do not divide", setting(CONFIG, "llm_config.num_attention_heads", 3), ("3 attention heads",)),
    _config("no patches", setting(CONFIG, "vision_config.patch_size", 0), ("patch_size 0",)),
    _config("an image of -1", setting(CONFIG, "vision_config.image_size", -1), ("image_size -1",)),
    _config("a shuffle by 0", setting(CONFIG, "downsample_ratio", 0), ("downsample_ratio 0",)),
    _config("a shuffle by 1e-308", setting(CONFIG, "downsample_ratio", 1e-308), ("downsample_ratio 1e-308",)),
    _config("a shuffle by a text", setting(CONFIG, "downsample_ratio", "0.5"), ("downsample_ratio '0.5'",)),
    _unsupported(
        "a layer to select of 10^9",
        setting(CONFIG, "select_layer", 10**9),
        ("select_layer 1000000000", "has 2 layers"),
        by=PLANNED,
    ),
    _config("a base of rope of texts", setting(CONFIG, "llm_config.rope_theta", "wide"), ("rope_theta 'wide'",)),
    _config("a negative base of rope", setting(CONFIG, "llm_config.rope_theta", -1e308), ("rope_theta -1e+308",)),
    *(
        _config(
            f"scaling {json.dumps(scaling)[:30]}",
            setting(CONFIG, "llm_config.rope_scaling", scaling),
            ("scales rotary embeddings in a way that is not understood",),
        )
        for scaling in (
            *(7, "yarn", [], {}, True),
            *({"type": "evil"}, {"type": ["yarn"]}, {"type": "yarn", "rope_type": "linear", "factor": 1}),
            *({"type": "yarn"}, {"type": "linear", "factor": "2"}, {"type": "longrope", "short_factor": 1}),
        )
    ),
    _config("a tie of texts", setting(CONFIG, "tie_word_embeddings", "false"), ("tie_word_embeddings 'false'",)),
    _config("a dtype that is code", setting(CONFIG, "torch_dtype", "__import__('os')"), ("torch_dtype",)),
    _config("a template that is a list", setting(CONFIG, "template", ["x"]), ("template ['x']",)),
    _config(
        "no section of the tower",
        setting(CONFIG, "vision_config", ABSENT),
        ("does not have an object 'vision_config'",),
    ),
    _config("a list for a section", setting(CONFIG, "llm_config", [1]), ("does not have an object 'llm_config'",)),
    *(
        _unsupported(
            f"model_type {json.dumps(kind)[:30]}", setting(CONFIG, "model_type", kind), ("not an InternVL model",)
        )
        for kind in (None, 7, ["internvl_chat"], {}, "InternVL_chat", "internvl_chat\0", HOSTILE_TEXT, "x" * 10_000_000)
    ),
    *(
        _unsupported(
            f"architectures {json.dumps(kind)}", setting(CONFIG, "architectures", kind), ("not an InternVL model",)
        )
        for kind in ("InternVLChatModel", 7, {"InternVLChatModel": 1}, [["InternVLChatModel"]], [None])
    ),
    *(
        _unsupported(
            f"a language model {json.dumps(kind)[:20]}",
            setting(CONFIG, "llm_config.architectures", kind),
            ("Known are",),
        )
        for kind in (["Evil"], ["Qwen2ForCausalLM\0"], [HOSTILE_TEXT], ["x" * 10_000_000])
    ),
    *(
        _config(
            f"a language model {json.dumps(kind)}",
            setting(CONFIG, "llm_config.architectures", kind),
            ("no single class",),
        )
        for kind in ([7], [[]], [{}], "Qwen2ForCausalLM", 7, [], {"a": 1}, ["Qwen2ForCausalLM"] * 2)
    ),
    _config("JSON that ends early", content(CONFIG, lambda old: old[:-9]), (CONFIG, "not JSON")),
    _config("lists 100,000 deep", content(CONFIG, b'{"a":' + DEEP_LIST + b"}"), (CONFIG, "nested too deeply")),
    _config("objects 100,000 deep", content(CONFIG, DEEP_OBJECT), (CONFIG, "nested too deeply")),
    _config(
        "as deep as the parser goes",
        content(CONFIG, lambda old: b'{"a":' + b"[" * 900 + b"]" * 900 + b"," + old[1:]),
        (CONFIG, "nested too deeply"),
    ),
    _config("not UTF-8", content(CONFIG, b'{"model_type":"\xff"}'), (CONFIG, "not valid Unicode")),
    _config("UTF-16", content(CONFIG, lambda old: old.decode().encode("utf-16")), (CONFIG, "not valid Unicode")),
    _config("a lone surrogate", content(CONFIG, b'{"model_type":"\\ud800"}'), (CONFIG, "not valid Unicode")),
    _config("an empty file", content(CONFIG, b""), (CONFIG, "not JSON")),
    _config("a list", content(CONFIG, b"[]"), (CONFIG, "a JSON object was expected, not list")),
    _config("a bare null", content(CONFIG, b"null"), (CONFIG, "not NoneType")),
    _config("NaN", content(CONFIG, lambda old: b'{"a":NaN,' + old[1:]), (CONFIG, "NaN is not a number")),
    _config("beyond all floats", content(CONFIG, lambda old: b'{"a":1e999,' + old[1:]), (CONFIG, "beyond all numbers")),
    _config("5000 digits", content(CONFIG, lambda old: b'{"a":' + b"9" * 5000 + b"," + old[1:]), (CONFIG, "not JSON")),
    _config("a key twice", content(CONFIG, lambda old: b'{"model_type":"x",' + old[1:]), (CONFIG, "appears twice")),
    _config("a file of 1 TiB", sparse(CONFIG, 1 << 40, b"{"), (CONFIG, "more than 67108864 bytes")),
    _config("64 MiB of NULs", sparse(CONFIG, 64 << 20, b"{"), (CONFIG, "not JSON")),
    _config("a pointer of Git LFS", content(CONFIG, LFS), (CONFIG, "is a Git LFS pointer", "git lfs pull")),
]

# The files beside


def _tokenizer(name: str, spoil: Callable[[Path], object], *words: str, **more: Any) -> Attack:
    return Attack(name, spoil, words, **{"error": "CompanionFileError", "by": CONVERSIONS, **more})


_BESIDE = [
    _tokenizer("a cut tokenizer", content("tokenizer.json", lambda o: o[:-20]), "tokenizer.json", "is cut off"),
    _tokenizer("an empty tokenizer", content("tokenizer.json", b""), "tokenizer.json", "is cut off"),
    _tokenizer("a huge tokenizer", sparse("tokenizer.json", 1 << 40, b"{"), "tokenizer.json", "is cut off"),
    _tokenizer("a pointer for a tokenizer", content("tokenizer.json", LFS), "tokenizer.json", "git lfs pull"),
    _tokenizer(
        "a deep tokenizer",
        content("tokenizer.json", b'{"a":' + DEEP_LIST + b',"model":{}}'),
        "tokenizer.json",
        "nested too deeply",
    ),
    _tokenizer(
        "a token beyond all embeddings",
        both(
            gone("tokenizer_config.json"),
            gone("tokenizer.json"),
            content("added_tokens.json", b'{"<img>":1,"</img>":2,"<IMG_CONTEXT>":2000000000}'),
        ),
        "<IMG_CONTEXT> at id 2000000000",
        error="ContradictionError",
    ),
    _tokenizer(
        "a token of 400 digits",
        both(
            gone("tokenizer_config.json"),
            gone("tokenizer.json"),
            content("added_tokens.json", b'{"<img>":1,"</img>":2,"<IMG_CONTEXT>":' + b"9" * 400 + b"}"),
        ),
        "<IMG_CONTEXT> at id 999",
        error="ContradictionError",
    ),
    _tokenizer(
        "tokens of texts",
        both(
            gone("tokenizer_config.json"),
            gone("tokenizer.json"),
            content("added_tokens.json", b'{"<img>":1,"</img>":2,"<IMG_CONTEXT>":"3"}'),
        ),
        "<IMG_CONTEXT>",
    ),
    *(
        _tokenizer(f"{name} that is {what}", content(name, text), name, words)
        for name in ("added_tokens.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")
        for what, text, words in (
            ("no JSON", b"{", "not JSON"),
            ("a list", b"[]", "not list"),
            ("deep", b'{"a":' + DEEP_LIST + b"}", "nested too deeply"),
            ("not UTF-8", b'{"\xff":1}', "not valid Unicode"),
        )
    ),
    _tokenizer(
        "a huge configuration of it", sparse("tokenizer_config.json", 1 << 40, b"{"), "more than 67108864 bytes"
    ),
    _tokenizer("a huge chat template", sparse("chat_template.jinja", 1 << 40), "chat_template.jinja", "1048576 bytes"),
    _tokenizer("a chat template of bytes", content("chat_template.jinja", b"\xff"), "chat_template.jinja", "not text"),
    _tokenizer("a number for a chat template", setting("tokenizer_config.json", "chat_template", 7), "chat template"),
    _tokenizer(
        "a text that ends a turn",
        setting("generation_config.json", "eos_token_id", "2"),
        "eos_token_id '2'",
        "is not a token",
    ),
    *(
        _tokenizer(f"{what} for {name} {base}", make(name), name, _WORDS_OF_LINKS.get(what, _NOT_READ), base=base)
        for base in ("custom", "hf")
        for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja", "LICENSE", "vocab.json")
        for what, make in ODD_FILES.items()
        if base == "custom" or what == "a FIFO"
    ),
]

# The sidecar, of an HF directory


def _sidecar(name: str, spoil: Callable[[Path], object], *words: str) -> Attack:
    return Attack(
        name,
        spoil,
        (SIDECAR, "cannot be used", "Remove it to convert without it", *words),
        "CompanionFileError",
        "hf",
        frozenset({"to_custom", "inspect", "verify"}),
    )


def _kept(name: str, text: Any = "evil") -> Callable[[Path], None]:
    return values(SIDECAR, lambda sidecar: sidecar["files"].update({name: text}))


_SIDECAR = [
    *(
        _sidecar(f"a kept file {name!r:.30}", _kept(name), "it holds", "which is not the name of a text file")
        for name in (
            "../../x.json",
            "/etc/passwd",
            "/tmp/x.json",  # noqa: S108 (nothing is ever written there)
            "sub/x.json",
            "..\\x.json",
            "..",
            "",
            ".json",
            ".bashrc.txt",
            "x\0.json",
            WEIGHTS,
            INDEX,
            "pytorch_model.bin",
            "evil.so",
            "evil.sh",
            SIDECAR,
            "x" * 10_000 + ".json",
            "x" * 10_000_000,
        )
    ),
    _sidecar("a kept list", _kept("x.json", []), "its files are not texts"),
    _sidecar("a kept number", _kept("x.json", 7), "its files are not texts"),
    _sidecar("a digest that is a list", values(SIDECAR, lambda s: s["written"].update(x=[])), "files are not texts"),
    *(
        _sidecar(f"a version {json.dumps(version)[:20]}", setting(SIDECAR, "version", version), "it has version")
        for version in (None, 3, -1, True, 2.0, "2", [2], 10**400, 1e308, "x" * 10_000_000)
    ),
    *(
        _sidecar(f"a sidecar with {field} {json.dumps(value)}", setting(SIDECAR, field, value), "it lacks its")
        for field in ("source_format", "family", "files", "written")
        for value in (None, 7, [], ["x"])
    ),
    _sidecar("no config", values(SIDECAR, lambda s: s["files"].pop(CONFIG)), "it lacks its"),
    _sidecar("a list of configs", _kept(CONFIG, []), "it lacks its"),
    _sidecar("a config that is no JSON", _kept(CONFIG, "{"), f"the {CONFIG} in it is not JSON"),
    _sidecar("a deep config", _kept(CONFIG, '{"a":' + DEEP_LIST.decode() + "}"), "nested too deeply"),
    _sidecar("a config of surrogates", content(SIDECAR, b'{"files":"\\ud800"}'), "not valid Unicode"),
    _sidecar("an empty config", _kept(CONFIG, "{}"), "the config.json in it is refused"),
    _sidecar("a generation that is no JSON", _kept("generation_config.json", "[]"), "the generation_config.json in it"),
    _sidecar("a tokenizer that is no JSON", _kept("tokenizer_config.json", "{"), "the tokenizer_config.json in it"),
    _sidecar(
        "a preprocessor that is no JSON", _kept("preprocessor_config.json", "7"), "the preprocessor_config.json in"
    ),
    _sidecar("an unknown family", setting(SIDECAR, "family", "\x1b[31mEvil"), "unknown family"),
    _sidecar("another family", setting(SIDECAR, "family", "Phi-3"), "Phi-3"),
    _sidecar("no JSON", content(SIDECAR, b"{"), "not JSON"),
    _sidecar("a list", content(SIDECAR, b"[]"), "not list"),
    _sidecar("depth", content(SIDECAR, DEEP_OBJECT), "nested too deeply"),
    _sidecar("NULs", sparse(SIDECAR, 64 << 20, b"{"), "not JSON"),
    _sidecar("1 TiB", sparse(SIDECAR, 1 << 40, b"{"), "more than 67108864 bytes"),
    *(
        Attack(
            f"{what} for {SIDECAR}",
            make(SIDECAR),
            (SIDECAR, _WORDS_OF_LINKS.get(what, _NOT_READ)),
            "CompanionFileError",
            "hf",
            frozenset({"to_custom", "inspect", "verify"}),
        )
        for what, make in ODD_FILES.items()
    ),
]

# Code

_TORCH = 6 << 30


def _pickled(name: str, make: Callable[[Path], None], *words: str) -> Attack:
    return Attack(
        name,
        both(gone(WEIGHTS), made("pytorch_model.bin", make)),
        ("pytorch_model.bin", *words),
        by=CONVERSIONS,
        memory=_TORCH,
    )


_CODE = [
    _pickled("a pickle that runs a command", write_bomb, "is not a valid file of torch.save"),
    _pickled("a torch archive that runs a command", write_zipped_bomb, "holds more than tensors", "system"),
]

REFUSED: list[Attack] = [
    *(
        Attack(f"{name} {base}", spoil, (WEIGHTS, *words), base=base, by=by)
        for base, by in (("custom", EVERY), ("hf", frozenset({"to_custom"})))
        for name, spoil, words in _HEADER
    ),
    *(
        Attack(name, add_tensor(key), ("neither checkpoint format",), "UnknownKeyError", by=PLANNED)
        for name, key in _KEYS.items()
    ),
    *(
        Attack(f"{name} among HF's", add_tensor(key), (), "BridgeError", "hf", by=PLANNED)
        for name, key in _KEYS.items()
    ),
    Attack(
        "40,000 tensors without elements",
        header_fields(
            lambda f: f.update({f"{n}": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]} for n in range(40_000)})
        ),
        ("holds nothing",),
        "ContradictionError",
        by=PLANNED,
    ),
    Attack(
        "a tensor of 10^9 times nothing",
        add_tensor("mlp1.9.bias", [10**9, 0], 0),
        ("mlp1.9.bias", "holds nothing"),
        "ContradictionError",
        by=PLANNED,
    ),
    *(Attack(name, spoil, words, base="sharded") for name, spoil, words in _INDEX),
    *(
        Attack(
            f"{what} for the weights {base}",
            make(WEIGHTS),
            (_WORDS_OF_LINKS.get(what, "holds no model.safetensors"),),
            base=base,
        )
        for base in ("custom", "hf")
        for what, make in ODD_FILES.items()
    ),
    *(
        Attack(
            f"{what} for a shard",
            make(SHARDS[1]),
            (SHARDS[1], _WORDS_OF_LINKS.get(what, "is there, but is not a file")),
            base="sharded",
        )
        for what, make in ODD_FILES.items()
    ),
    *(Attack(f"{what} for the index", make(INDEX), (INDEX,), base="sharded") for what, make in ODD_FILES.items()),
    *(
        Attack(
            f"{what} for {CONFIG} {base}",
            make(CONFIG),
            (CONFIG, _WORDS_OF_LINKS.get(what, "does not exist, or is not a file")),
            "ConfigError",
            base,
            PLANNED,
        )
        for base in ("custom", "hf")
        for what, make in ODD_FILES.items()
    ),
    *_CONFIG,
    *_BESIDE,
    *_SIDECAR,
    *_CODE,
]


# What does no harm: the output is what the directory makes without it


def _odd_names(directory: Path) -> None:
    for name in (b"\xff\x1b[31m.txt", b"a\nError: b.md", b"\x1b[2J.yaml", b"\xff", b"-rf"):
        (directory / os.fsdecode(name)).write_text("text")


HARMLESS: list[tuple[str, str, Callable[[Path], object]]] = [
    *((f"{what} that nobody needs", "custom", make("notes.md")) for what, make in ODD_FILES.items()),
    *((f"{what} for a module", "custom", make("modeling_internvl_chat.py")) for what, make in ODD_FILES.items()),
    ("Python modules that auto_map names", "custom", write_evil_code),
    ("a pickle beside the weights", "custom", made("pytorch_model.bin", write_bomb)),
    ("a torch archive beside the weights", "custom", made("pytorch_model.bin", write_zipped_bomb)),
    ("a pickle of an optimizer", "custom", made("training_args.bin", write_bomb)),
    ("names of files with escapes", "custom", _odd_names),
    ("an enormous total_size", "sharded", setting(INDEX, "metadata.total_size", 10**400)),
    ("a negative total_size", "sharded", setting(INDEX, "metadata.total_size", -1)),
    ("a total_size of texts", "sharded", setting(INDEX, "metadata.total_size", HOSTILE_TEXT)),
]

_CROWD = b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"
"""Fifteen megabytes, far below any limit, that take 360 MB as Python lists."""

REFUSED += [
    *(
        Attack(f"five million lists in {name}", content(name, data), (name,), "BridgeError", base, memory=350 << 20)
        for base, name, data in (
            ("custom", WEIGHTS, framed(_CROWD)),
            ("sharded", INDEX, _CROWD),
            ("custom", CONFIG, _CROWD),
        )
    ),
    Attack(
        f"five million lists in {SIDECAR}",
        content(SIDECAR, _CROWD),
        (SIDECAR,),
        "BridgeError",
        "hf",
        frozenset({"to_custom"}),
        memory=350 << 20,
    ),
    *(
        Attack(f"{what} for an index beside a single file", make(INDEX), (INDEX,), base="custom")
        for what, make in list(ODD_FILES.items())[:3]
    ),
    Attack(
        "a sidecar of an unknown format",
        setting(SIDECAR, "source_format", "evil"),
        (SIDECAR, "cannot be used", "evil"),
        "CompanionFileError",
        "hf",
        frozenset({"to_custom"}),
    ),
    Attack(
        "a pickled shard whose name no file system takes",
        both(
            gone(WEIGHTS),
            content("pytorch_model.bin.index.json", b'{"weight_map":{"a":"' + b"x" * 300 + b'.bin"}}'),
        ),
        ("pytorch_model.bin.index.json", "not there"),
        by=CONVERSIONS,
        memory=_TORCH,
    ),
]
