"""What an HF directory holds beside weights and config.json, made from a custom one."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.convert.companions.shared import (
    CompanionFiles,
    carried_files,
    config_text,
    image_token,
    notes_on_tensors,
    notes_on_tokenizer_home,
    others,
    read_whole_tokenizer,
    restored_generation,
    restored_tokenizer,
    tensor_facts,
)
from internvl_bridge.errors import first_few
from internvl_bridge.metadata.chat.choice import ChatSetup, choose_chat
from internvl_bridge.metadata.chat.conversation_file import stated_conversation
from internvl_bridge.metadata.chat.generation import GENERATION_FILE, hf_generation_config, read_generation_config
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.tiling import ONE_TILE, custom_tiling, hf_tiling, tile_side, tokens_per_tile
from internvl_bridge.metadata.config.translation import TokenFacts, to_hf_config
from internvl_bridge.metadata.files import LEGAL_FILES, digest
from internvl_bridge.metadata.json_files import CONFIG_FILE, as_text, is_present, read_json_file
from internvl_bridge.metadata.other_format import OtherFormat
from internvl_bridge.metadata.processor.files import (
    HF_PROCESSOR_FILES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    hf_processor_files,
    image_processor,
)
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles
from internvl_bridge.metadata.tokenizer.to_hf import hf_tokenizer_files, padding_id
from internvl_bridge.metadata.tokenizer.token_ids import token_id, tokens_beyond
from internvl_bridge.notes import Warn
from internvl_bridge.planning.tensor_plan import ModelPlan


def hf_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> CompanionFiles:
    """The files of an HF checkpoint made from a custom one, with config.json and without the sidecar.

    ``home`` is where the tokenizer is. Raises CheckpointError or ContradictionError for what is malformed or does not
    belong together.
    """
    description, other_format = model.description, model.other_format
    tokenizer = read_whole_tokenizer(home)
    name = description.values.get("template")
    stated = stated_conversation(description.file.path.parent, name)
    chat = choose_chat(name, tokenizer.template, system_message, stated=stated)
    end_id = None if chat.turn_end is None else token_id(home, chat.turn_end)
    tokens = TokenFacts(image_token(model, home), end_id)
    config = to_hf_config(
        description, tensor_facts(model, planned), tokens, other_format.description if other_format else None
    )
    companions = hf_companions(description, tokenizer, chat, end_id, other_format)
    notes = (
        *notes_on_tokenizer_home(model, home),
        *notes_on_tensors(model, planned),
        *_notes_on_config(model, config),
        *companions.notes,
    )
    return CompanionFiles({**companions.texts, CONFIG_FILE: config_text(model, config)}, companions.copies, notes)


def hf_companions(
    custom: ModelDescription,
    tokenizer: TokenizerFiles,
    chat: ChatSetup,
    turn_end_id: int | None,
    other_format: OtherFormat | None,
) -> CompanionFiles:
    """The files beside an HF config.json. ``turn_end_id`` is the id of the token that ends a turn.

    Raises CompanionFileError if the tokenizer cannot work without remote code, or a file is malformed.
    """
    source = custom.file.path.parent
    restored = {} if chat.demanded else restored_tokenizer(other_format, tokenizer.home)
    chat_files, chat_notes = (restored, ()) if restored else hf_tokenizer_files(tokenizer, chat, turn_end_id)
    texts = {
        **others(other_format, {CONFIG_FILE, GENERATION_FILE, *HF_PROCESSOR_FILES, *LEGAL_FILES}),
        **chat_files,
        **_generation(custom, turn_end_id, padding_id(tokenizer), other_format),
        **_processor(custom, other_format),
    }
    made = other_format.written if other_format and restored else {}
    copies = carried_files(source, tokenizer.home, without={*texts, *made})
    notes = (*_processor_notes(custom), *_token_notes(custom, tokenizer.home), *chat_notes)
    return CompanionFiles(texts, copies, notes)


def _generation(
    model: ModelDescription, turn_end_id: int | None, pad_id: int | None, other_format: OtherFormat | None
) -> dict[str, str]:
    source = model.file.path.parent
    restored = restored_generation(other_format, source)
    if restored is not None:
        return restored
    custom = read_generation_config(source)
    made = hf_generation_config(custom.values if custom else None, model.text, turn_end_id, pad_id)
    if custom and made == custom.values:
        return {GENERATION_FILE: custom.text}
    return {GENERATION_FILE: as_text(made)}


def _processor(model: ModelDescription, other_format: OtherFormat | None) -> dict[str, str]:
    """The processor's files: those of the other format, if config.json is untouched or they mean what it says."""
    custom = model.values
    side, tokens, tiling = tile_side(custom), tokens_per_tile(custom), custom_tiling(custom)
    kept = other_format.files if other_format else {}
    texts = {name: kept[name] for name in HF_PROCESSOR_FILES if name in kept}
    old = {name: json.loads(text) for name, text in texts.items()}
    pixels = image_processor(old)
    untouched = other_format is not None and other_format.written.get(CONFIG_FILE) == digest(model.file.path)
    if texts and untouched:
        return texts
    meant = (pixels.get("size"), hf_tiling(pixels), old.get(PROCESSOR_FILE, {}).get("image_seq_length"))
    if meant == ({"height": side, "width": side}, tiling, tokens):
        return texts
    return {name: as_text(values) for name, values in hf_processor_files(side, tokens, tiling).items()}


