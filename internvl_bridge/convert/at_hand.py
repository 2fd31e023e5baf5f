"""Bring what a conversion reads to this machine, where it is named by a place elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.errors import OptionError
from internvl_bridge.places.fetching import fetched
from internvl_bridge.places.names import hub_name
from internvl_bridge.places.renaming import errors_name

_SMALL = ("tokenizer", "config", "base")
_WHOLE = ("reference", "fill_from")


def options_at_hand(options: Options, *, only_small: bool = False, bars: bool = False) -> Options:
    """``options`` with directories of this machine; ``only_small``: no weights are needed. ``bars`` are shown."""
    here: dict[str, Any] = {}
    for name in (*_SMALL, *_WHOLE):
        if (place := getattr(options, name)) is not None:
            here[name] = fetched(place, only_small=only_small or name in _SMALL, bars=bars).directory
    return replace(options, **here, adapters=tuple(fetched(place, bars=bars).directory for place in options.adapters))


@dataclass(frozen=True, slots=True)
class AtHand:
    """A conversion whose ``source`` and ``options`` name directories of this machine."""

    source: Path
    options: Options
    execution: Execution


@contextmanager
def at_hand(source: str | Path, options: Options, execution: Execution, *, bars: bool = False) -> Iterator[AtHand]:
    """What is converted, for a while at hand: downloaded, or with ``stream`` the headers, and ranges to be read.

    Raises CheckpointError for what cannot be read, and OptionError if a directory shall be streamed.
    """
    chosen = options_at_hand(options, bars=bars)
    if not execution.stream:
        found = fetched(source, bars=bars)
        yield AtHand(found.directory, chosen, replace(execution, origin=found.origin))
        return
    name = hub_name(source)
    if name is None:
        raise OptionError(f"--stream reads from the hub, and {source} is not a place there.", "Leave out --stream.")
    from internvl_bridge.places.headers import headers_of  # noqa: PLC0415 (imports huggingface_hub)
    from internvl_bridge.places.remote_files import RemoteFiles  # noqa: PLC0415

    with headers_of(name) as found_headers:
        repository = found_headers.repository
        how = replace(execution, origin=repository.place, reads=RemoteFiles(repository))
        with errors_name(str(name), found_headers.directory):
            yield AtHand(found_headers.directory, chosen, how)
