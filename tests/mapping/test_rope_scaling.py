"""The scaling of rotary embeddings has one canonical form; what nobody would read as it was meant is refused."""

from typing import Any

import pytest

from internvl_bridge.errors import ConfigError
from internvl_bridge.mapping.rope_scaling import canonical_scaling, typed_scaling

YARN = {"factor": 32.0, "beta_fast": 32.0, "truncate": False}


LONG = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3]}


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


NUMBERS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2},
    "yarn": YARN,
    "llama3": LLAMA3,
    "longrope": LONG,
}


@pytest.mark.parametrize(
    ("scaling", "canonical"),
    [
        (None, None),
        ({"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
        ({"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
        ({"type": "yarn", "rope_type": "yarn", **YARN}, {"rope_type": "yarn", **YARN}),
        ({"type": "su", **LONG}, {"rope_type": "longrope", **LONG}),
        ({"rope_type": "su", **LONG}, {"rope_type": "longrope", **LONG}),
        ({"type": "su", "rope_type": "longrope", **LONG}, {"rope_type": "longrope", **LONG}),
        ({"rope_type": "default"}, None),
        ({"type": "default"}, None),
        ({"type": "default", "rope_type": "default"}, None),
        *(({"type": kind, **numbers}, {"rope_type": kind, **numbers}) for kind, numbers in NUMBERS.items()),
    ],
)
def test_a_scaling_has_one_canonical_form(scaling: Any, canonical: Any) -> None:
    assert canonical_scaling(scaling) == canonical
    assert canonical_scaling(canonical) == canonical


@pytest.mark.parametrize(
    "scaling",
    [
        "odd",
        "linear",
        2.0,
        True,
        [],
        {},
        {"factor": 2.0},
        {"type": None, "factor": 2.0},
        {"type": ["linear"], "factor": 2.0},
        {"type": {}, "factor": 2.0},
        {"type": "mrope", "factor": 2.0},
        {"type": "Linear", "factor": 2.0},
        {"type": "linear", "rope_type": "dynamic", "factor": 2.0},
        {"type": "default", "rope_type": "linear", "factor": 2.0},
        {"type": "linear", "rope_type": None, "factor": 2.0},
        {"type": "default", "factor": 2.0},
        {"rope_type": "default", "rope_theta": 1e4},
    ],
    ids=repr,
)
def test_a_scaling_of_no_known_kind_is_refused(scaling: Any) -> None:
    with pytest.raises(ConfigError) as error:
        canonical_scaling(scaling)

    assert f"scales rotary embeddings in a way that is not understood: {scaling}. Known" in error.value.reason
    assert "default, linear, dynamic, yarn, llama3, longrope" in error.value.reason


@pytest.mark.parametrize("value", [..., None, "2.0", True, [], [None], [True], ["2.0"], {}, 2**31], ids=repr)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("linear", "factor"),
        ("dynamic", "factor"),
        ("yarn", "factor"),
        *(("llama3", name) for name in LLAMA3),
        *(("longrope", name) for name in LONG),
    ],
)
def test_a_scaling_without_its_numbers_is_refused(kind: str, name: str, value: Any) -> None:
    numbers = {key: number for key, number in (NUMBERS[kind] | {name: value}).items() if number is not ...}

    with pytest.raises(ConfigError, match="not understood"):
        canonical_scaling({"type": kind, **numbers})


@pytest.mark.parametrize("key", ["type", "rope_type"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_a_format_gets_its_own_type_key_alone(kind: str, key: str) -> None:
    canonical = {"rope_type": kind, **NUMBERS[kind]}

    assert typed_scaling(canonical, key, {}) == {key: kind, **NUMBERS[kind]}
    assert list(typed_scaling(canonical, key, {})) == [key, *NUMBERS[kind]]
    assert canonical_scaling(typed_scaling(canonical, key, {})) == canonical


def test_no_scaling_has_no_type() -> None:
    assert typed_scaling(None, "type", {}) is None


def test_a_class_may_have_its_own_names() -> None:
    names = {"longrope": "su"}

    assert typed_scaling({"rope_type": "longrope", **LONG}, "type", names) == {"type": "su", **LONG}
    assert typed_scaling({"rope_type": "yarn", **YARN}, "type", names) == {"type": "yarn", **YARN}
