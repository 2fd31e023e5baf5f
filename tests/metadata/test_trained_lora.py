"""How factors in a whole checkpoint are scaled, by what its config.json or the user states."""

from pathlib import Path
from typing import Any

import pytest

from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.lora.factors import Scaling
from internvl_bridge.metadata.config.edited import states_ranks
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.metadata.trained_lora import trained_scaling

VIT, LLM = "vision_model.encoder.layers.0.attn.qkv", "language_model.model.layers.0.mlp.up_proj"


def config(**values: Any) -> JsonFile:
    return JsonFile(Path("my model/config.json"), "", values)


def test_the_trainers_alpha_is_twice_the_rank_of_each_half():
    scaling_of = trained_scaling(config(use_backbone_lora=4, use_llm_lora=16), None)
    assert scaling_of(VIT, 4, ()) == Scaling(8, 4, is_rslora=False)
    assert scaling_of(LLM, 16, ()) == Scaling(32, 16, is_rslora=False)


@pytest.mark.parametrize("values", [{}, {"use_llm_lora": 0}, {"use_llm_lora": 8}])
def test_what_the_user_states_counts(values: dict[str, Any]):
    scaling_of = trained_scaling(config(**values), 24.0)
    assert scaling_of(LLM, 8, ()).value == scaling_of(VIT, 8, ()).value == 3


@pytest.mark.parametrize("values", [{}, {"use_llm_lora": 0, "use_backbone_lora": 0}, {"use_llm_lora": True}])
def test_nothing_states_it(values: dict[str, Any]):
    assert not states_ranks(values)
    with pytest.raises(OptionError, match=r"Add --alpha ALPHA .*put its adapter_config.json into 'my model'"):
        trained_scaling(config(**values), None)


@pytest.mark.parametrize("module", [VIT, LLM, "mlp1.1"])
def test_another_rank_than_config_json_states_is_refused(module: str):
    with pytest.raises(OptionError, match=rf"the factors of {module} have rank 7"):
        trained_scaling(config(use_llm_lora=8), None)(module, 7, ())


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_no_alpha_of_lora(alpha: float):
    with pytest.raises(OptionError, match="is not an alpha of LoRA"):
        trained_scaling(config(), alpha)
