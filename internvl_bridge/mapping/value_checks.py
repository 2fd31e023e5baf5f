"""Kinds of values that fields of config.json have, as predicates."""

from collections.abc import Callable
from math import isfinite
from typing import Any

ValueCheck = Callable[[Any], bool]

LARGEST = 2**31
"""No size, count or token id of any model comes near it."""

_ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "quick_gelu"),
    *("silu", "swish", "mish", "relu", "relu2", "relu6", "leaky_relu", "prelu", "sigmoid", "tanh", "linear", "laplace"),
)


def positive(value: Any) -> bool:
    """A size or a count."""
    return type(value) is int and 0 < value < LARGEST


def index(value: Any) -> bool:
    """A layer, counted from either end."""
    return type(value) is int and -LARGEST < value < LARGEST


def number(value: Any) -> bool:
    """A number of any kind, but not a truth value."""
    return (type(value) is float and isfinite(value)) or (type(value) is int and abs(value) < LARGEST)


def positive_number(value: Any) -> bool:
    """A number above zero."""
    return number(value) and value > 0


def ratio(value: Any) -> bool:
    """How much smaller one side of the token grid is than one of the patch grid."""
    return number(value) and 1 / 64 <= value <= 1


def flag(value: Any) -> bool:
    """True or false, and neither 1 nor "false"."""
    return type(value) is bool


def word(value: Any) -> bool:
    """A name."""
    return type(value) is str


def dtype(value: Any) -> bool:
    """Torch's name of a dtype that weights are kept in."""
    return value in ("float16", "bfloat16", "float32", "float64")


def activation(value: Any) -> bool:
    """An activation function by transformers' name."""
    return value in _ACTIVATIONS


def words(value: Any) -> bool:
    """Names."""
    return type(value) is list and all(map(word, value))


def token_id(value: Any) -> bool:
    """The id of a token."""
    return type(value) is int and 0 <= value < LARGEST


def token_ids(value: Any) -> bool:
    """One token id, or several."""
    ids = value if type(value) is list else [value]
    return bool(ids) and all(map(token_id, ids))


def padding(value: Any) -> bool:
    """The id of the token that fills batches up; -1 where there is not any."""
    return value == -1 or token_ids(value)


def indices(value: Any) -> bool:
    """Some layers."""
    return type(value) is list and all(map(index, value))


def square(value: Any) -> bool:
    """One side of a square in pixels, or both sides."""
    sides = value if type(value) is list else [value]
    return len(sides) in {1, 2} and all(map(positive, sides)) and len(set(sides)) == 1


def optional(kind: ValueCheck) -> ValueCheck:
    """That kind, or null."""
    return lambda value: value is None or kind(value)
