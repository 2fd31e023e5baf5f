"""What an HF directory holds beside weights and config.json, made from a custom one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.chat_template import (
    HF_IMAGE,
    built_template,
    conversation_name,
    for_hf,
    places_images,
    turn_end,
    with_system_message,
)
from internvl_bridge.metadata.companions import Companions, carried_files, others, restored_tokenizer
from internvl_bridge.metadata.config_file import CONFIG_FILE, Config, is_present, read_json_file
from internvl_bridge.metadata.conversations import CONVERSATIONS
from internvl_bridge.metadata.described import Described
from internvl_bridge.metadata.fast_tokenizer import fast_tokenizer
from internvl_bridge.metadata.files import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from internvl_bridge.metadata.generation import GENERATION_FILE, hf_generation_config
from internvl_bridge.metadata.processor_files import (
    HF_PROCESSOR_FILES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    as_text,
    hf_processor_files,
    image_processor,
)
from internvl_bridge.metadata.sentencepiece_model import read_sentencepiece_model
from internvl_bridge.metadata.sidecar import Complement
from internvl_bridge.metadata.tiling import ONE_TILE, custom_tiling, hf_tiling
from internvl_bridge.metadata.tokenizer import required_token_id, video_token_id
from internvl_bridge.metadata.tokenizer_config import class_name, special_token
from internvl_bridge.metadata.tokenizer_config import for_hf as tokenizer_config_for_hf
from internvl_bridge.metadata.tokenizer_files import TokenizerFiles
from internvl_bridge.metadata.tokenizer_json import head, surrounding_tokens, template_processing, with_post_processor
from internvl_bridge.metadata.translation import tile_side, tokens_per_tile

NO_SYSTEM_MESSAGE = "none"


@dataclass(frozen=True, slots=True)
class Speech:
    """How the model is spoken to: the chat template, and the token that ends a turn; None where nothing tells.

    ``demanded``: a system message was asked for, so that no template that was there before will do.
    """

    template: str | None
    turn_end: str | None
    notes: tuple[str, ...]
    demanded: bool = False


def hf_speech(name: str | None, own: str | None, system_message: str | None) -> Speech:
    """The chat template for a model whose config.json names ``name`` and whose tokenizer has its ``own``.

    A template of its own that places no images is the language model's, from before it saw any: upstream's
    ``chat()`` uses the named one, and so does this. ``system_message`` is rendered for conversations that
    bring none; None means upstream's, "none" means none.
    """
    conversation = CONVERSATIONS.get(name or "")
    notes = []
    if own is not None and places_images(own):
        body = for_hf(own)
    elif conversation is not None:
        body = built_template(conversation)
    elif own is not None and (guessed := conversation_name(own, preferred=())):
        body = built_template(CONVERSATIONS[guessed])
        notes.append(f"The chat template was made after the tokenizer's own, which places no images, as {guessed!r}.")
    else:
        return Speech(own, None, (_no_template(name, own),), demanded=system_message is not None)
    if conversation is None and system_message is None:
        notes.append(
            f"config.json names the template {name!r}, whose default system message is not known: none is rendered. "
            f"State one with --system-message."
        )
    wanted = conversation.system_message if conversation and system_message is None else system_message
    if wanted is not None and wanted != NO_SYSTEM_MESSAGE:
        body = with_system_message(body, wanted)
    end = turn_end(body) or (conversation.turn_end if conversation else None)
    return Speech(body, end, tuple(notes), demanded=system_message is not None)


def hf_companions(
    custom: Described, tokenizer: TokenizerFiles, speech: Speech, turn_end_id: int | None, complement: Complement | None
) -> Companions:
    """The files beside an HF config.json. ``turn_end_id`` is the id of the token that ends a turn.

    Raises ConfigError if the tokenizer cannot work without remote code, or a file is malformed.
    """
    source = custom.file.path.parent
    restored = {} if speech.demanded else restored_tokenizer(complement, tokenizer.home)
    spoken, speech_notes = (restored, ()) if restored else _tokenizer(tokenizer, speech, turn_end_id)
    texts = {
        **others(complement, {CONFIG_FILE, GENERATION_FILE, *HF_PROCESSOR_FILES}),
        **spoken,
        **_generation(source, custom.text, turn_end_id, complement),
        **_processor(custom.values, complement),
    }
    made = complement.written if complement and restored else {}
    copies = carried_files(source, tokenizer.home, without={*texts, *made})
    notes = (*_processor_notes(custom, video_token_id(tokenizer.home)), *speech_notes)
    return Companions(texts, copies, notes)


def _tokenizer(
    tokenizer: TokenizerFiles, speech: Speech, turn_end_id: int | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The tokenizer's files, as far as they are not carried over, and notes."""
    if not tokenizer.has_json and not tokenizer.has_slow_files:
        raise ConfigError(
            f"{tokenizer.home} has neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt.",
            "Copy the tokenizer's files of the base model there, or give their directory as --tokenizer.",
        )
    texts = {} if speech.template is None else {CHAT_TEMPLATE_FILE: speech.template}
    notes = tuple(_speech_notes(tokenizer, speech, turn_end_id))
    if _is_sentencepiece(tokenizer):
        texts["tokenizer.json"], inexact = _fast_tokenizer(tokenizer)
        notes = (*notes, *inexact)
    elif tokenizer.has_json and class_name(tokenizer.config) == "LlamaTokenizer":
        texts |= _as_llama_class_reads_it(tokenizer)
    elif "auto_map" in tokenizer.config and not tokenizer.has_json:
        raise ConfigError(
            f"The tokenizer in {tokenizer.home} needs remote code, which is never run, and is not InternLM2's.",
            "Give a directory with a tokenizer.json that has the same ids as --tokenizer.",
        )
    config = tokenizer_config_for_hf(tokenizer.config, has_json=tokenizer.has_json or "tokenizer.json" in texts)
    return {**texts, TOKENIZER_CONFIG_FILE: as_text(config)}, notes


