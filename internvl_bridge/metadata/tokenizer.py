"""Find the id of a special token in the tokenizer files of a directory, without loading a tokenizer."""

import json
import mmap
import re
from pathlib import Path

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.config_file import is_present, read_json_file

IMAGE_CONTEXT = "<IMG_CONTEXT>"


def image_token_id(directory: Path) -> int:
    """The id of ``<IMG_CONTEXT>``, looked up in the tokenizer of ``directory``.

    Raises ConfigError if the tokenizer does not know the token, or its files disagree.
    """
    found = find_token(directory, IMAGE_CONTEXT)
    if not found:
        raise ConfigError(
            f"No tokenizer file in {directory} has an id for {IMAGE_CONTEXT}, and a wrong id would make the "
            f"model ignore images.",
            "Copy tokenizer.json, tokenizer_config.json and added_tokens.json (whichever exist) of the base "
            "model into the directory.",
        )
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} says {number}" for name, number in found.items())
        raise ConfigError(
            f"The tokenizer files in {directory} disagree about the id of {IMAGE_CONTEXT}: {listed}.",
            "Save the tokenizer again, or copy all its files from one place.",
        )
    return next(iter(found.values()))


def find_token(directory: Path, token: str) -> dict[str, int]:
    """The id of ``token`` by file name, for every tokenizer file that has one."""
    sources = {
        "tokenizer.json": _in_tokenizer_json,
        "added_tokens.json": _in_added_tokens,
        "tokenizer_config.json": _in_tokenizer_config,
    }
    ids = {name: find(directory / name, token) for name, find in sources.items() if is_present(directory / name)}
    return {name: number for name, number in ids.items() if number is not None}


def _in_added_tokens(path: Path, token: str) -> int | None:
    return _whole_number(read_json_file(path).values.get(token))


def _in_tokenizer_config(path: Path, token: str) -> int | None:
    decoder = read_json_file(path).values.get("added_tokens_decoder")
    for number, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and entry.get("content") == token and re.fullmatch("[0-9]{1,9}", number):
            return int(number)
    return None


def _in_tokenizer_json(path: Path, token: str) -> int | None:
    """Search instead of parsing: real files have 10 MB and would take ten times that in memory."""
    if path.stat().st_size == 0:
        return None
    entry = re.compile(rb'\{[^{}]*"content"\s*:\s*' + re.escape(json.dumps(token).encode()) + rb"[^{}]*\}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        match = entry.search(text)
        if match is None:
            return None
        try:
            return _whole_number(json.loads(match[0]).get("id"))
        except ValueError:
            return None


def _whole_number(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
