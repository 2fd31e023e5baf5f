"""What the tests share: the stored checkpoints, and ways to read and spoil a directory."""

import json
import runpy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import internvl_bridge
from internvl_bridge.metadata.sidecar import SIDECAR_FILE

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
NAMES = sorted(path.name for path in (DATA / "custom").iterdir())


def copy_custom(name: str, directory: Path) -> Path:
    """Make the stored custom checkpoint ``name`` a complete directory at ``directory``."""
    tokenizer = "internlm2" if name.startswith("internlm2") else "bpe"
    shutil.copytree(DATA / "custom" / name, directory)
    shutil.copytree(DATA / "tokenizers" / tokenizer, directory, dirs_exist_ok=True)
    return directory


def make_synthetic(directory: Path, preset: str = "tiny") -> Path:
    """Make a checkpoint of random weights in several files at ``directory``, as examples/synthetic.py does."""
    example = runpy.run_path(str(ROOT / "examples" / "synthetic.py"))
    example["make"](directory, example["PRESETS"][preset])
    return directory


def add_modules(directory: Path) -> tuple[str, ...]:
    """Write the Python modules that the config.json of a custom checkpoint names; running them ends the program."""
    names = ("configuration_internvl_chat.py", "modeling_internvl_chat.py")
    for name in names:
        (directory / name).write_text(f"raise SystemExit('{name} was run')\n")
    return names


def load_all(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a directory, read by the safetensors library."""
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Let ``change`` modify the tensors of a one-file checkpoint in place."""
    path = directory / "model.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def shard(directory: Path, place: Callable[[str], int]) -> None:
    """Turn a one-file checkpoint into shards; ``place`` says in which one a key lands (from 0)."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    count = 1 + max(place(key) for key in tensors)
    weight_map = {key: f"model-{place(key) + 1:05d}-of-{count:05d}.safetensors" for key in sorted(tensors)}
    for name in set(weight_map.values()):
        part = {key: tensor for key, tensor in tensors.items() if weight_map[key] == name}
        save_file(part, directory / name, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let ``change`` modify a JSON file in place."""
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values, indent=2))


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file by hand, in the order given: ``{key: (dtype, shape, data)}``."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    position = 0
    for key, (dtype, shape, data) in tensors.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(d for _, _, d in tensors.values()))


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors agree in dtype, shape and every bit (NaN included)."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def said(report: internvl_bridge.ConversionReport) -> tuple[str, ...]:
    """What a conversion says about itself, be it a warning or a note."""
    return (*report.warnings, *report.notes)


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of an output, but for what the sidecar remembers of the conversion: its options, its notes."""
    return {path.name: without_record(path) for path in directory.iterdir()}


def without_record(path: Path) -> bytes:
    """The bytes of a file of an output; of the sidecar, all but the record of the conversion."""
    data = path.read_bytes()
    if path.name != SIDECAR_FILE or b'"conversion"' not in data or not data.endswith(b"}\n"):
        return data
    sidecar = json.loads(data)
    return json.dumps(
        {name: value for name, value in sidecar.items() if name not in {"conversion", "checksum"}}, indent=2
    ).encode()
