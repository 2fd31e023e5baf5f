"""Look at a checkpoint on the hub as at a directory of this machine: at its headers and small files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.places.fetching import fetched
from internvl_bridge.places.names import hub_name
from internvl_bridge.places.renaming import errors_name


@dataclass(frozen=True, slots=True)
class Look:
    """A ``directory`` to look at, and the ``name`` that was given for it.

    ``origin`` is the place that it is from, with its commit. ``bytes`` is what was read of that. None if it is here.
    """

    directory: Path
    name: str
    origin: str | None = None
    bytes: int | None = None


@contextmanager
def looked_at(place: str | Path) -> Iterator[Look]:
    """What ``place`` holds, for a while: of a checkpoint on the hub headers and small files, of an adapter all."""
    name = hub_name(place)
    if name is None:
        yield Look(Path(place), str(place))
        return
    from internvl_bridge.places.headers import headers_of  # noqa: PLC0415 (imports huggingface_hub)

    with headers_of(name) as found:
        origin, directory = found.repository.place, found.directory
        if is_adapter_directory(directory):
            directory = fetched(origin).directory
        with errors_name(str(name), directory):
            yield Look(directory, str(name), origin, found.bytes)


@contextmanager
def whole(place: str | Path) -> Iterator[Look]:
    """All of ``place``, downloaded if it is on the hub."""
    found = fetched(place)
    yield Look(found.directory, str(place), found.origin)
