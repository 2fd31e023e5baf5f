"""The numbers that decide about tensors: their defaults, and that senseless ones are refused by name."""

from copy import deepcopy
from typing import Any

import pytest

from internvl_bridge.errors import ConfigError
from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims
from internvl_bridge.mapping.families import default_family
from internvl_bridge.metadata.config.dimensions import model_dims

VISION = {
    "hidden_size": 8,
    "intermediate_size": 6,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": [28, 28],
    "patch_size": [14, 14],
    "norm_type": "layer_norm",
    "attention_bias": True,
    "use_qk_norm": False,
}
TEXT = {
    "model_type": "qwen2",
    "vocab_size": 11,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MOE = TEXT | {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 5}
GPT_OSS = TEXT | {"model_type": "gpt_oss", "num_local_experts": 3}


def dims_of(values: dict[str, Any]) -> ModelDims:
    family = default_family(values["text_config"]["model_type"])
    assert family is not None
    return model_dims(values, family)


def config(text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION, **top: Any) -> dict[str, Any]:
    return {"downsample_ratio": 0.5, "text_config": text, "vision_config": vision, **top}


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_every_dimension_is_read() -> None:
    assert dims_of(config()) == ModelDims(
        vision=VisionDims(8, 6, 3, 2, 3, 28, 14, layer_norm=True, qkv_bias=True, qk_norm=False),
        text=TextDims(11, 12, 10, 2, 4, 2, 3, attention_bias=False, mlp_bias=False, experts=None),
        shuffled=4,
    )


def test_every_feature_of_the_tower_is_read() -> None:
    tower = VISION | {"norm_type": "rms_norm", "attention_bias": False, "use_qk_norm": True}

    vision = dims_of(config(vision=tower)).vision

    assert (vision.layer_norm, vision.qkv_bias, vision.qk_norm) == (False, False, True)


@pytest.mark.parametrize(("ratio", "shuffled"), [(0.5, 4), (1, 1), (1.0, 1), (0.25, 16), (0.3, 9)])
def test_the_ratio_says_how_many_patches_are_joined(ratio: float, shuffled: int) -> None:
    tower = VISION | {"image_size": [14 * 12, 14 * 12], "patch_size": [14, 14]}
    assert dims_of(config(downsample_ratio=ratio, vision=tower)).shuffled == shuffled


def test_patches_that_the_ratio_does_not_join_are_refused() -> None:
    tower = VISION | {"image_size": [42, 42], "patch_size": [14, 14]}
    with pytest.raises(ConfigError, match="3 by 3 patches, which downsample_ratio cannot join 2 by 2"):
        dims_of(config(downsample_ratio=0.5, vision=tower))


def test_a_ratio_that_is_not_stated_is_a_half() -> None:
    assert dims_of(without(config(), "downsample_ratio")).shuffled == 4


@pytest.mark.parametrize("side", [28, [28], [28, 28]])
def test_an_image_size_is_a_side_or_a_pair(side: Any) -> None:
    assert dims_of(config(vision=VISION | {"image_size": side})).vision.image_size == 28


@pytest.mark.parametrize("kv_heads", [None, ...])
def test_without_key_value_heads_every_head_has_its_own(kv_heads: Any) -> None:
    text = without(TEXT, "num_key_value_heads")

    assert dims_of(config(text if kv_heads is ... else TEXT | {"num_key_value_heads": None})).text.kv_heads == 4


@pytest.mark.parametrize(
    ("text", "head_dim"),
    [(TEXT, 3), (TEXT | {"model_type": "qwen3"}, 128), (GPT_OSS, 64), (MOE, 3), (TEXT | {"head_dim": 7}, 7)],
)
def test_a_head_has_the_size_that_its_class_assumes(text: dict[str, Any], head_dim: int) -> None:
    assert dims_of(config(text)).text.head_dim == head_dim


@pytest.mark.parametrize(
    ("text", "bias"),
    [
        (TEXT | {"model_type": "llama"}, False),
        (TEXT | {"model_type": "llama", "attention_bias": True}, True),
        (GPT_OSS, True),
        (GPT_OSS | {"attention_bias": False}, False),
    ],
)
def test_attention_has_the_bias_that_its_class_assumes(text: dict[str, Any], bias: bool) -> None:
    assert dims_of(config(text)).text.attention_bias is bias


@pytest.mark.parametrize("bias", [False, True])
def test_the_bias_of_an_mlp_is_read(bias: bool) -> None:
    assert dims_of(config(TEXT | {"model_type": "llama", "mlp_bias": bias})).text.mlp_bias is bias


def test_a_qwen3_moe_says_which_layers_have_experts() -> None:
    text = MOE | {"decoder_sparse_step": 2, "mlp_only_layers": [3]}

    experts = dims_of(config(text)).text.experts

    assert experts == ExpertDims(3, 5, 2, frozenset({3}))
    assert [experts.in_layer(layer) for layer in range(6)] == [False, True, False, False, False, True]


@pytest.mark.parametrize("dense", [None, [], ...])
def test_a_qwen3_moe_has_experts_everywhere_unless_it_says_otherwise(dense: Any) -> None:
    experts = dims_of(config(MOE if dense is ... else MOE | {"mlp_only_layers": dense})).text.experts

    assert experts == ExpertDims(3, 5, 1, frozenset())


def test_a_gpt_oss_has_experts_in_every_layer() -> None:
    assert dims_of(config(GPT_OSS)).text.experts == ExpertDims(3, 10, 1, frozenset())


SENSELESS = [0, -1, 2**31, 10**400, True, False, "12", 12.0, 12.5, [], [0], {}, float("inf")]


@pytest.mark.parametrize("value", SENSELESS, ids=repr)
@pytest.mark.parametrize(
    ("section", "name"),
    [
        *(("text_config", name) for name in TEXT if name != "model_type"),
        ("text_config", "head_dim"),
        ("text_config", "num_experts"),
        ("text_config", "moe_intermediate_size"),
        ("text_config", "decoder_sparse_step"),
        *(("vision_config", name) for name in VISION if name.endswith(("size", "layers", "heads", "channels"))),
    ],
)
def test_a_senseless_number_is_refused_by_name(section: str, name: str, value: Any) -> None:
    values = deepcopy(config(MOE))
    values[section][name] = value

    with pytest.raises(ConfigError, match=rf"^config\.json has {name} .*, from which no tensor shape follows"):
        dims_of(values)


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_a_number_that_is_not_stated_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^config\.json has {name} None, from which"):
        dims_of(config(without(TEXT, name)))


@pytest.mark.parametrize("pair", [[], [0, 0], ["28", "28"], [[28]], None])
def test_a_senseless_image_size_is_refused(pair: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has image_size"):
        dims_of(config(vision=VISION | {"image_size": pair}))


@pytest.mark.parametrize("name", ["num_local_experts"])
@pytest.mark.parametrize("value", SENSELESS, ids=repr)
def test_a_senseless_number_of_gpt_oss_experts_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^config\.json has {name}"):
        dims_of(config(GPT_OSS | {name: value}))


@pytest.mark.parametrize(
    "ratio",
    [0, 0.0, -0.5, 1.5, 2, True, False, "0.5", None, [0.5], {}, float("inf"), float("nan"), 1e-320, 10**400],
    ids=repr,
)
def test_a_senseless_ratio_is_refused(ratio: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has downsample_ratio"):
        dims_of(config(downsample_ratio=ratio))


@pytest.mark.parametrize("norm", ["batch_norm", None, 1, [], {}, True])
def test_an_unknown_norm_is_refused(norm: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has vision_config\.norm_type"):
        dims_of(config(vision=VISION | {"norm_type": norm}))


@pytest.mark.parametrize("dense", [1, "0", [0.5], [True], ["0"], {"0": 0}, [None]], ids=repr)
def test_senseless_dense_layers_are_refused(dense: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has mlp_only_layers"):
        dims_of(config(MOE | {"mlp_only_layers": dense}))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="has 4 attention heads and 3 key-value heads, which do not divide"):
        dims_of(config(TEXT | {"num_key_value_heads": 3}))


def test_vision_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has vision_config\.num_attention_heads 3, from which"):
        dims_of(config(vision=VISION | {"num_attention_heads": 3}))


def test_more_heads_than_width_leave_no_head_size() -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has head_dim 0, from which"):
        dims_of(config(TEXT | {"hidden_size": 3}))
