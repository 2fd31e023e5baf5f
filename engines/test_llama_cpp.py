"""llama.cpp's converter, from the source package of llama-cpp-python."""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, edit_json

Checkpoints = Callable[[str], Path]
SOURCE = ROOT / ".venv-engines" / "sdists" / "llama_cpp_python-0.3.36.tar.gz"


@pytest.fixture(scope="session")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("llama_cpp")
    with tarfile.open(SOURCE) as archive:
        archive.extractall(directory, filter="data")
    [found] = directory.glob("*/vendor/llama.cpp")
    sys.path.insert(0, str(found / "gguf-py"))
    return found


def convert(llama_cpp: Path, model: Path, *arguments: str) -> tuple[int, str, Path]:
    outfile = model.parent / f"{model.name}{'-'.join(arguments)}.gguf"
    script = ROOT / "engines" / "llama_cpp_converter.py"
    command = [sys.executable, script, llama_cpp, model, "--outfile", outfile, "--outtype", "bf16", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr[-2000:], outfile


def tensors(path: Path) -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    import gguf

    return {
        tensor.name: (tuple(map(int, tensor.shape)), tensor.tensor_type.name, tensor.data.tobytes())
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3-300m", "qwen3moe-6b", "llama-6b", "gptoss-300m"])
def test_the_language_model_has_the_same_tensors_whatever_it_is_made_of(
    name: str, checkpoints: Checkpoints, llama_cpp: Path
):
    found = {}
    for kind in ("custom", "hf", "back"):
        code, said, outfile = convert(llama_cpp, checkpoints(name) / kind)
        assert code == 0, said
        found[kind] = tensors(outfile)
    assert found["custom"]
    assert found["custom"] == found["hf"] == found["back"]


def test_internlm2_converts_from_the_hf_format_alone(checkpoints: Checkpoints, llama_cpp: Path):
    code, said, outfile = convert(llama_cpp, checkpoints("internlm2-300m") / "hf")
    assert code == 0, said
    assert tensors(outfile)
    assert convert(llama_cpp, checkpoints("internlm2-300m") / "custom")[0] != 0


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3moe-6b", "internlm2-300m", "phi3-300m"])
def test_the_vision_tower_comes_from_the_custom_format(name: str, checkpoints: Checkpoints, llama_cpp: Path):
    found = {}
    for kind in ("custom", "back"):
        code, said, outfile = convert(llama_cpp, checkpoints(name) / kind, "--mmproj")
        assert code == 0, said
        found[kind] = tensors(outfile)
    assert found["custom"]
    assert found["custom"] == found["back"]
    assert convert(llama_cpp, checkpoints(name) / "hf", "--mmproj")[0] != 0


def test_a_class_of_the_tower_makes_an_empty_file(checkpoints: Checkpoints, llama_cpp: Path, tmp_path: Path):
    """Why an HF output has no vision_config.architectures."""
    named = tmp_path / "named"
    shutil.copytree(checkpoints("qwen3-300m") / "hf", named)
    classes = ["InternVisionModel"]
    edit_json(named / "config.json", lambda config: config["vision_config"].update(architectures=classes))
    code, said, outfile = convert(llama_cpp, named, "--mmproj")
    assert code == 0, said
    assert not tensors(outfile)
