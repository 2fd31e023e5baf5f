"""Make the reports in docs/gallery from the stored checkpoints of the tests, and from a fine-tune that is made up.

    python docs/gallery.py

Random numbers are seeded, and the date is that of the first release. So the same versions make the same files, but for
times and the free space of the disk.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from synthetic import Preset, Qwen3, Tower, make  # noqa: E402 (an example is not a package)

_GALLERY = ROOT / "docs" / "gallery"
_DATA = ROOT / "tests" / "data"
_MODEL = Preset(Tower(32, 64, 24, 4, 56, big=False), Qwen3(640, 48, 96, 28, 6, 2, 8), shard_bytes=300_000)
"""A model as deep as InternVL3_5-1B, and narrow."""
_DATE = "1764374400"
_DIFFERS = 1
_Change = Callable[[str, torch.Tensor], torch.Tensor]


def main() -> None:
    """Make all reports anew."""
    _GALLERY.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        make(home / "base-model", _MODEL)
        generator = torch.Generator().manual_seed(0)
        _rewrite(home / "base-model", lambda _, tensor: 0.02 * torch.randn(tensor.shape, generator=generator))
        shutil.copytree(home / "base-model", home / "my-finetune")
        _rewrite(home / "my-finetune", lambda key, tensor: _trained(key, tensor, generator))
        shutil.copytree(_DATA / "custom" / "qwen3moe-6b", home / "experts")
        shutil.copytree(_DATA / "tokenizers" / "bpe", home / "experts", dirs_exist_ok=True)
        _report(home, "finetune", ["verify", "base-model", "my-finetune"], expected=_DIFFERS)
        _report(home, "plan", ["plan", "my-finetune", "my-finetune-HF", "--max-shard-size", "1MB"])
        _report(home, "conversion", ["to-hf", "experts", "experts-HF", "--experts", "fused"])
        _report(home, "cast", ["cast", "my-finetune", "my-float16", "--dtype", "float16"])


def _report(home: Path, name: str, command: Sequence[str], expected: int = 0) -> None:
    """Run ``command`` in ``home`` twice: for a page, and for a picture."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": _DATE, "PYTHONPATH": str(ROOT)}
    for suffix in ("html", "svg"):
        report = f"{name}.{suffix}"
        again = ["--overwrite"] if suffix == "svg" and command[0] in {"to-hf", "cast"} else []
        code = subprocess.run(
            [sys.executable, "-m", "internvl_bridge", *command, "--report", report, *again],
            cwd=home,
            env=environment,
            check=False,
            stdout=subprocess.DEVNULL,
        ).returncode
        if code != expected:
            sys.exit(f"{command} exited with {code}, and {expected} was expected.")
        shutil.copy(home / report, _GALLERY / report)


def _rewrite(directory: Path, change: _Change) -> None:
    """Change every tensor of a checkpoint, in its file."""
    for path in sorted(directory.glob("*.safetensors")):
        tensors = {key: change(key, tensor).to(tensor.dtype) for key, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


def _trained(key: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """``tensor`` as if it had been trained: the tower is frozen, and later layers and attention change more."""
    if key.startswith("vision_model"):
        return tensor
    words = key.split(".")
    depth = int(words[3]) / _MODEL.language.layers if "layers" in words else 0.5
    amount = 0.08 if "mlp1" in key else 0.002 * 30**depth
    if "norm" in key:
        amount /= 40
    elif "self_attn" in key:
        amount *= 1.8
    return tensor.float() + amount * tensor.float().std() * torch.randn(tensor.shape, generator=generator)


if __name__ == "__main__":
    main()
