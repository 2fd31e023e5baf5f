"""The tokenizer's files of an HF directory, such that transformers 4 and 5 give the ids of the custom one."""

import json
from collections.abc import Iterator
from dataclasses import replace

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.chat.choice import ChatSetup
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.chat.template import with_bos
from internvl_bridge.metadata.files import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from internvl_bridge.metadata.json_files import Config, as_text, is_present
from internvl_bridge.metadata.tokenizer.files import TokenizerFiles
from internvl_bridge.metadata.tokenizer.token_ids import required_token_id, token_id
from internvl_bridge.metadata.tokenizer.tokenizer_config import class_name, for_hf, special_token
from internvl_bridge.metadata.tokenizer.tokenizer_json import (
    read_front,
    surrounding_tokens,
    template_processing,
    with_post_processor,
)
from internvl_bridge.notes import Warn

_OF_SENTENCEPIECE = {"InternLM2Tokenizer", "InternLM3Tokenizer", "LlamaTokenizer"}
"""Classes that hand every text between added tokens to SentencePiece; InternLM's own are remote code."""


def hf_tokenizer_files(
    tokenizer: TokenizerFiles, chat: ChatSetup, turn_end_id: int | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The tokenizer's files, as far as they are not carried over, and notes."""
    if not tokenizer.has_vocabulary:
        raise CompanionFileError(
            f"{tokenizer.home} has neither tokenizer.json nor tokenizer.model nor vocab.json with merges.txt.",
            "Copy the tokenizer's files of the base model there, or give their directory as --tokenizer.",
        )
    template = _template(tokenizer, chat)
    texts = {} if template is None else {CHAT_TEMPLATE_FILE: template}
    notes = tuple(_notes(tokenizer, template, chat, turn_end_id))
    if _is_sentencepiece(tokenizer):
        texts["tokenizer.json"], inexact = _fast_tokenizer(tokenizer)
        notes = (*notes, *inexact)
    elif tokenizer.has_json and class_name(tokenizer.config) == "LlamaTokenizer":
        texts |= _as_llama_class_reads_it(tokenizer)
    elif not tokenizer.has_json and ("auto_map" in tokenizer.config or not tokenizer.has_pairs):
        raise CompanionFileError(
            f"{tokenizer.home} has no tokenizer.json, and its tokenizer_config.json names no class that is known to do "
            f"without (it names {class_name(tokenizer.config) or 'none'}; remote code is never run).",
            "Give a directory with a tokenizer.json that has the same ids as --tokenizer.",
        )
    config = for_hf(tokenizer.config, has_json=tokenizer.has_json or "tokenizer.json" in texts)
    return {**texts, TOKENIZER_CONFIG_FILE: as_text(config)}, notes


def padding_id(tokenizer: TokenizerFiles) -> int | None:
    """The id of the token that fills up a batch, if the tokenizer's files state it."""
    token = special_token(for_hf(tokenizer.config, has_json=True), "pad_token", "")
    return token_id(tokenizer.home, token) if token else None


def _template(tokenizer: TokenizerFiles, chat: ChatSetup) -> str | None:
    """The chat template; one that was built renders the first token if the tokenizer would add it."""
    if chat.template is None or not chat.is_built:
        return chat.template
    bos = special_token(for_hf(tokenizer.config, has_json=True), "bos_token", "")
    return with_bos(chat.template) if bos and _first_tokens(tokenizer) == [bos] else chat.template


def _is_sentencepiece(tokenizer: TokenizerFiles) -> bool:
    """Whether tokenizer.model decides, read by a class that is known.

    transformers 4 makes Llama's tokenizer anew from it wherever ``add_prefix_space`` is stated.
    """
    name, config = class_name(tokenizer.config), tokenizer.config
    anew = not tokenizer.has_json or (name == "LlamaTokenizer" and config.get("add_prefix_space") is not None)
    return anew and name in _OF_SENTENCEPIECE and is_present(tokenizer.home / "tokenizer.model")


def _fast_tokenizer(tokenizer: TokenizerFiles) -> tuple[str, list[str]]:
    """A SentencePiece tokenizer, which InternLM hides behind code of its own, as one that needs none; and notes."""
    # Few models have a tokenizer of this kind, and their conversion alone needs these.
    from internvl_bridge.metadata.tokenizer.from_sentencepiece import fast_tokenizer  # noqa: PLC0415
    from internvl_bridge.metadata.tokenizer.sentencepiece_model import read_sentencepiece_model  # noqa: PLC0415

    path, config = tokenizer.home / "tokenizer.model", tokenizer.config
    model, added = read_sentencepiece_model(path), config.get("added_tokens_decoder")
    is_llama = class_name(config) == "LlamaTokenizer"
    prefix = config.get("add_prefix_space") if is_llama else None
    bos, eos = _surroundings(config)
    made = fast_tokenizer(
        model if prefix is None else replace(model, adds_dummy_prefix=bool(prefix)),
        added if isinstance(added, dict) else {},
        bos=bos,
        eos=eos,
        origin=tokenizer.home / TOKENIZER_CONFIG_FILE,
        prefix_once=is_llama and config.get("legacy") is False,
    )
    notes = []
    if made.inexact:
        notes.append(
            f"The fast tokenizer has the ids of the SentencePiece one, except for text around {len(made.inexact)} rare "
            f"pieces. There, these pieces depend on their neighbours: {', '.join(map(repr, made.inexact[:5]))}, ..."
        )
    return json.dumps(made.contents) + "\n", notes  # in ASCII: Python keeps other texts at four bytes a character


def _as_llama_class_reads_it(tokenizer: TokenizerFiles) -> dict[str, str]:
    """The tokenizer.json of a Llama tokenizer, if its class in transformers 4 adds other tokens than the file says."""
    path = tokenizer.home / "tokenizer.json"
    front = read_front(path)
    if not front:
        raise CompanionFileError(
            f"{path} is not a tokenizer.json, or its entries are in an unusual order.",
            "Load the tokenizer with transformers' AutoTokenizer and save it again.",
        )
    stated = surrounding_tokens(front.get("post_processor"))
    bos, eos = _surroundings(tokenizer.config)
    if stated == ([bos] if bos else [], [eos] if eos else []):
        return {}
    ids = {name: required_token_id(tokenizer.home, name) for name in (bos, eos) if name}
    return {path.name: with_post_processor(path, template_processing(bos, eos, ids))}


def _surroundings(config: Config) -> tuple[str | None, str | None]:
    """The tokens that Llama's and InternLM's classes put in front of a text and behind it."""
    bos = special_token(config, "bos_token", "<s>") if config.get("add_bos_token", True) else None
    eos = special_token(config, "eos_token", "</s>") if config.get("add_eos_token", False) else None
    return bos, eos


def _notes(tokenizer: TokenizerFiles, template: str | None, chat: ChatSetup, turn_end_id: int | None) -> Iterator[str]:
    """What was decided about the chat template and the tokenizer."""
    yield from chat.notes
    if chat.turn_end is not None and turn_end_id is None:
        yield Warn(
            f"The chat template ends a turn with {chat.turn_end}, which the tokenizer does not have: "
            f"{GENERATION_FILE} keeps the eos_token_id that it had."
        )
    first = _first_tokens(tokenizer)
    if first and "bos_token" not in (template or ""):
        yield (
            f"The tokenizer puts {' '.join(first)} in front of a text by itself, and the chat template does not. A "
            f"server that tokenises prompts without special tokens needs an option to add them."
        )


def _first_tokens(tokenizer: TokenizerFiles) -> list[str]:
    """The tokens that the HF tokenizer puts in front of every text."""
    if _is_sentencepiece(tokenizer) or class_name(tokenizer.config) == "LlamaTokenizer":
        return [token for token in _surroundings(tokenizer.config)[:1] if token]
    stated = read_front(tokenizer.home / "tokenizer.json").get("post_processor") if tokenizer.has_json else None
    return (surrounding_tokens(stated) or ([], []))[0]
