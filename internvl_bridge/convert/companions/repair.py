"""What a repaired HF directory holds beside weights and config.json: what the source holds, and what is missing there.

Made of a repaired directory, it is the same to the byte.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.untrained import notes_on_untrained
from internvl_bridge.convert.companions.shared import (
    TRAINER_STATES,
    CompanionFiles,
    carried_files,
    image_token,
    notes_on_tensors,
    notes_on_tokenizer_home,
    read_whole_tokenizer,
    tensor_facts,
)
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.chat.choice import ChatSetup, choose_chat
from internvl_bridge.metadata.chat.generation import (
    GENERATION_FILE,
    hf_generation_config,
    read_generation_config,
    with_turn_end,
)
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.metadata.config.repair import repaired_config
from internvl_bridge.metadata.config.tiling import ONE_TILE, custom_tiling, hf_tiling, stated_tiling, top_tiling
from internvl_bridge.metadata.config.translation import TokenFacts
from internvl_bridge.metadata.files import (
    CHAT_FILES,
    LEGAL_FILES,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILES,
    present,
    small_texts,
)
from internvl_bridge.metadata.json_files import CONFIG_FILE, Config, as_text, is_present
from internvl_bridge.metadata.other_format import OtherFormat, usable_sidecar
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES, PREPROCESSOR_FILE
from internvl_bridge.metadata.processor.repair import repaired_processor
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles, can_load
from internvl_bridge.metadata.tokenizer.to_hf import hf_tokenizer_files, padding_id
from internvl_bridge.metadata.tokenizer.token_ids import token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import IMAGE_CONTEXT, class_name
from internvl_bridge.notes import Warn, called
from internvl_bridge.planning.tensor_plan import ModelPlan

_HANDLED = (CONFIG_FILE, GENERATION_FILE, SIDECAR_FILE, *HF_PROCESSOR_FILES, *TOKENIZER_FILES, *LEGAL_FILES)
_NO_PART = (".py",)
"""Python modules, which HF's classes do without."""


def repaired_files(model: Model, planned: ModelPlan, home: Path, system_message: str | None) -> CompanionFiles:
    """The files of a repaired HF checkpoint, with config.json; a tokenizer may be missing."""
    description = model.description
    tokenizer = read_whole_tokenizer(home)
    has_tokens = tokenizer.has_vocabulary or home != model.directory
    image = image_token(model, home) if has_tokens else description.values.get("image_token_id", 151667)
    tokens = TokenFacts(image, repaired_turn_end(description, tokenizer))
    config = repaired_config(description, tensor_facts(model, planned), tokens)
    companions = repaired_companions(description, tokenizer, config, system_message)
    config = _with_tiling(config, json.loads(companions.texts[PREPROCESSOR_FILE]))
    notes = (
        *notes_on_tokenizer_home(model, home),
        *notes_on_tensors(model, planned),
        *notes_on_untrained(model, planned),
        *companions.notes,
    )
    text = description.file.text if config == description.file.values else as_text(config)
    return CompanionFiles({**companions.texts, CONFIG_FILE: text}, companions.copies, notes)


def _with_tiling(config: dict[str, Any], processor: Config) -> dict[str, Any]:
    """``config`` with the tiling of the image ``processor`` at its top, where it states another one or none."""
    tiling = hf_tiling(processor) or ONE_TILE
    thumbnail = config.get("use_thumbnail") if top_tiling(config) != ONE_TILE else None
    stated = stated_tiling(tiling, thumbnail=tiling != ONE_TILE if thumbnail is None else thumbnail)
    return {**config, **stated}


def repaired_companions(
    hf: ModelDescription, tokenizer: TokenizerFiles, config: Config, system_message: str | None = None
) -> CompanionFiles:
    """The files next to the repaired ``config`` of ``hf``, whose directory is the source.

    ``tokenizer`` may be that of another directory. If it is the source's and has no vocabulary, the output has none.
    Raises CheckpointError if a file is malformed, or a tokenizer cannot work without remote code.
    """
    source = hf.file.path.parent
    other_format, sidecar_notes = usable_sidecar(hf.file)
    name = _template_name(other_format, source, tokenizer)
    chat = choose_chat(name, tokenizer.template, system_message, is_repair=True)
    missing = not tokenizer.has_vocabulary and tokenizer.home == source
    end = None if chat.turn_end is None else token_id(tokenizer.home, chat.turn_end)
    chat_files, chat_notes = ({}, _incomplete(source, chat)) if missing else hf_tokenizer_files(tokenizer, chat, end)
    tiling = custom_tiling(other_format.description.values) if other_format else top_tiling(hf.values)
    processor, processor_notes = repaired_processor(hf, config["image_seq_length"], tiling)
    pad = None if missing else padding_id(tokenizer)
    generation, generation_notes = _generation(source, config["text_config"], chat, end, pad)
    texts = {**chat_files, **generation, **processor}
    copies = [
        *carried_files(source, tokenizer.home, without=texts),
        *(present(source, CHAT_FILES) if missing else []),
        *(source / name for name in small_texts(source, without={*_HANDLED, *_no_part(source)})),
        *([other_format.origin] if other_format else []),
    ]
    names = [*texts, *(path.name for path in copies)]
    unusable = [] if missing or can_load(json.loads(texts[TOKENIZER_CONFIG_FILE]), names) else [_unusable(tokenizer)]
    notes = (
        *_notes_on_config(hf, config),
        *unusable,
        *chat_notes,
        *processor_notes,
        *generation_notes,
        *sidecar_notes,
    )
    return CompanionFiles(texts, tuple(copies), notes)


