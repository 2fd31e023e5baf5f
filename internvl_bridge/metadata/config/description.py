"""What a config.json says about a model: read, checked value by value, and understood."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from internvl_bridge.errors import ConfigError, shown
from internvl_bridge.mapping import value_checks
from internvl_bridge.mapping.config_fields import ABSENT, Field
from internvl_bridge.mapping.dimensions import ModelDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.value_checks import ValueCheck, optional
from internvl_bridge.metadata.config.dimensions import model_dims
from internvl_bridge.metadata.config.family import custom_family, hf_family
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS, pair_of_sides
from internvl_bridge.metadata.config.file import detect_format, section
from internvl_bridge.metadata.config.rope import in_old_spelling
from internvl_bridge.metadata.json_files import Config, JsonFile

_NUMBERS = (value_checks.number, value_checks.positive_number)
TEXT_SECTION = {Format.CUSTOM: "llm_config", Format.HF: "text_config"}
# What only one of the formats says at the top, and the tie flag and the dtype of both.
_OTHERS: dict[str, ValueCheck] = {
    "tie_word_embeddings": optional(value_checks.flag),
    "torch_dtype": optional(value_checks.dtype),
    "force_image_size": optional(value_checks.positive),
    "image_seq_length": value_checks.positive,
    "image_token_id": value_checks.token_id,
    "template": optional(value_checks.word),
    "dynamic_image_size": value_checks.flag,
    "use_thumbnail": value_checks.flag,
    "pad2square": value_checks.flag,
    "min_dynamic_patch": value_checks.positive,
    "max_dynamic_patch": value_checks.positive,
}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model as its config.json describes it.

    ``values`` are those of the file, as transformers 4 would have written them. ``may_be_tied``
    says whether the output head may be the input embeddings.
    """

    file: JsonFile
    format: Format
    values: Config
    family: Family
    dims: ModelDims

    @property
    def vision(self) -> Config:
        return _object(self.values["vision_config"])

    @property
    def text(self) -> Config:
        return _object(self.values[TEXT_SECTION[self.format]])

    @property
    def text_fields(self) -> tuple[Field, ...]:
        return self.family.fields

    @property
    def may_be_tied(self) -> bool:
        return True in {self.values.get("tie_word_embeddings"), self.text.get("tie_word_embeddings")}


def describe(file: JsonFile, keys: Iterable[str] = (), other_family: Family | None = None) -> ModelDescription:
    """Understand ``file``; tensor ``keys`` and ``other_family``, that in the other format, settle what it leaves open.

    Raises UnsupportedModelError for a model that is not InternVL, or is of an unknown family. Raises ConfigError if a
    section is missing, if no class accepts a value, or if dimensions do not fit together.
    """
    format_ = detect_format(file)
    section(file, "vision_config")
    section(file, TEXT_SECTION[format_])
    family = custom_family(file, keys) if format_ is Format.CUSTOM else hf_family(file, other_family)
    try:
        values = in_old_spelling_throughout(file.values, format_, family)
    except ConfigError as error:
        raise ConfigError(f"{file.path}: {error.reason}", error.remedy) from error
    values = _numbers_for_words(format_, values, family.fields)
    _check_values(file, format_, values, family.fields)
    dims = model_dims(_in_hf_terms(format_, values, family.fields), family)
    return ModelDescription(file, format_, values, family, dims)


def in_old_spelling_throughout(config: Config, format_: Format, family: Family) -> dict[str, Any]:
    """A config of a model of ``family`` as transformers 4 would have written it (the input is not changed)."""
    result = dict(config)
    dtype = result.pop("dtype", None)
    if result.get("torch_dtype") is None and dtype is not None:
        result["torch_dtype"] = dtype
    if isinstance(stated := result.get("torch_dtype"), str):
        result["torch_dtype"] = stated.removeprefix("torch.")
    vision, text = result.get("vision_config"), result.get(TEXT_SECTION[format_])
    if format_ is Format.HF and isinstance(vision, dict):
        squares = {name: vision[name] for name in ("image_size", "patch_size") if value_checks.square(vision.get(name))}
        result["vision_config"] = {**vision, **{name: pair_of_sides(side) for name, side in squares.items()}}
    if isinstance(text, dict):
        result[TEXT_SECTION[format_]] = in_old_spelling(text, family)
    return result


def translated(custom: Config, fields: Iterable[Field]) -> dict[str, Any]:
    """A section of a custom config in HF names and values; ABSENT where both formats' default holds."""
    pairs = ((field, custom.get(field.custom, field.custom_default)) for field in fields)
    return {field.hf: value if value is ABSENT else field.to_hf(value) for field, value in pairs}


def _numbers_for_words(format_: Format, values: Config, text: Iterable[Field]) -> dict[str, Any]:
    """``values`` with numbers where a section has them as text, as YAML and some trainers write "1e-06"."""
    result = dict(values)
    for section_, fields in (("vision_config", VISION_FIELDS), (TEXT_SECTION[format_], text)):
        names = (field.custom if format_ is Format.CUSTOM else field.hf for field in fields if field.kind in _NUMBERS)
        holder = values[section_]
        read = {name: _number(holder[name]) for name in names if isinstance(holder.get(name), str)}
        result[section_] = {**holder, **read}
    return result


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _in_hf_terms(format_: Format, values: Config, fields: Iterable[Field]) -> Config:
    if format_ is Format.CUSTOM:
        vision = translated(values["vision_config"], VISION_FIELDS)
        text = translated(values["llm_config"], fields)
        top = translated(values, TOP_FIELDS)
    else:
        vision = {field.hf: values["vision_config"].get(field.hf, field.hf_default) for field in VISION_FIELDS}
        text = values["text_config"]
        top = {field.hf: values.get(field.hf, field.hf_default) for field in TOP_FIELDS}
    stated = {name: value for name, value in text.items() if value is not ABSENT}
    return {**top, "vision_config": vision, "text_config": stated}


def _check_values(file: JsonFile, format_: Format, values: Config, text: Iterable[Field]) -> None:
    sections: list[tuple[str, Config, Iterable[Field]]] = [
        ("", values, TOP_FIELDS),
        ("vision_config.", values["vision_config"], VISION_FIELDS),
        (f"{TEXT_SECTION[format_]}.", values[TEXT_SECTION[format_]], text),
    ]
    for prefix, holder, fields in sections:
        checked = {field.custom if format_ is Format.CUSTOM else field.hf: field.kind for field in fields}
        for name, kind in {**_OTHERS, **checked}.items():
            if name in holder and not kind(holder[name]):
                raise ConfigError(
                    f"{file.path} has {prefix}{name} {shown(holder[name])}, a value that no model has there.",
                    "Use the config.json that the checkpoint was saved with.",
                )


def _object(value: Any) -> Config:
    assert isinstance(value, dict)  # noqa: S101 (describe has checked it)
    return value
