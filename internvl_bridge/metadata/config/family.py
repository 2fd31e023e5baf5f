"""Which language-model family a config.json (and, where it leaves a doubt, the tensor keys) names."""

from collections.abc import Iterable

from internvl_bridge.errors import ConfigError, UnsupportedModelError, shown
from internvl_bridge.mapping.families import FAMILIES, INTERNLM3, INTERNLM3_GROUPED, LLAMA, Family
from internvl_bridge.metadata.config.file import ConfigFile, section

_RELATIVES = {"InternLM2VEForCausalLM": "Mono-InternVL"}


def custom_family(config: ConfigFile, keys: Iterable[str]) -> Family:
    """The family of a custom checkpoint.

    Raises UnsupportedModelError if its language model is none of those InternVL was released with.
    """
    llm = section(config, "llm_config")
    architectures = llm.get("architectures")
    match architectures:
        case [str(architecture)]:
            found = next((family for family in FAMILIES if family.architecture == architecture), None)
        case None:
            architecture = str(llm.get("model_type"))
            by_type = [f for f in FAMILIES if f.architecture.lower() == f"{architecture.replace('_', '')}forcausallm"]
            found = by_type[0] if by_type else None
        case _:
            raise ConfigError(
                f"{config.path} has llm_config.architectures {shown(architectures)}, which names no single class.",
                "Use the config.json that the checkpoint was saved with.",
            )
    if found is None:
        relative = f" (it looks like {_RELATIVES[architecture]})" if architecture in _RELATIVES else ""
        raise _unknown(
            config, f"llm_config names {architecture}{relative}", [family.architecture for family in FAMILIES]
        )
    if found is INTERNLM3 and any(".attention.wqkv." in key for key in keys):
        return INTERNLM3_GROUPED
    return found


def hf_family(config: ConfigFile, twin: Family | None) -> Family:
    """The family of an HF checkpoint; ``twin`` is the one that a sidecar or a reference names.

    HF's Llama class serves several custom classes: without a twin it means Llama. Raises
    UnsupportedModelError for an unknown text model, ConfigError if the twin has another one.
    """
    model_type = section(config, "text_config").get("model_type")
    if model_type not in [family.hf_model_type for family in FAMILIES]:
        raise _unknown(
            config,
            f"text_config has model_type {model_type!r}",
            [family.hf_model_type for family in FAMILIES],
        )
    if twin is not None:
        if twin.hf_model_type != model_type:
            raise ConfigError(
                f"{config.path} has a text model of type {model_type!r}, but the sidecar or reference is of "
                f"an {twin.name} model ({twin.hf_model_type!r}).",
                "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
            )
        return twin
    if model_type == LLAMA.hf_model_type:
        return LLAMA
    return next(family for family in FAMILIES if family.hf_model_type == model_type)


def family_named(name: str) -> Family | None:
    """The family with this name, as a sidecar records it."""
    return next((family for family in FAMILIES if family.name == name), None)


def _unknown(config: ConfigFile, problem: str, known: Iterable[str]) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{config.path}: {problem}, which no InternVL release uses.",
        f"Known are {', '.join(sorted(set(known)))}.",
    )