def _processor_notes(custom: ModelDescription) -> Iterator[str]:
    """What HF's processor does otherwise than upstream's code did."""
    config, tiling = custom.values, custom_tiling(custom.values)
    if tiling != ONE_TILE and not config.get("use_thumbnail", False):
        yield Warn(
            "config.json has use_thumbnail false, but HF's image processor adds a thumbnail to every image of several "
            "tiles. Drop the last tile before the model sees it, or images look different from those in training."
        )
    if config.get("pad2square", False):
        yield Warn(
            "config.json has pad2square true, which HF's image processor does not do: pad images before it sees them."
        )
    yield from _differing_pixels(custom.file.path.parent)


def _token_notes(model: ModelDescription, tokenizer_home: Path) -> Iterator[str]:
    """Which tokens of the tokenizer ``model`` cannot take.

    Where it has no ``<video>``, HF's processor adds one that no text is meant to have.
    """
    if beyond := tokens_beyond(tokenizer_home, model.dims.text.vocab):
        yield (
            f"The tokenizer has {len(beyond)} token(s) for which the model has no embedding: {first_few(beyond)}. A "
            f"text with one of them fails."
        )


def _differing_pixels(source: Path) -> Iterator[str]:
    path = source / PREPROCESSOR_FILE
    if not is_present(path):
        return
    stated = read_json_file(path).values
    normalization = (stated.get("image_mean", IMAGENET_MEAN), stated.get("image_std", IMAGENET_STD))
    if normalization != (IMAGENET_MEAN, IMAGENET_STD):
        yield Warn(
            f"{path.name} normalises images by mean {normalization[0]} and std {normalization[1]}. Upstream's code, "
            f"and so the output, does it by ImageNet's {IMAGENET_MEAN} and {IMAGENET_STD}."
        )


def _notes_on_config(model: Model, made: Mapping[str, Any]) -> Iterator[str]:
    """What the owner of a custom checkpoint should know about the HF config.json ``made`` from its own."""
    layer = model.description.values.get("select_layer", -1)
    if layer != -1:
        yield (
            f"vision_feature_layer is {layer}: transformers 5 reads that, 4.57 and older fail with an AttributeError."
        )
    stated, ends = model.description.text.get("eos_token_id"), made["text_config"].get("eos_token_id")
    if stated is not None and ends != stated:
        yield (
            f"llm_config has eos_token_id {stated}, but the chat template ends a turn with {ends}. The output's "
            f"config.json and generation_config.json have {ends}, so that generation stops there."
        )
