"""Each kind of value: what is accepted and what is not. Truth values are no numbers."""

from collections.abc import Callable
from typing import Any

import pytest

from internvl_bridge.mapping import value_checks

CAP = 2**31
NO_NUMBERS: list[Any] = [None, True, False, "1", "", [], [1], {}, {"a": 1}, float]
KINDS: dict[Callable[[Any], bool], tuple[list[Any], list[Any]]] = {
    value_checks.positive: ([1, 2, CAP - 1], [*NO_NUMBERS, 0, -1, CAP, 10**400, 1.0, 0.5]),
    value_checks.index: ([0, 1, -1, CAP - 1, 1 - CAP], [*NO_NUMBERS, CAP, -CAP, 10**400, 1.0, -1.0]),
    value_checks.number: ([0, 1, -1, 0.5, -0.5, 1e-6, CAP - 1, 1e300], [*NO_NUMBERS, CAP, -CAP, 10**400]),
    value_checks.positive_number: ([1, 1e-12, 1e7, CAP - 1], [*NO_NUMBERS, 0, 0.0, -1, -0.5, CAP]),
    value_checks.ratio: ([1, 1.0, 0.5, 0.25, 1 / 64], [*NO_NUMBERS, 0, 0.0, 2, 1.5, -0.5, 1 / 65, 1e-320, CAP]),
    value_checks.flag: ([True, False], [None, 0, 1, 0.0, "true", "false", "", [], [True], {}]),
    value_checks.word: (["", "gelu"], [None, True, 0, 1, 1.0, [], ["gelu"], {}, b"gelu"]),
    value_checks.words: (
        [[], ["a"], ["a", "b"]],
        [None, True, 1, "a", ["a", 1], [None], [["a"]], {}, {"a": "b"}, ("a",)],
    ),
    value_checks.token_id: ([0, 1, CAP - 1], [None, True, False, -1, CAP, 1.0, "1", [], [1], {}]),
    value_checks.dtype: (["bfloat16", "float16", "float32", "float64"], [None, True, "int8", "v2", "BF16", [], {}, 32]),
    value_checks.activation: (
        ["gelu", "silu", "gelu_pytorch_tanh"],
        [None, True, "llama", "layer_norm", [], ["gelu"], {}],
    ),
    value_checks.padding: ([0, 5, [1], -1], [-2, None, "0", True, [-1]]),
    value_checks.token_ids: (
        [0, 1, CAP - 1, [0], [1, 2]],
        [None, True, False, -1, CAP, 1.0, "1", [], [True], [-1], [1, None], [[1]], ["1"], {}, {"a": 1}],
    ),
    value_checks.indices: ([[], [0], [-1, 3]], [None, True, 0, "0", [True], [0.0], [None], [[0]], [CAP], {}, {"0": 0}]),
    value_checks.square: (
        [1, 448, [448], [448, 448]],
        [None, True, 0, -1, CAP, 448.0, "448", [], [448, 224], [1, 1, 1], [448, 448.0], [0, 0], [True], [[448]], {}],
    ),
}
ACCEPTED = [(kind, value) for kind, (accepted, _) in KINDS.items() for value in accepted]
REFUSED = [(kind, value) for kind, (_, refused) in KINDS.items() for value in refused]


def name_of(value: Any) -> str:
    return getattr(value, "__name__", repr(value))


@pytest.mark.parametrize(("kind", "value"), ACCEPTED, ids=name_of)
def test_a_value_of_its_kind_is_accepted(kind: value_checks.ValueCheck, value: Any) -> None:
    assert kind(value) is True
    assert value_checks.optional(kind)(value) is True


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=name_of)
def test_any_other_value_is_refused(kind: value_checks.ValueCheck, value: Any) -> None:
    assert kind(value) is False
    assert value_checks.optional(kind)(value) is (value is None)


def test_every_kind_is_tried() -> None:
    defined = {
        value for value in vars(value_checks).values() if getattr(value, "__module__", "") == value_checks.__name__
    }

    assert defined - {value_checks.optional} == KINDS.keys()
