"""What training wrappers and earlier versions made of a model's keys, and which of them do not belong to it."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from internvl_bridge.errors import first_few
from internvl_bridge.mapping.several_models import IsModel

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing put between the parts of a key."""
_BUFFERS = (
    *(".rotary_emb.inv_freq", ".rotary_emb.original_inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"),
    *(".position_ids", ".n_averaged"),
)
"""How the keys end of buffers that follow from config.json, and of the counter of an averaged model."""
_LONGEST_PREFIX = 4
"""Parts of a key: Lightning's, a policy's and PEFT's have one or two."""

_PORT_LAYER = re.compile(r"((?:model\.)?vision_tower\.encoder\.layer\.[0-9]+\.)(.*)")
# The branch that became transformers 4.52 named the parts of its vision tower in two ways.
_PORT = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.query": "attention.q_proj",
    "attention.key": "attention.k_proj",
    "attention.value": "attention.v_proj",
    "attention.output.dense": "attention.projection_layer",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}
_MARKS = (*_WRAPPERS, *(name[1:] for name in _BUFFERS), "vision_tower.encoder.layer.")
"""Some of these are in any key that is renamed or left out; not each key that has one of them is."""


@dataclass(frozen=True, slots=True)
class CleanNames:
    """The keys of a model behind those that were found: ``renamed`` by the found ones, but for those ``left_out``.

    ``remarks`` say what was done.
    """

    renamed: Mapping[str, str]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]


def clean_names(keys: Collection[str], is_model: IsModel) -> CleanNames | None:
    """The keys of a model behind ``keys``; None if they are such keys already, or if nothing here explains them.

    A prefix is taken off only if every key has it, and only what ``is_model`` accepts is a model.
    """
    if _is_plain(keys) and is_model(keys):
        return None
    left_out = tuple(key for key in keys if is_buffer(key))
    plain = {key: _unwrapped(key) for key in keys if not is_buffer(key)}
    prefix = _prefix([*plain.values()], is_model)
    if prefix is None:
        return None
    renamed = {key: _as_now(name.removeprefix(prefix)) for key, name in plain.items()}
    if len({*renamed.values()}) != len(renamed) or (not left_out and all(old == new for old, new in renamed.items())):
        return None
    remarks = [f"The keys begin with {prefix!r}, which was taken off."] if prefix else []
    if wrapped := [key for key in plain if plain[key] != key]:
        remarks.append(f"Names of training wrappers were taken out of keys: {first_few(wrapped)}.")
    if old := [key for key in plain if plain[key].removeprefix(prefix) != renamed[key]]:
        remarks.append(f"Keys are those of a branch before transformers 4.52, and were renamed: {first_few(old)}.")
    return CleanNames(renamed, left_out, tuple(remarks))


def _is_plain(keys: Iterable[str]) -> bool:
    """Whether nothing here would change any of ``keys``, as far as one search through all of them shows."""
    every = "\n".join(keys)
    return not any(mark in every for mark in _MARKS)


def is_buffer(key: str) -> bool:
    """Whether ``key`` is that of a buffer that follows from config.json, or of a counter: of no weight."""
    return f".{key}".endswith(_BUFFERS)


def prefix_of(key: str, is_model: IsModel) -> str:
    """The prefix that a wrapper has put before ``key``, which comes alone; "" if it has none that is known."""
    return _prefix([_unwrapped(key)], is_model) or ""


def clean_name(key: str, prefix: str) -> str | None:
    """The key of a model behind ``key``; None if it does not begin with ``prefix``."""
    plain = _unwrapped(key)
    return _as_now(plain.removeprefix(prefix)) if plain.startswith(prefix) else None


def _prefix(keys: Collection[str], is_model: IsModel) -> str | None:
    """What every key begins with, behind which ``is_model`` finds a model; the shortest such prefix."""
    if is_model(keys):
        return ""
    first = next(iter(keys), "")
    parts = first.split(".")[:-1]
    for count in range(1, min(len(parts), _LONGEST_PREFIX) + 1):
        prefix = ".".join(parts[:count]) + "."
        if not all(key.startswith(prefix) for key in keys):
            return None
        if is_model([key.removeprefix(prefix) for key in keys]):
            return prefix
    return None


def _unwrapped(key: str) -> str:
    if not any(wrapper in key for wrapper in _WRAPPERS):  # as of nearly all keys, of which there can be 40,000
        return key
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _as_now(key: str) -> str:
    """``key`` as transformers 4.52 and later have it."""
    found = _PORT_LAYER.match(key)
    if found is None:
        return key
    name, _, end = found[2].rpartition(".")
    return f"{found[1]}{_PORT[name]}.{end}" if name in _PORT else key
