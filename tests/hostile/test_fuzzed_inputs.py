"""Headers, indices, configs and what lies beside them, spoiled at random: a value or a BridgeError, nothing else.

The properties themselves are in fuzz/targets.py, which a fuzzer uses too.
"""

import importlib.util
import json
import time
from types import SimpleNamespace

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from support import ROOT

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.header import Entry

_SPEC = importlib.util.spec_from_file_location("targets", ROOT / "fuzz" / "targets.py")
targets = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(targets)

EDGES = [0, 1, 2, 3, 4, 8, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, 10**400]
NUMBERS = st.sampled_from([*EDGES, *(-edge for edge in EDGES)]) | st.integers() | st.floats(allow_nan=False)
WORDS = st.sampled_from(
    ["", "..", "../../x", "/etc/passwd", "\0", "\x1b[31m", "a", "4", "BF16", "null", "__metadata__"]
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)
TOKENS = [b"-0", b"1.0", b"4e0", b"NaN", b"Infinity", b"1e999", b"null", b"true", b'"', b"\\", b"\\u0061", b"\\ud800"]
TOKENS += [b",", b":", b"[", b"]", b"{", b"}", b" ", b"\n", b"\x00", b"\x7f", b"\xff", b"\xed\xa0\x80", b"[" * 2000]
TOKENS += [b"9" * 5000, b'{"a":' * 2000]
DAMAGE = st.lists(
    st.tuples(st.integers(0), st.sampled_from(TOKENS) | st.binary(max_size=2), st.integers(0, 3)),
    min_size=1,
    max_size=3,
)


class Twice(dict):
    """A JSON object that states one of its names a second time."""


def text_of(value) -> str:
    """JSON, but for what only :class:`Twice` can say."""
    if isinstance(value, dict):
        pairs = [*value.items(), *list(value.items())[: isinstance(value, Twice)]]
        return "{" + ",".join(f"{json.dumps(name)}:{text_of(inner)}" for name, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    return json.dumps(value)


def edited(draw, value):
    """``value`` with one change somewhere within."""
    children = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if children and draw(st.integers(0, 4)):
        place = draw(st.sampled_from(children))
        changed = value.copy()
        changed[place] = edited(draw, value[place])
        return type(value)(changed)
    if not children:
        return draw(JUNK)
    return draw(st.sampled_from(CHANGES))(draw, value, draw(st.sampled_from(children)))


def dropped(_draw, value, place):
    changed = value.copy()
    del changed[place]
    return changed


def grown(draw, value, _place):
    return [*value, draw(JUNK)] if isinstance(value, list) else {**value, draw(WORDS): draw(JUNK)}


def repeated(_draw, value, place):
    return [*value, value[place]] if isinstance(value, list) else Twice({place: value[place], **value})


def swapped(draw, value, place):
    other, changed = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value)))), value.copy()
    changed[place], changed[other] = value[other], value[place]
    return changed


def junk(draw, _value, _place):
    return draw(JUNK)


CHANGES = [dropped, grown, repeated, swapped, junk]


@st.composite
def edits(draw, values):
    """The text of one of ``values``, after some changes."""
    value = draw(st.sampled_from(values))
    for _ in range(draw(st.integers(1, 3))):
        value = edited(draw, value)
    return text_of(value).encode()


@st.composite
def damaged(draw, contents):
    """The bytes of one of ``contents`` after some damage, or cut off."""
    content = draw(st.sampled_from(contents))
    for place, inserted, removed in draw(DAMAGE):
        at = place % (len(content) + 1)
        content = content[:at] + inserted + content[at + removed :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def parts(file: bytes) -> tuple[dict, bytes]:
    start = 8 + int.from_bytes(file[:8], "little")
    return json.loads(file[8:start]), file[start:]


FILES = targets.seeds("header")
HEADERS = [parts(file) for file in FILES]


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_inputs_are_made_from_is_accepted(target):
    seeds = targets.seeds(target)
    assert seeds
    assert all(map(targets.TARGETS[target], seeds))


@given(st.data(), st.sampled_from(HEADERS), st.sampled_from([0, 0, 0, -1, 1, 4]))
@settings(max_examples=250)
def test_an_edited_header(data, file, more):
    fields, content = file
    for _ in range(data.draw(st.integers(1, 3))):
        fields = edited(data.draw, fields)
    content = content[:more] if more < 0 else content + bytes(more)
    event(f"accepted: {targets.fuzz_header(targets.framed(text_of(fields).encode(), content))}")


@given(damaged(FILES))
@settings(max_examples=300)
def test_a_damaged_file(content):
    event(f"accepted: {targets.fuzz_header(content)}")


@given(damaged([json.dumps(fields).encode() for fields, _ in HEADERS]), st.integers(0, 30))
@settings(max_examples=300)
def test_a_damaged_header_of_the_right_length(header, size):
    event(f"accepted: {targets.fuzz_header(targets.framed(header, bytes(size)))}")


@given(st.binary(max_size=64), st.booleans())
@example(b"{}", True)
def test_any_bytes_as_a_file(content, frame):
    targets.fuzz_header(targets.framed(content) if frame else content)


INDEXES = [json.loads(seed) for seed in targets.seeds("index")]


@given(edits(INDEXES))
@settings(max_examples=300)
def test_an_edited_index(content):
    event(f"accepted: {targets.fuzz_index(content)}")


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from([*targets.SHARDS, "x.safetensors"]) | WORDS | JUNK))
def test_any_map_as_an_index(weight_map):
    event(f"accepted: {targets.fuzz_index(json.dumps({'weight_map': weight_map}).encode())}")


