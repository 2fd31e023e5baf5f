"""What a repaired HF directory holds beside weights and config.json: what the source holds, and what is missing there.

Made of a repaired directory, it is the same to the byte.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

from internvl_bridge.metadata.companions import Companions, carried_files
from internvl_bridge.metadata.config_file import CONFIG_FILE, Config, as_text
from internvl_bridge.metadata.described import Described
from internvl_bridge.metadata.files import LEGAL_FILES, SPEECH_FILES, TOKENIZER_FILES, present, small_texts
from internvl_bridge.metadata.generation import (
    GENERATION_FILE,
    hf_generation_config,
    read_generation_config,
    with_turn_end,
)
from internvl_bridge.metadata.hf_directory import video_notes
from internvl_bridge.metadata.hf_speech import Speech
from internvl_bridge.metadata.hf_tokenizer import hf_tokenizer_files
from internvl_bridge.metadata.portable_processor import portable_processor
from internvl_bridge.metadata.portable_sidecar import usable_sidecar
from internvl_bridge.metadata.portable_speech import portable_speech
from internvl_bridge.metadata.processor_files import HF_PROCESSOR_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, Complement
from internvl_bridge.metadata.tiling import custom_tiling
from internvl_bridge.metadata.tokenizer import token_id
from internvl_bridge.metadata.tokenizer_config import IMAGE_CONTEXT
from internvl_bridge.metadata.tokenizer_files import TokenizerFiles

_HANDLED = (CONFIG_FILE, GENERATION_FILE, SIDECAR_FILE, *HF_PROCESSOR_FILES, *TOKENIZER_FILES, *LEGAL_FILES)
# Python modules, which HF's classes do without; a trainer's state; and that of an adapter, for whose sake transformers
# would load another model than this one.
_NO_PART = (".py",)
_STATES = ("trainer_state", "training_args", "optimizer", "scheduler", "rng_state", "adapter_config")


def portable_companions(
    hf: Described, tokenizer: TokenizerFiles, config: Config, system_message: str | None = None
) -> Companions:
    """The files beside the portable ``config`` of ``hf``, whose directory is the source.

    ``tokenizer`` may be that of another directory. If it is the source's and has no vocabulary, the output has none.
    Raises ConfigError if a file is malformed, or a tokenizer cannot work without remote code.
    """
    source = hf.file.path.parent
    complement, sidecar_notes = usable_sidecar(hf.file)
    speech = portable_speech(_template_name(complement), tokenizer.template, system_message)
    missing = not tokenizer.has_vocabulary and tokenizer.home == source
    end = None if speech.turn_end is None else token_id(tokenizer.home, speech.turn_end)
    spoken, speech_notes = ({}, _incomplete(source, speech)) if missing else hf_tokenizer_files(tokenizer, speech, end)
    tiling = custom_tiling(complement.described.values) if complement else None
    processor, processor_notes = portable_processor(hf, config["image_seq_length"], tiling)
    generation, generation_notes = _generation(source, config["text_config"], speech, end)
    texts = {**spoken, **generation, **processor}
    copies = [
        *carried_files(source, tokenizer.home, without=texts),
        *(present(source, SPEECH_FILES) if missing else []),
        *(source / name for name in small_texts(source, without={*_HANDLED, *_no_part(source)})),
        *([complement.origin] if complement else []),
    ]
    notes = (
        *_notes_on_config(hf, config),
        *(() if missing else video_notes(hf, tokenizer.home)),
        *speech_notes,
        *processor_notes,
        *generation_notes,
        *sidecar_notes,
    )
    return Companions(texts, tuple(copies), notes)


def portable_turn_end(hf: Described, tokenizer: TokenizerFiles) -> int | None:
    """The id of the token that ends a turn, as :func:`portable_companions` has it; None if nothing tells."""
    complement, _ = usable_sidecar(hf.file)
    end = portable_speech(_template_name(complement), tokenizer.template, None).turn_end
    return None if end is None else token_id(tokenizer.home, end)


def _template_name(complement: Complement | None) -> str | None:
    return complement.described.values.get("template") if complement else None


def _incomplete(source: Path, speech: Speech) -> tuple[str, ...]:
    lost = " The system message that was asked for is not rendered." if speech.demanded else ""
    note = (
        f"{source} has no tokenizer, so neither has the output, and its processor is incomplete: give the directory of "
        f"the base model as --tokenizer.{lost}"
    )
    return (note,)


def _generation(
    source: Path, text: Config, speech: Speech, turn_end_id: int | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """generation_config.json, kept as it is or made; and notes."""
    file = read_generation_config(source)
    if file is None:
        made = hf_generation_config(None, text, turn_end_id)
        note = f"The source has no {GENERATION_FILE}: one was made, with eos_token_id {made.get('eos_token_id')}."
        return {GENERATION_FILE: as_text(made)}, (note,)
    stated = file.values.get("eos_token_id")
    ending = with_turn_end(stated, turn_end_id)
    if ending == stated:
        return {GENERATION_FILE: file.text}, ()
    note = (
        f"{file.path} has eos_token_id {stated}, but a turn ends with {speech.turn_end}, says the chat template: "
        f"generation does not stop there. It is kept as it is; if that was not intended, state {ending}."
    )
    return {GENERATION_FILE: file.text}, (note,)


def _no_part(source: Path) -> Collection[str]:
    """The names of small texts that are no part of a model."""
    names = (path.name for path in source.iterdir())
    return {name for name in names if name.endswith(_NO_PART) or name.startswith(_STATES)}


def _notes_on_config(hf: Described, config: Config) -> Iterator[str]:
    stated, layer = hf.values.get("image_token_id"), config["vision_feature_layer"]
    if stated is not None and stated != config["image_token_id"]:
        yield (
            f"{hf.file.path} has image_token_id {stated}, but the tokenizer has {config['image_token_id']} for "
            f"{IMAGE_CONTEXT}: the output's says so too, as the model would ignore images."
        )
    if layer != -1:
        yield f"vision_feature_layer is {layer}: transformers 5 reads that, 4.57 and older fail with an AttributeError."