def repaired_turn_end(hf: ModelDescription, tokenizer: TokenizerFiles) -> int | None:
    """The id of the token that ends a turn, as :func:`repaired_companions` has it; None if nothing states it."""
    other_format, _ = usable_sidecar(hf.file)
    name = _template_name(other_format, hf.file.path.parent, tokenizer)
    end = choose_chat(name, tokenizer.template, None, is_repair=True).turn_end
    return None if end is None else token_id(tokenizer.home, end)


def _template_name(other_format: OtherFormat | None, source: Path, tokenizer: TokenizerFiles) -> str | None:
    """The name of the template: as the sidecar has it, or the custom checkpoint that the tokenizer is from."""
    if other_format is not None:
        return other_format.description.values.get("template")
    if tokenizer.home == source or not is_present(tokenizer.home / CONFIG_FILE):
        return None
    with suppress(BridgeError):  # the config of a language model alone, for instance
        config = read_config(tokenizer.home)
        if detect_format(config) is Format.CUSTOM:
            return config.values.get("template")
    return None


def _incomplete(source: Path, chat: ChatSetup) -> tuple[str, ...]:
    lost = " The system message that was asked for is not rendered." if chat.demanded else ""
    note = Warn(
        f"{called(source)} has no tokenizer, so the output has none, and its processor is incomplete. Give the "
        f"directory of the base model as --tokenizer.{lost}"
    )
    return (note,)


def _unusable(tokenizer: TokenizerFiles) -> Warn:
    return Warn(
        f"{called(tokenizer.home)} has a tokenizer of the class {class_name(tokenizer.config)}, but not the files that "
        f"it is loaded from. Give a directory that has them as --tokenizer."
    )


def _generation(
    source: Path, text: Config, chat: ChatSetup, turn_end_id: int | None, pad_id: int | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """generation_config.json, kept as it is or made; and notes."""
    file = read_generation_config(source)
    if file is None:
        made = hf_generation_config(None, text, turn_end_id, pad_id)
        note = f"The source has no {GENERATION_FILE}: one is made, with eos_token_id {made.get('eos_token_id')}."
        return {GENERATION_FILE: as_text(made)}, (note,)
    kept, pad = file.text, pad_id if text.get("pad_token_id") is None else text["pad_token_id"]
    if pad is not None and file.values.get("pad_token_id") is None:
        kept = as_text({**file.values, "pad_token_id": pad})
    stated = file.values.get("eos_token_id")
    ending = with_turn_end(stated, turn_end_id)
    if ending == stated:
        return {GENERATION_FILE: kept}, ()
    note = Warn(
        f"{file.path.name} has eos_token_id {stated}, but the chat template ends a turn with {chat.turn_end}: "
        f"generation does not stop there. The file keeps it. If that is not intended, set it to {ending}."
    )
    return {GENERATION_FILE: kept}, (note,)


def _no_part(source: Path) -> Collection[str]:
    """The names of small texts that do not belong to a model."""
    names = (path.name for path in source.iterdir())
    return {name for name in names if name.endswith(_NO_PART) or name.startswith(TRAINER_STATES)}


def _notes_on_config(hf: ModelDescription, config: Config) -> Iterator[str]:
    stated, layer = hf.values.get("image_token_id"), config["vision_feature_layer"]
    if stated is not None and stated != config["image_token_id"]:
        yield Warn(
            f"{hf.file.path.name} has image_token_id {stated}, but the tokenizer has {config['image_token_id']} for "
            f"{IMAGE_CONTEXT}. The output's has the tokenizer's, as the model would ignore images otherwise."
        )
    if hf.vision.get("architectures"):
        yield (
            "vision_config.architectures is left out: with it, llama.cpp makes a file that holds nothing of the vision "
            "tower, and says nothing."
        )
    if layer != -1:
        yield f"vision_feature_layer is {layer}: transformers 5 reads that, 4.57 and older fail with an AttributeError."
