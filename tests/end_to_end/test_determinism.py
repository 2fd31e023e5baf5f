"""The same source gives the same output, byte for byte, whatever Python's hash seed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Custom = Callable[[str], Path]


def convert(direction: str, source: Path, output: Path, seed: str) -> dict[str, bytes]:
    command = [sys.executable, "-m", "internvl_bridge", direction, source, output, "--quiet"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.mark.parametrize("name", ["internlm2-300m", "qwen3moe-6b"])
def test_two_conversions_write_the_same_bytes(name: str, custom: Custom, tmp_path: Path):
    source = custom(name)
    assert convert("to-hf", source, tmp_path / "hf", "1") == convert("to-hf", source, tmp_path / "again", "2")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    back = convert("to-custom", tmp_path / "hf", tmp_path / "back", "1")
    assert convert("to-custom", tmp_path / "hf", tmp_path / "back-again", "2") == back
