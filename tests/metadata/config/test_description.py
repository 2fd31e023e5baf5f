"""A config.json is read value by value: what no class accepts is refused by name, and by nothing else."""

from typing import Any

import pytest
from metadata.describing import changed, custom_config, description, hf_config

from internvl_bridge.errors import ConfigError
from internvl_bridge.mapping.families import FAMILIES, INTERNLM2, INTERNLM3_GROUPED, LLAMA, QWEN3, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.description import in_old_spelling_throughout
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS

TEXT = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_experts": 4,
    "num_local_experts": 4,
    "moe_intermediate_size": 40,
}
SECTIONS = {Format.CUSTOM: "llm_config", Format.HF: "text_config"}
SPOKEN = (
    *("template", "dynamic_image_size", "use_thumbnail"),
    *("pad2square", "min_dynamic_patch", "max_dynamic_patch"),
)


def config_of(format_: Format, family: Family) -> dict[str, Any]:
    if format_ is Format.CUSTOM:
        config = changed(custom_config("qwen2-300m"), None, llm_config={"architectures": [family.architecture], **TEXT})
    else:
        config = hf_config("qwen2-300m@state-dict") | {"text_config": {"model_type": family.hf_model_type, **TEXT}}
    if family.hf_model_type == "qwen3_moe" and format_ is Format.HF:
        del config["text_config"]["num_local_experts"]  # there it is version 5's word for num_experts
    return config


def names_of(format_: Format, family: Family) -> list[tuple[str | None, str]]:
    """Every value that is mapped or looked at, with its section."""

    def own(fields: Any) -> list[str]:
        return [field.custom if format_ is Format.CUSTOM else field.hf for field in fields]

    text = own(family.fields)
    top = ["tie_word_embeddings", "torch_dtype"]
    only = ["force_image_size", *SPOKEN] if format_ is Format.CUSTOM else ["image_seq_length", "image_token_id"]
    return [
        *((None, name) for name in [*own(TOP_FIELDS), *top, *only]),
        *(("vision_config", name) for name in own(VISION_FIELDS)),
        *((SECTIONS[format_], name) for name in [*text, "tie_word_embeddings"]),
    ]


EVERYWHERE = [
    (format_, family, section, name)
    for format_ in Format
    for family in FAMILIES
    for section, name in names_of(format_, family)
    if section == SECTIONS[format_] or family is LLAMA
]
# No mapped value is an object of odd contents, a list of lists, or a number beyond all sizes.
SENSELESS: list[Any] = [{}, {"a": 1}, [[1]], [None], 2**31, -(2**31), 10**400]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("format_", Format)
def test_a_config_of_every_family_is_understood(format_: Format, family: Family) -> None:
    model = description(config_of(format_, family), twin=family)

    assert model.format is format_
    assert model.family.hf_model_type == family.hf_model_type
    assert (model.dims.text.hidden, model.dims.text.layers, model.dims.vision.hidden) == (64, 2, 32)


@pytest.mark.parametrize(
    ("format_", "family", "section", "name"),
    EVERYWHERE,
    ids=[f"{format_.value} {family.name} {section}.{name}" for format_, family, section, name in EVERYWHERE],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(
    format_: Format, family: Family, section: str | None, name: str
) -> None:
    for value in SENSELESS:
        config = changed(config_of(format_, family), section, **{name: value})

        with pytest.raises(ConfigError) as error:
            description(config, twin=family)

        place = f"{f'{section}.' if section else ''}{name} "
        twice = "says twice what num_experts is"  # where the config states its other name, too
        said = {"rope_scaling": "scales rotary embeddings", "num_experts": twice}.get(name, place)
        assert said in error.value.reason or place in error.value.reason, value
        assert len(error.value.reason) < 500


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (None, "tie_word_embeddings", "false"),
        (None, "tie_word_embeddings", 1),
        ("text_config", "tie_word_embeddings", 0),
        (None, "vision_feature_layer", True),
        (None, "image_token_id", -1),
        ("vision_config", "use_qk_norm", 1),
        ("vision_config", "use_qk_norm", "true"),
        ("vision_config", "image_size", [448, 224]),
        ("vision_config", "norm_type", None),
        ("text_config", "rms_norm_eps", "small"),
        ("text_config", "rms_norm_eps", float("inf")),
        ("text_config", "pad_token_id", -2),
        ("text_config", "rms_norm_eps", 0),
        ("text_config", "hidden_act", None),
        ("text_config", "num_hidden_layers", True),
        ("text_config", "use_sliding_window", "no"),
        ("text_config", "layer_types", "full_attention"),
    ],
)
def test_what_only_resembles_a_value_is_refused(section: str | None, name: str, value: Any) -> None:
    config = changed(hf_config("qwen2-300m@state-dict"), section, **{name: value})

    with pytest.raises(ConfigError) as error:
        description(config)

    where = f"{section}." if section else ""
    assert error.value.reason == f"config.json has {where}{name} {value!r}, a value that no model has there."


