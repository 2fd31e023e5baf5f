"""Commands for people to type, as reports have them."""

import os
import shlex

NO_BREAK = "\u00a0"
"""A space at which no line ends."""


def typed_path(path: str | os.PathLike[str]) -> str:
    """``path`` as a shell and a command line take it for a path, whatever it looks like.

    Example:
        >>> typed_path("-my model")
        "'./-my model'"
    """
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def unbroken(command: str) -> str:
    """``command`` as a part of a report that stays in one line, so that it can be copied."""
    return command.replace(" ", NO_BREAK)
