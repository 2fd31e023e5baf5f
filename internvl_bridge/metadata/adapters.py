"""Recognise an adapter, alone or beside the weights that it changes."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from internvl_bridge.errors import CheckpointError, UnsupportedModelError, first_few, shown
from internvl_bridge.metadata.json_files import Config, is_present, read_json_file

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "vit.safetensors")
"""Of PEFT; the last is the vision tower that ms-swift trains in full and keeps beside an adapter."""


def lone_adapter(directory: Path) -> CheckpointError | None:
    """The refusal of ``directory`` if it holds an adapter's config; None if not."""
    if not is_present(directory / ADAPTER_CONFIG):
        return None
    config = read_json_file(directory / ADAPTER_CONFIG).values
    base = config.get("base_model_name_or_path")
    of_base = f" of {shown(base)}" if isinstance(base, str) and base else ""
    return CheckpointError(
        f"{directory} is an adapter{of_base}{_described(config)}, not a whole checkpoint: it holds the changes of a "
        f"fine-tune alone.",
        f"Convert it as what it is: internvl-bridge to-hf {shlex.quote(str(directory))} OUTPUT --base BASE, or "
        f"to-custom. Or merge it: internvl-bridge merge BASE OUTPUT --adapter {shlex.quote(str(directory))}",
    )


def check_no_adapter(directory: Path) -> None:
    """Raise UnsupportedModelError if an adapter lies beside the weights in ``directory``.

    The weights alone can be the base model without what was trained.
    """
    found = [name for name in _WEIGHTS if is_present(directory / name)]
    if not found:
        return
    path = directory / ADAPTER_CONFIG
    described = _described(read_json_file(path).values) if is_present(path) else ""
    raise UnsupportedModelError(
        f"{directory} holds an adapter ({first_few(found)}{described}) beside a whole checkpoint. Nothing shows "
        f"whether the weights have it merged. If not, they are the base model without the fine-tune.",
        f"If it is merged, or is not wanted, add --accept adapter (accept={{'adapter'}}). If not, move its files into "
        f"a directory ADAPTER, and merge that: internvl-bridge merge {shlex.quote(str(directory))} MERGED --adapter "
        f"ADAPTER",
    )


def _described(config: Config) -> str:
    """The type and the rank of an adapter, if its config states them."""
    return "".join(_words(config))


def _words(config: Config) -> Iterator[str]:
    kind, rank = config.get("peft_type"), config.get("r")
    if isinstance(kind, str) and kind:
        yield f", {shown(kind)}"
    if type(rank) is int:
        yield f", rank {rank}"
