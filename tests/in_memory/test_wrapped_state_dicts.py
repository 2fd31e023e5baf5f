"""What training wrappers put into keys is taken out in memory as it is on disk, with a warning."""

from collections.abc import Callable

import pytest
import torch
from state_dicts import Tensors, assert_same, config_of, custom_of, hf_of, streamed

import internvl_bridge
from internvl_bridge.errors import MixedSpellingError

NAME = "qwen2-300m"
BUFFER = "language_model.model.layers.0.self_attn.rotary_emb.inv_freq"


def at_once(pairs: list[tuple[str, torch.Tensor]], direction: str, **options: object) -> Tensors:
    return internvl_bridge.convert_state_dict(dict(pairs), direction, **options)  # type: ignore[arg-type]


conversions = pytest.mark.parametrize("convert", [at_once, streamed])


@pytest.mark.parametrize("direction", ["to-hf", "to-custom"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"module.{key}",
        lambda key: f"policy.{key}",
        lambda key: key.replace("vision_", "_orig_mod.vision_").replace("language_", "_orig_mod.language_"),
        lambda key: key.replace(".layers.", "._fsdp_wrapped_module.layers."),
    ],
)
@conversions
def test_wrapped_keys_are_those_of_the_model(
    convert: Callable[..., Tensors], wrap: Callable[[str], str], direction: str
):
    custom, hf = custom_of(NAME), hf_of(NAME, "l1", "split")
    source, expected = (custom, hf) if direction == "to-hf" else (hf, custom)
    pairs = [(wrap(key), tensor) for key, tensor in source.items()]
    with pytest.warns(UserWarning, match=r"begin with|taken out of keys|is converted as") as warned:
        made = convert(pairs, direction, config=config_of(NAME))
    assert len(warned) == 1
    assert_same(made, expected)


@conversions
def test_buffers_are_left_out(convert: Callable[..., Tensors]):
    pairs = [(BUFFER, torch.ones(4)), *custom_of(NAME).items(), ("n_averaged", torch.ones(1))]
    with pytest.warns(UserWarning, match=r"[Ll]eft out, as "):
        made = convert(pairs, "to-hf")
    assert_same(made, hf_of(NAME, "l1", "split"))


def test_a_key_without_the_prefix_of_the_first_one_is_refused_when_it_comes():
    pairs = [("module.mlp1.0.weight", torch.ones(2)), ("mlp1.0.bias", torch.ones(2))]
    with (
        pytest.warns(UserWarning, match=r"module\.mlp1\.0\.weight is converted as mlp1\.0\.weight"),
        pytest.raises(MixedSpellingError, match=r"mlp1\.0\.bias does not begin with 'module\.'"),
    ):
        streamed(pairs, "to-hf")
