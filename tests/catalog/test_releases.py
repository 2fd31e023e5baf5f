"""The known releases: the numbers that are published of them, and a plan for each from files of its true shapes."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
from support import copy_custom
from typer.testing import CliRunner

from internvl_bridge.catalog.releases import AWQ, RELEASES, Release
from internvl_bridge.checkpoint.model import Source, read_model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.cli.app import app
from internvl_bridge.convert.companions.to_hf import hf_files
from internvl_bridge.mapping.families import INTERNLM2
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import CUSTOM, MOST_COMPATIBLE
from internvl_bridge.storage.header import DTYPE_BITS
from internvl_bridge.storage.small_files import write_files

Specs = Mapping[str, TensorSpec]

# Parameters in units of 10**9, and tensors in the custom format, of the checkpoints on the hub.
PUBLISHED = {
    "InternVL-Chat-V1-5": (25.514, 934),
    "InternVL2-1B": (0.938, 637),
    "InternVL2-2B": (2.206, 517),
    "InternVL2-4B": (4.147, 541),
    "InternVL2-8B": (8.075, 573),
    "InternVL2-40B": (40.069, 1138),
    "InternVL2-Llama3-76B": (76.262, 1318),
    "InternVL2_5-4B": (3.713, 781),
    "InternVL2_5-38B": (38.388, 1366),
    "InternVL2_5-78B": (78.408, 1558),
    "InternVL3-2B": (2.089, 685),
    "InternVL3-8B": (7.944, 685),
    "InternVL3-9B": (9.142, 781),
    "InternVL3-14B": (15.117, 925),
    "InternVL3_5-1B": (1.061, 657),
    "InternVL3_5-2B": (2.348, 657),
    "InternVL3_5-4B": (4.732, 745),
    "InternVL3_5-8B": (8.528, 745),
    "InternVL3_5-14B": (15.120, 789),
    "InternVL3_5-38B": (38.390, 1302),
    "InternVL3_5-30B-A3B": (30.849, 19213),
    "InternVL3_5-241B-A28B": (240.699, 37540),
    "InternVL3_5-GPT-OSS-20B-A4B-Preview": (21.239, 757),
}
QUICK = ("InternVL2-2B", "InternVL3-8B", "InternVL3_5-1B")


def named(name: str) -> Release:
    return next(release for release in RELEASES if release.name == name)


def custom_specs(release: Release, *, awq: bool = False) -> Specs:
    specs = {key: TensorSpec("BF16", shape) for key, shape in release.schema.items()}
    if awq:
        specs = {key: TensorSpec("F16", shape) for key, shape in release.schema.items()}
        for key in [key for key in specs if key.startswith("language_model.") and key.endswith("_proj.weight")]:
            layer, (outputs, inputs) = key.removesuffix(".weight"), specs.pop(key).shape
            specs[f"{layer}.qweight"] = TensorSpec("I32", (inputs, outputs // 8))
            specs[f"{layer}.qzeros"] = TensorSpec("I32", (inputs // 128, outputs // 8))
            specs[f"{layer}.scales"] = TensorSpec("F16", (inputs // 128, outputs))
    text = release.dims.text
    return plan_route(Route(release.language_model.family, text, MOST_COMPATIBLE, CUSTOM), specs).targets


def custom_config(release: Release) -> dict[str, Any]:
    family, text, tower = release.language_model.family, release.dims.text, release.tower
    hf: dict[str, Any] = {
        "vocab_size": text.vocab,
        "hidden_size": text.hidden,
        "intermediate_size": text.intermediate,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.kv_heads,
        "head_dim": text.head_dim,
        "attention_bias": text.attention_bias,
    }
    if text.experts is not None and family.experts is not None:
        hf |= {family.experts.count: text.experts.experts, family.experts.intermediate: text.experts.intermediate}
    llm = {field.custom: field.to_custom(hf[field.hf]) for field in family.fields if field.hf in hf}
    vision = {
        "hidden_size": tower.hidden,
        "intermediate_size": tower.intermediate,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "image_size": tower.image_size,
        "norm_type": "layer_norm" if tower.layer_norm else "rms_norm",
        "qkv_bias": tower.qkv_bias,
        "qk_normalization": tower.qk_norm,
    }
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": release.template,
        "ps_version": "v2",
        "downsample_ratio": 0.5,
        "force_image_size": 448,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "max_dynamic_patch": 12,
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "llm_config": {"architectures": [family.architecture], "model_type": family.hf_model_type, **llm},
    }


def write_sparse(directory: Path, specs: Specs) -> None:
    """One file with a header and no data that would take room."""
    header, position = {}, 0
    for key, spec in specs.items():
        end = position + prod(spec.shape) * DTYPE_BITS[spec.dtype] // 8
        header[key] = {"dtype": spec.dtype, "shape": spec.shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header).encode()
    with (directory / "model.safetensors").open("xb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + position)


def make(release: Release, directory: Path, specs: Specs, **config: Any) -> Path:
    copy_custom("qwen2-300m", directory)
    (directory / "model.safetensors").unlink()
    write_sparse(directory, specs)
    (directory / "config.json").write_text(json.dumps(custom_config(release) | config))
    return directory


def planned(source: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["plan", str(source), "--json"])
    document = json.loads(result.stdout)
    assert document["result"] is not None, document["error"]
    found: dict[str, Any] = document["result"]
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_tensors_are_those_that_are_published(name: str):
    release = named(name)
    assert (round(release.parameters / 1e9, 3), len(custom_specs(release))) == PUBLISHED[name]


@pytest.mark.parametrize(
    "release",
    [
        pytest.param(release, id=release.name, marks=[] if release.name in QUICK else pytest.mark.exhaustive)
        for release in RELEASES
    ],
)
def test_a_release_is_planned_both_ways_from_its_true_shapes(release: Release, tmp_path: Path):
    specs = custom_specs(release)
    source, hf = make(release, tmp_path / "custom", specs), tmp_path / "hf"
    there = planned(source)
    model = read_model(Source(source))
    plan = plan_model(model, MOST_COMPATIBLE, stores_copy=False)
    assert plan.plan.targets == {key: TensorSpec("BF16", shape) for key, shape in release.schema.items()}
    hf.mkdir()
    files = hf_files(model, plan, source, None)
    write_files(hf, files.texts, files.copies)
    write_sparse(hf, plan.plan.targets)
    back = planned(hf)
    home = plan_model(read_model(Source(hf), source), CUSTOM, stores_copy=False)
    assert home.plan.targets == specs
    assert min(there["budget"]["verified"], back["budget"]["verified"]) > 2 * release.parameters


@pytest.mark.parametrize(
    "release",
    [
        pytest.param(release, id=release.name, marks=[] if release.name in QUICK else pytest.mark.exhaustive)
        for release in RELEASES
        if AWQ in release.variants and release.language_model.family is not INTERNLM2
    ],
)
def test_an_awq_release_is_planned_from_its_true_shapes(release: Release, tmp_path: Path):
    specs = custom_specs(release, awq=True)
    source = make(release, tmp_path / "custom", specs, quantization_config={"quant_method": "awq"})
    assert planned(source)["budget"]["verified"] > release.parameters // 2
