"""Which language-model family a config.json (and, where it leaves a doubt, the tensor keys) names."""

from collections.abc import Iterable

from internvl_bridge.errors import ConfigError, UnsupportedModelError, shown
from internvl_bridge.mapping import families
from internvl_bridge.mapping.families import Family, default_family, families_of
from internvl_bridge.metadata.config.file import section
from internvl_bridge.metadata.json_files import JsonFile

_RELATIVES = {"InternLM2VEForCausalLM": "Mono-InternVL"}


def custom_family(config: JsonFile, keys: Iterable[str]) -> Family:
    """The family of a custom checkpoint.

    Raises UnsupportedModelError if InternVL was not released with its language model.
    """
    llm = section(config, "llm_config")
    architectures = llm.get("architectures")
    match architectures:
        case [str(architecture)]:
            found = families_of(architecture)
        case None:
            architecture = str(llm.get("model_type"))
            found = [
                f for f in families.FAMILIES if f.architecture.lower() == f"{architecture.replace('_', '')}forcausallm"
            ]
        case _:
            raise ConfigError(
                f"{config.path} has llm_config.architectures {shown(architectures)}, which names no single class.",
                "Use the config.json that the checkpoint was saved with.",
            )
    if not found:
        relative = f" (it looks like {_RELATIVES[architecture]})" if architecture in _RELATIVES else ""
        raise _unknown(
            config, f"llm_config names {architecture}{relative}", [family.architecture for family in families.FAMILIES]
        )
    marked = [f for f in found if f.key_mark is not None and any(f.key_mark in key for key in keys)]
    return [*marked, *found][0]


def hf_family(config: JsonFile, other_family: Family | None) -> Family:
    """The family of an HF checkpoint; ``other_family`` is the one that a sidecar or a reference names.

    HF's Llama class serves several custom classes: without another family it means Llama. Raises
    UnsupportedModelError for an unknown text model, ConfigError if that family has another one.
    """
    model_type = section(config, "text_config").get("model_type")
    found = default_family(str(model_type))
    if found is None:
        raise _unknown(
            config,
            f"text_config has model_type {model_type!r}",
            [family.hf_model_type for family in families.FAMILIES],
        )
    if other_family is not None:
        if other_family.hf_model_type != model_type:
            raise ConfigError(
                f"{config.path} has a text model of type {model_type!r}, but the sidecar or reference is of "
                f"an {other_family.name} model ({other_family.hf_model_type!r}).",
                "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
            )
        return other_family
    return found


def _unknown(config: JsonFile, problem: str, known: Iterable[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{config.path}: {problem}, which no InternVL release uses.",
        f"Known are {', '.join(sorted(set(known)))}.",
    )
