"""Which tensors of a checkpoint that PEFT has wrapped are its base model's, and which are those of an adapter.

A wrapped module keeps its weight as ``base_layer``, and the factors beside it. (The source is the state dict of a
``PeftModel``, peft 0.14 to 0.21.)
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from internvl_bridge.errors import ContradictionError, UnsupportedModelError, first_few
from internvl_bridge.mapping.lora.keys import PREFIX

_INNER = re.compile(r"(^|\.)(?:base_model\.model\.)+")
_OF_BASE = re.compile(r"\.(?:base_layer|original_module|token_adapter\.base_layer)(?=\.)")
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector"
    r"|token_adapter\.trainable_tokens_delta)(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?(?P<end>\.weight|\.bias)?"
)
_MARKS = (".base_layer.", ".original_module.", ".token_adapter.")
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<adapter>[^.]+)\.(?P<rest>.+)")
_WITHOUT_END = ("lora_magnitude_vector",)


@dataclass(frozen=True, slots=True)
class WrappedKeys:
    """The keys of a wrapped checkpoint, by what they are called in the base model and in an adapter's file."""

    base: Mapping[str, str]
    adapter: Mapping[str, str]


def is_wrapped(keys: Iterable[str]) -> bool:
    """Whether ``keys`` are those of a model that PEFT has wrapped, or has begun to."""
    marks = (".base_layer.", ".lora_A.", ".lora_embedding_A.", ".modules_to_save.", ".trainable_tokens_delta")
    every = "\n".join(keys)  # one search for each mark, and not one more for each of 40,000 keys
    return any(mark in every for mark in marks)


def name_in_base(key: str) -> str:
    """The key of the base model's tensor that ``key``, of a wrapped checkpoint, is or belongs to."""
    plain = _INNER.sub(r"\1", key)
    part = _of_adapter(plain)
    return _of_base(plain) if part is None else part.of


def unwrapped(keys: Collection[str]) -> WrappedKeys:
    """Separate the tensors of the base model from those of its one adapter.

    Raises UnsupportedModelError for several adapters, of which nothing shows which was active. Raises
    ContradictionError for two tensors of one name.
    """
    found = [(key, _of_adapter(_INNER.sub(r"\1", key))) for key in keys]
    names = dict.fromkeys(part.adapter for _, part in found if part is not None and part.adapter)
    if len(names) > 1:
        raise UnsupportedModelError(
            f"The checkpoint holds several adapters: {first_few([*names])}. Nothing shows which of them was active.",
            "Save it with one of them (in PEFT: delete_adapter takes the others out).",
        )
    base: dict[str, str] = {}
    adapter: dict[str, str] = {}
    for key, part in found:
        if part is None:
            _put(base, _of_base(_INNER.sub(r"\1", key)), key)
        else:
            _put(adapter, PREFIX + part.name, key)
    _check_complete(base, adapter)
    return WrappedKeys(base, adapter)


def _check_complete(base: Mapping[str, str], adapter: Mapping[str, str]) -> None:
    """Raise ContradictionError for a module that was wrapped, and of whose adapter nothing is there."""
    wrapped: dict[str, str] = {}
    for key in base.values():
        name = _INNER.sub(r"\1", key)
        for mark in (mark for mark in _MARKS if mark in name):
            wrapped[_of_base(name.partition(mark)[0] + ".")[:-1]] = key
    there = {module for name in adapter for module in modules_of(_of_base(name.removeprefix(PREFIX)))}
    for module, key in wrapped.items():
        if module not in there:
            raise ContradictionError(
                f"{key} is there, but nothing of the adapter that it was wrapped for.",
                "The checkpoint is incomplete: save or copy it again.",
            )


def modules_of(name: str) -> Iterator[str]:
    """The modules that a tensor or a module of this ``name`` is in, the outermost first."""
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))


@dataclass(frozen=True, slots=True)
class _Part:
    """A tensor of an adapter: its name in the adapter's file, the tensor ``of`` the base that it belongs to.

    ``adapter`` is the name of the adapter; None where the key has none.
    """

    name: str
    of: str
    adapter: str | None


def _of_adapter(key: str) -> _Part | None:
    """What ``key`` is in an adapter; None if it is the base model's."""
    if saved := _SAVED.fullmatch(key):
        name = f"{_of_base(saved['module'])}.{saved['rest']}"
        return _Part(name, name, saved["adapter"])
    if factor := _FACTOR.fullmatch(key):
        end = "" if factor["part"] in _WITHOUT_END else factor["end"] or ""
        name = f"{factor['module']}.{factor['part']}{end}"
        return _Part(name, f"{_of_base(factor['module'])}.weight", factor["adapter"])
    return None


def _of_base(name: str) -> str:
    return _OF_BASE.sub("", name)


def _put(names: dict[str, str], name: str, key: str) -> None:
    if name in names:
        raise ContradictionError(
            f"{names[name]} and {key} would both be {name}.",
            "Remove the tensor that is stale, or save the model again.",
        )
    names[name] = key
