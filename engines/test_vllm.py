"""vLLM's tables, read from its source: importing it would take all that it depends on."""

import ast
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from support import load_all

import internvl_bridge

Checkpoints = Callable[[str], Path]
NAMES = ("qwen2-300m", "qwen3-300m", "qwen3moe-6b", "internlm2-300m", "llama-6b", "gptoss-300m", "phi3-300m")
PARTS = ("vision_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.")
MODELS = "vllm/model_executor/models"


def tree(name: str) -> ast.AST:
    path = Path(str(distribution("vllm").locate_file(f"{MODELS}/{name}.py")))
    return ast.parse(path.read_text())


def assigned(name: str, inside: ast.AST) -> Any:
    """The literal that is assigned to ``name``, or that is the one keyword of a call that is."""
    for node in ast.walk(inside):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return ast.literal_eval(value.keywords[0].value if isinstance(value, ast.Call) else value)
    raise LookupError(name)


def parts_of(class_name: str, module: str) -> set[str]:
    """The attributes that a model class gives itself."""
    [found] = [node for node in ast.walk(tree(module)) if isinstance(node, ast.ClassDef) and node.name == class_name]
    attributes = [node for node in ast.walk(found) if isinstance(node, ast.Attribute)]
    return {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}


def test_the_classes_of_both_formats_are_registered():
    models = assigned("_MULTIMODAL_MODELS", tree("registry"))
    assert models["InternVLForConditionalGeneration"] == ("interns1", "InternS1ForConditionalGeneration")
    assert models["InternVLChatModel"] == ("internvl", "InternVLChatModel")


@pytest.mark.parametrize("layout", ["l1", "l2"])
@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_an_hf_output_leads_to_a_part_of_the_model(
    layout: str, name: str, checkpoints: Checkpoints, tmp_path: Path
):
    prefixes = assigned("hf_to_vllm_mapper", tree("interns1"))
    parts = parts_of("InternS1ForConditionalGeneration", "interns1")
    assert {"vision_tower", "multi_modal_projector", "language_model"} <= parts
    internvl_bridge.to_hf(checkpoints(name) / "custom", tmp_path / "hf", layout=layout)
    for key in load_all(tmp_path / "hf"):
        old = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
        mapped = prefixes.get(old, "") + key.removeprefix(old)
        assert mapped.startswith(PARTS), key
