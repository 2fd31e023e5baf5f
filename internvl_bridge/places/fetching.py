"""Bring a checkpoint from where it is named to a directory of this machine."""

from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.places.names import HubName, hub_name

SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", "*.md", "LICENSE*", "NOTICE*")
"""All but weights."""
WHOLE = (*SMALL, "*.safetensors")
_DUMPS = ("*.bin", "*.bin.index.json")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A directory that is here now, and the place that it is from: its name with the commit; None if it was here."""

    directory: Path
    origin: str | None = None


def fetched(place: str | Path, *, only_small: bool = False, bars: bool = False) -> Fetched:
    """The directory of ``place``, from huggingface_hub's cache if that names a repository; ``only_small``: no weights.

    ``bars``: show how far a download has come.

    Raises CheckpointError if it cannot be read.

    Example:
        >>> fetched("InternVL3_5-8B")
        Fetched(directory=PosixPath('InternVL3_5-8B'), origin=None)
    """
    name = hub_name(place)
    if name is None:
        return Fetched(Path(place))
    from internvl_bridge.places.hub import downloaded  # noqa: PLC0415 (imports huggingface_hub)

    if only_small:  # without an index: there is nothing that it could name
        return Fetched(downloaded(name, SMALL, ("*.index.json",), bars=bars), str(name))
    directory = downloaded(name, WHOLE, bars=bars)
    if not any(directory.glob("*.safetensors")):
        directory = downloaded(name, (*WHOLE, *_DUMPS), bars=bars)
    commit = _commit(directory, name)
    return Fetched(directory, str(HubName(name.repository, commit, name.folder)))


def _commit(directory: Path, name: HubName) -> str:
    """The commit of a snapshot in the cache: it is called so."""
    above = directory
    for _ in Path(name.folder).parts:
        above = above.parent
    return above.name
