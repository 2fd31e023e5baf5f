"""Checkpoints whose language model is quantised: what names alone can convert is converted, all else refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import DATA, edit_json, load_all, rewrite, said

import internvl_bridge
from internvl_bridge.errors import BridgeError

Custom = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]

GROUP = 8
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which of 8 outputs each 4 bits of an int32 hold, as AutoAWQ and LMDeploy write
LAYERS = "language_model.model.layers."


def pack_awq(weight: torch.Tensor) -> Tensors:
    outputs, inputs = weight.shape
    scales = weight.float().abs().reshape(outputs, inputs // GROUP, GROUP).amax(2).T / 7
    codes = (weight.float().T / scales.repeat_interleave(GROUP, 0)).round().clamp(-7, 7).int() + 8
    zeros = torch.full((inputs // GROUP, outputs), 8, dtype=torch.int32)

    def packed(values: torch.Tensor) -> torch.Tensor:
        columns = values.reshape(values.shape[0], -1, 8)
        return sum(columns[:, :, output] << (4 * place) for place, output in enumerate(AWQ_ORDER)).int()

    return {"qweight": packed(codes), "qzeros": packed(zeros), "scales": scales.half()}


def unpack_awq(tensors: Tensors, layer: str) -> torch.Tensor:
    def unpacked(values: torch.Tensor) -> torch.Tensor:
        columns = torch.empty(*values.shape, 8)
        for place, output in enumerate(AWQ_ORDER):
            columns[:, :, output] = (values >> (4 * place)) & 15
        return columns.flatten(1)

    codes, zeros, scales = (tensors[f"{layer}.{name}"] for name in ("qweight", "qzeros", "scales"))
    zeros, scales = (rows.repeat_interleave(GROUP, 0) for rows in (unpacked(zeros), scales.float()))
    return ((unpacked(codes) - zeros) * scales).T


def pack_fp8(weight: torch.Tensor) -> Tensors:
    scale = weight.float().abs().amax() / 448
    return {
        "weight": (weight.float() / scale).to(torch.float8_e4m3fn),
        "weight_scale_inv": scale.repeat(*(-(-side // 32) for side in weight.shape)),
    }


def pack_compressed(weight: torch.Tensor) -> Tensors:
    scale = weight.float().abs().amax(1, keepdim=True) / 448
    return {"weight": (weight.float() / scale).to(torch.float8_e4m3fn), "weight_scale": scale.bfloat16()}


def pack_int8(weight: torch.Tensor) -> Tensors:
    largest = weight.float().abs().amax(1)
    codes = (weight.float() * (127 / largest[:, None])).round().to(torch.int8)
    return {"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}


def pack_four_bits(weight: torch.Tensor) -> Tensors:
    state = json.dumps({"quant_type": "nf4", "blocksize": 64, "shape": list(weight.shape)}).encode()
    return {
        "weight": torch.randint(0, 256, (weight.numel() // 2, 1), dtype=torch.uint8),
        "weight.absmax": torch.rand(weight.numel() // 64),
        "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.quant_state.bitsandbytes__nf4": torch.frombuffer(bytearray(state), dtype=torch.uint8),
    }


KINDS: dict[str, tuple[Callable[[torch.Tensor], Tensors], dict[str, Any]]] = {
    "AWQ": (pack_awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}),
    "FP8": (pack_fp8, {"quant_method": "fp8", "weight_block_size": [32, 32]}),
    "compressed-tensors": (pack_compressed, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "bitsandbytes of 8 bits": (pack_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "bitsandbytes of 4 bits": (pack_four_bits, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
}
SKIPPED = {
    "awq": "modules_to_not_convert",
    "fp8": "modules_to_not_convert",
    "compressed-tensors": "ignore",
    "bitsandbytes": "llm_int8_skip_modules",
}


def is_linear(key: str) -> bool:
    return key.startswith(LAYERS) and key.endswith("_proj.weight")


def quantise(source: Path, kind: str, *, which: Callable[[str], bool] = is_linear, section: str = "llm_config") -> Path:
    """Quantise the linear layers of the language model, or others, and say so in a section of config.json."""
    pack, stated = KINDS[kind]

    def change(tensors: Tensors) -> None:
        for key in [key for key in tensors if which(key)]:
            packed = pack(tensors.pop(key))
            layer = key.removesuffix(".weight")
            tensors.update({f"{layer}.{name}": tensor.contiguous() for name, tensor in packed.items()})

    rewrite(source, change)
    edit_json(source / "config.json", lambda config: config[section].update(quantization_config=stated))
    return source


def config_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen2-300m", "llama-6b", "phi3-300m", "qwen3moe-6b"])
def test_packed_tensors_are_copied_and_come_home(kind: str, name: str, custom: Custom, tmp_path: Path):
    source = quantise(custom(name), kind)
    method = KINDS[kind][1]["quant_method"]
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    before, after = load_all(source), load_all(tmp_path / "hf")
    layers = {key for key in before if key.startswith(LAYERS)}
    assert layers == {key for key in after if key.startswith(LAYERS)}
    assert all(torch.equal(before[key], after[key]) for key in layers)
    assert any(f"quantised ({kind}). Its packed tensors are copied" in note for note in said(report))
    assert any("We have not loaded such an output" in note for note in said(report)) is (kind == "AWQ")
    stated = config_of(tmp_path / "hf")["quantization_config"]
    assert {**KINDS[kind][1], SKIPPED[method]: stated[SKIPPED[method]]} == stated
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert internvl_bridge.verify(source, tmp_path / "back").identical
    assert config_of(tmp_path / "back") == config_of(source)
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "alone")
    kept = config_of(tmp_path / "alone")["quantization_config"][SKIPPED[method]]
    mark = "re:.*{}.*" if method == "compressed-tensors" else "{}"
    assert kept[:3] == [mark.format(part) for part in ("vision_model", "mlp1", "lm_head")]


def test_awq_means_the_same_numbers_in_the_output(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    weights = load_all(source)
    internvl_bridge.to_hf(quantise(source, "AWQ"), tmp_path / "hf")
    before, after = load_all(source), load_all(tmp_path / "hf")
    for key in filter(is_linear, weights):
        layer = key.removesuffix(".weight")
        numbers = unpack_awq(after, layer)
        assert torch.equal(numbers, unpack_awq(before, layer))
        assert (numbers - weights[key].float()).abs().max() < weights[key].float().abs().max() / 10


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3moe-6b"])
def test_transformers_quantises_exactly_the_layers_that_are_packed(
    partly: bool, name: str, custom: Custom, tmp_path: Path
):
    import transformers

    utils = pytest.importorskip("transformers.quantizers.quantizers_utils")
    if not hasattr(utils, "should_convert_module"):
        pytest.skip("version 4 compares names in another way")
    which = (lambda key: is_linear(key) and ".layers.1." not in key) if partly else is_linear
    internvl_bridge.to_hf(quantise(custom(name), "AWQ", which=which), tmp_path / "hf")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf")
    skipped = config.quantization_config["modules_to_not_convert"]
    with torch.device("meta"):
        model = transformers.InternVLForConditionalGeneration(config)
    packed = {key.removesuffix(".qweight") for key in load_all(tmp_path / "hf") if key.endswith(".qweight")}
    for module, part in model.named_modules():
        if isinstance(part, torch.nn.Linear):
            layer = module.replace("model.language_model.layers.", LAYERS)
            assert utils.should_convert_module(module, skipped) == (layer in packed), module


def test_a_reference_with_other_packed_layers_does_not_say_which_are_packed(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(quantise(custom("qwen2-300m"), "AWQ"), tmp_path / "reference")
    (tmp_path / "part").mkdir()
    source = tmp_path / "part" / "qwen2-300m"
    shutil.copytree(custom("llama-6b").parent / "qwen2-300m", source)
    shutil.copy(DATA / "custom" / "qwen2-300m" / "model.safetensors", source / "model.safetensors")
    quantise(source, "AWQ", which=lambda key: is_linear(key) and ".layers.1." not in key)
    internvl_bridge.to_hf(source, tmp_path / "hf", reference=tmp_path / "reference")
    kept = config_of(tmp_path / "hf")["quantization_config"]["modules_to_not_convert"]
    assert "model.language_model.layers.1.mlp.up_proj" in kept


def test_experts_that_bitsandbytes_has_packed_are_warned_of(custom: Custom, tmp_path: Path):
    report = internvl_bridge.to_hf(quantise(custom("qwen3moe-6b"), "bitsandbytes of 8 bits"), tmp_path / "hf")
    assert any("transformers 5 stacks experts" in warning for warning in report.warnings)


def test_what_contradicts_its_declaration_is_not_called_convertible(custom: Custom):
    source = quantise(custom("qwen2-300m"), "AWQ")
    drop_declaration(source)
    found = internvl_bridge.inspect(source)
    assert "no quantization_config" in str(found.refusal)
    assert found.engines == ()


def test_a_repaired_declaration_names_what_is_not_quantised(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(quantise(custom("qwen2-300m"), "AWQ"), tmp_path / "hf")
    right = config_of(tmp_path / "hf")["quantization_config"]
    own = {**right, "modules_to_not_convert": [*right["modules_to_not_convert"], "mine"]}
    edit_json(tmp_path / "hf" / "config.json", lambda config: config.update(quantization_config=own))
    second = {**right, "modules_to_not_convert": []}
    edit_json(tmp_path / "hf" / "config.json", lambda c: c["text_config"].update(quantization_config=second))
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "same")
    assert "quantization_config" not in config_of(tmp_path / "same")["text_config"]
    assert config_of(tmp_path / "same")["quantization_config"] == own
    del own["modules_to_not_convert"]
    edit_json(tmp_path / "hf" / "config.json", lambda config: config.update(quantization_config=own))
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired")
    assert config_of(tmp_path / "repaired")["quantization_config"] == right


@pytest.mark.parametrize(
    ("name", "which", "kind", "reason"),
    [
        ("internlm2-300m", lambda key: ".attention.w" in key, "AWQ", "quantised InternLM2. The HF format splits its"),
        ("qwen2-300m", lambda key: key.endswith("attn.qkv.weight"), "FP8", "qkv.weight_scale_inv: it is quantised"),
        (
            "qwen2-300m",
            lambda key: key.endswith("mlp1.1.weight"),
            "bitsandbytes of 8 bits",
            "converted only in the",
        ),
    ],
)
def test_what_names_alone_cannot_convert_is_refused(
    name: str, which: Callable[[str], bool], kind: str, reason: str, custom: Custom, tmp_path: Path
):
    source = quantise(custom(name), kind, which=which)
    with pytest.raises(BridgeError, match=reason) as error:
        internvl_bridge.to_hf(source, tmp_path / "hf")
    assert "Convert the unquantised checkpoint" in str(error.value)
    assert not (tmp_path / "hf").exists()


def drop_declaration(source: Path) -> None:
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("quantization_config"))


def declare_another(source: Path) -> None:
    edit_json(source / "config.json", lambda config: config.update(quantization_config={"quant_method": "fp8"}))


def cut(source: Path) -> None:
    key = f"{LAYERS}1.mlp.up_proj.qzeros"
    rewrite(source, lambda tensors: tensors.update({key: tensors[key][:, 1:].contiguous()}))


def lose(source: Path) -> None:
    rewrite(source, lambda tensors: tensors.pop(f"{LAYERS}1.mlp.up_proj.scales"))


def retype(source: Path) -> None:
    key = f"{LAYERS}1.mlp.up_proj.qweight"
    rewrite(source, lambda tensors: tensors.update({key: tensors[key].to(torch.int64)}))


def keep_weight(source: Path) -> None:
    rewrite(source, lambda tensors: tensors.update({f"{LAYERS}1.mlp.up_proj.weight": torch.zeros(96, 64)}))


def order_by_activation(source: Path) -> None:
    order = {f"{LAYERS}1.mlp.up_proj.g_idx": torch.zeros(64, dtype=torch.int32)}
    rewrite(source, lambda tensors: tensors.update(order))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop_declaration, r"no quantization_config, but the tensors are quantised as AWQ"),
        (declare_another, r"of method 'fp8', but the tensors are quantised as AWQ \('awq'\)"),
        (cut, r"up_proj\.qzeros has shape"),
        (lose, r"describes .*up_proj\.scales, but the checkpoint does not have it"),
        (retype, r"up_proj\.qweight has dtype I64"),
        (keep_weight, r"has .*up_proj\.weight, but config\.json describes a model without"),
        (order_by_activation, r"up_proj\.g_idx: it is quantised"),
    ],
)
def test_packed_tensors_that_do_not_fit_are_refused(
    spoil: Callable[[Path], None], reason: str, custom: Custom, tmp_path: Path
):
    source = quantise(custom("qwen2-300m"), "AWQ")
    spoil(source)
    with pytest.raises(BridgeError, match=reason):
        internvl_bridge.to_hf(source, tmp_path / "hf")


@pytest.mark.parametrize("kind", KINDS)
def test_casting_leaves_packed_tensors_as_they_are(kind: str, custom: Custom, tmp_path: Path):
    source = quantise(custom("qwen2-300m"), kind)
    before = load_all(source)
    layers = {key for key in before if is_linear(key.rpartition(".")[0] + ".weight") or ".weight." in key}
    packed = {key for key in layers if not key.endswith(".bias")}
    report = internvl_bridge.cast(source, tmp_path / "cast", dtype="float32")
    after = load_all(tmp_path / "cast")
    assert after.keys() == before.keys()
    assert all(after[key].dtype == before[key].dtype and torch.equal(after[key], before[key]) for key in packed)
    rest = before.keys() - packed
    assert rest
    assert all(torch.equal(after[key], before[key].float()) for key in rest)
    assert any("The model is quantised" in note for note in said(report))
