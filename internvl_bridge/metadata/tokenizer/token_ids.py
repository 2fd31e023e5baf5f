"""Find the ids of special tokens in the tokenizer files of a directory, without loading a tokenizer."""

import re
from pathlib import Path

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.json_files import is_present, read_json_file
from internvl_bridge.metadata.tokenizer.tokenizer_json import read_front

_NUMBER = re.compile("[0-9]{1,9}")
_MOST_ADDED = 100_000
"""Tokens beside the vocabulary: releases have a few hundred, and each takes its time."""


def required_token_id(directory: Path, token: str) -> int:
    """The id of a ``token`` around or in place of images.

    Raises CompanionFileError if the tokenizer does not know the token, or its files disagree.
    """
    found = token_id(directory, token)
    if found is None:
        raise CompanionFileError(
            f"No tokenizer file in {directory} has an id for {token}, and a wrong id would make the "
            f"model ignore images.",
            "Copy tokenizer.json, tokenizer_config.json and added_tokens.json (whichever exist) of the base "
            "model into the directory.",
        )
    return found


def token_id(directory: Path, token: str) -> int | None:
    """The id of ``token`` in the tokenizer of ``directory``, None if it has none.

    Raises CompanionFileError if the tokenizer's files disagree.
    """
    found = find_token(directory, token)
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} says {number}" for name, number in found.items())
        raise CompanionFileError(
            f"The tokenizer files in {directory} disagree about the id of {token}: {listed}.",
            "Save the tokenizer again, or copy all its files from one place.",
        )
    return next(iter(found.values()), None)


def tokens_beyond(directory: Path, embeddings: int) -> list[str]:
    """The tokens beside the vocabulary for which a model with so many ``embeddings`` has none."""
    ids = {token: number for found in _added_tokens(directory).values() for token, number in found.items()}
    return [token for token, number in ids.items() if number >= embeddings]


def find_token(directory: Path, token: str) -> dict[str, int]:
    """The id of ``token`` by file name, for every tokenizer file that has one."""
    return {name: ids[token] for name, ids in _added_tokens(directory).items() if token in ids}


def _added_tokens(directory: Path) -> dict[str, dict[str, int]]:
    """The ids of the tokens beside the vocabulary, by file name and token."""
    readers = {
        "tokenizer.json": _in_tokenizer_json,
        "added_tokens.json": _in_added_tokens,
        "tokenizer_config.json": _in_tokenizer_config,
    }
    paths = {name: directory / name for name in readers if is_present(directory / name)}
    return {name: _bounded(path, readers[name](path)) for name, path in paths.items()}


def _bounded(path: Path, ids: dict[str, int]) -> dict[str, int]:
    if len(ids) > _MOST_ADDED:
        raise CompanionFileError(
            f"{path} has {len(ids)} tokens beside the vocabulary. A tokenizer of InternVL has a few hundred.",
            "Save the tokenizer again with transformers.",
        )
    return ids


def _in_added_tokens(path: Path) -> dict[str, int]:
    return {token: number for token, number in read_json_file(path).values.items() if _is_id(number)}


def _in_tokenizer_config(path: Path) -> dict[str, int]:
    decoder = read_json_file(path).values.get("added_tokens_decoder")
    ids = {}
    for number, entry in decoder.items() if isinstance(decoder, dict) else ():
        match entry:
            case {"content": str(token)} if _NUMBER.fullmatch(number):
                ids[token] = int(number)
    return ids


def _in_tokenizer_json(path: Path) -> dict[str, int]:
    entries = read_front(path).get("added_tokens")
    ids = {}
    for entry in entries if isinstance(entries, list) else ():
        match entry:
            case {"content": str(token), "id": int(number)} if _is_id(number):
                ids[token] = number
    return ids


def _is_id(value: object) -> bool:
    return type(value) is int and value >= 0