def _is_sentencepiece(tokenizer: TokenizerFiles) -> bool:
    """Whether tokenizer.model decides, read by a class that gives it each stretch between special tokens alone.

    transformers 4 makes Llama's tokenizer anew from it wherever ``add_prefix_space`` is stated.
    """
    name, config = class_name(tokenizer.config), tokenizer.config
    anew = not tokenizer.has_json or (name == "LlamaTokenizer" and config.get("add_prefix_space") is not None)
    stretches = name == "InternLM2Tokenizer" or (name == "LlamaTokenizer" and config.get("legacy") in (None, True))
    return anew and stretches and is_present(tokenizer.home / "tokenizer.model")


def _fast_tokenizer(tokenizer: TokenizerFiles) -> tuple[str, list[str]]:
    """A SentencePiece tokenizer, which InternLM2 hides behind code of its own, as one that needs none; and notes."""
    path, config = tokenizer.home / "tokenizer.model", tokenizer.config
    model, added, prefix = read_sentencepiece_model(path), config.get("added_tokens_decoder"), None
    if class_name(config) == "LlamaTokenizer":
        prefix = config.get("add_prefix_space")
    bos, eos = _surroundings(config)
    made = fast_tokenizer(
        model if prefix is None else replace(model, adds_dummy_prefix=bool(prefix)),
        added if isinstance(added, dict) else {},
        bos=bos,
        eos=eos,
        origin=tokenizer.home / TOKENIZER_CONFIG_FILE,
    )
    notes = []
    if made.inexact:
        notes.append(
            f"The fast tokenizer has the ids of the SentencePiece one, but for text around {len(made.inexact)} rare "
            f"pieces, which depend on their neighbours there: {', '.join(map(repr, made.inexact[:5]))}, ..."
        )
    return json.dumps(made.contents) + "\n", notes  # in ASCII: Python keeps other texts at four bytes a character


def _as_llama_class_reads_it(tokenizer: TokenizerFiles) -> dict[str, str]:
    """The tokenizer.json of a Llama tokenizer, if its class in transformers 4 adds other tokens than the file says."""
    path = tokenizer.home / "tokenizer.json"
    front = head(path)
    if not front:
        raise ConfigError(
            f"{path} is no tokenizer.json, or its entries stand in an unusual order.",
            "Load the tokenizer with transformers' AutoTokenizer and save it again.",
        )
    stated = surrounding_tokens(front.get("post_processor"))
    bos, eos = _surroundings(tokenizer.config)
    if stated == ([bos] if bos else [], [eos] if eos else []):
        return {}
    ids = {name: required_token_id(tokenizer.home, name) for name in (bos, eos) if name}
    return {path.name: with_post_processor(path, template_processing(bos, eos, ids))}


def _surroundings(config: Config) -> tuple[str | None, str | None]:
    """The tokens that Llama's and InternLM2's classes put in front of a text and behind it."""
    bos = special_token(config, "bos_token", "<s>") if config.get("add_bos_token", True) else None
    eos = special_token(config, "eos_token", "</s>") if config.get("add_eos_token", False) else None
    return bos, eos


