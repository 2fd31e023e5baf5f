"""JSON from files that nobody vouches for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thinning import rarely

from internvl_bridge.strict_json import parse_json_object


class MalformedError(Exception):
    pass


def parse(text: bytes) -> dict:
    return parse_json_object(text, MalformedError)


def reason(text: bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        parse(text)
    return str(caught.value)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, VALUES), st.booleans(), st.sampled_from([None, 2]))
def test_every_object_that_json_can_write_is_read_back(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    parsed = parse(text.encode())
    assert parsed == value
    assert list(parsed) == list(value)


NASTY = [
    b"-0",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"\\ud800",
    b"\xed\xa0\x80",
    b'"',
    b"[",
    b"{",
    b",",
    b"\x00",
    b"\x0b",
]


@given(
    st.dictionaries(TEXT, VALUES, min_size=1),
    st.lists(st.tuples(st.integers(0), st.sampled_from(NASTY) | st.binary(max_size=2), st.integers(0, 2))),
)
def test_what_is_accepted_after_damage_means_the_same_to_the_standard_parser(value, damage):
    text = json.dumps(value).encode()
    for place, inserted, removed in damage:
        at = place % (len(text) + 1)
        text = text[:at] + inserted + text[at + removed :]
    try:
        parsed = parse(text)
    except MalformedError:
        return
    assert repr(parsed) == repr(json.loads(text))


@pytest.mark.parametrize("text", [b"[]", b"[{}]", b"null", b"true", b"1", b"1.5", b'"{}"'])
def test_a_value_that_is_no_object_is_refused(text):
    kind = type(json.loads(text)).__name__
    assert reason(text) == f"a JSON object was expected, not {kind}"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1} x',
        b'{"a": 1}{}',
        b'{"a": 1}\x00',
        b'{"a": 01}',
        b'{"a": +1}',
        b'{"a": 1.}',
        b'{"a": .5}',
        b'{"a": 0x10}',
        b'{"a": "\n"}',
        b'{"a": "\\x41"}',
        b'{"a": "\\u12"}',
        b'{"a": True}',
        b"{1: 2}",
        b'{"a": 1 /* no comments */}',
        b'{"a":\x0b1}',
        b'\xef\xbb\xbf{"a": 1}',
    ],
)
def test_text_outside_the_grammar_is_refused(text):
    assert reason(text).startswith("not JSON: ")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("place", [b'{"a": %s}', b'{"a": [1, %s]}', b'{"a": {"b": %s}}'])
def test_a_number_that_json_does_not_know_is_refused_by_name(number, place):
    assert f"{number.decode()} is not a number" in reason(place % number)


@pytest.mark.parametrize("place", [b'{"a": -0}', b'{"a": [-0]}', b'{"a": {"b": -0}}'])
def test_minus_zero_is_no_whole_number(place):
    assert "-0 is not a whole number" in reason(place)


@pytest.mark.parametrize("number", ["1e999", "-1e999", f"{10**400}.0"], ids=len)
def test_a_number_that_would_become_infinite_is_refused(number):
    assert reason(b'{"a": %s}' % number.encode()).startswith("not JSON: ")


def test_numbers_near_minus_zero_are_kept():
    assert repr(parse(b'{"a": [0, -1, -10, -0.0, 0.5]}')) == "{'a': [0, -1, -10, -0.0, 0.5]}"


def test_whole_numbers_are_exact_however_large():
    assert parse(b'{"a": 18446744073709551617}') == {"a": 2**64 + 1}


def test_a_number_too_long_for_python_is_refused():
    assert reason(b'{"a": ' + b"9" * 100_000 + b"}").startswith("not JSON: ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a": 1, "b": 2, "a": 1}', "a"),
        (b'{"a": {"x": 1, "y": 2, "x": 3}}', "x"),
        (b'{"a": [{"deep": 1, "deep": 1}]}', "deep"),
        (b'{"A": 1, "\\u0041": 2}', "A"),
        (b'{"": 1, "": 2}', ""),
    ],
)
def test_a_key_that_appears_twice_is_named(text, key):
    assert f"the key {key!r} appears twice" in reason(text)


def test_one_key_may_appear_in_different_objects():
    assert parse(b'{"a": {"a": [{"a": 1}, {"a": 2}]}}') == {"a": {"a": [{"a": 1}, {"a": 2}]}}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_very_deep_nesting_is_refused(opening, closed):
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    text = b'{"a":' + opening * 100_000 + (b"0" + closing * 100_000 + b"}") * closed
    assert reason(text) == "nested too deeply"


@pytest.mark.parametrize(
    "text",
    [
        b'{"\xff": 1}',
        b'{"a": "\xc3"}',
        b'{"a": "\xc0\x80"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xf4\x90\x80\x80"}',
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_bytes_that_are_not_utf8_are_refused(text):
    assert reason(text).startswith("not valid Unicode: ")


@pytest.mark.parametrize(
    "text",
    [
        b'{"\\ud800": 1}',
        b'{"\\udc00": 1}',
        b'{"a": "\\udbff"}',
        b'{"a": ["x", {"y\\uDFFF": 1}]}',
        b'{"a": "\\udc00\\ud800"}',
    ],
)
def test_a_lone_surrogate_is_refused_wherever_it_stands(text):
    assert reason(text).startswith("not valid Unicode: ")


def test_escapes_that_spell_whole_characters_are_read():
    assert parse(b'{"\\u00e9": "\\ud83d\\ude00"}') == {"\u00e9": "\U0001f600"}


def test_an_escaped_backslash_before_u_is_no_escape():
    assert parse(b'{"a": "\\\\ud800"}') == {"a": "\\ud800"}


def test_the_callers_error_replaces_the_parsers():
    with pytest.raises(MalformedError) as caught:
        parse(b"{")
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        (b'{"a":[' + b"[]," * 1_999_997 + b"[]]}", True),
        (b'{"a":[' + b"[]," * 1_999_998 + b"[]]}", False),
        rarely((b'{"a":{' + b",".join(b'"%d":{}' % n for n in range(2_000_000)) + b"}}", False)),
        rarely((b'{"a":[' + b"1," * 10_000_001 + b"1]}", False)),
    ],
    ids=["lists", "one list more", "objects", "numbers"],
)
def test_so_many_values_that_they_fill_the_memory_are_refused(text: bytes, accepted: bool) -> None:
    if accepted:
        assert len(parse_json_object(text, ValueError)["a"]) == 1_999_998
    else:
        with pytest.raises(ValueError, match="more than 2,000,000 objects and lists, or 10,000,000 values"):
            parse_json_object(text, ValueError)
