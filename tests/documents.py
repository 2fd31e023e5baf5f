"""What the commands and snippets of the documentation find: small checkpoints under the names that pages use."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from adapters import lora_config, random_adapter, weights_of
from safetensors.torch import load_file, save_file
from support import copy_custom, rewrite, shard
from wrapped import save_as_trainer

import internvl_bridge

_Make = Callable[[Path], object]
_MAKING = {"to-hf", "to-custom", "repair", "merge", "cast", "extract", "plan"}
"""The commands whose second argument is what they make, or would."""
_FUNCTION = re.compile(r"\b(?:to_hf|to_custom|repair|merge|cast|extract)\([^,()]+, \"([^\"]+)\"")


def prepare(text: str, home: Path) -> None:
    """Make what a snippet of Python reads in ``home``, if it is not there."""
    made = set(_FUNCTION.findall(text))
    for name in _names(text) - made:
        _made(home, name)
    for name in made:
        _remove(home / name)


@contextmanager
def hub_of_documents(home: Path) -> Iterator[None]:
    """A hub that has what pages read there."""
    pytest.importorskip("httpx2", reason="the hub of the tests is for a newer huggingface_hub")
    from hub_client import hub_client
    from hub_server import hub_server
    from hub_state import files_of

    elsewhere = copy_custom("qwen3-300m", home / "on-the-hub")
    repos = {"OpenGVLab/InternVL3_5-8B": files_of(elsewhere)}
    with hub_server(repos) as hub, hub_client(hub, home / "hub-home"):
        yield


def command_ready(command: str, home: Path) -> list[str]:
    """The arguments of ``command``, with all that it reads in ``home``, and without what it makes."""
    _, *arguments = shlex.split(command)
    places = [argument.removeprefix("./") for argument in arguments if not argument.startswith("-")]
    output = places[2] if arguments[0] in _MAKING and len(places) > 2 else None
    for name in places[1:]:
        if name in _MAKERS and name != output:
            _made(home, name)
    if output is not None:
        _remove(home / output)
    return arguments


def _names(text: str) -> set[str]:
    return {name for name in _MAKERS if re.search(rf"[\"/]{re.escape(name)}[\"/]", text)}


def _made(home: Path, name: str) -> Path:
    place = home / name
    if not place.exists():
        _MAKERS[name](place)
    return place


def _remove(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)


def _of_base(place: Path) -> Path:
    return _made(place.parent, "InternVL3_5-8B")


def _sharded(place: Path) -> None:
    copy_custom("qwen3-300m", place)
    shard(place, lambda key: 2 if not key.startswith("language_model.") else int("layers.0." in key))


def _hf(place: Path) -> None:
    internvl_bridge.to_hf(_of_base(place), place)


def _finetune(place: Path) -> None:
    shutil.copytree(_of_base(place), place)
    rewrite(place, lambda tensors: tensors["mlp1.1.weight"].mul_(1.5))


def _finetune_hf(place: Path) -> None:
    internvl_bridge.to_hf(_made(place.parent, "my-finetune"), place)


def _checkpoint(place: Path) -> None:
    """What a trainer saves: the keys of a state dict."""
    shutil.copytree(_made(place.parent, "InternVL3_5-8B-HF"), place)
    path = place / "model.safetensors"
    save_file({_spelled(key): tensor for key, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    (place / "internvl_bridge.json").unlink()


def _spelled(key: str) -> str:
    if key == "language_model.lm_head.weight":
        return "lm_head.weight"
    return f"model.{key.replace('language_model.model.', 'language_model.')}"


def _frozen(place: Path) -> None:
    shutil.copytree(_of_base(place), place)
    rewrite(place, _without_tower)


def _parts(place: Path) -> None:
    shutil.copytree(_made(place.parent, "InternVL3_5-8B-HF"), place)
    rewrite(place, _without_tower)


def _without_tower(tensors: dict[str, Any]) -> None:
    for key in [key for key in tensors if key.startswith("vision_")]:
        del tensors[key]


def _added_adapter(place: Path) -> None:
    """As transformers saves an adapter that ``add_adapter`` made."""
    shutil.copytree(_made(place.parent, "my-lora-HF"), place)
    path = place / "adapter_model.safetensors"
    factors = {key.removeprefix("base_model.model."): tensor for key, tensor in load_file(path).items()}
    save_file(factors, path, metadata={"format": "pt"})


def _lora(place: Path) -> None:
    place.mkdir()
    factors = random_adapter(weights_of("qwen3-300m", "custom"), rank_of=lambda _: 4)
    save_file(factors, place / "adapter_model.safetensors", metadata={"format": "pt"})
    (place / "adapter_config.json").write_text(json.dumps(lora_config(r=4)))


def _lora_hf(place: Path) -> None:
    internvl_bridge.to_hf(_made(place.parent, "my-lora"), place, base=_of_base(place))


_MAKERS: Mapping[str, _Make] = {
    "InternVL3_5-8B": lambda place: copy_custom("qwen3-300m", place),
    "InternVL3_5-241B-A28B": _sharded,
    "my-241B": _sharded,
    "InternVL3_5-1B": lambda place: copy_custom("qwen3-300m", place),
    "InternVL3_5-8B-HF": _hf,
    "my-finetune": _finetune,
    "my-finetune-HF": _finetune_hf,
    "checkpoint-500": _checkpoint,
    "my-frozen": _frozen,
    "trained-parts": _parts,
    "lora-of-add-adapter": _added_adapter,
    "my-lora": _lora,
    "my-lora-HF": _lora_hf,
    "my-trained": lambda place: save_as_trainer(_of_base(place), place),
    "my-merged": lambda place: internvl_bridge.merge(_of_base(place), place, adapters=[_made(place.parent, "my-lora")]),
    "my-merged-HF": lambda place: internvl_bridge.to_hf(_made(place.parent, "my-merged"), place),
    "back": lambda place: internvl_bridge.to_custom(_made(place.parent, "InternVL3_5-8B-HF"), place),
}