def _generation(source: Path, text: Config, turn_end_id: int | None, complement: Complement | None) -> dict[str, str]:
    restored = complement.restored(source, [GENERATION_FILE], [GENERATION_FILE]) if complement else None
    if restored is not None:
        return restored
    path = source / GENERATION_FILE
    custom = read_json_file(path) if is_present(path) else None
    made = hf_generation_config(custom.values if custom else None, text, turn_end_id)
    if custom and made == custom.values:
        return {GENERATION_FILE: custom.text}
    return {GENERATION_FILE: as_text(made)}


def _processor(custom: Config, complement: Complement | None) -> dict[str, str]:
    """The processor's files: the complement's, where they mean what config.json says."""
    side, tokens, tiling = tile_side(custom), tokens_per_tile(custom), custom_tiling(custom)
    kept = complement.files if complement else {}
    texts = {name: kept[name] for name in HF_PROCESSOR_FILES if name in kept}
    old = {name: json.loads(text) for name, text in texts.items()}
    pixels = image_processor(old)
    meant = (pixels.get("size"), hf_tiling(pixels), old.get(PROCESSOR_FILE, {}).get("image_seq_length"))
    if meant == ({"height": side, "width": side}, tiling, tokens):
        return texts
    return {name: as_text(values) for name, values in hf_processor_files(side, tokens, tiling).items()}


def _no_template(name: str | None, own: str | None) -> str:
    has = "the tokenizer's own places no images" if own else "the tokenizer has none"
    return (
        f"There is no chat template for images: config.json names {name!r}, which is not known, and {has}. Write one "
        f"to {CHAT_TEMPLATE_FILE}, with {HF_IMAGE} in the place of each image."
    )


def _processor_notes(custom: Described, video_token: int) -> Iterator[str]:
    """What HF's processor does otherwise than upstream's code did."""
    config, tiling = custom.values, custom_tiling(custom.values)
    if tiling != ONE_TILE and not config.get("use_thumbnail", False):
        yield (
            "config.json has use_thumbnail false, but HF's image processor adds a thumbnail to every image of several "
            "tiles: drop the last of them before the model sees it, or images look otherwise than in training."
        )
    if config.get("pad2square", False):
        yield "config.json has pad2square true, which HF's image processor does not do: pad images before it sees them."
    yield from _differing_pixels(custom.file.path.parent)
    if video_token >= custom.dims.text.vocab:
        yield (
            f"HF's tokenizer has a token <video>, with the id {video_token}, for which the model has no embedding: a "
            f"text with <video> and no video to replace it fails."
        )


def _differing_pixels(source: Path) -> Iterator[str]:
    path = source / PREPROCESSOR_FILE
    if not is_present(path):
        return
    stated = read_json_file(path).values
    normalization = (stated.get("image_mean", IMAGENET_MEAN), stated.get("image_std", IMAGENET_STD))
    if normalization != (IMAGENET_MEAN, IMAGENET_STD):
        yield (
            f"{path} normalises images by mean {normalization[0]} and std {normalization[1]}; upstream's code, and so "
            f"the output, by ImageNet's {IMAGENET_MEAN} and {IMAGENET_STD}."
        )


def _speech_notes(tokenizer: TokenizerFiles, speech: Speech, turn_end_id: int | None) -> Iterator[str]:
    """What was decided about the chat template and the tokenizer."""
    yield from speech.notes
    if speech.turn_end is not None and turn_end_id is None:
        yield (
            f"The chat template ends a turn with {speech.turn_end}, which the tokenizer does not have: "
            f"{GENERATION_FILE} keeps the eos_token_id that it had."
        )
    first = _first_tokens(tokenizer)
    if first and "bos_token" not in (speech.template or ""):
        yield (
            f"The tokenizer puts {' '.join(first)} in front of a text by itself, and the chat template does not: a "
            f"server that tokenises prompts without special tokens has to be told to add them."
        )


def _first_tokens(tokenizer: TokenizerFiles) -> list[str]:
    """The tokens that the HF tokenizer puts in front of every text."""
    if _is_sentencepiece(tokenizer) or class_name(tokenizer.config) == "LlamaTokenizer":
        return [token for token in _surroundings(tokenizer.config)[:1] if token]
    stated = head(tokenizer.home / "tokenizer.json").get("post_processor") if tokenizer.has_json else None
    return (surrounding_tokens(stated) or ([], []))[0]
