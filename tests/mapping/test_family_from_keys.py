"""Families guessed from keys alone: right, or refused."""

import pytest
from mapping.spelled_twins import (
    ALL_KEYS,
    SPELLINGS,
    Specs,
    every_language,
    every_layout,
    every_spelling,
    family_of,
    recognised,
    specs_as,
)
from mapping_enumerator import LANGUAGES, TOWERS, laid_out, sample

from internvl_bridge.errors import IncompleteGroupError, MixedSpellingError, OptionError, UnknownKeyError
from internvl_bridge.mapping.families import (
    FAMILIES,
    GPT_OSS,
    INTERNLM2,
    INTERNLM3_GROUPED,
    LLAMA,
    PHI3,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    Experts,
)
from internvl_bridge.mapping.family_from_keys import (
    ambiguous,
    check_guessable,
    guessable_models,
    guessed_route,
    possible_routes,
)
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import CUSTOM, L1, L2, L3, LAYOUTS, MOST_COMPATIBLE, KeyLayout, KeySpelling

FUSED = tuple(KeySpelling(layout, Experts.FUSED) for layout in (L1, L2, L3))
LAYER = "language_model.model.layers.0.mlp.experts"
GROUPED = [language for language in LANGUAGES if "wqkv" in str(sample(language).custom)]
every_target = pytest.mark.parametrize("target", SPELLINGS, ids=lambda spelling: spelling.name)
every_fused = pytest.mark.parametrize("spelling", FUSED, ids=lambda spelling: spelling.name)


def converted(specs: Specs, target: KeySpelling) -> Specs:
    return plan_route(guessed_route(specs, target), specs).targets


@every_language
@every_spelling
@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("tied", [False, True])
def test_hf_keys_convert_without_a_config(language: str, spelling: KeySpelling, tower: str, tied: bool) -> None:
    """Those of an InternLM2 or InternLM3 as those of the Llama that they are in HF."""
    twin = sample(language, tower, tied=tied)
    route = guessed_route(specs_as(twin, spelling), CUSTOM)

    made = plan_route(route, specs_as(twin, spelling)).targets

    assert route.target == CUSTOM
    assert route.source == recognised(twin, spelling)
    assert route.family not in (INTERNLM2, INTERNLM3_GROUPED)
    if language not in GROUPED:
        assert made == twin.custom
    assert plan_route(route.reverse, made).targets == specs_as(twin, spelling)


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language not in GROUPED])
@every_target
@pytest.mark.parametrize("tower", TOWERS)
def test_custom_keys_convert_without_a_config(language: str, target: KeySpelling, tower: str) -> None:
    twin = sample(language, tower)
    route = guessed_route(twin.custom, target)

    assert (route.source, route.target) == (CUSTOM, target)
    assert plan_route(route, twin.custom).targets == specs_as(twin, target)


@pytest.mark.parametrize(
    ("language", "family"),
    [("qwen3", QWEN3), ("qwen3_moe", QWEN3_MOE), ("phi3", PHI3), ("gpt_oss", GPT_OSS), ("gpt_oss mxfp4", GPT_OSS)],
)
@pytest.mark.parametrize("keys", ALL_KEYS, ids=lambda keys: keys.name if keys else "custom")
def test_families_with_tensors_of_their_own_are_told_apart(language: str, family, keys: KeySpelling) -> None:
    twin = sample(language)
    targets = SPELLINGS if keys == CUSTOM else (CUSTOM,)

    assert family_of(twin) is family
    for target in targets:
        found = guessed_route(specs_as(twin, keys), target).family
        # A dense Qwen3-MoE has the tensors of a Qwen3.
        assert found is family


@pytest.mark.parametrize("language", GROUPED)
@every_target
def test_internlm2_keys_are_refused_for_their_fused_projection(language: str, target: KeySpelling) -> None:
    with pytest.raises(OptionError, match=r"^language_model\.model\.layers\.0\.attention\.wqkv\.weight is InternLM2's"):
        guessed_route(sample(language).custom, target)


@pytest.mark.parametrize("param", ["weight", "bias"])
def test_a_fused_projection_is_refused_by_itself(param: str) -> None:
    key = f"language_model.model.layers.0.attention.wqkv.{param}"

    with pytest.raises(OptionError) as error:
        check_guessable(key)

    assert error.value.reason == (
        f"{key} is InternLM2's fused projection, which cannot be split without the numbers of heads."
    )
    assert error.value.remedy == "Pass the contents of the model's config.json as config."
    with pytest.raises(OptionError, match=key):
        guessed_route(["mlp1.0.weight", key], MOST_COMPATIBLE)


@pytest.mark.parametrize(
    "key",
    ["language_model.model.layers.0.attention.wo.weight", "vision_model.encoder.layers.0.attn.qkv.weight", "wqkv", ""],
)
def test_other_keys_may_be_guessed(key: str) -> None:
    check_guessable(key)


