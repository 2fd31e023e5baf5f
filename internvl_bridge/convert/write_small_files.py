"""Write the small files of an output, and read them back."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from internvl_bridge.errors import DifferenceError
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.storage.checksums import checksum_of, text_checksum
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.storage.shard_jobs import DAMAGED
from internvl_bridge.storage.small_files import json_pieces, write_bytes, write_files, write_json
from internvl_bridge.storage.source_shards import INDEX_FILE
from internvl_bridge.storage.stamps import Stamp
from internvl_bridge.storage.workspace import Workspace
from internvl_bridge.work.progress import nothing


def write_companions(
    workspace: Workspace,
    texts: Mapping[str, str],
    copies: Iterable[Path],
    index: Mapping[str, object] | None,
    check: Callable[[], None],
) -> tuple[dict[str, str], dict[str, Stamp]]:
    """Write all but weights and sidecar, and read them back; by name, their checksums, and what they were before.

    Raises DifferenceError if what was written is not what was meant.
    """
    directory, target = workspace.files, workspace.target

    def check_both() -> None:
        check()
        workspace.check()

    write_files(directory, texts, copies, check_both, target)
    workspace.check()
    if index is not None:
        write_json(directory / INDEX_FILE, index, target)
    meant = {name: checksum_of([text.encode()]) for name, text in texts.items()}
    if index is not None:
        meant[INDEX_FILE] = checksum_of(piece.encode() for piece in json_pieces(index))
    with FileReader() as reader:
        meant |= {path.name: file_checksum(path, reader, nothing) for path in copies}
    with FileReader(target) as reader:
        stamps = {name: target.stamp(directory / name) for name in meant}
        made = {name: file_checksum(directory / name, reader, nothing) for name in meant}
    if wrong := [name for name in meant if made[name] != meant[name]]:
        raise DifferenceError(f"{wrong[0]} is not what was to be written.", DAMAGED)
    return made, stamps


def write_sidecar(workspace: Workspace, text: str) -> Stamp:
    """Write the sidecar, and read it back; what it was before that."""
    workspace.check()
    path, target = workspace.files / SIDECAR_FILE, workspace.target
    write_bytes(path, text.encode(), target)
    stamp = target.stamp(path)
    with FileReader(target) as reader:
        made = file_checksum(path, reader, nothing)
    if made != text_checksum(text):
        raise DifferenceError(f"{SIDECAR_FILE} is not what was to be written.", DAMAGED)
    return stamp
