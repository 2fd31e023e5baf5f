"""Parse JSON from untrusted files: no duplicate keys, no non-standard numbers, no deep nesting."""

import json
from collections import Counter
from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn

_MOST_CONTAINERS = 2_000_000
_MOST_VALUES = 10_000_000


def without_mark(text: bytes) -> bytes:
    """``text`` without the byte order mark that some editors put in front of UTF-8, and JSON's readers refuse."""
    return text.removeprefix(b"\xef\xbb\xbf")


def parse_json_object(text: bytes, malformed: Callable[[str], Exception], *, infinite: bool = False) -> dict[str, Any]:
    """Parse ``text`` as one UTF-8 JSON object.

    Stricter than :func:`json.loads`, as strict as the parser of the safetensors library: it refuses
    duplicate keys, ``NaN`` and ``Infinity``, ``-0``, lone surrogates and excessive nesting; and so many values that
    they would take many times the memory of the text.

    ``infinite``: ``Infinity`` is read, as Python's own parser does. Raises whatever ``malformed(reason)``
    returns.
    """
    if _has_too_many_values(text):
        raise malformed(f"more than {_MOST_CONTAINERS:,} objects and lists, or {_MOST_VALUES:,} values")
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_unique,
            parse_constant=_infinity if infinite else _no_number,
            parse_int=_whole_number if b"-0" in text else None,  # headers have very many numbers
            parse_float=_finite_number,
        )
        if b"\\u" in text:  # only an escape can spell a lone surrogate
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise malformed(f"not valid Unicode: {error}") from None
    except RecursionError:
        raise malformed("nested too deeply") from None
    except ValueError as error:
        raise malformed(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise malformed(f"a JSON object was expected, not {type(value).__name__}")
    return value


def _has_too_many_values(text: bytes) -> bool:
    if len(text) <= min(_MOST_CONTAINERS, _MOST_VALUES):  # as in nearly all files: nothing need be counted
        return False
    return text.count(b"[") + text.count(b"{") > _MOST_CONTAINERS or text.count(b",") > _MOST_VALUES


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} appears twice")
    return result


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _infinity(name: str) -> float:
    return float(name) if name.endswith("Infinity") else _no_number(name)


def _finite_number(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError(f"{digits} is beyond all numbers")
    return number


def _whole_number(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is not a whole number")
    return int(digits)