@pytest.mark.parametrize(
    ("section", "name", "stated", "read"),
    [
        (None, "torch_dtype", "torch.bfloat16", "bfloat16"),
        ("text_config", "rms_norm_eps", "1e-06", 1e-6),
        ("text_config", "rope_theta", "1000000.0", 1e6),
        ("vision_config", "layer_norm_eps", "1e-6", 1e-6),
        ("text_config", "pad_token_id", -1, -1),
    ],
)
def test_values_are_read_as_transformers_reads_them(section: str | None, name: str, stated: Any, read: Any) -> None:
    values = description(changed(hf_config("qwen2-300m@state-dict"), section, **{name: stated})).values
    assert (values if section is None else values[section])[name] == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("template", 2),
        ("template", ["Hermes-2"]),
        ("dynamic_image_size", 1),
        ("dynamic_image_size", None),
        ("use_thumbnail", "true"),
        ("pad2square", 0),
        ("min_dynamic_patch", 0),
        ("min_dynamic_patch", True),
        ("max_dynamic_patch", 12.0),
        ("max_dynamic_patch", "12"),
    ],
)
def test_what_only_resembles_the_word_for_a_template_or_a_tiling_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        description(changed(custom_config("qwen2-300m"), None, **{name: value}))

    assert error.value.reason == f"config.json has {name} {value!r}, a value that no model has there."


@pytest.mark.parametrize("name", SPOKEN)
def test_nothing_need_be_said_of_the_template_and_the_tiling(name: str) -> None:
    values = changed(custom_config("qwen2-300m"), None, **{name: ...})

    assert description(values).values.keys() == custom_config("qwen2-300m").keys() - {name}


@pytest.mark.parametrize("section", ["vision_config", "llm_config", "text_config"])
@pytest.mark.parametrize("value", [..., None, [], "qwen2", 1])
def test_a_missing_section_is_refused_by_name(section: str, value: Any) -> None:
    for config in (custom_config("qwen2-300m"), hf_config("qwen2-300m@state-dict")):
        if section in config:
            with pytest.raises(ConfigError, match=f"^config.json does not have an object '{section}'"):
                description(changed(config, None, **{section: value}))


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_a_decisive_number_must_be_there(name: str) -> None:
    for config, section in (
        (custom_config("qwen2-300m"), "llm_config"),
        (hf_config("qwen2-300m@state-dict"), "text_config"),
    ):
        with pytest.raises(ConfigError, match=f"config.json has {name} None"):
            description(changed(config, section, **{name: ...}))


def test_a_description_keeps_the_file_and_gives_the_values_in_words_of_version_4() -> None:
    values = hf_config("qwen3-300m-tied@5.4.0")

    model = description(values)

    assert model.file.values == values == hf_config("qwen3-300m-tied@5.4.0")
    assert "dtype" not in model.values
    assert model.values["torch_dtype"] == "bfloat16"
    assert "rope_parameters" not in model.text
    assert (model.text["rope_theta"], model.text["rope_scaling"]) == (1000000.0, None)
    assert model.vision == values["vision_config"]


def test_a_custom_config_is_given_in_the_words_of_transformers_4() -> None:
    values = custom_config("internlm2-300m")

    model = description(values)

    scaling = {"rope_type": "dynamic", "factor": 2.0}
    assert model.file.values == values
    assert model.values == values | {"llm_config": values["llm_config"] | {"rope_scaling": scaling}}
    assert (model.text, model.vision) == (model.values["llm_config"], values["vision_config"])


def test_a_custom_config_in_the_words_of_transformers_5_keeps_its_base() -> None:
    values = custom_config("qwen2-300m")
    text = dict(values["llm_config"])
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    text.pop("rope_scaling")
    values = {**values, "llm_config": text, "dtype": values["torch_dtype"], "torch_dtype": None}

    model = description(values)

    assert model.text["rope_theta"] == 1e6
    assert model.values["torch_dtype"] == "bfloat16"


def test_internlm2_is_a_family() -> None:
    model = description(custom_config("internlm2-300m"))

    assert model.family is INTERNLM2


def test_keys_and_a_twin_settle_what_a_config_leaves_open() -> None:
    custom = changed(custom_config("qwen2-300m"), "llm_config", architectures=["InternLM3ForCausalLM"])
    llama = changed(hf_config("qwen2-300m@state-dict"), "text_config", model_type="llama")

    assert description(custom, ["language_model.model.layers.0.attention.wqkv.weight"]).family is INTERNLM3_GROUPED
    assert description(llama).family is LLAMA
    assert description(llama, twin=INTERNLM2).family is INTERNLM2


def test_spelling_an_hf_config_anew_leaves_the_original_alone() -> None:
    values = hf_config("qwen3-300m-tied@5.4.0")

    once = in_old_spelling_throughout(values, Format.HF, QWEN3)
    assert in_old_spelling_throughout(once, Format.HF, QWEN3) == once != values
    assert values == hf_config("qwen3-300m-tied@5.4.0")
