"""What tokenizer.json says before its vocabulary, which is most of it and read by nobody here."""

import json
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.json_files import parse_shallow_object, read_json_file

_LARGEST = 256 << 20
_MODEL = re.compile(rb',\s*"model"\s*:\s*\{')


def read_front(path: Path) -> dict[str, Any]:
    """The entries of a tokenizer.json in front of "model", which the tokenizers library writes last.

    Empty if the file is not a tokenizer.json, is in another order, or is larger than any.
    """
    if not 0 < path.stat().st_size <= _LARGEST:
        return {}
    try:
        return parse_shallow_object(_front(path) + b"}", ValueError)
    except ValueError:
        return {}


def check_whole(path: Path) -> None:
    """Raise CompanionFileError if a tokenizer.json is cut short, as by a download; its vocabulary is not read."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        end = file.read().rstrip()
    whole = end.endswith(b"}") and bool(read_front(path))
    if end.endswith(b"}") and not whole:  # in an unusual order: all of it has to be read
        whole = "model" in read_json_file(path).values
    if not whole:
        raise CompanionFileError(
            f"{path} is not a tokenizer.json, or is cut off.",
            "Download it again, or save the tokenizer again with transformers.",
        )


def with_post_processor(path: Path, post_processor: Mapping[str, Any]) -> str:
    """The text of a tokenizer.json whose head could be read, with another ``post_processor``.

    Raises CompanionFileError if the rest of it is not valid Unicode.
    """
    values = {**read_front(path), "post_processor": post_processor}
    try:
        rest = path.read_bytes()[len(_front(path)) :].decode()
    except UnicodeDecodeError as error:
        raise CompanionFileError(f"{path} is not valid Unicode: {error}.", "Save the tokenizer again.") from error
    return json.dumps(values, ensure_ascii=False)[:-1] + rest


def surrounding_tokens(post_processor: Any) -> tuple[list[str], list[str]] | None:
    """The special tokens that a post-processor puts in front of a text and behind it; None if that is not clear."""
    match post_processor:
        case None | {"type": "ByteLevel"}:
            return [], []
        case {"type": "TemplateProcessing", "single": list(parts)}:
            names = [_special(part) for part in parts]
            texts = [at for at, name in enumerate(names) if name is None]
            known = [name or "" for name in names]
            return (known[: texts[0]], known[texts[0] + 1 :]) if len(texts) == 1 else None
        case {"type": "Sequence", "processors": list(processors)}:
            found = [surrounding_tokens(processor) for processor in processors]
            telling = [tokens for tokens in found if tokens != ([], [])]
            return telling[0] if len(telling) == 1 else None if telling else ([], [])
        case _:
            return None


def template_processing(bos: str | None, eos: str | None, ids: Mapping[str, int]) -> dict[str, Any]:
    """A post-processor that puts ``bos`` in front of a text and ``eos`` behind it.

    A second text follows the first directly, as slow tokenizers have it.
    """

    def template(*texts: str) -> list[dict[str, Any]]:
        middle = [{"Sequence": {"id": text, "type_id": 0}} for text in texts]
        before, after = ([{"SpecialToken": {"id": name, "type_id": 0}}] if name else [] for name in (bos, eos))
        return [*before, *middle, *after]

    return {
        "type": "TemplateProcessing",
        "single": template("A"),
        "pair": template("A", "B"),
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()},
    }


def _special(part: Any) -> str | None:
    match part:
        case {"SpecialToken": {"id": str(name)}}:
            return name
        case _:
            return None


def _front(path: Path) -> bytes:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = _MODEL.search(text)
        return text[: found.start()] if found else b""