def test_an_internlm2_without_its_projections_is_one() -> None:
    specs = {key: spec for key, spec in sample("internlm2").custom.items() if "wqkv" not in key}

    projections = tuple(f"self_attn.{role}_proj.weight" for role in "qkv")

    assert guessed_route(specs, MOST_COMPATIBLE).family is INTERNLM2
    assert converted(specs, MOST_COMPATIBLE) == {
        key: spec for key, spec in sample("internlm2").hf.items() if not key.endswith(projections)
    }


@pytest.mark.parametrize("prefix", ["vision_model.", "mlp1."])
@every_target
def test_a_part_of_a_custom_model_is_enough(prefix: str, target: KeySpelling) -> None:
    twin = sample("internlm2", "6b")
    specs = {key: spec for key, spec in twin.custom.items() if key.startswith(prefix)}
    hf_prefix = {"vision_model.": "vision_tower.", "mlp1.": "multi_modal_projector."}[prefix]

    assert converted(specs, target) == {
        laid_out(key, target.layout.name): spec for key, spec in twin.hf.items() if key.startswith(hf_prefix)
    }


@every_language
@every_spelling
@pytest.mark.parametrize("part", ["vision_tower.", "multi_modal_projector.", "language_model.model.layers.1.input"])
def test_a_part_of_an_hf_model_is_enough(language: str, spelling: KeySpelling, part: str) -> None:
    twin = sample(language)
    specs = {laid_out(key, spelling.layout.name): spec for key, spec in twin.hf.items() if key.startswith(part)}

    made = converted(specs, CUSTOM)

    if language not in GROUPED or not part.startswith("language_model"):
        assert made
        assert made.items() <= twin.custom.items()
        assert sum(spec.elements for spec in made.values()) == sum(spec.elements for spec in specs.values())


def test_nothing_at_all_becomes_nothing() -> None:
    assert converted({}, CUSTOM) == converted({}, MOST_COMPATIBLE) == {}


@every_fused
@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
@pytest.mark.parametrize("others", [False, True])
def test_lone_stacks_may_be_of_two_families_and_are_refused(spelling: KeySpelling, part: str, others: bool) -> None:
    stack = laid_out(f"{LAYER}.{part}", spelling.layout.name)
    specs = {stack: TensorSpec("BF16", (2, 8, 5))}
    if others:  # which both families have
        twin = sample("gpt_oss")
        specs |= {
            laid_out(key, spelling.layout.name): spec
            for key, spec in twin.hf.items()
            if "vision" in key or "norm" in key or key.endswith("_proj.weight")
        }

    with pytest.raises(OptionError) as error:
        guessed_route(specs, CUSTOM)

    assert error.value.reason == (
        f"{stack} holds experts, but nothing shows whether they are those of Qwen3-MoE or of GPT-OSS."
    )
    assert error.value.remedy == "Pass the contents of the model's config.json as config."
    assert str(error.value) == str(ambiguous(stack))


@every_fused
@pytest.mark.parametrize(
    ("hint", "family", "experts"),
    [
        ("self_attn.sinks", GPT_OSS, Experts.SPLIT),
        ("mlp.router.bias", GPT_OSS, Experts.SPLIT),
        ("mlp.experts.down_proj_bias", GPT_OSS, Experts.SPLIT),
        ("self_attn.q_norm.weight", QWEN3_MOE, Experts.FUSED),
        ("mlp.gate.weight", QWEN3_MOE, Experts.FUSED),
    ],
)
def test_one_tensor_that_only_one_family_has_is_enough(
    spelling: KeySpelling, hint: str, family, experts: Experts
) -> None:
    keys = [f"{LAYER}.gate_up_proj", f"{LAYER}.down_proj", f"language_model.model.layers.0.{hint}"]

    route = guessed_route([laid_out(key, spelling.layout.name) for key in keys], CUSTOM)

    assert route.family is family
    assert route.source == KeySpelling(spelling.layout, experts)


def test_stacks_among_custom_keys_are_gpt_oss_own() -> None:
    assert guessed_route([f"{LAYER}.gate_up_proj"], MOST_COMPATIBLE).family is GPT_OSS
    assert guessed_route([f"{LAYER}.gate_up_proj"], FUSED[0]).family is GPT_OSS


@pytest.mark.parametrize("language", ["qwen3_moe", "gpt_oss"])
@every_fused
def test_stacks_of_whole_models_are_told_apart(language: str, spelling: KeySpelling) -> None:
    twin = sample(language)

    assert guessed_route(specs_as(twin, spelling), CUSTOM).family is family_of(twin)
    assert converted(specs_as(twin, spelling), CUSTOM) == twin.custom


