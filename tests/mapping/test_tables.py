"""Every table is unambiguous: no key, of a released model or imaginable, has two rows."""

import itertools
import re
from string import Formatter

import pytest
from mapping_enumerator import LANGUAGES, TOWERS, sample

from internvl_bridge.mapping.families import FAMILIES
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.planning import Direction
from internvl_bridge.mapping.spellings import SPELLINGS

_TEXT = sample("llama").dims.text
TABLES = {family.name: family.table(_TEXT) for family in FAMILIES}
TABLES |= {spelling.name: spelling.renames for spelling in SPELLINGS}

# The literal numbers of the tables are among these, so that a literal and a placeholder can meet.
_NUMBERS = ("0", "1", "3", "17")
_WORDS = {
    "layer": _NUMBERS,
    "expert": _NUMBERS,
    "param": ("weight", "bias"),
    "qk": ("q", "k"),
    "fc": ("fc1", "fc2"),
    "qkv": ("q", "k", "v"),
    "qkvo": ("q", "k", "v", "o"),
    "mlp": ("gate", "up", "down"),
    "experts": ("gate_up", "down"),
    "mx": ("blocks", "scales", "bias"),
    "norm": ("input_layernorm", "post_attention_layernorm"),
    "rest": ("norm.weight", "model.norm.weight", "language_model.model.norm.weight", "lm_head.weight"),
}


def placeholders(pattern: KeyPattern) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in Formatter().parse(pattern.template) if name is not None)


def spelled_out(pattern: KeyPattern) -> list[str]:
    """The keys of a pattern: all of them, but for numbers and {rest}, of which it takes a few."""
    names = sorted(placeholders(pattern))
    return [
        pattern.template.format(**dict(zip(names, words, strict=True)))
        for words in itertools.product(*(_WORDS[name] for name in names))
    ]


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("name", TABLES)
def test_no_two_patterns_of_a_table_overlap(name: str, direction: Direction) -> None:
    patterns = [pattern for row in TABLES[name] for pattern in direction.patterns(row)]

    for pattern in patterns:
        for key in spelled_out(pattern):
            assert [other.template for other in patterns if other.matches(key)] == [pattern.template], key


@pytest.mark.parametrize("name", TABLES)
def test_both_sides_of_a_row_have_the_same_placeholders(name: str) -> None:
    for row in TABLES[name]:
        assert len({placeholders(pattern) for pattern in (*row.custom_patterns, *row.hf_patterns)}) == 1


def test_the_numbers_that_tables_spell_literally_are_among_those_tried() -> None:
    templates = [
        pattern.template
        for table in TABLES.values()
        for row in table
        for pattern in (*row.custom_patterns, *row.hf_patterns)
    ]

    literal = {part for template in templates for part in template.split(".") if re.fullmatch("[0-9]+", part)}

    assert literal == {"0", "1", "3"}


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_tensor_of_every_model_has_exactly_one_row(language: str, tower: str) -> None:
    twin = sample(language, tower)
    [family] = [family for family in FAMILIES if family.name == twin.family]
    table = family.table(twin.dims.text)

    for direction, keys in ((Direction.TO_HF, twin.custom), (Direction.TO_CUSTOM, twin.hf)):
        for key in keys:
            rows = [row for row in table if any(p.matches(key) for p in direction.patterns(row))]
            assert len(rows) == 1, key


def test_family_names_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
