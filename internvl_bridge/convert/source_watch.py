"""Notice a source that changes while it is being converted."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from internvl_bridge.checkpoint.model import Model, reopened
from internvl_bridge.checkpoint.weights import INDEX_FILES
from internvl_bridge.errors import DifferenceError
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_FILES
from internvl_bridge.metadata.json_files import CONFIG_FILE
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.storage.source_shards import Shard
from internvl_bridge.storage.stamps import Stamp, changed_meanwhile, settled_stamp, stamp_of, touched
from internvl_bridge.work.progress import Progress, nothing

_SMALL_FILES = (
    CONFIG_FILE,
    ADAPTER_CONFIG,
    GENERATION_FILE,
    SIDECAR_FILE,
    *INDEX_FILES,
    *HF_PROCESSOR_FILES,
    *TOKENIZER_FILES,
    *LEGAL_FILES,
)

_LARGEST = 1 << 28
"""Bytes of a file that is read to see whether it changes."""

Stamps = Mapping[Path, Stamp]
"""What each file of weights was."""
Contents = Mapping[Path, str]
"""The checksum of each small file."""


def contents_of(directories: Iterable[Path]) -> Contents:
    """The small files of ``directories`` on which an output depends, as they are now."""
    with FileReader() as readers:
        return {path: _content(path, readers) for path in _small_files(directories)}


def check_contents(directories: Iterable[Path], then: Contents) -> None:
    """Raise CheckpointError if the small files of ``directories`` are not what they were."""
    now = contents_of(directories)
    if changed := sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path)):
        raise changed_meanwhile(changed[0])


def settled_stamps(model: Model, shards: Collection[Shard], progress: Progress) -> Stamps:
    """Stamps of ``shards``, the weights of ``model`` and of adapters, that every later change makes others.

    What the system has still to write of them is written first. After a download, that can take long. Raises
    CheckpointError if they were changed since ``model`` was read.
    """
    size = sum(shard.stamp.size for shard in shards)
    report = progress("Syncing the source", size, len(shards))
    stamps: dict[Path, Stamp] = {}
    for shard in shards:
        stamps[shard.path] = settled_stamp(shard.path, shard.stamp.header)
        if stamps[shard.path] != shard.stamp:
            raise changed_meanwhile(shard.path)
        report(shard.stamp.size, 1)
    moved = [shard.path for shard in shards if shard.stamp.is_touched(stamps[shard.path])]
    if moved and any(part.description.may_be_tied for part in (model, *model.parts)):
        raise changed_meanwhile(moved[0])  # what its output head is was decided by data that may be another's
    if moved:
        check_headers(model)
    return stamps


def check_untouched(stamps: Stamps) -> None:
    """Raise CheckpointError if anything about the weights is not as in ``stamps``, be it their permissions."""
    for path in touched(stamps.items()):
        raise changed_meanwhile(path)


def check_weights(model: Model, stamps: Stamps, compare: Callable[[Collection[Path]], None]) -> None:
    """Raise CheckpointError if the weights of ``model`` were changed since ``stamps``.

    Files of the same size and time may be others all the same: then ``compare`` is called with them. It must raise
    DifferenceError unless the output has what they hold now.
    """
    doubtful = [*touched(stamps.items())]
    if not doubtful:
        return
    check_headers(model)
    try:
        compare(doubtful)
    except DifferenceError as error:
        raise changed_meanwhile(doubtful[0]) from error


def check_headers(model: Model) -> None:
    """Raise CheckpointError unless the headers say what they said when ``model`` was read."""
    for part in model.parts or (model,):
        weights = reopened(part)
        if weights.checkpoint.tensors != part.checkpoint.tensors or weights.assembly != part.weights.assembly:
            raise changed_meanwhile(part.source.weights)


def _content(path: Path, readers: FileReader) -> str:
    """What shows that ``path`` is as it was: its checksum, or its stamp if it is not small at all."""
    stamp = stamp_of(path)
    if stamp.size > _LARGEST:
        return f"{stamp.size}, {stamp.modified}, {stamp.changed}, {stamp.place}"
    return file_checksum(path, readers, nothing)


def _small_files(directories: Iterable[Path]) -> Iterator[Path]:
    paths = (directory / name for directory in directories for name in _SMALL_FILES)
    return (path for path in paths if path.is_file())