def test_experts_without_a_number_are_counted_by_their_tensors() -> None:
    twin = sample("qwen3_moe")
    layer = {key: spec for key, spec in twin.custom.items() if key.startswith(f"{LAYER}.")}

    assert converted(layer, FUSED[0]) == {key: spec for key, spec in twin.stacked.items() if key.startswith(LAYER)}


def test_a_missing_expert_is_noticed_without_a_number() -> None:
    specs = dict(sample("qwen3_moe").custom)
    del specs[f"{LAYER}.0.up_proj.weight"]

    with pytest.raises(IncompleteGroupError, match=rf"^{LAYER}\.0\.up_proj\.weight is missing; "):
        converted(specs, FUSED[1])


@every_spelling
def test_hf_keys_must_be_of_one_layout(spelling: KeySpelling) -> None:
    keys = list(specs_as(sample("qwen2"), spelling))
    others = [head for head in ("lm_head.weight", "language_model.lm_head.weight") if head not in keys]

    with pytest.raises(MixedSpellingError, match=r"lm_head\.weight as "):
        guessed_route([*keys, *others], CUSTOM)
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor mlp2\.0\.weight: "):
        guessed_route([*keys, *others, "mlp2.0.weight"], CUSTOM)


@pytest.mark.parametrize("part", ["gate_up_proj", "down_proj"])
@every_layout
def test_a_stack_among_split_experts_is_refused(part: str, layout: KeyLayout) -> None:
    stack = laid_out(f"{LAYER}.{part}", layout.name)
    specs = {**specs_as(sample("qwen3_moe"), KeySpelling(layout)), stack: TensorSpec("BF16", (2, 8, 5))}

    with pytest.raises((MixedSpellingError, UnknownKeyError), match=stack):
        converted(specs, CUSTOM)


@every_target
def test_a_foreign_custom_key_does_not_change_the_family(target: KeySpelling) -> None:
    specs = sample("qwen3").custom | {"mlp2.0.weight": TensorSpec("BF16", (1,))}
    route = guessed_route(specs, target)

    assert route.family is QWEN3
    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor mlp2\.0\.weight: "):
        plan_route(route, specs)


@pytest.mark.parametrize("missing", [0, 1])
def test_the_family_that_explains_most_is_the_one(missing: int) -> None:
    """Though none explains all: the refusal then names the keys that are odd, and not the others."""
    twin = sample("phi3")
    odd = f"language_model.model.layers.{missing}.self_attn.q_norm.weight"

    assert guessed_route([*twin.hf, odd], CUSTOM).family is PHI3
    assert guessed_route([*twin.custom, odd], MOST_COMPATIBLE).family is PHI3


def test_all_families_may_be_guessed_from_custom_keys() -> None:
    assert [family for family, _ in guessable_models(MOST_COMPATIBLE)] == list(FAMILIES)


def test_hf_keys_of_a_llama_are_never_taken_for_an_internlm() -> None:
    assert [family for family, _ in guessable_models(CUSTOM)] == [
        QWEN2,
        QWEN3,
        QWEN3_MOE,
        LLAMA,
        PHI3,
        GPT_OSS,
    ]


@pytest.mark.parametrize("target", [CUSTOM, MOST_COMPATIBLE])
def test_nothing_is_known_of_the_numbers_of_a_guessed_model(target: KeySpelling) -> None:
    assert all(dims.experts is None for _, dims in guessable_models(target))


@every_target
def test_custom_keys_have_one_route_to_a_spelling_for_each_model(target: KeySpelling) -> None:
    models = [(QWEN3_MOE, sample("qwen3_moe").dims.text), (LLAMA, sample("llama").dims.text)]

    assert list(possible_routes(target, models)) == [Route(family, dims, CUSTOM, target) for family, dims in models]


def test_hf_keys_have_a_route_from_every_spelling_that_the_family_has() -> None:
    moe, llama = sample("qwen3_moe").dims.text, sample("llama").dims.text

    routes = list(possible_routes(CUSTOM, [(QWEN3_MOE, moe), (LLAMA, llama), (GPT_OSS, moe)]))

    assert routes == [
        *(Route(QWEN3_MOE, moe, spelling, CUSTOM) for spelling in SPELLINGS),
        *(Route(LLAMA, llama, KeySpelling(layout), CUSTOM) for layout in LAYOUTS),
        *(Route(GPT_OSS, moe, KeySpelling(layout), CUSTOM) for layout in LAYOUTS),
    ]


@every_layout
def test_the_layout_of_hf_keys_is_theirs_even_if_no_row_claims_them(layout: KeyLayout) -> None:
    odd = laid_out("language_model.model.layers.0.odd.weight", layout.name)

    head = laid_out("language_model.lm_head.weight", layout.name)
    specs = dict.fromkeys([odd, head], TensorSpec("BF16", (1,)))

    route = guessed_route(specs, CUSTOM)

    assert route.source == KeySpelling(layout)
    with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {odd}: "):
        plan_route(route, specs)
