"""Which files beside the weights a conversion carries over, keeps in its sidecar, or leaves behind."""

import re
from collections.abc import Collection
from hashlib import file_digest, sha256
from pathlib import Path

from internvl_bridge.metadata.json_files import is_present
from internvl_bridge.strict_json import without_mark

CHAT_TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILES = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What a tokenizer knows, in files that both formats have alike."""
CHAT_FILES = (TOKENIZER_CONFIG_FILE, CHAT_TEMPLATE_FILE, "chat_template.json")
"""What a tokenizer is told about its use, which each format says in its own way."""
TOKENIZER_FILES = (*VOCABULARY_FILES, *CHAT_FILES)
LEGAL_FILES = ("LICENSE", "LICENSE.txt", "NOTICE")
"""What both formats hold alike, beside the tokenizer's vocabulary."""

_TEXTS = (".jinja", ".json", ".md", ".py", ".txt", ".yaml", ".yml")
_PLAIN = re.compile(r"[^./\\\0\ud800-\udfff][^/\\\0\ud800-\udfff]*")
_LONGEST_NAME = 200
_LARGEST_TEXT = 512 << 10
_LARGEST_TEXTS = 4 << 20


def present(directory: Path, names: Collection[str]) -> list[Path]:
    """Those files ``names`` that ``directory`` has, in the order of ``names``."""
    return [directory / name for name in names if is_present(directory / name)]


def has_tokenizer(directory: Path) -> bool:
    """Whether ``directory`` holds any tokenizer file."""
    return bool(present(directory, TOKENIZER_FILES))


def remote_code(directory: Path) -> list[Path]:
    """The Python modules of a custom checkpoint, which are copied and never run."""
    return sorted(path for path in directory.glob("*.py") if path.is_file() and is_present(path))


def small_texts(directory: Path, without: Collection[str], surely: Collection[str] = ()) -> dict[str, str]:
    """The text files of ``directory`` but those named in ``without``: those named in ``surely``, and small ones.

    A small one has at most 512 KiB; where they have more than 4 MiB together, the largest are left out.
    """
    found = [path for path in directory.iterdir() if path.name not in without and is_text_name(path.name)]
    found = [path for path in found if path.is_file()]
    total, chosen = 0, [path for path in found if path.name in surely]
    for path in sorted(set(found) - set(chosen), key=lambda path: (path.stat().st_size, path.name)):
        size = path.stat().st_size
        total += size
        if size <= _LARGEST_TEXT and total <= _LARGEST_TEXTS:
            chosen.append(path)
    texts = {path.name: _text(path, without_bom=path.name in surely) for path in sorted(chosen)}
    return {name: text for name, text in texts.items() if text is not None}


def text_digest(text: str) -> str:
    """The SHA-256 of a file in hexadecimal: it shows whether the file is still as it was written."""
    return sha256(text.encode()).hexdigest()


def digest(path: Path) -> str | None:
    """The digest of the contents of a file, None if it is not there."""
    if not is_present(path):
        return None
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def is_text_name(name: str) -> bool:
    """Whether ``name`` is that of a text file about a model, and not that of its weights."""
    plain = _PLAIN.fullmatch(name) and name.endswith(_TEXTS) and not name.endswith(".index.json")
    return bool(plain) and len(name.encode(errors="replace")) <= _LONGEST_NAME


def _text(path: Path, *, without_bom: bool) -> str | None:
    """The contents of a file, None if it is not text. Raises as :func:`is_present` for a Git LFS pointer."""
    is_present(path)
    data = path.read_bytes()
    try:
        return (without_mark(data) if without_bom else data).decode()
    except UnicodeDecodeError:
        return None
