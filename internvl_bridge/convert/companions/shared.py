"""The files of a directory beside its weights and its config.json, decided and not yet written."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.files import (
    CHAT_FILES,
    LEGAL_FILES,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    present,
)
from internvl_bridge.metadata.sidecar import OtherFormat
from internvl_bridge.metadata.tokenizer.files import can_load


@dataclass(frozen=True, slots=True)
class CompanionFiles:
    """``texts`` by name, ``copies`` of files as they are, and ``notes`` about what deserves attention."""

    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    notes: tuple[str, ...]


def restored_tokenizer(other_format: OtherFormat | None, home: Path) -> dict[str, str]:
    """The tokenizer's files that a sidecar keeps, if those made from them in ``home`` are untouched; else none.

    None, too, if they cannot be loaded without a file that was in ``home`` and is gone.
    """
    texts = other_format.restored(home, TOKENIZER_FILES, CHAT_FILES) if other_format else None
    if other_format is None or not texts:
        return {}
    carried = [path.name for path in carried_files(home, home, without=other_format.written)]
    config = json.loads(texts.get(TOKENIZER_CONFIG_FILE, "{}"))
    return texts if can_load(config, [*texts, *carried]) else {}


def restored_generation(other_format: OtherFormat | None, directory: Path) -> dict[str, str] | None:
    """generation_config.json as it was (nothing, if there was none); None if it was not made or was touched."""
    return other_format.restored(directory, [GENERATION_FILE]) if other_format else None


def carried_files(source: Path, tokenizer_home: Path, without: Collection[str]) -> tuple[Path, ...]:
    """The files that both formats have alike: the vocabulary's of one directory, the others of another."""
    found = [*present(tokenizer_home, VOCABULARY_FILES), *present(source, LEGAL_FILES)]
    return tuple(path for path in found if path.name not in without)


def others(other_format: OtherFormat | None, known: Collection[str]) -> dict[str, str]:
    """The texts that a complement keeps for no other reason than that they were there."""
    if other_format is None:
        return {}
    return {name: text for name, text in other_format.files.items() if name not in {*known, *TOKENIZER_FILES}}
