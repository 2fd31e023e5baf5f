"""Look at a checkpoint on the hub as at a directory of this machine: at its headers and small files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.cli.answers import PlaceRead
from internvl_bridge.places.fetching import fetched
from internvl_bridge.places.names import hub_name
from internvl_bridge.places.renaming import errors_name


@dataclass(frozen=True, slots=True)
class Look:
    """A ``directory`` to look at, the ``name`` that was given for it, and the ``place`` that it is from, if any."""

    directory: Path
    name: str
    place: PlaceRead | None


@contextmanager
def looked_at(path: Path) -> Iterator[Look]:
    """What ``path`` holds, for a while: of a checkpoint on the hub headers and small files, of an adapter all."""
    name = hub_name(path)
    if name is None:
        yield Look(path, str(path), None)
        return
    from internvl_bridge.places.headers import headers_of  # noqa: PLC0415 (imports huggingface_hub)

    with headers_of(name) as found:
        place = PlaceRead(found.repository.place, found.bytes, {str(found.directory): str(name)})
        directory = found.directory
        if is_adapter_directory(directory):
            directory = fetched(found.repository.place).directory
        with errors_name(str(name), directory):
            yield Look(directory, str(name), place)


@contextmanager
def whole(path: Path) -> Iterator[Look]:
    """All of ``path``, downloaded if it is on the hub."""
    found = fetched(path)
    yield Look(found.directory, str(path), None if found.origin is None else PlaceRead(found.origin, None))
