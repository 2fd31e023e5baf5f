"""What the owner of an HF checkpoint should know about the custom checkpoint made of it."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.convert.companions.hf_source import HfFiles
from internvl_bridge.convert.companions.remote_code import hub_repository, missing_modules
from internvl_bridge.errors import shown
from internvl_bridge.mapping.families import LLAMA
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import system_message
from internvl_bridge.metadata.config.tiling import tile_side
from internvl_bridge.metadata.files import TOKENIZER_CONFIG_FILE, has_tokenizer
from internvl_bridge.metadata.json_files import Config
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.processor.files import IMAGENET_MEAN, IMAGENET_STD, image_processor
from internvl_bridge.metadata.tokenizer.files import can_load
from internvl_bridge.metadata.tokenizer.token_ids import find_token
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT
from internvl_bridge.notes import Warn, called

# Fields of an HF text config that the custom format says elsewhere, or that say nothing about the model.
_SAID_OTHERWISE = {
    "model_type",
    "architectures",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "attention_bias",
    "mlp_bias",
    "head_dim",
    "pretraining_tp",
    "quantization_config",
}


def notes_to_custom(model: Model, assumed: Mapping[str, Any], tokenizer_home: Path) -> Iterator[str]:
    """What the owner of an HF checkpoint should know about its conversion; ``assumed`` are config fields."""
    description, other_format = model.description, model.other_format
    if assumed:
        values = ", ".join(f"{name} {value!r}" for name, value in assumed.items())
        yield Warn(
            f"No file states these, so they are assumed: {values}. If one is wrong, give the original model as "
            f"--reference."
        )
    if description.family.hf_model_type == LLAMA.hf_model_type:
        if other_format is None:
            yield Warn(
                f"HF has one class for InternLM2 and Llama. No sidecar or --reference states which one this is, so the "
                f"output gets {description.family.name}'s names. InternVL2 and InternVL2.5 of 2B, 8B and 26B have an "
                f"InternLM2: for these, give the original model as --reference."
            )
        else:
            yield f"The language model has {description.family.name}'s names, as {called(other_format.origin)} says."
    known = {field.hf for field in description.text_fields} | _SAID_OTHERWISE
    if unknown := sorted(description.text.keys() - known):
        yield Warn(
            f"These fields of text_config are unknown to this version and are left out (the sidecar keeps them): "
            f"{', '.join(unknown)}."
        )
    yield from _tokenizer_notes(model, tokenizer_home)


def notes_on_directory(
    config: Config, files: HfFiles, other_format: OtherFormat | None, texts: Mapping[str, str], copies: Collection[Path]
) -> Iterator[str]:
    """What the output's files lack, or have from somewhere else than the source."""
    names = {*texts, *(path.name for path in copies)}
    tokenizer = json.loads(texts.get(TOKENIZER_CONFIG_FILE, "{}"))
    if repository := hub_repository(config):
        is_old = other_format is not None and repository == hub_repository(other_format.description.values)
        chosen = (
            f"as {called(other_format.origin)} says"
            if other_format and is_old
            else "chosen by the language model's class"
        )
        yield (
            f"auto_map names {repository} for the Python modules (*.py), {chosen}. transformers fetches them from "
            f"there when the model is loaded with trust_remote_code. To have them in the output, give a --reference "
            f"that has them."
        )
    if missing := sorted({*missing_modules(config, names), *missing_modules(tokenizer, names)}):
        yield Warn(
            f"The output needs {', '.join(missing)}, which the source does not have either. Before loading it with "
            f"trust_remote_code, copy them there from the original model, or convert with that as --reference."
        )
    if code := [name for name in texts if name.endswith(".py")]:
        yield (
            f"The sidecar restores {', '.join(code)}. Read them before loading with trust_remote_code, unless you "
            f"know where the sidecar comes from."
        )
    if has_tokenizer(files.tokenizer.home) and not can_load(tokenizer, names):
        yield Warn(
            f"{called(files.tokenizer.home)} has no tokenizer that can be loaded: tokenizer.json, tokenizer.model or "
            f"vocab.json with merges.txt is missing. Copy it there, or give a directory that has it as --tokenizer."
        )
    yield from _lost_in_custom(config, files)


def _tokenizer_notes(model: Model, tokenizer_home: Path) -> Iterator[str]:
    """What is odd about the tokenizer of an HF source; the custom format needs no token id."""
    stated = model.description.values.get("image_token_id")
    found = set(find_token(tokenizer_home, IMAGE_CONTEXT).values())
    if not has_tokenizer(tokenizer_home):
        yield Warn(
            f"{called(tokenizer_home)} holds no tokenizer, so the output has none. Give the base model's directory as "
            f"--tokenizer."
        )
    elif found and found != {stated}:
        ids = ", ".join(map(str, sorted(found)))
        yield (
            f"config.json says that image_token_id is {stated}, but the tokenizer has {ids} for "
            f"{IMAGE_CONTEXT}. The custom format asks the tokenizer."
        )


def _lost_in_custom(config: Config, files: HfFiles) -> Iterator[str]:
    """What HF's files say and upstream's code does otherwise."""
    message = system_message(files.tokenizer.template or "")
    conversation = CONVERSATIONS.get(config.get("template") or "")
    if message is not None and conversation is not None and message != conversation.system_message:
        yield Warn(
            f"The chat template renders the system message {message[:60]!r}, which the custom format cannot state. "
            f"Upstream's code renders that of template {config['template']!r}."
        )
    pixels, side = image_processor(files.processor), tile_side(config)
    upstream = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "size": {"height": side, "width": side}}
    for name, value in upstream.items():
        if pixels.get(name, value) != value:
            yield Warn(
                f"The image processor has {name} {shown(pixels[name])}, which the custom format cannot state. "
                f"Upstream's code uses {value}."
            )
