"""Real PEFT loads converted adapters, and the model computes with them what it computed with the originals."""

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support import DATA, copy_custom

import internvl_bridge

pytestmark = [
    pytest.mark.filterwarnings(
        f"ignore::{kind}"
    )  # PEFT uses what transformers deprecates, and warns of patterns it uses
    for kind in ("FutureWarning", "RuntimeWarning", "UserWarning", "DeprecationWarning")
]
MAJOR = int(transformers.__version__.partition(".")[0])
NEW_PEFT = tuple(map(int, peft.__version__.split(".")[:2])) >= (0, 20)
ADAPTERS = DATA / "adapters"


def computed(base: Path, name: str, adapter: Path) -> torch.Tensor:
    """The logits of a model with an adapter."""
    inputs = load_file(DATA / "expected" / f"{name}.safetensors")
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        base, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(model, adapter).eval()
        logits: torch.Tensor = adapted(pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"]).logits
    return logits


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("custom", "qwen2-300m-all-linear"),
        ("custom", "qwen2-300m-rslora"),
        ("hf", "qwen2-300m-all-linear"),
        ("hf", "qwen2-300m-rslora"),
        ("hf", "qwen2-300m-q-and-v"),
        ("hf", "gptoss-300m-experts"),
    ],
)
@pytest.mark.parametrize("keeps_sidecar", [True, False])
def test_the_logits_are_those_of_the_original(place: str, name: str, keeps_sidecar: bool, tmp_path: Path):
    if "gptoss" in name and not NEW_PEFT and MAJOR < 5:
        pytest.skip("before 0.20, PEFT had the factors of these experts the other way round")
    source = ADAPTERS / place / name
    base = json.loads((source / "adapter_config.json").read_text())["base_model_name_or_path"].removesuffix("-hf")
    custom = copy_custom(base, tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    if place == "hf":
        internvl_bridge.to_custom(source, tmp_path / "through", base=custom)
        source = tmp_path / "through"
        if not keeps_sidecar:
            (source / "internvl_bridge.json").unlink()
    internvl_bridge.to_hf(source, tmp_path / "adapter", base=custom, transformers=MAJOR)  # type: ignore[arg-type]
    logits = computed(tmp_path / "hf", base, tmp_path / "adapter")
    expected = load_file(ADAPTERS / place / f"{name}.logits.safetensors")["l"]
    assert (logits - expected).abs().max() < 2e-5
    plain = load_file(DATA / "expected" / f"{base}.safetensors")["logits"]
    assert (expected - plain).abs().max() > 1e-2


@pytest.mark.skipif(MAJOR < 5, reason="the stored adapter is one of transformers 5")
def test_experts_one_by_one_and_together_compute_the_same(tmp_path: Path):
    source, base = ADAPTERS / "hf" / "qwen3moe-6b-experts", "qwen3moe-6b"
    custom = copy_custom(base, tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    internvl_bridge.to_custom(source, tmp_path / "through", base=custom)
    (tmp_path / "through" / "internvl_bridge.json").unlink()
    internvl_bridge.to_hf(tmp_path / "through", tmp_path / "adapter", base=custom)
    expected = computed(tmp_path / "hf", base, source)
    assert (computed(tmp_path / "hf", base, tmp_path / "adapter") - expected).abs().max() < 2e-5
    plain = load_file(DATA / "expected" / f"{base}.safetensors")["logits"]
    assert (expected - plain).abs().max() > 1e-2
