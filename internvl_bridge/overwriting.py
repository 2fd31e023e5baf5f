"""Keep an output that is overwritten from taking along what is no part of it."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from internvl_bridge.errors import BridgeError, OutputError
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, read_checksums
from internvl_bridge.storage.index import listed

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
        if place in Path(os.path.realpath(path)).parents:
            raise OutputError(f"{path} is stored in {output}, which would be replaced.", "Choose another output.")
    written = _written(output)
    if strangers := sorted(path.name for path in output.iterdir() if not _belongs(path.name, written)):
        raise OutputError(
            f"{output} holds more than a checkpoint: {listed(strangers)}.",
            "Move that away, or choose another output: --overwrite would remove it.",
        )


def _belongs(name: str, written: Collection[str]) -> bool:
    if written:  # shards that were cloned may have no checksum
        return name in written or name == SIDECAR_FILE or name.endswith(".safetensors")
    is_dump = name.startswith("pytorch_model") and name.endswith(".bin")
    return name in _NAMES or name.endswith(_SUFFIXES) or is_dump


def _written(output: Path) -> Collection[str]:
    try:
        stated = read_checksums(output)
    except BridgeError:
        return ()
    return () if stated is None else stated[1].keys()
