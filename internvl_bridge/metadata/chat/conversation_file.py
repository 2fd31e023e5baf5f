"""Read a conversation from the conversation.py beside the weights, which is never run."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from internvl_bridge.metadata.chat.conversations import CONVERSATIONS, Conversation, tagged

CONVERSATION_FILE = "conversation.py"
_LARGEST = 1 << 20
"""Bytes; upstream's has 12 KiB."""
_MESSAGE = "{system_message}"


def stated_conversation(directory: Path, name: str | None) -> Conversation | None:
    """The conversation ``name`` that the conversation.py in ``directory`` registers.

    It is read as text: only constants count. None if there is no such file or conversation, or if it is written in
    another way than upstream's. Of a style that is not built here, the system message alone is taken.
    """
    path = directory / CONVERSATION_FILE
    if name is None or not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    found = None
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # what Python says to what is not a module
        for arguments in _registered(ast.parse(path.read_bytes())):
            if arguments.get("name") == name:
                found = _conversation(name, arguments)
    return found


def _registered(module: ast.Module) -> Iterator[dict[str, Any]]:
    """The constant arguments of each ``Conversation(...)`` that is given to ``register_conv_template``, in order."""
    for node in ast.walk(module):
        match node:
            case ast.Call(
                func=ast.Name(id="register_conv_template"),
                args=[ast.Call(func=ast.Name(id="Conversation"), keywords=keywords), *_],
            ):
                yield {keyword.arg: _constant(keyword.value) for keyword in keywords if keyword.arg}


def _constant(value: ast.expr) -> Any:
    """The value of an expression; for a member of an enumeration, its name; None if it would have to be computed."""
    if isinstance(value, ast.Attribute):
        return value.attr
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def _conversation(name: str, arguments: dict[str, Any]) -> Conversation | None:
    message = arguments.get("system_message", "")
    if not isinstance(message, str):
        return None
    known = CONVERSATIONS.get(name)
    match arguments:
        case {
            "system_template": str(template),
            "roles": (str(user), str(assistant)),
            "sep_style": "MPT",
            "sep": str(separator),
        } if template.endswith(_MESSAGE):
            opening = {"system": template.removesuffix(_MESSAGE), "user": user, "assistant": assistant}
            return tagged(opening, separator, message, known.turn_end if known else separator.strip())
    return None if known is None else replace(known, system_message=message)
