"""What the key of a tensor in an adapter says: which module it is about, and which part of the change it is.

PEFT names the tensors of an adapter by the modules of the base model, behind ``base_model.model.``. It leaves the name
of the adapter out. (The source is peft 0.21, utils/save_and_load.py.)
"""

import re
from dataclasses import dataclass
from enum import Enum

PREFIX = "base_model.model."
"""What PEFT puts before the name of every module."""


class Part(Enum):
    """What a tensor is to the module whose change it is part of."""

    A = "lora_A.weight"
    B = "lora_B.weight"
    BIAS = "lora_B.bias"
    MAGNITUDE = "lora_magnitude_vector"
    EMBEDDING_A = "lora_embedding_A"
    EMBEDDING_B = "lora_embedding_B"
    TOKENS = "token_adapter.trainable_tokens_delta"
    WHOLE = ""
    """The parameter itself, which takes the place of the base's."""


@dataclass(frozen=True, slots=True)
class AdapterKey:
    """A key, taken apart.

    ``name`` is the module's, for :attr:`Part.WHOLE` the parameter's. ``depth`` counts how many wrappers are outside of
    the one that holds it: PEFT wraps a module once for each of its parameters that have factors.
    """

    name: str
    part: Part
    depth: int = 0


_OF_DEFAULT = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)\.default(?=\.|$)")
"""Where a state dict has the name of PEFT's usual adapter, which its files leave out."""
_NESTED = re.compile(r"((?:\.base_layer)*)$")
_ENDS = [(part, f".{part.value}") for part in Part if part is not Part.WHOLE]


def parsed_key(key: str) -> AdapterKey:
    """``key`` taken apart; one that says nothing of factors is that of a whole parameter."""
    name = key.removesuffix(".weight") if key.endswith(".lora_magnitude_vector.weight") else key  # as PEFT once had it
    name = _OF_DEFAULT.sub(r".\1", _without_prefix(name))
    part, end = next(((part, end) for part, end in _ENDS if name.endswith(end)), (Part.WHOLE, ""))
    if part is Part.WHOLE:
        module, _, parameter = name.rpartition(".")
        bare = module.removesuffix(".base_layer")
        return AdapterKey(f"{bare}.{parameter}" if bare else parameter, part, depth=int(bare != module))
    module = name.removesuffix(end)
    nested = _NESTED.search(module)
    inner = nested[1] if nested else ""
    return AdapterKey(module.removesuffix(inner), part, inner.count(".base_layer"))


def key_of(name: AdapterKey) -> str:
    """The key of a tensor, as PEFT writes it."""
    if name.part is Part.WHOLE:
        module, _, parameter = name.name.rpartition(".")
        return PREFIX + (f"{module}.base_layer.{parameter}" if name.depth else name.name)
    return f"{PREFIX}{name.name}{'.base_layer' * name.depth}.{name.part.value}"


def _without_prefix(key: str) -> str:
    while key.startswith(PREFIX):
        key = key.removeprefix(PREFIX)
    return key
