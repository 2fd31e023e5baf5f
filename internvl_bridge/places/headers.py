"""Make a directory that stands for a checkpoint elsewhere: its small files, and the headers of its weights."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from internvl_bridge.errors import CheckpointError
from internvl_bridge.places.fetching import SMALL
from internvl_bridge.places.hub import Repository, found_repository, read_range
from internvl_bridge.places.names import HubName
from internvl_bridge.storage.header import LENGTH_PREFIX, LONGEST_HEADER, parse_start
from internvl_bridge.storage.source_shards import HEADER_SUFFIX

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".distcp")
_LARGEST = 1 << 26
"""Bytes of a file that is still small: tokenizers have some ten million."""
_FIRST = 1 << 16
"""Bytes of a file of weights that are asked for at once: most headers are shorter."""
_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class HeadersHere:
    """A ``directory`` that stands for ``repository``, and how many bytes were read for it."""

    directory: Path
    repository: Repository
    bytes: int


@contextmanager
def headers_of(name: HubName) -> Iterator[HeadersHere]:
    """A directory, for a while, with the small files of ``name`` and the headers of its weights. Reads nothing else.

    Raises CheckpointError if it cannot be read, or if its weights are not in safetensors files.
    """
    repository = found_repository(name)
    small = [file for file, size in repository.files.items() if _is_small(file, size)]
    weights = [file for file in repository.files if file.endswith(".safetensors") and _is_plain(file)]
    if not weights and any(file.endswith(_WEIGHTS) for file in repository.files):
        raise CheckpointError(
            f"{name} has no weights in safetensors files, and others do not show what they hold in a few bytes.",
            f"Download it: hf download {name.repository} --local-dir {name.repository.partition('/')[2]}",
        )
    with TemporaryDirectory(prefix="internvl-bridge-") as place:
        directory = Path(place, *name.repository.split("/"))  # messages show how it is called
        directory.mkdir(parents=True)

        def fetch(file: str) -> int:
            data = _start(repository, file) if file in weights else _whole(repository, file)
            (directory / (file + HEADER_SUFFIX if file in weights else file)).write_bytes(data)
            return len(data)

        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            try:
                read = sum(pool.map(fetch, [*small, *weights]))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # only what is under way is waited for
                raise
        yield HeadersHere(directory, repository, read)


def _is_plain(file: str) -> bool:
    """Whether ``file`` is in the folder itself, and its name is that of a file here, too."""
    return "/" not in file and "\\" not in file and file not in {"", ".", ".."} and "\0" not in file


def _is_small(file: str, size: int) -> bool:
    return _is_plain(file) and any(fnmatchcase(file, pattern) for pattern in SMALL) and size <= _LARGEST


def _whole(repository: Repository, file: str) -> bytes:
    size = repository.files[file]
    return read_range(repository, file, 0, size) if size else b""


def _start(repository: Repository, file: str) -> bytes:
    """The bytes of ``file`` before its data section, as far as they can be such."""
    size = repository.files[file]
    start = read_range(repository, file, 0, min(size, _FIRST)) if size else b""
    end = min(LENGTH_PREFIX + int.from_bytes(start[:LENGTH_PREFIX], "little"), size, LENGTH_PREFIX + LONGEST_HEADER)
    start = start[:end] if end <= len(start) else start + read_range(repository, file, len(start), end)
    parse_start(Path(file), start, size)  # refuses a file that is not as long as its tensors say
    return start
