"""Which part of a model a tensor belongs to, for reports: by the words of its key, in any spelling of either format."""

from functools import lru_cache
from typing import NamedTuple

from internvl_bridge.mapping.numberless import numberless, of_first_expert

TOWER, PROJECTOR, TEXT, HEAD, OTHER = "vision tower", "projector", "language model", "output head", "other tensors"
COMPONENTS = (TOWER, PROJECTOR, TEXT, HEAD, OTHER)
"""The components of a model, in the order in which data goes through them."""
GROUPS = ("embeddings", "attention", "MLP", "router", "experts", "norms, scales", "")
"""The groups of tensors in a component, in the order of reports; a component without groups has ""."""

_FIRST_WORDS = {"vision_model": TOWER, "vision_tower": TOWER, "mlp1": PROJECTOR, "multi_modal_projector": PROJECTOR}
_LAYERS = ("layers", "layer")
"""The word before the number of a layer."""
_DIGITS = 3
"""Of the number of a layer: a key of a stranger could have any number, and reports have room for each layer."""
_HEADS = {"lm_head", "output"}
"""The modules of the output head; InternLM2's is called output."""
_GROUP_WORDS = {
    "embeddings": {"embeddings", "embed_tokens", "tok_embeddings"},
    "router": {"router", "gate"},
    "experts": {"experts"},
    "attention": {"self_attn", "attention", "attn"},
    "MLP": {"mlp", "feed_forward"},
}
"""The group of a tensor whose key has one of these words. The first that fits counts: a router is part of an MLP."""


# A named tuple, as those of all tensors are counted: a dataclass takes far longer to hash.
class Place(NamedTuple):
    """Where in a model a tensor is: its component, its group there, and its layer, None outside of the layers."""

    component: str
    group: str
    layer: int | None

    @property
    def text(self) -> str:
        """The component and the group, as reports name them."""
        return f"{self.component}, {self.group}" if self.group else self.component


def place_of(key: str) -> Place:
    """The place of the tensor ``key``.

    Example:
        >>> place_of("language_model.model.layers.7.mlp.experts.3.up_proj.weight")
        Place(component='language model', group='experts', layer=7)
    """
    return _place_of(of_first_expert(key))


@lru_cache(maxsize=4096)
def _place_of(key: str) -> Place:
    """Of a key of the first expert, of which a model has some thousand."""
    return Place(*_component_and_group(numberless(key)), _layer(key))


@lru_cache(maxsize=4096)
def _component_and_group(key: str) -> tuple[str, str]:
    """Of a key without numbers, of which a model has some hundred."""
    words = key.split(".")[:-1]
    if words[:2] == ["base_model", "model"]:  # what PEFT puts in front of the names of modules
        del words[:2]
    if words[:1] == ["model"]:
        del words[0]
    component = _FIRST_WORDS.get(words[0]) if words else None
    if component is None and words and words[-1] in _HEADS and "*" not in words:
        return HEAD, ""
    if component is None and words and words[0] == "language_model":
        component = TEXT
    if component in {None, PROJECTOR}:
        return component or OTHER, ""
    found = (group for group, known in _GROUP_WORDS.items() if not known.isdisjoint(_modules(words)))
    return component or OTHER, next(found, "norms, scales")


def _modules(words: list[str]) -> list[str]:
    """``words``; none for a norm, wherever it is."""
    return [] if words[-1].endswith(("_norm", "norm1", "norm2")) else words


def _layer(key: str) -> int | None:
    words = key.split(".")
    name = next((name for name in _LAYERS if name in words[:-1]), None)
    number = "" if name is None else words[words.index(name) + 1]
    return int(number) if number.isdecimal() and len(number) <= _DIGITS else None
