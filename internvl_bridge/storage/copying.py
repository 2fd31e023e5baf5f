"""Write one file from a header and byte ranges of other files, in bounded memory."""

import errno
import os
from pathlib import Path

from internvl_bridge.errors import CheckpointError
from internvl_bridge.progress import Advance
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.layout import FileJob
from internvl_bridge.storage.reading import FileReader

_KERNEL_CHUNK = 64 << 20
_BUFFER = 1 << 20
# What kernels and file systems answer when they cannot copy a range between these two files.
_NO_RANGE_COPY = {
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.ETXTBSY,
}


def write_file(directory: Path, job: FileJob, readers: FileReader, advance: Advance) -> None:
    """Create ``directory / job.name`` and make it durable.

    Raises CheckpointError if a source file turns out shorter than its header said, and OSError, naming
    the file, if the disk refuses.
    """
    try:
        _write(directory / job.name, job, readers, advance)
    except OSError as error:
        error.filename = error.filename or str(directory / job.name)
        raise


def _write(path: Path, job: FileJob, readers: FileReader, advance: Advance) -> None:
    with path.open("xb", buffering=0) as file:
        _write_all(file.fileno(), job.header)
        for piece in job.pieces:
            _copy(readers.fileno(piece.path), file.fileno(), piece, advance)
        os.fsync(file.fileno())


def _copy(source: int, target: int, piece: Piece, advance: Advance) -> None:
    """Append ``piece`` to ``target``: in the kernel where it can, through a buffer where it cannot."""
    done = 0
    while done < piece.length:
        step = _copy_in_kernel(source, target, piece.offset + done, min(_KERNEL_CHUNK, piece.length - done))
        if step == 0:
            break
        done += step
        advance(step)
    while done < piece.length:
        data = os.pread(source, min(_BUFFER, piece.length - done), piece.offset + done)
        if not data:
            raise CheckpointError(
                f"{piece.path} ended before byte {piece.offset + piece.length}: it was changed while it "
                f"was being read.",
                "Convert again when nothing else writes to the checkpoint.",
            )
        _write_all(target, data)
        done += len(data)
        advance(len(data))


def _copy_in_kernel(source: int, target: int, offset: int, length: int) -> int:
    """How many bytes the kernel copied to the end of ``target``; 0 where it cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source, target, length, offset)
    except OSError as error:
        if error.errno in _NO_RANGE_COPY:
            return 0
        raise


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
