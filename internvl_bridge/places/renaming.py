"""Call a directory that stands for a place by the name of the place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from internvl_bridge.errors import BridgeError


@contextmanager
def errors_name(place: str, directory: Path) -> Iterator[None]:
    """Let refusals speak of ``place``, where they speak of the ``directory`` that stands for it."""
    try:
        yield
    except BridgeError as error:
        error.reason = error.reason.replace(str(directory), place)
        error.remedy = error.remedy.replace(str(directory), place)
        error.args = (f"{error.reason} {error.remedy}",)
        raise
