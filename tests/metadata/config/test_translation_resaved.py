"""What transformers itself reads in a translated config, and what comes home after it saved it anew."""

import json
from typing import Any

import pytest
from metadata.describing import CUSTOM, custom_config, description

from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config

TOKENS = TokenFacts(image=590, turn_end=474)


def facts_of(name: str) -> TensorFacts:
    return TensorFacts(tied=name.endswith("-tied"), packed=None, dtype="bfloat16")


def resaved(hf: dict[str, Any]) -> dict[str, Any]:
    """``hf`` as the installed transformers writes it after reading it."""
    from transformers import InternVLConfig

    return json.loads(InternVLConfig(**json.loads(json.dumps(hf))).to_json_string(use_diff=False))


@pytest.mark.parametrize("name", CUSTOM)
def test_a_config_that_transformers_saved_anew_comes_home_exactly(name: str) -> None:
    model, custom = describe(CUSTOM[name]), CUSTOM[name].values
    hf = resaved(to_hf_config(model, facts_of(name), TOKENS, old=None))

    back, _ = to_custom_config(description(hf, twin=model.family), facts_of(name), {}, TOKENS.turn_end, old=model)

    for section in ("vision_config", "llm_config"):
        stated = custom[section]
        assert {key: back[section].get(key) for key in stated} == stated
    assert {key: value for key, value in back.items() if not isinstance(value, dict)} == {
        key: value for key, value in custom.items() if not isinstance(value, dict)
    }


@pytest.mark.parametrize("name", CUSTOM)
def test_transformers_reads_the_same_rotary_embedding_and_tying(name: str) -> None:
    read = resaved(to_hf_config(describe(CUSTOM[name]), facts_of(name), TOKENS, old=None))

    llm = CUSTOM[name].values["llm_config"]
    scaling = llm["rope_scaling"] or {}
    parameters = read["text_config"]["rope_parameters"]
    assert parameters["rope_theta"] == llm["rope_theta"]
    assert parameters["rope_type"] == scaling.get("rope_type", scaling.get("type", "default"))
    assert parameters.get("factor") == scaling.get("factor")
    assert read["tie_word_embeddings"] is name.endswith("-tied")
    assert read["text_config"]["tie_word_embeddings"] is name.endswith("-tied")


PHI3_LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def phi3_with(kind: str) -> ModelDescription:
    """A Phi-3 of 128k, whose class accepts exactly type, short_factor and long_factor."""
    custom = custom_config("phi3-300m")
    custom["llm_config"]["rope_scaling"] = {"type": kind, **PHI3_LONG}
    custom["llm_config"]["original_max_position_embeddings"] = 256
    return description(custom)


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi3_scaling_is_written_as_transformers_4_demands_it(kind: str) -> None:
    """Its Phi3Config refuses any rope_scaling but one of exactly these three keys; version 5 reads it too."""
    hf = to_hf_config(phi3_with(kind), facts_of("phi3"), TOKENS, old=None)

    assert hf["text_config"]["rope_scaling"] == {"type": "longrope", **PHI3_LONG}


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi3_scaling_is_read_by_transformers(kind: str) -> None:
    read = resaved(to_hf_config(phi3_with(kind), facts_of("phi3"), TOKENS, old=None))

    parameters = read["text_config"]["rope_parameters"]
    assert parameters["rope_type"] == "longrope"
    assert parameters["long_factor"] == PHI3_LONG["long_factor"]
    assert parameters["original_max_position_embeddings"] == 256


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi3_scaling_that_transformers_saved_anew_comes_home(kind: str) -> None:
    custom = phi3_with(kind)
    hf = resaved(to_hf_config(custom, facts_of("phi3"), TOKENS, old=None))

    back, _ = to_custom_config(description(hf), facts_of("phi3"), {}, TOKENS.turn_end, old=custom)

    assert back["llm_config"]["rope_scaling"] == custom.file.values["llm_config"]["rope_scaling"]


def test_phi3_scaling_has_its_three_keys_without_an_old_config_too() -> None:
    hf = resaved(to_hf_config(phi3_with("longrope"), facts_of("phi3"), TOKENS, old=None))

    custom, _ = to_custom_config(description(hf), facts_of("phi3"), {}, TOKENS.turn_end, old=None)

    assert custom["llm_config"]["rope_scaling"] == {"type": "su", **PHI3_LONG}
    assert custom["llm_config"]["original_max_position_embeddings"] == 256
