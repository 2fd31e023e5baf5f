"""What the docstrings promise: every public function explains itself, and its examples run."""

import doctest
import inspect
import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from adapters import lora_config, random_adapter, weights_of
from safetensors.torch import save_file
from support import copy_custom
from typer.testing import CliRunner
from wrapped import save_as_trainer

import internvl_bridge
from internvl_bridge.cli.app import app

FUNCTIONS = [name for name in internvl_bridge.__all__ if inspect.isfunction(getattr(internvl_bridge, name))]
EXAMPLES = {
    test.name: test
    for module in walk_packages(internvl_bridge.__path__, "internvl_bridge.")
    if not module.name.endswith("__main__")
    for test in doctest.DocTestFinder(exclude_empty=True).find(import_module(module.name))
    if test.examples
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_explains_itself(name: str):
    function = getattr(internvl_bridge, name)
    sections = re.split(r"^(Args|Returns|Yields|Raises|Example):\n", inspect.getdoc(function), flags=re.MULTILINE)
    parts = dict(zip(sections[1::2], sections[2::2], strict=True))

    assert [*parts] in (["Args", how, "Raises", "Example"] for how in ("Returns", "Yields"))
    named = re.findall(r"^    \**(\w+): ", parts["Args"], flags=re.MULTILINE)
    assert named == [*inspect.signature(function).parameters]
    assert set(re.findall(r"^    (\w+): ", parts["Raises"], flags=re.MULTILINE)) <= {*dir(internvl_bridge.errors)}
    assert f"{function.__module__}.{name}" in EXAMPLES


def save_adapter(directory: Path) -> None:
    directory.mkdir()
    save_file(
        random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4), directory / "adapter_model.safetensors"
    )
    (directory / "adapter_config.json").write_text(json.dumps(lora_config(r=4)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_as_it_is_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy_custom("qwen3-300m", tmp_path / "InternVL3_5-8B")
    internvl_bridge.to_hf(tmp_path / "InternVL3_5-8B", tmp_path / "my-finetune-HF")
    if "my-lora" in EXAMPLES[name].docstring:
        save_adapter(tmp_path / "my-lora")
        internvl_bridge.to_hf(tmp_path / "my-lora", tmp_path / "my-lora-HF", base=tmp_path / "InternVL3_5-8B")
    if "my-trained" in EXAMPLES[name].docstring:
        save_as_trainer(tmp_path / "InternVL3_5-8B", tmp_path / "my-trained")
    monkeypatch.chdir(tmp_path)
    if "shared-HF" in EXAMPLES[name].docstring:
        command = ["to-hf", "InternVL3_5-8B", "shared-HF", "--worker", "1/1"]
        assert CliRunner().invoke(app, command).exit_code == 0
    told: list[str] = []
    doctest.DocTestRunner().run(EXAMPLES[name], out=told.append)
    assert told == []
