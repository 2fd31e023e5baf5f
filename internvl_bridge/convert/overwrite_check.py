"""Refuse to overwrite a directory that holds more than an output."""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from internvl_bridge.errors import BridgeError, OutputError, first_few
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, read_manifest

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_MOST_LINKS = 40
"""More in a row lead nowhere on Linux."""
_SUFFIXES = (".safetensors", ".json", ".py", ".md", ".jinja")
_NAMES = (*TOKENIZER_FILES, *LEGAL_FILES, ".gitattributes")


def check_replaceable(output: Path, inputs: Iterable[Path]) -> None:
    """Raise OutputError if removing the files in ``output`` would lose what is not made again.

    These are files that a directory of ``inputs`` has through a link; files without a checksum in a directory that
    says, by its checksums, what it was written with; and in any other one, files that no checkpoint has.
    """
    if not output.is_dir():
        return
    place = Path(os.path.realpath(output))
    for path in (path for directory in inputs if directory.is_dir() for path in directory.iterdir()):
        if place in _homes(path):
            raise OutputError(f"{path} is stored in {output}, which would be replaced.", "Choose another output.")
    written = _written(output)
    if strangers := sorted(path.name for path in output.iterdir() if not _belongs(path.name, written)):
        raise OutputError(
            f"{output} holds more than a checkpoint: {first_few(strangers)}.",
            "Move that away, or choose another output: --overwrite would remove it.",
        )


def _homes(path: Path) -> Iterator[Path]:
    """The directories of all that ``path`` leads through, link by link, to its file."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            return
        path = path.parent / path.readlink()
        yield Path(os.path.realpath(path.parent))


def _belongs(name: str, written: Collection[str]) -> bool:
    if written:  # weights that were cloned may have no checksum
        return name in written or name == SIDECAR_FILE or _WEIGHTS.fullmatch(name) is not None
    is_dump = name.startswith("pytorch_model") and name.endswith(".bin")
    return name in _NAMES or name.endswith(_SUFFIXES) or is_dump


def _written(output: Path) -> Collection[str]:
    try:
        stated = read_manifest(output)
    except BridgeError:
        return ()
    return () if stated is None else stated.files.keys()
