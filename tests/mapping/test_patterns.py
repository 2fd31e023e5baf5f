"""Key patterns match whole keys, and restore every key they match."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.mapping.patterns import KeyPattern

LS1 = KeyPattern("vision_model.encoder.layers.{layer}.ls1")


def test_a_match_binds_every_placeholder() -> None:
    pattern = KeyPattern("model.layers.{layer}.mlp.experts.{expert}.{mlp}_proj.weight")

    assert pattern.match("model.layers.12.mlp.experts.0.gate_proj.weight") == {
        "layer": "12",
        "expert": "0",
        "mlp": "gate",
    }


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.encoder.layers.0.ls1.weight",
        "x.vision_model.encoder.layers.0.ls1",
        "vision_model.encoder.layers.0.ls1\n",
        "vision_model.encoder.layers..ls1",
        "vision_model.encoder.layers.-1.ls1",
        "vision_model.encoder.layers.00.ls1",
        "vision_model.encoder.layers.01.ls1",
        "vision_model.encoder.layers.\u0661.ls1",
        "vision_model.encoder.layers.0xls1",
        "vision_model_encoder_layers_0_ls1",
        "",
    ],
)
def test_only_whole_keys_with_plain_numbers_match(key: str) -> None:
    assert LS1.match(key) is None
    assert not LS1.matches(key)


@pytest.mark.parametrize("param", ["weight", "bias"])
def test_a_vocabulary_holds_its_words(param: str) -> None:
    assert KeyPattern("mlp1.0.{param}").match(f"mlp1.0.{param}") == {"param": param}


@pytest.mark.parametrize("key", ["mlp1.0.weigh", "mlp1.0.weights", "mlp1.0.scale", "mlp1.0.", "mlp1.0"])
def test_a_vocabulary_is_closed(key: str) -> None:
    assert KeyPattern("mlp1.0.{param}").match(key) is None


def test_an_unknown_placeholder_is_an_error_when_the_pattern_is_built() -> None:
    with pytest.raises(ValueError, match=r"anything.* without a vocabulary"):
        KeyPattern("model.{anything}")


def test_a_placeholder_twice_is_an_error_when_the_pattern_is_built() -> None:
    with pytest.raises(ValueError, match="has a placeholder twice"):
        KeyPattern("{qk}.{qk}")


def test_segments_are_counted_unless_their_number_varies() -> None:
    assert LS1.segments == 5
    assert KeyPattern("lm_head").segments == 1
    assert KeyPattern("vision_tower.{rest}").segments is None


@given(layer=st.integers(0, 10**6), fc=st.sampled_from(["fc1", "fc2"]), param=st.sampled_from(["weight", "bias"]))
def test_a_formatted_key_matches_with_the_same_bindings(layer: int, fc: str, param: str) -> None:
    pattern = KeyPattern("vision_tower.encoder.layer.{layer}.mlp.{fc}.{param}")
    bindings = {"layer": str(layer), "fc": fc, "param": param}

    key = pattern.format(bindings)

    assert key == f"vision_tower.encoder.layer.{layer}.mlp.{fc}.{param}"
    assert pattern.match(key) == bindings
    assert pattern.matches(key)


@given(key=st.from_regex(r"\A(vision_tower|model)\.[a-z0-9.]{1,12}\Z"))
def test_whatever_matches_is_restored_from_its_bindings(key: str) -> None:
    for pattern in (KeyPattern("vision_tower.{rest}"), KeyPattern("model.{rest}")):
        bindings = pattern.match(key)
        assert (bindings is not None) == key.startswith(pattern.template.removesuffix("{rest}"))
        if bindings is not None:
            assert pattern.format(bindings) == key
