"""Recognise the name of a repository on the hub, where the path of a directory could stand."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

_REPOSITORY = r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
_REFERENCE = r"refs/(?:pr|convert)/[^/@]+"
_REVISION = rf"(?:@(?P<revision>{_REFERENCE}|[^/@]+))?"
_WHOLE = re.compile(rf"hf:/+{_REPOSITORY}{_REVISION}(?:/(?P<folder>.*))?")
_SHORT = re.compile(rf"{_REPOSITORY}{_REVISION}")


@dataclass(frozen=True, slots=True)
class HubName:
    """A place on the hub: a ``repository`` ("owner/name"), a ``revision`` (None: its main branch) and a ``folder``."""

    repository: str
    revision: str | None = None
    folder: str = ""

    def __str__(self) -> str:
        revision = self.revision or ""
        at = quote(revision, safe="/" if re.fullmatch(_REFERENCE, revision) else "")
        return f"hf://{self.repository}{at and '@'}{at}{self.folder and '/'}{self.folder}"


def hub_name(place: str | Path) -> HubName | None:
    """The place on the hub that ``place`` names; None if it is a path.

    ``hf://owner/name[@revision][/folder]`` always is one. ``owner/name[@revision]`` is one where neither that path nor
    a directory ``owner`` exists.

    Example:
        >>> hub_name("hf://OpenGVLab/InternVL3_5-8B@main/weights")
        HubName(repository='OpenGVLab/InternVL3_5-8B', revision='main', folder='weights')
        >>> hub_name("./InternVL3_5-8B") is None
        True
    """
    text = str(place)
    found = _WHOLE.fullmatch(text)
    if found is None:
        found = _SHORT.fullmatch(text)
        if found is None or Path(text).exists() or Path(text).parent.is_dir():
            return None
    parts = found.groupdict()
    revision = parts["revision"]
    return HubName(parts["repository"], revision and unquote(revision), (parts.get("folder") or "").strip("/"))
