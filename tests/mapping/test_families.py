"""Every table is unambiguous: no key, of a released model or imaginable, has two rows."""

import itertools
import re
from string import Formatter

import pytest
from mapping.spelled_twins import SPELLINGS, every_layout, every_spelling, family_of, specs_as
from mapping_enumerator import LANGUAGES, TOWERS, laid_out, sample

from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, INTERNLM2, INTERNLM3, PHI3, QWEN3_MOE, Experts, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.spellings import LAYOUTS, MOST_COMPATIBLE, KeyLayout, KeySpelling, spelled, spelled_table
from internvl_bridge.mapping.transforms import Stack, source_patterns

_TEXT = sample("qwen3_moe").dims.text
TABLES = {
    f"{family.name} in {spelling.name}": spelled_table(family, _TEXT, spelling)
    for family in FAMILIES
    for spelling in SPELLINGS
    if spelling.experts in family.expert_choices
}
TABLES |= {layout.name: layout.renames for layout in LAYOUTS}

# The literal numbers of the tables are among these, so that a literal and a placeholder can meet.
_NUMBERS = ("0", "1", "3", "17")
_WORDS = {
    "layer": _NUMBERS,
    "expert": _NUMBERS,
    "param": ("weight", "bias"),
    "linear": ("weight", "bias", "qweight", "scales", "SCB", "weight_scale", "weight_scale_inv", "weight.absmax"),
    "qk": ("q", "k"),
    "fc": ("fc1", "fc2"),
    "qkv": ("q", "k", "v"),
    "qkvo": ("q", "k", "v", "o"),
    "mlp": ("gate", "up", "down"),
    "experts": ("gate_up", "down"),
    "mx": ("blocks", "scales", "bias"),
    "norm": ("input_layernorm", "post_attention_layernorm"),
    "rest": ("norm.weight", "model.norm.weight", "language_model.model.norm.weight", "lm_head.weight"),
    "text": ("norm.weight", "language_model.norm.weight", "lm_head.weight", "models.norm.weight"),
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


@pytest.mark.parametrize("direction", Format)
@pytest.mark.parametrize("name", TABLES)
def test_no_two_patterns_of_a_table_overlap(name: str, direction: Format) -> None:
    patterns = [pattern for row in TABLES[name] for pattern in source_patterns(direction, row)]

    for pattern in patterns:
        for key in spelled_out(pattern):
            assert [other.template for other in patterns if other.matches(key)] == [pattern.template], key


@pytest.mark.parametrize("name", TABLES)
def test_both_sides_of_a_row_have_the_same_placeholders(name: str) -> None:
    """But that a stacked tensor is of all experts."""
    for row in TABLES[name]:
        custom = {placeholders(pattern) for pattern in row.custom_patterns}
        hf = {placeholders(pattern) for pattern in row.hf_patterns}
        assert len(custom) == len(hf) == 1
        assert custom.pop() - hf.pop() == ({"expert"} if isinstance(row, Stack) else set())


def test_the_numbers_that_tables_spell_literally_are_among_those_tried() -> None:
    templates = [
        pattern.template
        for table in TABLES.values()
        for row in table
        for pattern in (*row.custom_patterns, *row.hf_patterns)
    ]

    literal = {part for template in templates for part in template.split(".") if re.fullmatch("[0-9]+", part)}

    assert literal == {"0", "1", "3"}


@every_spelling
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_tensor_of_every_model_has_exactly_one_row(language: str, tower: str, spelling: KeySpelling) -> None:
    twin = sample(language, tower)
    table = spelled_table(family_of(twin), twin.dims.text, spelling)

    for direction, keys in ((Format.HF, twin.custom), (Format.CUSTOM, specs_as(twin, spelling))):
        for key in keys:
            rows = [row for row in table if any(p.matches(key) for p in source_patterns(direction, row))]
            assert len(rows) == 1, key


def test_family_names_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_only_qwen3_moe_has_a_choice_of_experts() -> None:
    assert [family for family in FAMILIES if len(family.expert_choices) > 1] == [QWEN3_MOE]
    assert QWEN3_MOE.expert_choices == (Experts.SPLIT, Experts.FUSED)
    assert GPT_OSS.expert_choices == (Experts.SPLIT,)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_experts_are_split_unless_fused_ones_are_asked_for(family: Family) -> None:
    assert family.table(_TEXT) == family.table(_TEXT, Experts.SPLIT)
    assert not any(isinstance(row, Stack) for row in family.table(_TEXT))
    assert KeySpelling(LAYOUTS[0], Experts.SPLIT) == MOST_COMPATIBLE
    assert spelled_table(family, _TEXT, MOST_COMPATIBLE) == family.table(_TEXT)


@pytest.mark.parametrize("family", [GPT_OSS, PHI3], ids=lambda family: family.name)
def test_without_a_choice_fused_experts_are_split_ones(family: Family) -> None:
    assert family.table(_TEXT, Experts.FUSED) == family.table(_TEXT, Experts.SPLIT)
    assert family.expert_rows(Experts.FUSED, None) == family.expert_rows(Experts.SPLIT, None) == ()


def test_the_rows_of_fused_experts_know_how_many_there_are() -> None:
    rows = [row for row in QWEN3_MOE.table(_TEXT, Experts.FUSED) if isinstance(row, Stack)]
    dense = [row for row in QWEN3_MOE.table(sample("llama").dims.text, Experts.FUSED) if isinstance(row, Stack)]

    assert [row.experts for row in rows] == [2, 2]
    assert [row.experts for row in dense] == [None, None]
    assert list(QWEN3_MOE.expert_rows(Experts.FUSED, 5)) == [Stack(row.parts, row.stacked, 5) for row in rows]


@every_layout
def test_only_the_hf_side_of_a_row_is_spelled(layout: KeyLayout) -> None:
    table = QWEN3_MOE.table(_TEXT, Experts.FUSED)

    for old, new in zip(table, spelled(table, layout), strict=True):
        assert type(new) is type(old)
        assert new.custom_patterns == old.custom_patterns
        for before, after in zip(old.hf_patterns, new.hf_patterns, strict=True):
            assert after.template == laid_out(before.template, layout.name)


@pytest.mark.parametrize(
    ("family", "name", "absent"),
    [(INTERNLM2, "bias", (True, False)), (INTERNLM3, "qkv_bias", (False, False)), (INTERNLM3, "bias", (False, False))],
)
def test_what_the_classes_take_for_biases_that_config_does_not_state(
    family: Family, name: str, absent: tuple[bool, bool]
) -> None:
    """InternLM2Config takes true, InternLM3Config and LlamaConfig take false."""
    [field] = [field for field in family.fields if field.custom == name]

    assert (field.custom_default, field.hf_default) == absent


def test_the_base_of_rotary_embeddings_that_config_does_not_state() -> None:
    """transformers' classes take 10,000; GPT-OSS's takes 150,000."""
    assert {family.name: family.rope.base for family in FAMILIES if family.rope.base != 10_000.0} == {
        "GPT-OSS": 150_000.0
    }
