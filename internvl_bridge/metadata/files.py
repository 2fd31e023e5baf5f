"""Which files beside the weights belong into the other format's directory."""

from pathlib import Path

from internvl_bridge.metadata.config_file import is_present

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
_SHARED_FILES = ("generation_config.json", "LICENSE", "LICENSE.txt", "NOTICE")


def carried_files(directory: Path, tokenizer_home: Path) -> list[Path]:
    """The files that both formats read alike: the tokenizer's of one directory, the others of another."""
    candidates = [
        *(tokenizer_home / name for name in TOKENIZER_FILES),
        *(directory / name for name in _SHARED_FILES),
    ]
    return [path for path in candidates if is_present(path)]


def has_tokenizer(directory: Path) -> bool:
    """Whether ``directory`` holds any tokenizer file."""
    return any(is_present(directory / name) for name in TOKENIZER_FILES)


def remote_code(directory: Path) -> list[Path]:
    """The Python modules of a custom checkpoint, which are copied and never run."""
    return sorted(path for path in directory.glob("*.py") if path.is_file())