@given(damaged(targets.seeds("index")) | st.binary(max_size=64))
@settings(max_examples=300)
def test_a_damaged_index(content):
    event(f"accepted: {targets.fuzz_index(content)}")


CONFIGS = [json.loads(seed) for seed in targets.seeds("config")]


@given(edits(CONFIGS))
@settings(max_examples=100)
def test_an_edited_config(content):
    event(f"accepted: {targets.fuzz_config(content)}")


@given(damaged(targets.seeds("config")) | st.binary(max_size=64))
@settings(max_examples=100)
def test_a_damaged_config(content):
    event(f"accepted: {targets.fuzz_config(content)}")


SIDECAR = next(json.loads(seed[1:]) for seed in targets.seeds("beside") if targets.BESIDE[seed[0]] == targets.SIDECAR)
KEPT = {name: json.loads(text) for name, text in SIDECAR["files"].items() if name.endswith(".json")}
SMALL = [seed for seed in targets.seeds("beside") if len(seed) < 4000]


@given(st.data(), st.sampled_from(SMALL))
@settings(max_examples=30)
def test_an_edited_file_beside(data, seed):
    content = data.draw(
        edits([json.loads(seed[1:])]) if targets.BESIDE[seed[0]].endswith(".json") else damaged([seed[1:]])
    )
    targets.fuzz_beside(seed[:1] + content)


@given(st.data(), st.sampled_from(sorted(KEPT)))
@settings(max_examples=30)
def test_an_edited_file_in_the_sidecar(data, name):
    text = data.draw(edits([KEPT[name]])).decode()
    sidecar = {**SIDECAR, "files": {**SIDECAR["files"], name: text}}
    targets.fuzz_beside(bytes([targets.BESIDE.index(targets.SIDECAR)]) + json.dumps(sidecar).encode())


@given(edits([SIDECAR]))
@settings(max_examples=30)
def test_an_edited_sidecar(content):
    targets.fuzz_beside(bytes([targets.BESIDE.index(targets.SIDECAR)]) + content)


# The targets themselves would tell


def test_a_parser_that_accepts_what_the_library_refuses_is_found(monkeypatch):
    monkeypatch.setattr(targets, "read_header", lambda _: SimpleNamespace(entries={}, metadata={}, data_start=10))
    with pytest.raises(targets.LawBroken, match="the safetensors library refuses"):
        targets.fuzz_header(targets.framed(b"[]"))


def test_a_parser_that_reads_something_else_is_found(monkeypatch):
    wrong = {"a": Entry("I8", (4,), 0, 4)}
    monkeypatch.setattr(targets, "read_header", lambda _: SimpleNamespace(entries=wrong, metadata={}, data_start=58))
    with pytest.raises(targets.LawBroken, match=r"read .* the library"):
        targets.fuzz_header(FILES[1])


@pytest.mark.parametrize("target", targets.TARGETS)
@pytest.mark.parametrize(
    "error", [KeyError("k"), RecursionError(), MemoryError(), ValueError(), OSError(), AssertionError()]
)
def test_a_parser_that_crashes_is_found(target, error, monkeypatch):
    def crash(*_, **__):
        raise error

    monkeypatch.setattr(targets, "read_header", crash)
    monkeypatch.setattr(targets, "read_index", crash)
    monkeypatch.setattr(targets, "prepare", crash)
    with pytest.raises(targets.LawBroken, match=f"{type(error).__name__} instead of a BridgeError"):
        targets.TARGETS[target](targets.seeds(target)[0])


def test_a_parser_that_takes_long_is_found(monkeypatch):
    clock = iter([0.0, 60.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    with pytest.raises(targets.LawBroken, match="it took 60"):
        targets.fuzz_header(FILES[0])


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x/y.safetensors", "x.bin"])
def test_an_index_that_leads_elsewhere_is_found(name, monkeypatch):
    monkeypatch.setattr(targets, "read_index", lambda *_: ({"a": name}, {}))
    with pytest.raises(targets.LawBroken, match="accepted the file name"):
        targets.fuzz_index(targets.seeds("index")[0])


def test_a_refusal_is_no_breach_of_the_law(monkeypatch):
    def refuse(_):
        raise CheckpointError("reason", "remedy")

    monkeypatch.setattr(targets, "read_header", refuse)
    assert targets.fuzz_header(FILES[0]) is False
