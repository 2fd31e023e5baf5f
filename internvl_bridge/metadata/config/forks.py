"""Recognise a fork of InternVL, which has its names and computes something else."""

from collections.abc import Iterator

from internvl_bridge.errors import UnsupportedModelError, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.known_fields import OF_EVERY_CONFIG, OF_THE_MODEL
from internvl_bridge.metadata.json_files import JsonFile

_UPSTREAM = {"configuration_internvl_chat.InternVLChatConfig", "modeling_internvl_chat.InternVLChatModel"}
"""The module and the class of the config, and those of the model: what ``auto_map`` names in every release."""
_OF_FORKS = ("rope_pos_id_version", "rope_pos_id_stride", "fork_token_id")
"""Fields of forks that compute something else: V2PE's positions of image tokens, and HPD-Parsing."""
_AS_UPSTREAM = {"rope_pos_id_version": "default"}
"""Their values that change nothing, beside null."""


def check_no_fork(config: JsonFile) -> None:
    """Raise UnsupportedModelError, naming every sign, if ``config`` is that of a fork.

    Its tensors have the names and shapes of a plain InternVL, so that nothing else shows it. Examples are
    InternVideo2.5 and InternVL_2_5_HiCo, which merge the tokens of several frames.
    """
    if signs := [*_foreign_code(config), *_foreign_fields(config)]:
        raise UnsupportedModelError(
            f"{config.path} is that of a fork: {'; '.join(signs)}. Its code may compute something else from the same "
            f"tensors, and the converted model runs upstream's.",
            "Use the fork's own code. If it computes what InternVL does, add --accept fork (accept={'fork'}).",
        )


def unknown_fields(config: JsonFile, format_: Format) -> list[str]:
    """The fields at the top of ``config`` that neither upstream nor transformers nor a known trainer writes."""
    return sorted(config.values.keys() - OF_EVERY_CONFIG - OF_THE_MODEL[format_] - {*_OF_FORKS})


def _foreign_code(config: JsonFile) -> Iterator[str]:
    auto_map = config.values.get("auto_map")
    if not isinstance(auto_map, dict):
        return
    for name, value in sorted(auto_map.items()):
        is_model = isinstance(name, str) and name.startswith(("AutoConfig", "AutoModel"))
        if is_model and (not isinstance(value, str) or value.rpartition("--")[2] not in _UPSTREAM):
            yield f"auto_map has {shown(value)} for {name}"


def _foreign_fields(config: JsonFile) -> Iterator[str]:
    for name in _OF_FORKS:
        value = config.values.get(name)
        if value is not None and value != _AS_UPSTREAM.get(name):
            yield f"it has {name} {shown(value)}"
