"""The fields that are translated: every field that a text model's config class has of its own."""

import pytest

from internvl_bridge.mapping.families import FAMILIES, Family
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS
from internvl_bridge.metadata.config.rope import in_old_spelling

EXCEPTIONS = {
    "rope_parameters": "version 5's spelling of rope_theta, rope_scaling and partial_rotary_factor",
    "tie_word_embeddings": "decided by the tensors, not by a field of the source",
    "num_local_experts": "version 5's spelling of num_experts, in Qwen3-MoE",
}
OLD_SPELLINGS = {
    "rope_parameters": {"rope_theta", "rope_scaling", "partial_rotary_factor"},
    "num_local_experts": {"num_experts"},
}
CLASSES = {
    "Qwen2Config": "qwen2",
    "Qwen3Config": "qwen3",
    "Qwen3MoeConfig": "qwen3_moe",
    "LlamaConfig": "llama",
    "Phi3Config": "phi3",
    "GptOssConfig": "gpt_oss",
}
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def own_fields(class_name: str) -> set[str]:
    """What a config class of transformers writes and the base of all classes does not."""
    import transformers

    written = getattr(transformers, class_name)().to_dict()
    return written.keys() - transformers.PretrainedConfig().to_dict().keys()


@pytest.mark.parametrize(("class_name", "model_type"), CLASSES.items())
def test_every_own_field_of_a_text_config_is_translated(class_name: str, model_type: str) -> None:
    [family] = [f for f in FAMILIES if f.hf_model_type == model_type and "Intern" not in f.name]
    translated = {field.hf for field in family.fields}

    untranslated = own_fields(class_name) - translated

    assert untranslated <= EXCEPTIONS.keys()
    for name in untranslated:
        assert OLD_SPELLINGS.get(name, set()) <= translated


def test_every_own_field_of_the_vision_config_is_translated() -> None:
    constants = {
        "layer_scale_init_value": "only initialises the lambdas, which are tensors of the checkpoint",
        "projection_dropout": "written as the one dropout that the custom class has",
        "use_absolute_position_embeddings": "always true of InternViT",
        "use_mask_token": "always false of InternViT",
        "use_mean_pooling": "always true, which means: no norm after the last layer",
    }

    untranslated = own_fields("InternVLVisionConfig") - {field.hf for field in VISION_FIELDS}

    assert untranslated == constants.keys()


def test_every_own_field_of_the_whole_config_is_translated() -> None:
    others = {
        "text_config",
        "vision_config",
        "image_token_id",  # from the tokenizer
        "image_seq_length",  # from the image size
        "projector_hidden_act",  # a constant
        "vision_feature_select_strategy",  # a constant
        "tie_word_embeddings",  # from the tensors
    }

    assert own_fields("InternVLConfig") - {field.hf for field in TOP_FIELDS} <= others


def test_the_defaults_of_the_hf_tower_are_those_of_transformers() -> None:
    from transformers import InternVLVisionConfig

    written = InternVLVisionConfig().to_dict()

    # image_size, patch_size: pairs of either kind, tuples in memory and lists in a file
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in written.items()}
    assert {field.hf: field.hf_default for field in VISION_FIELDS} == {
        field.hf: plain[field.hf] for field in VISION_FIELDS
    }


def test_the_defaults_of_the_whole_hf_config_are_those_of_transformers() -> None:
    from transformers import InternVLConfig

    written = InternVLConfig().to_dict()

    assert {field.hf: field.hf_default for field in TOP_FIELDS} == {field.hf: written[field.hf] for field in TOP_FIELDS}


@pytest.mark.parametrize(("class_name", "model_type"), CLASSES.items())
def test_the_default_rotary_base_of_an_hf_class_is_that_of_transformers(class_name: str, model_type: str) -> None:
    import transformers

    written = getattr(transformers, class_name)().to_dict()

    for family in (family for family in FAMILIES if family.hf_model_type == model_type):
        default = in_old_spelling(written, family)["rope_theta"]
        [base] = [f for f in family.fields if f.hf == "rope_theta"]
        assert (base.custom_default, base.hf_default) == (default, default)


def test_the_defaults_of_the_custom_tower_are_those_of_the_6b_one() -> None:
    defaults = {field.custom: field.custom_default for field in VISION_FIELDS}

    assert defaults == {
        "hidden_size": 3200,
        "intermediate_size": 12800,
        "num_hidden_layers": 48,
        "num_attention_heads": 25,
        "num_channels": 3,
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "norm_type": "rms_norm",
        "qkv_bias": False,
        "qk_normalization": True,
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "image_size": 224,
        "patch_size": 14,
    }


@every_family
def test_no_field_is_listed_twice(family: Family) -> None:
    for fields in (family.fields, VISION_FIELDS, TOP_FIELDS):
        assert len({field.custom for field in fields}) == len(fields)
        assert len({field.hf for field in fields}) == len(fields)


@pytest.mark.parametrize(
    ("name", "custom", "hf"),
    [
        ("image_size", 448, [448, 448]),
        ("patch_size", 14, [14, 14]),
    ],
)
def test_sides_become_pairs_and_pairs_sides(name: str, custom: int, hf: list[int]) -> None:
    [field] = [field for field in VISION_FIELDS if field.custom == name]

    assert field.to_hf(custom) == hf
    assert field.to_custom(hf) == custom
    assert field.to_hf(hf) == hf
    assert field.to_custom(custom) == custom
    assert field.to_custom([custom]) == custom
