"""Say what is given in the place of a checkpoint's directory, and what to type instead."""

import os
import re
import shlex
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from internvl_bridge.errors import CheckpointError

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")
_HUB = re.compile(r"https?:/+(?:www\.)?huggingface\.co/(?:models/)?([\w.-]+/[\w.-]+)(?:/.*)?")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def not_a_directory(path: Path) -> CheckpointError:
    """The refusal of ``path``, which is not a directory: a file, a URL, the name of a hub repository, or nothing.

    Example:
        >>> print(not_a_directory(Path("me/my-vlm")).remedy)
        If it is a repository of the Hugging Face hub, give it as hf://me/my-vlm
    """
    text = _URL.sub(lambda found: f"{found[1]}://", str(path), count=1)  # a Path has one slash there
    if _URL.match(text):
        repository = _HUB.fullmatch(text)
        remedy = "Download the checkpoint, and give its directory."
        if repository:
            remedy = f"Give the repository as hf://{repository[1]}"
        return CheckpointError(f"{text} is a URL, which is not read here.", remedy)
    if text.startswith("~"):
        return CheckpointError(
            f"{text} starts with ~, which the shell replaces only at the start of a word without quotes.",
            f"Type {path.expanduser() if text.startswith('~/') else '$HOME/...'} instead.",
        )
    if path.exists():
        return CheckpointError(
            f"{text} is a file, not the directory of a checkpoint.", f"Give its directory: {path.absolute().parent}"
        )
    if (left := _left_by_overwriting(path)) is not None:
        return left
    if _REPOSITORY.fullmatch(text) and not path.parent.is_dir():
        return CheckpointError(
            f"{text} does not exist here.",
            f"If it is a repository of the Hugging Face hub, give it as hf://{text}",
        )
    return CheckpointError(f"{text} does not exist.", _nearest(path))


def _nearest(path: Path) -> str:
    """What to type instead: a directory with a similar name, or the part of the path that does exist."""
    place = next(above for above in path.absolute().parents if above.is_dir())
    wanted = path.absolute().relative_to(place).parts[0]
    names: list[str] = []
    with suppress(OSError):  # a place that may be passed through, but not listed
        names += [entry.name for entry in os.scandir(place) if entry.is_dir()]
    if similar := get_close_matches(wanted, names, n=1):
        return f"Is it {place / similar[0]}?"
    return f"Check the name: {place} exists, and does not have {wanted}."


def _left_by_overwriting(path: Path) -> CheckpointError | None:
    """The refusal of an output that is absent because its replacement was stopped half way, and how it comes back."""
    replaced = path.absolute().with_name(f"{path.absolute().name}.partial") / "replaced"  # as the storage room names it
    if not replaced.is_dir():
        return None
    return CheckpointError(
        f"{path} does not exist. A command with --overwrite was killed, and what it had is in {replaced}.",
        f"Give that command again, or bring it back: mv {shlex.quote(str(replaced))} {shlex.quote(str(path))}",
    )
