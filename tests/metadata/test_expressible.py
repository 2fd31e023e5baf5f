"""What one format can say and the other cannot is refused before anything is written."""

from copy import deepcopy
from typing import Any

import pytest
from support import DATA

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.metadata.config_file import read_config
from internvl_bridge.metadata.expressible import check_expressible
from internvl_bridge.metadata.translation import states_tied

CUSTOM = read_config(DATA / "custom" / "qwen2-300m").values
HF = read_config(DATA / "hf" / "qwen3-300m-tied@5.4.0").values


@pytest.mark.parametrize("path", sorted(DATA.glob("*/*/config.json")), ids=lambda path: path.parent.name)
def test_every_stored_config_is_expressible(path: Any) -> None:
    check_expressible(read_config(path.parent).values)


@pytest.mark.parametrize("version", ["v1", "v3", None, 2])
def test_a_pixel_shuffle_other_than_v2_is_refused(version: Any) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        check_expressible({**CUSTOM, "ps_version": version})

    assert f"has ps_version {version!r}: the pixel shuffle of v1" in error.value.reason
    assert "(by default)" not in error.value.reason


def test_no_word_about_the_pixel_shuffle_means_v1() -> None:
    silent = {key: value for key, value in CUSTOM.items() if key != "ps_version"}

    with pytest.raises(UnsupportedModelError, match=r"has ps_version 'v1' \(by default\): "):
        check_expressible(silent)


@pytest.mark.parametrize("layer", [-1, -2, 0, 12])
def test_any_one_layer_can_be_selected(layer: int) -> None:
    check_expressible({**CUSTOM, "select_layer": layer})
    check_expressible({**HF, "vision_feature_layer": layer})


@pytest.mark.parametrize("layer", [[-1, -2], "-1", None, -1.0])
def test_several_layers_or_none_are_refused(layer: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"select_layer .* the custom format takes one layer"):
        check_expressible({**CUSTOM, "select_layer": layer})
    with pytest.raises(UnsupportedModelError, match=r"vision_feature_layer .* takes one layer"):
        check_expressible({**HF, "vision_feature_layer": layer})


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (None, "projector_hidden_act", "relu"),
        (None, "vision_feature_select_strategy", "full"),
        ("vision_config", "model_type", "siglip_vision_model"),
        ("vision_config", "use_absolute_position_embeddings", False),
        ("vision_config", "use_mask_token", True),
        ("vision_config", "use_mean_pooling", False),
    ],
)
def test_hf_settings_that_the_custom_classes_lack_are_refused(section: str | None, name: str, value: Any) -> None:
    hf = deepcopy(dict(HF))
    (hf if section is None else hf[section])[name] = value

    with pytest.raises(UnsupportedModelError) as error:
        check_expressible(hf)

    assert f"config.json has {name} {value!r}; the custom format knows only" in error.value.reason


def test_hf_settings_that_are_not_stated_are_the_defaults() -> None:
    check_expressible({"model_type": "internvl", "vision_config": {}, "text_config": {}})


@pytest.mark.parametrize("architectures", [None, []])
def test_an_hf_config_without_architectures_is_expressible(architectures: Any) -> None:
    """As InternVLConfig().save_pretrained writes it, without any model."""
    check_expressible({**HF, "architectures": architectures})


@pytest.mark.parametrize(("qkv_bias", "bias"), [(True, False), (False, True), (True, None), (None, True)])
def test_an_internlm3_of_two_minds_about_biases_is_refused(qkv_bias: Any, bias: Any) -> None:
    stated = {"qkv_bias": qkv_bias, "bias": bias}
    llm = {"architectures": ["InternLM3ForCausalLM"]} | {k: v for k, v in stated.items() if v is not None}

    with pytest.raises(UnsupportedModelError, match="InternLM3 whose qkv_bias and bias differ"):
        check_expressible({**CUSTOM, "llm_config": llm})


@pytest.mark.parametrize("biases", [{}, {"qkv_bias": False}, {"qkv_bias": True, "bias": True}])
def test_an_internlm3_of_one_mind_is_accepted(biases: dict[str, bool]) -> None:
    check_expressible({**CUSTOM, "llm_config": {"architectures": ["InternLM3ForCausalLM"], **biases}})


@pytest.mark.parametrize(
    ("top", "inner", "hf_tied", "custom_tied"),
    [
        (None, None, True, False),  # transformers 5 defaults to True, the custom class to False
        (None, False, False, False),
        (False, None, False, False),
        (False, False, False, False),
        (True, None, True, True),
        (None, True, True, True),
        (True, False, True, True),
        (False, True, True, True),
        (True, True, True, True),
    ],
)
def test_tying_is_stated_at_either_level(
    top: bool | None, inner: bool | None, hf_tied: bool, custom_tied: bool
) -> None:
    flags = {} if top is None else {"tie_word_embeddings": top}
    inner_flags = {} if inner is None else {"tie_word_embeddings": inner}

    assert states_tied({**flags, "text_config": inner_flags}) is hf_tied
    assert states_tied({**flags, "llm_config": inner_flags}) is custom_tied
