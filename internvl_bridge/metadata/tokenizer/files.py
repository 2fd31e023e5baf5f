"""The tokenizer of a directory: its files as they are, and the chat template that it was saved with."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.files import CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from internvl_bridge.metadata.json_files import Config, is_present, read_json_file
from internvl_bridge.metadata.tokenizer.tokenizer_config import class_name

_LARGEST_TEMPLATE = 1 << 20


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """``config`` is the contents of tokenizer_config.json, empty if there is none."""

    home: Path
    config: Config
    template: str | None

    @property
    def has_json(self) -> bool:
        """Whether there is a tokenizer.json, which needs no class of its own."""
        return is_present(self.home / "tokenizer.json")

    @property
    def has_vocabulary(self) -> bool:
        """Whether there is a tokenizer, and not only what one is told about its use."""
        return self.has_json or self.has_slow_files

    @property
    def has_slow_files(self) -> bool:
        """Whether there is what the slow classes of transformers 4 read."""
        return self.has_pairs or is_present(self.home / "tokenizer.model")

    @property
    def has_pairs(self) -> bool:
        """Whether there is the vocabulary of a byte-level tokenizer, with the pairs that it joins."""
        return all(is_present(self.home / name) for name in ("vocab.json", "merges.txt"))


def can_load(config: Config, names: Collection[str]) -> bool:
    """Whether a tokenizer's files ``names`` are enough for the class that its ``config`` names."""
    match class_name(config):
        case "InternLM2Tokenizer" | "InternLM3Tokenizer":
            return "tokenizer.model" in names
        case "LlamaTokenizer":
            return "tokenizer.model" in names or "tokenizer.json" in names
        case "PreTrainedTokenizer":  # with "Fast", which is taken off
            return "tokenizer.json" in names
        case _:
            return "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names)


def read_tokenizer_files(home: Path) -> TokenizerFiles:
    """Read the tokenizer's config and chat template in ``home``; both may be missing.

    Raises CompanionFileError if one of them is malformed.
    """
    path = home / TOKENIZER_CONFIG_FILE
    config = read_json_file(path).values if is_present(path) else {}
    return TokenizerFiles(home, config, _template(home, config))


def _template(home: Path, config: Config) -> str | None:
    """The chat template, from where transformers looks for it first."""
    path = home / CHAT_TEMPLATE_FILE
    if is_present(path):
        if path.stat().st_size > 2 * _LARGEST_TEMPLATE:  # of those that were written here, too
            raise _unreadable(path)
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise _unreadable(path) from error
    path = home / "chat_template.json"
    if is_present(path):
        return _checked(path, read_json_file(path).values.get("chat_template"))
    return _checked(home / TOKENIZER_CONFIG_FILE, _default(config.get("chat_template")))


def _default(stated: Any) -> Any:
    """The template called "default", where several are stated as a list of named ones."""
    if not isinstance(stated, list):
        return stated
    entries = [entry for entry in stated if isinstance(entry, dict) and entry.get("name") == "default"]
    return entries[0].get("template") if entries else None


def _checked(path: Path, template: Any) -> str | None:
    if template is None or (isinstance(template, str) and len(template.encode()) <= _LARGEST_TEMPLATE):
        return template
    raise _unreadable(path)


def _unreadable(path: Path) -> CompanionFileError:
    return CompanionFileError(
        f"{path} holds a chat template that is not text, or has more than {_LARGEST_TEMPLATE} bytes.",
        "Correct it, or remove it: then one is made from the template that config.json names.",
    )
